"""The hub over HTTP: capture and links for systems, preferences for people, notices for all, webhooks for admins.

Who a request is about is proved by a key or by a link. Global Privacy Control is recorded as soon as a link has
proved a subject, before anything else is read or said.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from consent.ledger import open_ledger
from consent.notices import Notices, NoticeText, read_notices
from consent.policy import EVERY, Policy, read_policy
from serving import requests
from serving.errors import ServingError
from serving.hub import pages
from serving.hub.capture import Asked, Captured, Identifier, Rules, read_batch, subject_of
from serving.hub.delivery import Pump, post
from serving.hub.links import SUBJECT, VALID_DAYS, Link, LinkError, Links
from serving.hub.preferences import NOTICE_ID, Act, Choice, Ledger, Wish, choices, confirm, history, record, see_gpc
from serving.hub.seams import Seams, as_json, controller_of, receipts_of
from serving.hub.webhooks import (
    MOST_DELIVERIES,
    OUTBOX_FILE,
    STATES,
    Delivery,
    DestinationState,
    MadeDestination,
    NewDestination,
    Outbox,
    is_destination_id,
)
from serving.keys import Caller
from serving.problems import ProblemError
from troth.clock import Clock
from troth.errors import TrothError
from troth.home import Home
from troth.ids import tokeniser

GPC_SINCE = "2026-11-22"
MOST_LINKS = 1_000
MOST_CHANGES = 100
ONE_CLICK = ("List-Unsubscribe", "One-Click")  # RFC 8058, section 3.1
_MOST_SEEN = 100_000
_DIGITS = 15


class WantedLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A link to make: for whom, for what, for how many days. `unsubscribe` and `confirm` name purpose and channel."""

    kind: Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(VALID_DAYS)})$")]
    identifier: Identifier | None = None
    subject_id: Annotated[str, msgspec.Meta(pattern=f"^{SUBJECT}$")] | None = None
    purpose_code: Asked = EVERY
    channel_code: Asked = EVERY
    valid_days: Annotated[int, msgspec.Meta(ge=1, le=1100)] | None = None


