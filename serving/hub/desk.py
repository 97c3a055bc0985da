"""What every handler of the hub shares: the home's ledger and outbox, policy and notices, links, and the proof of a subject."""

import threading
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from consent.ledger.opening import open_ledger
from consent.notices import Notices, NoticeText, read_notices
from consent.rule.policy import EVERY, Policy, read_policy
from serving.hub import pages
from serving.hub.capture import Rules
from serving.hub.delivery import Pump, post
from serving.hub.links import Link, Links
from serving.hub.preferences import NOTICE_ID, Choice, Ledger, Wish, choices, history, see_gpc
from serving.hub.seams import Seams, controller_of, receipts_of
from serving.hub.shapes import NoticeEntry
from serving.hub.webhooks import OUTBOX_FILE, Outbox
from serving.keys import Callers
from serving.operations.traces import traces
from serving.problems import ProblemError
from troth.clock import Clock
from troth.home import Home
from troth.ids import tokeniser

_MOST_SEEN = 100_000


class Desk:
    """One hub's things, opened when first needed and shared by threads."""

    def __init__(
        self,
        home: Home,
        clock: Clock,
        seams: Seams | None = None,
        *,
        allow_loopback: bool = False,
    ) -> None:
        self.home = home
        self.clock = clock
        self.policy: Policy = read_policy()
        self.callers = Callers(home)
        self.allow_loopback = allow_loopback
        self.notices: Notices = read_notices(self.policy)
        self.controller = controller_of(home)
        self.seams = seams or Seams(receipt=receipts_of(lambda: self.ledger, self.policy, self.controller))
        self._opening = threading.Lock()
        self._ledger: Any = None
        self._outbox: Outbox | None = None
        self._links: Links | None = None
        self._rules: Rules | None = None
        self._seen: set[tuple[str, str]] = set()

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
        """The home's destinations and deliveries."""
        with self._opening:
            if self._outbox is None:
                self._outbox = Outbox(self.home)
            return self._outbox

    def close(self) -> None:
        """Close what was opened; it opens again when needed."""
        with self._opening:
            for each in (self._ledger, self._outbox):
                if each is not None:
                    each.close()
            self._ledger = self._outbox = None

    def has_destinations(self) -> bool:
        """Whether there may be somebody to tell; makes nothing."""
        return self._outbox is not None or (self.home.root / OUTBOX_FILE).exists()

    def pump(self, wall: Clock) -> Pump:
        """What a round of webhook deliveries needs. Raises: LedgerError."""
        send = partial(post, allow_loopback=self.allow_loopback)
        return Pump(self.home, self.clock, wall, self.ledger, self.policy, self.outbox, send, traces=traces())

    def opened(self, request: Request, kind: str) -> tuple[Link, datetime, bool]:
        """The request's link, when it came, and whether a privacy signal came with it, which is recorded first. Raises: LinkError."""
        at = self.clock.now()
        link = self.links.open(request.path_params["link"], (kind,), at)
        is_gpc = request.headers.get("sec-gpc", "").strip() == "1"
        if is_gpc:
            seen = (link.subject_id, f"{at:%Y-%m-%d}")
            if seen not in self._seen:
                see_gpc(self.ledger, link.subject_id, at)
                if len(self._seen) >= _MOST_SEEN:
                    self._seen.clear()
                self._seen.add(seen)
        return link, at, is_gpc

    def choices(self, link: Link, at: datetime) -> list[Choice]:
        """How everything stands for the link's subject. Raises: LedgerError."""
        return choices(history(self.ledger, link.subject_id), self.policy, link.subject_id, at)

    def may(self, wish: Wish) -> bool:
        """Whether a wish is about what the policy asks and a person may choose. Only a no may be to everything."""
        purpose = self.policy.purposes.get(wish.purpose_code)
        if purpose is None:
            return wish == Wish(EVERY, EVERY, False)
        if purpose.rests_on_contract:
            return False
        return wish.channel_code in purpose.channels or (wish.channel_code == EVERY and not wish.is_allowed)

    def asked(self) -> set[tuple[str, str]]:
        """Purposes and channels a person may choose about."""
        return {
            (purpose.purpose_code, channel)
            for purpose in self.policy.purposes.values()
            for channel in purpose.channels
            if not purpose.rests_on_contract
        }

    def shown(self, version: int | None, language_code: str | None) -> tuple[str, int, str] | None:
        """The current notice of this place, if that is what was shown."""
        if version is None or language_code is None:
            return None
        found = self.notices.find(NOTICE_ID, version, language_code)
        if found is None or version != self.policy.notices[NOTICE_ID].current_version:
            return None
        return NOTICE_ID, version, language_code

    def current_notice(self, language: str) -> NoticeText:
        """The text of the preference centre in a language."""
        return self.notices.best(NOTICE_ID, self.policy.notices[NOTICE_ID].current_version, language)

    def form(self, link: Link, language: str) -> str:
        """The token of a form shown now behind a link."""
        return self.links.form_token(link, self.policy.notices[NOTICE_ID].current_version, language)

    def text(self, request: Request) -> NoticeText:
        """The notice a path names. Raises: ProblemError 404."""
        asked = request.path_params
        version = asked["version"]
        found = None
        if version.isascii() and version.isdigit() and len(version) <= 9:
            found = self.notices.find(asked["notice_id"], int(version), asked["language_code"])
        if found is None:
            raise ProblemError(404, "no_such_notice", "notice: expected one of /v1/notices, found another.")
        return found

    def entry(self, text: NoticeText) -> NoticeEntry:
        """A notice as it is listed, without its text."""
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

    def page(self, template: str, language: str, status: int = 200, **values: Any) -> Response:
        """A page that says who is responsible."""
        return pages.page(template, language, status, controller=self.controller, **values)

    @property
    def links(self) -> Links:
        """The maker of links, under the home's key."""
        with self._opening:  # a key of the home is made once, by one thread
            if self._links is None:
                self._links = Links(self.home.key("links"))
            return self._links

    @property
    def rules(self) -> Rules:
        """What reported events are checked against."""
        with self._opening:
            if self._rules is None:
                self._rules = Rules(self.policy, self.notices, tokeniser(self.home.key("token")))
            return self._rules


def language_of(request: Request) -> str:
    """The language to answer a request in."""
    return pages.language_of(request.query_params.get("language"), request.headers.get("accept-language", ""))


def reason(words: pages.Words, choice: Choice) -> str:
    """Why it stands so, and since when, in plain words."""
    if choice.decided_by is not None and not choice.is_own:
        return str(words["elsewhere"])
    since = pages.date(words, choice.standing.since_at) or ""
    return str(words["reasons"][choice.standing.reason_code]).format(since=since) + "."


def json_answer(content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(content), headers=headers or {"Cache-Control": "no-store"}, media_type="application/json"
    )
