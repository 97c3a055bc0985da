"""What every page goes through: who is signed in, whether they may, whether a form is theirs; then the page, with headers that let nothing else in.

An area is a list of pages. A handler is an ordinary function of a `Visit`, run beside the event loop, and knows neither cookies nor headers.
"""

import hmac
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, NoReturn
from urllib.parse import quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from serving import requests
from serving.console import accounts, pages, provider
from serving.console.looks import MOST_REASON, Looks
from serving.console.roles import ROLES, purposes_of, rights_of
from serving.console.sessions import Session, Sessions
from serving.hub.seams import Seams
from serving.issuers import LOOPBACK
from serving.problems import ProblemError, unavailable
from troth.clock import Clock
from troth.errors import TrothError
from troth.home import Home

ROOT = "/console"
SIGN_IN = f"{ROOT}/sign-in"
MOST_FORM_BYTES = 64 * 1024  # a definition of a segment is the longest that is sent
MOST_FORM_FIELDS = 200


@dataclass(frozen=True)
class Page:
    """A page or an act: its path below /console, the right it asks for (None: whoever is signed in), who answers."""

    path: str
    right: str | None
    handle: "Callable[[Visit], Response]"
    method: str = "GET"


@dataclass(frozen=True)
class Area:
    """Pages that belong together. `title` and `path` stand in the navigation of whoever has `right`."""

    name: str
    title: str
    path: str
    right: str
    pages: Sequence[Page]


@dataclass(frozen=True)
class Desk:
    """What the pages of a home share."""

    home: Home
    clock: Clock  # of the data: of a generated retailer it stands still
    wall: Clock
    sessions: Sessions
    looks: Looks
    areas: Sequence[Area] = ()
    seams: Seams = field(default_factory=Seams)

    def close(self) -> None:
        self.sessions.close()
        self.looks.close()


@dataclass(frozen=True)
class Visit:
    """A request of somebody who is signed in and may see the page. `form`: the fields of what was sent, the first of each name."""

    request: Request
    desk: Desk
    session: Session
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        return self.desk.home

    @property
    def at(self) -> datetime:
        """The time it is answered for."""
        return self.desk.clock.now()

    @property
    def staff(self) -> str:
        return self.session.name

    def may(self, right: str) -> bool:
        return right in rights_of(self.session.roles)

    def may_ask(self, purpose_code: str) -> bool:
        """Whether the roles of whoever asks look at people for this purpose."""
        return purpose_code in purposes_of(self.session.roles)

    def text(self, name: str, most: int = requests.MOST_TEXT) -> str:
        """What the path says, else the form, else the query, without space around; empty where none does. Raises: ProblemError 400.

        The path comes first: what a form says of itself must not lead to something else than its address does.
        """
        found = self.request.path_params.get(name) or self.form.get(name) or self.request.query_params.get(name) or ""
        found = str(found).replace("\r\n", "\n").strip()
        if len(found) > most or "\0" in found:
            raise requests.bad(f"{name}: expected at most {most} characters, found more. Shorten it.")
        return found

    def whole(self, name: str, default: int, most: int) -> int:
        """A whole number from 0. Raises: ProblemError 400."""
        said = self.text(name, 20) or str(default)
        if not (said.isascii() and said.isdigit()) or int(said) > most:
            raise requests.bad(f"{name}: expected a whole number up to {most}, found another. Correct it.")
        return int(said)

    def choice(self, name: str, among: Sequence[str]) -> str:
        """One of a closed list; the first where none is given. Raises: ProblemError 400."""
        said = self.text(name) or among[0]
        if said not in among:
            raise requests.bad(f"{name}: expected one of {list(among)}, found another. Choose one.")
        return said

    def show(self, template: str, title: str, status: int = 200, **values: Any) -> Response:
        """A page of the console."""
        path = self.request.url.path
        mine = [area for area in self.desk.areas if self.may(area.right)]
        return pages.page(
            template,
            status,
            title=title,
            path=path,
            session=self.session,
            role_titles=[ROLES[name].title for name in self.session.roles if name in ROLES],
            areas=[(ROOT + area.path, area.title, _is_below(path, ROOT + area.path)) for area in mine],
            note=self.desk.sessions.noted(self.session),
            rights=rights_of(self.session.roles),
            form_token=self.session.form_token,
            root=ROOT,
            **values,
        )

    def fragment(self, template: str, **values: Any) -> Response:
        """A piece of a page, for a script to put in place."""
        return pages.fragment(
            template, root=ROOT, form_token=self.session.form_token, rights=rights_of(self.session.roles), **values
        )

    def go(self, path: str, note: str | None = None) -> Response:
        """Another page of the console (`path` below /console), which says `note` once."""
        if note:
            self.desk.sessions.note(self.session, note)
        return RedirectResponse(ROOT + path, 303, headers=pages.SAFE)

    def download(self, data: bytes, media_type: str, file_name: str) -> Response:
        headers = {**pages.SAFE, "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file_name)}"}
        return Response(data, headers=headers, media_type=media_type)

    def look(
        self,
        act: str,
        subject_id: str | None = None,
        purpose_code: str | None = None,
        allowed: bool = True,
        reason_code: str | None = None,
        why: str | None = None,
    ) -> None:
        """Write down that somebody was looked at, or something was done. Raises: ServingError when it cannot be."""
        page, request_id = self.request.scope["route"].path, self.request.scope.get("troth.request_id", "")
        self.desk.looks.write(
            self.desk.wall.now(), request_id, self.staff, page, act, subject_id, purpose_code, allowed, reason_code, why
        )

    def why(self, name: str = "why") -> str:
        """The reason somebody gives for what is written down. Raises: ProblemError 422 for none."""
        said = self.text(name, MOST_REASON)
        if len(said) < 5:
            self.refuse(422, "no_reason", "why: expected a reason of at least five characters, found none. Say why.")
        return said

    def needs(self, right: str) -> None:
        """For a page that asks for a second right. Raises: ProblemError 403."""
        if not self.may(right):
            self.refuse(
                403, "not_your_page", "page: expected a role that may do this, found another. Ask whoever gives roles."
            )

    def refuse(self, status: int, code: str, detail: str) -> NoReturn:
        """End the request with a page that says what was expected, what was found and what to do."""
        raise ProblemError(status, code, detail)