class WantedLinks(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Links to make, answered in their order."""

    links: Annotated[list[WantedLink], msgspec.Meta(min_length=1, max_length=MOST_LINKS)]


class MadeLink(msgspec.Struct, frozen=True, kw_only=True):
    """A link as a path of this service. Whoever has it may do what it is for."""

    path: str
    expires_at: datetime


class MadeLinks(msgspec.Struct, frozen=True, kw_only=True):
    links: list[MadeLink]


class NoticeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A notice text; `is_current` where it is the version shown now, `counts` where a yes under it still counts."""

    notice_id: str
    version: int
    language_code: str
    title: str
    hash: str
    is_current: bool
    counts: bool
    text: str | None = None


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """How one purpose and channel stand, why, since when, until when, and under which notice it was decided."""

    purpose_code: str
    channel_code: str
    title: str
    may_choose: bool
    is_allowed: bool
    reason_code: str
    reason: str
    since_at: datetime | None
    expires_at: datetime | None
    notice_id: str | None
    notice_version: int | None
    leaf_index: int | None


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a subject can choose, and the text to show when asking."""

    preferences: list[Preference]
    notice: NoticeEntry
    is_gpc_honoured: bool
    ledger_size: int
    answered_at: datetime
    link_expires_at: datetime


class Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A yes or a no. Only a no may be to every purpose (`*`)."""

    purpose_code: Asked
    channel_code: Asked
    is_allowed: bool


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person chose, and the notice they saw when choosing; a no needs none."""

    changes: Annotated[list[Change], msgspec.Meta(min_length=1, max_length=MOST_CHANGES)]
    notice_version: Annotated[int, msgspec.Meta(ge=1, le=999_999_999)] | None = None
    language_code: Annotated[str, msgspec.Meta(pattern=r"^[a-z]{2,3}(-[A-Z]{2})?$")] | None = None


class Redelivered(msgspec.Struct, frozen=True, kw_only=True):
    """How many dead deliveries are due again."""

    count: int


class Hub:
    """The handlers. What blocks (the ledger, the outbox) runs beside the event loop."""

    def __init__(
        self,
        home: Home,
        callers: Sequence[Caller],
        clock: Clock,
        seams: Seams | None = None,
        *,
        allow_loopback: bool = False,
    ) -> None:
        self.home = home
        self.clock = clock
        self.policy: Policy = read_policy()
        self._callers = callers
        self._allow_loopback = allow_loopback
        self._notices: Notices = read_notices(self.policy)
        self._controller = controller_of(home)
        self._seams = seams or Seams(receipt=receipts_of(lambda: self.ledger, self.policy, self._controller))
        self._opening = threading.Lock()
        self._ledger: Any = None
        self._outbox: Outbox | None = None
        self._links: Links | None = None
        self._rules: Rules | None = None
        self._seen: set[tuple[str, str]] = set()

    def routes(self) -> list[Route]:
        """Every route of the hub."""
        return [
            Route("/v1/consents", self.capture, methods=["POST"]),
            Route("/v1/links", self.make_links, methods=["POST"]),
            Route("/v1/notices", self.notices, methods=["GET"]),
            Route("/v1/notices/{notice_id}/{version}/{language_code}", self.notice, methods=["GET"]),
            Route("/v1/preferences/{link}", self.preferences, methods=["GET"]),
            Route("/v1/preferences/{link}", self.change, methods=["PATCH"]),
            Route("/v1/preferences/{link}/receipt", self.receipt, methods=["GET"]),
            Route("/v1/preferences/{link}/export", self.export, methods=["GET"]),
            Route("/v1/webhooks", self.destinations, methods=["GET"]),
            Route("/v1/webhooks", self.add_destination, methods=["POST"]),
            Route("/v1/webhooks/{destination_id}", self.remove_destination, methods=["DELETE"]),
            Route("/v1/webhooks/{destination_id}/deliveries", self.deliveries, methods=["GET"]),
            Route("/v1/webhooks/{destination_id}/redeliver", self.redeliver, methods=["POST"]),
            Route("/preferences/{link}", self.preferences_page, methods=["GET"]),
            Route("/preferences/{link}", self.choose, methods=["POST"]),
            Route("/preferences/{link}/delete", self.delete_page, methods=["GET"]),
            Route("/preferences/{link}/delete", self.delete, methods=["POST"]),
            Route("/unsubscribe/{link}", self.unsubscribe_page, methods=["GET"]),
            Route("/unsubscribe/{link}", self.unsubscribe, methods=["POST"]),
            Route("/confirm/{link}", self.confirm_page, methods=["GET"]),
            Route("/confirm/{link}", self.confirm, methods=["POST"]),
            Route("/thanks", self.thanks, methods=["GET"]),
            Route("/notices/{notice_id}/{version}/{language_code}", self.notice_page, methods=["GET"]),
            Route("/.well-known/gpc.json", self.gpc, methods=["GET"]),
        ]

    @property
    def ledger(self) -> Ledger:
        """The home's ledger, opened by the first request that needs it. Raises: LedgerError."""
        with self._opening:
            if self._ledger is None:
                self._ledger = open_ledger(self.home, self.clock)
            found: Ledger = self._ledger
            return found

    @property
    def outbox(self) -> Outbox:
        with self._opening:
            if self._outbox is None:
                self._outbox = Outbox(self.home)
            return self._outbox

    def close(self) -> None:
        with self._opening:
            for each in (self._ledger, self._outbox):
                if each is not None:
                    each.close()
            self._ledger = self._outbox = None

    # Systems

    def has_destinations(self) -> bool:
        return self._outbox is not None or (self.home.root / OUTBOX_FILE).exists()

    def pump(self, wall: Clock) -> Pump:
        """What a round of webhook deliveries needs. Raises: LedgerError."""
        send = partial(post, allow_loopback=self._allow_loopback)
        return Pump(self.home, self.clock, wall, self.ledger, self.policy, self.outbox, send)

    async def capture(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, "capture")
        data = await requests.json_bytes(request)
        return await run_in_threadpool(self._capture, data)

    def _capture(self, data: bytes) -> Response:
        received_at = self.clock.now()
        events = read_batch(data, self._checks(), received_at)
        indexes = self.ledger.append(events)
        note = self.ledger.checkpoint()
        return _json(
            Captured(
                leaf_indexes=indexes,
                ledger_size=int(note.split("\n", 2)[1]),
                checkpoint=note,
                received_at=received_at,
            )
        )

    async def make_links(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, "links")
        wanted = await requests.json_body(request, WantedLinks)
        return await run_in_threadpool(self._make_links, wanted)

    def _make_links(self, wanted: WantedLinks) -> Response:
        at, made = self.clock.now(), []
        for position, each in enumerate(wanted.links):
            subject_id, problems = subject_of(each.identifier, each.subject_id, self._checks().token)
            for field, detail in problems:
                raise requests.unprocessable(position, field, detail)
            narrow = each.kind != "preferences"
            if narrow != ((each.purpose_code, each.channel_code) in self._asked()) or subject_id is None:
                detail = (
                    "expected what the policy asks for unsubscribe and confirm, and * for preferences, found another."
                )
                raise requests.unprocessable(position, "purpose_code", detail)
            try:
                link = self._maker().make(
                    each.kind, subject_id, at, each.valid_days, each.purpose_code, each.channel_code
                )
            except ServingError as error:
                raise requests.unprocessable(position, "valid_days", str(error)) from None
            made.append(MadeLink(path=f"/{link.kind}/{link.text}", expires_at=link.expires_at))
        return _json(MadeLinks(links=made))

    # Notices

    def notices(self, request: Request) -> Response:
        return _json([self._entry(text) for text in self._notices.texts.values()])

    def notice(self, request: Request) -> Response:
        text = self._text(request)
        return _json(msgspec.structs.replace(self._entry(text), text=text.text))

    def notice_page(self, request: Request) -> Response:
        text = self._text(request)
        language = text.language_code if text.language_code in pages.languages() else pages.DEFAULT_LANGUAGE
        return self._page("notice.html", language, title=text.title, notice=pages.shown(text))

    def gpc(self, request: Request) -> Response:
        return _json({"gpc": True, "lastUpdate": GPC_SINCE})

    # People, as JSON

    def preferences(self, request: Request) -> Response:
        link, at, is_gpc = self._proved(request, "preferences")
        return self._preferences(request, link, at, is_gpc=is_gpc)

    async def change(self, request: Request) -> Response:
        link, at, is_gpc = await run_in_threadpool(self._proved, request, "preferences")
        changes = await requests.json_body(request, Changes)
        return await run_in_threadpool(self._change, request, link, at, changes, is_gpc)

    def _change(self, request: Request, link: Link, at: datetime, changes: Changes, is_gpc: bool) -> Response:
        wishes = [Wish(each.purpose_code, each.channel_code, each.is_allowed) for each in changes.changes]
        for position, wish in enumerate(wishes):
            if not self._may(wish):
                detail = "expected a purpose and channel of these preferences, or * for a no, found another."
                raise requests.unprocessable(position, "purpose_code", detail)
        notice = self._shown(changes.notice_version, changes.language_code)
        if notice is None and (any(wish.is_allowed for wish in wishes) or changes.notice_version is not None):
            detail = "expected the version and language of the notice of these preferences for a yes, found another."
            raise requests.unprocessable(0, "notice_version", detail)
        act = Act(link.subject_id, at, "preference_api", "preference_centre", f"link:{link.nonce}", notice)
        record(self.ledger, self.policy, wishes, act)
        return self._preferences(request, link, self.clock.now(), is_gpc=is_gpc)

    def receipt(self, request: Request) -> Response:
        link, at, _ = self._proved(request, "preferences")
        return _document(self._seams.receipt, link, at, "receipt.json")

    def export(self, request: Request) -> Response:
        link, at, _ = self._proved(request, "preferences")
        return _document(self._seams.export, link, at, "my-data.json")

    # People, as pages

    def preferences_page(self, request: Request) -> Response:
        return self._answered(request, "preferences", self._preferences_page)

    async def choose(self, request: Request) -> Response:
        return await self._posted(request, "preferences", self._choose)

    def delete_page(self, request: Request) -> Response:
        return self._answered(request, "preferences", self._delete_page)

    async def delete(self, request: Request) -> Response:
        return await self._posted(request, "preferences", self._delete)

    def unsubscribe_page(self, request: Request) -> Response:
        return self._answered(request, "unsubscribe", self._unsubscribe_page)

    async def unsubscribe(self, request: Request) -> Response:
        return await self._posted(request, "unsubscribe", self._unsubscribe)

    def confirm_page(self, request: Request) -> Response:
        return self._answered(request, "confirm", self._confirm_page)

    async def confirm(self, request: Request) -> Response:
        return await self._posted(request, "confirm", self._confirm)

    def thanks(self, request: Request) -> Response:
        language = _language(request)
        words = pages.languages()[language]
        return self._page("message.html", language, title=words["thanks_title"], text=words["thanks"], back=None)

    def _preferences_page(self, request: Request, link: Link, at: datetime, is_gpc: bool) -> Response:
        language = _language(request)
        words = pages.languages()[language]
        found = self._choices(link, at)
        kept = request.query_params.get("kept")
        return self._page(
            "preferences.html",
            language,
            title=words["title"],
            link=link.text,
            form=self._form(link, language),
            kept=kept is not None,
            leaf=kept if kept and kept.isascii() and kept.isdigit() and len(kept) <= _DIGITS else None,
            is_gpc=is_gpc,
            identifier=words["identifier"][link.subject_id.partition("_")[0]],
            until=pages.date(words, link.expires_at),
            is_all_no=_is_all_no(found),
            notice=pages.shown(self._current_notice(language)),
            purposes=self._purposes(found, words),
            can_receipt=self._seams.receipt is not None,
            can_export=self._seams.export is not None,
            can_erase=self._seams.erase is not None,
        )

    def _choose(self, request: Request, link: Link, at: datetime, form: dict[str, str], is_gpc: bool) -> Response:
        shown = self._maker().shown_on(link, form.get("form", ""))
        answer, _, rest = form.get("choice", "").partition(":")
        purpose_code, _, channel_code = rest.partition(":")
        wish = Wish(purpose_code, channel_code, answer == "yes")
        if answer not in ("yes", "no") or not self._may(wish):
            raise requests.bad("choice: expected one of this page's, found another. Open the page again.")
        if shown is None:
            return self._stale(request, link)
        notice = self._shown(*shown)
        if notice is None and wish.is_allowed:
            return self._stale(request, link)  # the text has changed since; a no needs no text
        act = Act(link.subject_id, at, "preference_form", "preference_centre", f"link:{link.nonce}", notice)
        leaves = record(self.ledger, self.policy, [wish], act)
        kept = str(leaves[-1]) if leaves else ""
        return _see_other(f"/preferences/{link.text}?language={shown[1]}&kept={kept}")

    def _delete_page(self, request: Request, link: Link, at: datetime, is_gpc: bool) -> Response:
        language = _language(request)
        if self._seams.erase is None:
            return self._nowhere(request)
        title = pages.languages()[language]["delete_title"]
        return self._page("delete.html", language, title=title, link=link.text, form=self._form(link, language))

    def _delete(self, request: Request, link: Link, at: datetime, form: dict[str, str], is_gpc: bool) -> Response:
        erase = self._seams.erase
        if erase is None:
            return self._nowhere(request)
        shown = self._maker().shown_on(link, form.get("form", ""))
        if shown is None:
            return self._stale(request, link)
        if form.get("choice") != "delete":
            return _see_other(f"/preferences/{link.text}?language={shown[1]}")
        words = pages.languages()[shown[1]]
        text = words["delete_taken"].format(reference=erase(link.subject_id, at))
        return self._page("message.html", shown[1], title=words["thanks_title"], text=text, back=None)

    def _unsubscribe_page(self, request: Request, link: Link, at: datetime, is_gpc: bool) -> Response:
        language = _language(request)
        words = pages.languages()[language]
        found = self._choices(link, at)
        same = [each for each in found if each.purpose_code == link.purpose_code]
        stopped = [each.is_own_no for each in same if each.channel_code == link.channel_code]
        is_stopped = bool(stopped) and all(stopped)
        return self._page(
            "unsubscribe.html",
            language,
            title=words["unsubscribed_title" if is_stopped else "unsubscribe_title"],
            link=link.text,
            form=self._form(link, language),
            is_gpc=is_gpc,
            what=pages.name(words, self.policy, link.purpose_code, link.channel_code),
            purpose=pages.purpose_words(words, self.policy, link.purpose_code)["title"],
            is_stopped=is_stopped,
            is_purpose_stopped=bool(same) and all(each.is_own_no for each in same),
            is_all_no=_is_all_no(found),
        )

    def _unsubscribe(self, request: Request, link: Link, at: datetime, form: dict[str, str], is_gpc: bool) -> Response:
        """One click acts at once and exactly as far as the link says; the page's own buttons may say a wider no."""
        narrow = Wish(link.purpose_code, link.channel_code, False)
        wider = {
            "this": narrow,
            "purpose": Wish(link.purpose_code, EVERY, False),
            "everything": Wish(EVERY, EVERY, False),
        }
        is_one_click = form.get(ONE_CLICK[0]) == ONE_CLICK[1]
        wish = narrow if is_one_click else wider.get(form.get("choice", ""))
        if wish is None:
            raise requests.bad(f"body: expected {'='.join(ONE_CLICK)}, or a choice of the page, found neither.")
        shown = None if is_one_click else self._maker().shown_on(link, form.get("form", ""))
        if shown is None and not is_one_click:
            return self._stale(request, None)
        method = "one_click_unsubscribe" if is_one_click else "unsubscribe_form"
        act = Act(link.subject_id, at, method, "unsubscribe_link", f"link:{link.nonce}")
        record(self.ledger, self.policy, [wish], act)
        if shown is not None:
            return _see_other(f"/unsubscribe/{link.text}?language={shown[1]}")
        return self._unsubscribe_page(request, link, self.clock.now(), is_gpc)  # RFC 8058: no redirect

    def _confirm_page(self, request: Request, link: Link, at: datetime, is_gpc: bool) -> Response:
        if self._is_used(link):
            return self._nowhere(request)
        language = _language(request)
        words = pages.languages()[language]
        return self._page(
            "confirm.html",
            language,
            title=words["confirm_title"],
            link=link.text,
            form=self._form(link, language),
            is_gpc=is_gpc,
            what=pages.name(words, self.policy, link.purpose_code, link.channel_code),
        )

    def _confirm(self, request: Request, link: Link, at: datetime, form: dict[str, str], is_gpc: bool) -> Response:
        if self._is_used(link):
            return self._nowhere(request)
        shown = self._maker().shown_on(link, form.get("form", ""))
        if shown is None:
            return self._stale(request, None)
        confirm(self.ledger, link.subject_id, link.purpose_code, link.channel_code, f"link:{link.nonce}", at)
        return _see_other(f"/thanks?language={shown[1]}")

    # Webhooks

    def destinations(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, "admin")
        found: list[DestinationState] = self.outbox.states(self.ledger.size)
        return _json(found)

    async def add_destination(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, "admin")
        wanted = await requests.json_body(request, NewDestination)
        return await run_in_threadpool(self._add_destination, wanted)

    def _add_destination(self, wanted: NewDestination) -> Response:
        size = self.ledger.size
        try:
            made: MadeDestination = self.outbox.add(
                wanted, self.policy, size, self.clock.now(), allow_loopback=self._allow_loopback
            )
        except ServingError as error:
            raise ProblemError(422, "destination_refused", str(error)) from None
        return _json(made)

    def remove_destination(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, "admin")
        if not self.outbox.remove(_destination_id(request)):
            raise _no_destination()
        return Response(status_code=204)

    def deliveries(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, "admin")
        state = request.query_params.get("state")
        if state is not None and state not in STATES:
            raise requests.bad(f"state: expected one of {', '.join(STATES)}, found another. Correct it.")
        after = requests.whole_number(request, "after", 0, 999_999_999, least=0)
        most = requests.whole_number(request, "count", 50, MOST_DELIVERIES)
        found: list[Delivery] | None = self.outbox.deliveries(_destination_id(request), state, after, most)
        if found is None:
            raise _no_destination()
        return _json(found)

    def redeliver(self, request: Request) -> Response:
        requests.caller_with(request, self._callers, "admin")
        count = self.outbox.redeliver(_destination_id(request), self.clock.now())
        if count is None:
            raise _no_destination()
        return _json(Redelivered(count=count))

    # What handlers share

    def _proved(self, request: Request, kind: str) -> tuple[Link, datetime, bool]:
        """The request's link, when it came, and whether a privacy signal came with it, which is then recorded.

        Raises: ProblemError 404, the same for every link that does not work.
        """
        try:
            return self._opened(request, kind)
        except LinkError as error:
            raise ProblemError(404, "no_such_link", str(error)) from None

    def _opened(self, request: Request, kind: str) -> tuple[Link, datetime, bool]:
        at = self.clock.now()
        link = self._maker().open(request.path_params["link"], (kind,), at)
        is_gpc = request.headers.get("sec-gpc", "").strip() == "1"
        if is_gpc:
            seen = (link.subject_id, f"{at:%Y-%m-%d}")
            if seen not in self._seen:
                see_gpc(self.ledger, link.subject_id, at)
                if len(self._seen) >= _MOST_SEEN:
                    self._seen.clear()
                self._seen.add(seen)
        return link, at, is_gpc

    def _answered(
        self, request: Request, kind: str, answer: Callable[[Request, Link, datetime, bool], Response]
    ) -> Response:
        """A page behind a link."""
        try:
            link, at, is_gpc = self._opened(request, kind)
            return answer(request, link, at, is_gpc)
        except LinkError:
            return self._nowhere(request)
        except TrothError:
            return self._down(request)

    async def _posted(
        self,
        request: Request,
        kind: str,
        answer: Callable[[Request, Link, datetime, dict[str, str], bool], Response],
    ) -> Response:
        """What a form behind a link asks for. A form of another site is not listened to."""
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return self._stale(request, None)
        try:
            link, at, is_gpc = await run_in_threadpool(self._opened, request, kind)
            form = await requests.form(request)
            return await run_in_threadpool(answer, request, link, at, form, is_gpc)
        except LinkError:
            return self._nowhere(request)
        except TrothError:
            return self._down(request)

    def _preferences(self, request: Request, link: Link, at: datetime, *, is_gpc: bool) -> Response:
        language = _language(request)
        words = pages.languages()[language]
        notice = self._current_notice(language)
        found = [
            Preference(
                purpose_code=each.purpose_code,
                channel_code=each.channel_code,
                title=pages.name(words, self.policy, each.purpose_code, each.channel_code),
                may_choose=each.may_choose,
                is_allowed=each.standing.is_allowed,
                reason_code=each.standing.reason_code,
                reason=_reason(words, each),
                since_at=each.standing.since_at,
                expires_at=each.standing.expires_at,
                notice_id=each.decided_by.notice_id if each.decided_by and each.is_own else None,
                notice_version=each.decided_by.notice_version if each.decided_by and each.is_own else None,
                leaf_index=each.standing.leaf_index,
            )
            for each in self._choices(link, at)
        ]
        return _json(
            Preferences(
                preferences=found,
                notice=msgspec.structs.replace(self._entry(notice), text=notice.text),
                is_gpc_honoured=is_gpc,
                ledger_size=self.ledger.size,
                answered_at=at,
                link_expires_at=link.expires_at,
            ),
            {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
        )

    def _choices(self, link: Link, at: datetime) -> list[Choice]:
        return choices(history(self.ledger, link.subject_id), self.policy, link.subject_id, at)

    def _purposes(self, found: Sequence[Choice], words: pages.Words) -> list[dict[str, Any]]:
        """What the page says of each purpose."""
        shown: dict[str, dict[str, Any]] = {}
        for each in found:
            said = pages.purpose_words(words, self.policy, each.purpose_code)
            processing = self._controller.purposes.get(each.purpose_code)
            recipients = ", ".join(processing.recipients) if processing else ""
            fresh = {"code": each.purpose_code, **said, "recipients": recipients, "choices": []}
            purpose = shown.setdefault(each.purpose_code, fresh)
            by = each.decided_by if each.is_own else None
            notice = None
            if by and by.notice_id and by.notice_version and self._notices.has(by.notice_id, by.notice_version):
                notice = self._notices.best(by.notice_id, by.notice_version, by.language_code or "")
            purpose["choices"].append(
                {
                    "purpose_code": each.purpose_code,
                    "channel_code": each.channel_code,
                    "channel": pages.channel_words(words, self.policy, each.channel_code),
                    "name": pages.name(words, self.policy, each.purpose_code, each.channel_code),
                    "may_choose": each.may_choose,
                    "is_allowed": each.standing.is_allowed,
                    "reason": _reason(words, each),
                    "until": pages.date(words, each.standing.expires_at),
                    "notice": notice,
                }
            )
        return list(shown.values())

    def _may(self, wish: Wish) -> bool:
        """Whether a wish is about what the policy asks and a person may choose. Only a no may be to everything."""
        purpose = self.policy.purposes.get(wish.purpose_code)
        if purpose is None:
            return wish == Wish(EVERY, EVERY, False)
        if purpose.rests_on_contract:
            return False
        return wish.channel_code in purpose.channels or (wish.channel_code == EVERY and not wish.is_allowed)

    def _asked(self) -> set[tuple[str, str]]:
        return {
            (purpose.purpose_code, channel)
            for purpose in self.policy.purposes.values()
            for channel in purpose.channels
            if not purpose.rests_on_contract
        }

    def _is_used(self, link: Link) -> bool:
        """Whether a link for one use was used: the ledger remembers."""
        return any(each.event.signal_id == f"link:{link.nonce}" for each in self.ledger.events_of(link.subject_id))

    def _shown(self, version: int | None, language_code: str | None) -> tuple[str, int, str] | None:
        """The current notice of this place, if that is what was shown."""
        if version is None or language_code is None:
            return None
        found = self._notices.find(NOTICE_ID, version, language_code)
        if found is None or version != self.policy.notices[NOTICE_ID].current_version:
            return None
        return NOTICE_ID, version, language_code

    def _current_notice(self, language: str) -> NoticeText:
        return self._notices.best(NOTICE_ID, self.policy.notices[NOTICE_ID].current_version, language)

    def _form(self, link: Link, language: str) -> str:
        return self._maker().form_token(link, self.policy.notices[NOTICE_ID].current_version, language)

    def _text(self, request: Request) -> NoticeText:
        asked = request.path_params
        version = asked["version"]
        found = None
        if version.isascii() and version.isdigit() and len(version) <= 9:
            found = self._notices.find(asked["notice_id"], int(version), asked["language_code"])
        if found is None:
            raise ProblemError(404, "no_such_notice", "notice: expected one of /v1/notices, found another.")
        return found

    def _entry(self, text: NoticeText) -> NoticeEntry:
        notice = self.policy.notices[text.notice_id]
        return NoticeEntry(
            notice_id=text.notice_id,
            version=text.version,
            language_code=text.language_code,
            title=text.title,
            hash=text.hash,
            is_current=text.version == notice.current_version,
            counts=text.version >= notice.minimum_version,
        )

    def _nowhere(self, request: Request) -> Response:
        """The one page for every link that does not work, whyever."""
        language = _language(request)
        words = pages.languages()[language]
        title, text = words["nowhere_title"], words["nowhere"]
        return self._page("message.html", language, 404, title=title, text=text, back=None)

    def _down(self, request: Request) -> Response:
        """The record cannot be read or written now: nothing was changed, and nothing is done meanwhile."""
        language = _language(request)
        words = pages.languages()[language]
        return self._page("message.html", language, 503, title=words["down_title"], text=words["down"], back=None)

    def _stale(self, request: Request, link: Link | None) -> Response:
        language = _language(request)
        words = pages.languages()[language]
        back = f"/preferences/{link.text}" if link else None
        return self._page("message.html", language, 403, title=words["stale_title"], text=words["stale"], back=back)

    def _page(self, template: str, language: str, status: int = 200, **values: Any) -> Response:
        return pages.page(template, language, status, controller=self._controller, **values)

    def _maker(self) -> Links:
        with self._opening:  # a key of the home is made once, by one thread
            if self._links is None:
                self._links = Links(self.home.key("links"))
            return self._links

    def _checks(self) -> Rules:
        with self._opening:
            if self._rules is None:
                self._rules = Rules(self.policy, self._notices, tokeniser(self.home.key("token")))
            return self._rules


def _language(request: Request) -> str:
    return pages.language_of(request.query_params.get("language"), request.headers.get("accept-language", ""))


def _reason(words: pages.Words, choice: Choice) -> str:
    """Why it stands so, and since when, in plain words."""
    if choice.decided_by is not None and not choice.is_own:
        return str(words["elsewhere"])
    since = pages.date(words, choice.standing.since_at) or ""
    return str(words["reasons"][choice.standing.reason_code]).format(since=since) + "."


def _is_all_no(found: Sequence[Choice]) -> bool:
    return all(each.is_own_no for each in found if each.may_choose)


def _document(make: Callable[[str, datetime], Any] | None, link: Link, at: datetime, name: str) -> Response:
    if make is None:
        raise ProblemError(404, "not_offered", "document: expected one this service offers, found none. Ask us for it.")
    headers = {"Cache-Control": "no-store", "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(as_json(make(link.subject_id, at)), headers=headers, media_type="application/json")


def _destination_id(request: Request) -> str:
    found: str = request.path_params["destination_id"]
    if not is_destination_id(found):
        raise _no_destination()
    return found


def _no_destination() -> ProblemError:
    return ProblemError(404, "no_such_destination", "destination: expected one of /v1/webhooks, found another.")


def _see_other(path: str) -> Response:
    return RedirectResponse(path, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})


def _json(content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(content), headers=headers or {"Cache-Control": "no-store"}, media_type="application/json"
    )
