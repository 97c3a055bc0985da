"""Signing in and out, and the first page. With an account of the home, or with an identity provider, of which all but the pages is in `provider.py`."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from serving import requests
from serving.console import accounts, pages, provider
from serving.console.frame import (
    ROOT,
    SIGN_IN,
    Area,
    Desk,
    Page,
    Visit,
    cookie_name,
    guarded,
    is_ours,
    is_safe,
    next_page,
    session_of,
)
from serving.console.provider import Provider
from serving.console.roles import RIGHTS, ROLES, rights_of
from serving.console.sessions import WHOLE
from serving.errors import ServingError
from serving.problems import ProblemError

WRONG = "Name or password is wrong."
NOT_NOW = "Signing in with your organisation's account does not work just now."
WAY = f"{SIGN_IN}/with"
BYE = f"{SIGN_IN}/out"


def routes(desk: Desk) -> list[Route]:
    known = Provider(desk.home, desk.sessions)
    return [
        Route(SIGN_IN, partial(_sign_in_page, desk), methods=["GET"]),
        Route(SIGN_IN, partial(_sign_in, desk), methods=["POST"]),
        Route(WAY, partial(_beside, partial(_leave, desk, known)), methods=["GET"]),
        Route(provider.BACK, partial(_beside, partial(_come_back, desk, known)), methods=["GET"]),
        Route(BYE, partial(_beside, partial(_bye, known)), methods=["GET"]),
        Route(f"{ROOT}/static/{{name}}", pages.static, methods=["GET"]),
    ]


def area(desk: Desk) -> Area:
    """The first page, and signing out: for whoever is signed in."""
    return Area(
        "home", "", "", "",
        [Page("", None, _first_page), Page("/sign-out", None, _sign_out, "POST"), Page("/you", None, _you)],
    )  # fmt: skip


def begin(
    desk: Desk, request: Request, name: str, roles: tuple[str, ...], mark: str, then: str, shown: str | None = None, lasts: timedelta = WHOLE
) -> Response:  # fmt: skip
    """A session, its cookie, and the page that was asked for."""
    token = desk.sessions.begin(name, roles, mark, desk.wall.now(), shown, lasts)
    answer = RedirectResponse(next_page(then), 303, headers=pages.SAFE)
    _give(answer, request, cookie_name(request), token, lasts)
    return answer


def _give(answer: Response, request: Request, name: str, value: str, lasts: timedelta) -> None:
    answer.set_cookie(
        name, value, max_age=int(lasts.total_seconds()), path="/", secure=request.url.scheme == "https", httponly=True, samesite="lax"
    )  # fmt: skip


def _way_cookie(request: Request) -> str:
    return f"{cookie_name(request)}-way"


async def _sign_in_page(desk: Desk, request: Request) -> Response:
    return await guarded(request, partial(run_in_threadpool, _shown, desk, request))


def _shown(desk: Desk, request: Request) -> Response:
    then = next_page(request.query_params.get("next", ROOT)[:2_000])
    if session_of(desk, request) is not None:
        return RedirectResponse(then, 303, headers=pages.SAFE)
    return _form(desk, then)


def _form(desk: Desk, then: str, wrong: str | None = None, name: str = "", status: int = 200) -> Response:
    try:
        asked = provider.settings(desk.home)
    except ServingError:  # accounts of the home still open it
        asked, wrong = None, wrong or NOT_NOW
    return pages.page(
        "sign_in.html",
        status,
        title="Sign in",
        then=then,
        wrong=wrong,
        name=name,
        has_accounts=bool(accounts.accounts(desk.home)),
        sign_in=SIGN_IN,
        elsewhere=asked and (f"{WAY}?{urlencode({'next': then})}", asked[0].title),
    )


async def _sign_in(desk: Desk, request: Request) -> Response:
    async def answer() -> Response:
        is_ours(request)
        _private(request)
        form = await requests.form(request)
        return await run_in_threadpool(_tried, desk, request, form)

    return await guarded(request, answer)


def _tried(desk: Desk, request: Request, form: dict[str, str]) -> Response:
    name, password = form.get("name", "")[:100], form.get("password", "")
    then, now = next_page(form.get("next", ROOT)), desk.wall.now()
    who = (f"name:{name}", f"host:{request.client.host if request.client else ''}")
    if wait := desk.sessions.wait_seconds(who, now):
        raise ProblemError(
            429,
            "too_often",
            f"sign-in: expected fewer attempts in vain, found too many. Wait {wait} seconds.",
            headers={"Retry-After": str(wait)},
        )
    known = accounts.signed_in(desk.home, name, password)
    if known is None:
        desk.sessions.failed(who, now)
        return _form(desk, then, WRONG, name if name.isprintable() else "", 401)
    return begin(desk, request, known.name, known.roles, known.mark, then)


async def _beside(work: Callable[[Request], Response], request: Request) -> Response:
    """A page that may wait for the provider, beside the event loop."""
    return await guarded(request, partial(run_in_threadpool, work, request))


def _private(request: Request) -> None:
    if not is_safe(request):
        raise ProblemError(
            403, "not_private", "connection: expected https, found plain http to another machine. Use https."
        )


def _leave(desk: Desk, known: Provider, request: Request) -> Response:
    """To the provider, by a link: a form of ours may be sent nowhere else."""
    _private(request)
    address, cookie = known.begin(next_page(request.query_params.get("next", ROOT)[:2_000]), desk.wall.now())
    answer = RedirectResponse(address, 303, headers=pages.SAFE)
    _give(answer, request, _way_cookie(request), cookie, provider.ON_THE_WAY)
    return answer


def _come_back(desk: Desk, known: Provider, request: Request) -> Response:
    """From the provider, once, with what says who it is."""
    _private(request)
    now = desk.wall.now()
    found = known.finish(request.cookies.get(_way_cookie(request), ""), request.query_params.multi_items(), now)
    request_id = request.scope.get("troth.request_id", "")
    desk.looks.write(now, request_id, found.name, provider.BACK, "signed_in", why=found.shown)
    answer = begin(desk, request, found.name, found.roles, found.mark, found.then, found.shown, found.lasts)
    answer.delete_cookie(_way_cookie(request), path="/", secure=request.url.scheme == "https", httponly=True)
    return answer


def _bye(known: Provider, request: Request) -> Response:
    return pages.page("signed_out.html", title="Signed out", elsewhere=known.farewell(), sign_in=SIGN_IN)


def _sign_out(visit: Visit) -> Response:
    visit.desk.sessions.end(visit.session)
    there = BYE if visit.session.account_mark.startswith(provider.MARK) else SIGN_IN
    answer = RedirectResponse(there, 303, headers={**pages.SAFE, "Clear-Site-Data": '"cache", "cookies"'})
    answer.delete_cookie(
        cookie_name(visit.request), path="/", secure=visit.request.url.scheme == "https", httponly=True
    )
    return answer


def _first_page(visit: Visit) -> Response:
    """Straight to where a role begins; a choice where there are several."""
    mine = [role for name in visit.session.roles if (role := ROLES.get(name))]
    there = {area.path for area in visit.desk.areas}
    if len(mine) == 1 and mine[0].home in there:
        return visit.go(mine[0].home)
    return visit.show(
        "first.html", "Troth", starts=[(ROOT + role.home, role.title) for role in mine if role.home in there]
    )


def _you(visit: Visit) -> Response:
    mine = rights_of(visit.session.roles)
    return visit.show("you.html", "What you may do", allowed=[text for right, text in RIGHTS.items() if right in mine])