def routes(desk: Desk) -> list[Route]:
    """Every page of the areas, behind the same door."""
    found = []
    for area in desk.areas:
        for page in area.pages:
            found.append(
                Route(
                    ROOT + page.path, partial(_answered, desk, page), methods=[page.method], name=f"console:{area.name}"
                )
            )
    return [*found, Route(f"{ROOT}/{{rest:path}}", _nowhere, methods=["GET", "POST"])]


async def _nowhere(request: Request) -> Response:
    return pages.problem(
        ProblemError(
            404, "no_such_page", "page: expected one of the console, found another address. Start at /console."
        )
    )


async def _answered(desk: Desk, page: Page, request: Request) -> Response:
    return await guarded(request, partial(_handled, desk, page, request))


async def guarded(request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """An answer whose refusals are told as pages."""
    try:
        return await answer()
    except (ProblemError, TrothError) as error:
        problem = error if isinstance(error, ProblemError) else unavailable(error)
        is_piece = request.headers.get("sec-fetch-dest") == "empty"  # a script asks, and puts in place what it gets
        return pages.problem(problem, is_piece=is_piece)


async def _handled(desk: Desk, page: Page, request: Request) -> Response:
    session = await run_in_threadpool(session_of, desk, request)
    if session is None:
        if page.method != "GET":
            raise ProblemError(401, "signed_out", "session: expected one, found none or one that ended. Sign in again.")
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{SIGN_IN}?next={quote(asked)}", 303, headers=pages.SAFE)
    if page.right is not None and page.right not in rights_of(session.roles):
        raise ProblemError(
            403, "not_your_page", "page: expected a role that may see it, found another. Ask whoever gives roles."
        )
    if any("\0" in str(each) for each in request.path_params.values()):
        raise requests.bad("address: expected one of text, found a null byte. Start at /console.")
    visit = Visit(request, desk, session)
    if page.method != "GET":
        is_ours(request)
        form = await requests.form(request, MOST_FORM_BYTES, MOST_FORM_FIELDS)
        if not hmac.compare_digest(form.get("form", "").encode(), session.form_token.encode()):
            raise ProblemError(
                403, "stale_form", "form: expected one of this session, found another. Open the page anew."
            )
        visit = replace(visit, form=form)
    return await run_in_threadpool(page.handle, visit)


def session_of(desk: Desk, request: Request) -> Session | None:
    """Whoever is signed in; nobody where the account is gone, or has another password or other roles since, or where the provider is named otherwise."""
    token = request.cookies.get(cookie_name(request), "")
    session = desk.sessions.find(token, desk.wall.now()) if token else None
    if session is None:
        return None
    if session.account_mark.startswith(provider.MARK):
        named = provider.settings(desk.home)
        return session if named is not None and named[1] == session.account_mark else None
    known = accounts.account(desk.home, session.name)
    return session if known is not None and known.mark == session.account_mark else None


def is_safe(request: Request) -> bool:
    """Whether nobody on the way can read along: TLS, or this machine."""
    return request.url.scheme == "https" or request.url.hostname in LOOPBACK


def cookie_name(request: Request) -> str:
    """RFC 6265bis: with the prefix a browser takes it from nobody but this host, over TLS."""
    return "__Host-troth" if request.url.scheme == "https" else "troth"


def is_ours(request: Request) -> None:
    """Whether a page of ours sent a form, by what the browser says of it. Raises: ProblemError 403.

    Browsers send `Sec-Fetch-Site`, or at least `Origin`, with every form; what sends neither is no browser, and has no session of one.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    is_same = site == "same-origin" if site else (origin is None or urlsplit(origin).netloc == request.url.netloc)
    if not is_same:
        raise ProblemError(403, "foreign_form", "form: expected one of our pages, found another's. Open the page here.")


def next_page(said: str) -> str:
    """Where to go after signing in: a page of the console, and nowhere else."""
    parts = urlsplit(said)
    is_ours = (said == ROOT or said.startswith((f"{ROOT}/", f"{ROOT}?"))) and not parts.scheme and not parts.netloc
    return said if is_ours and "\\" not in said and not said.startswith(SIGN_IN) and said.isprintable() else ROOT


def _is_below(path: str, area: str) -> bool:
    return path == area or path.startswith(f"{area}/")
