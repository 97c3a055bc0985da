"""What is done with what comes in: read one by one, what is good kept durably, what is not set aside with its reason; then answered.

Consent goes another way within the same request: checked by the hub and into the ledger, which is its durable log.
"""

import threading
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from serving.event_log.events import LogFullError, NewEvent
from serving.event_log.letters import Letter, NewLetter
from serving.event_log.log import Bounds, Log, Verdict, open_log
from serving.hub.capture import read_batch
from serving.hub.desk import Desk as HubDesk
from serving.intake import plain, segment, shopify
from serving.intake.plain import UnreadConsent
from serving.intake.shops import Shop, Shops
from serving.intake.terms import UnreadableError
from serving.problems import ProblemError
from serving.requests import decoded
from troth.clock import Clock
from troth.home import Home

PLAIN, OF_LOG, OF_PROJECTOR = "events", "log", "projector"
_LETTERS_FULL = "dead letters: expected room for more, found none. See `troth events dead`: replay or drop some, then send it again."
Status = Literal["kept", "known", "conflict", "set_aside", "refused"]
_STATUS: dict[str, Status] = {"new": "kept", "known": "known", "conflict": "conflict"}


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one event.

    `kept`: durable now. `known`: it was before. `conflict`: its id was, with another content; set aside. `set_aside`: not as
    described; kept as a dead letter, to be mended or dropped. `refused`: not kept anywhere. `offset` is its place in
    the log, `leaf_index` in the consent ledger.
    """

    position: int
    status: Status
    offset: int | None = None
    leaf_index: int | None = None
    field: str | None = None
    detail: str | None = None


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events of a request, in the order sent."""

    events: list[Told]
    taken: int
    not_taken: int
    received_at: datetime

    @property
    def is_whole(self) -> bool:
        return self.not_taken == 0


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a dead letter that was read again: kept, known, or dead still and why."""

    letter_id: int
    outcome: Literal["kept", "known", "dead"]
    detail: str


class IntakeDesk:
    """The intake of a home. Threads share it; the log is opened when first needed."""

    def __init__(self, home: Home, clock: Clock, hub: HubDesk, bounds: Bounds | None = None) -> None:
        self.clock, self.shops = clock, Shops(home)
        self._home, self._hub, self._bounds = home, hub, bounds
        self._opening = threading.Lock()
        self._log: Log | None = None

    @property
    def log(self) -> Log:
        """The home's event log. Raises: LogError."""
        with self._opening:
            if self._log is None:
                self._log = open_log(self._home, self._bounds)
            return self._log

    def close(self) -> None:
        with self._opening:
            if self._log is not None:
                self._log.close()
            self._log = None

    def take_plain(self, data: bytes) -> Taken:
        """Events of a request body in the plain contract. Raises: ProblemError for a body that is no list of events, LogFullError."""
        sent = decoded(data, plain.Unread)
        received_at = self.clock.now()
        told: dict[int, Told] = {}
        events: list[tuple[int, NewEvent]] = []
        consents: list[tuple[int, bytes]] = []
        letters: list[tuple[int, NewLetter]] = []
        for position, raw in enumerate(sent.events):
            try:
                event = plain.read(raw, sent.source_name, received_at)
            except UnreadableError as error:
                is_consent = _is_consent(raw)  # somebody's words: nobody keeps them but the ledger
                told[position] = _unread(position, error, "refused" if is_consent else "set_aside")
                if not is_consent:
                    letters.append((position, _letter(PLAIN, sent.source_name, error, received_at, bytes(raw))))
                continue
            if isinstance(event, UnreadConsent):
                consents.append((position, bytes(event.said)))
            else:
                events.append((position, event))
        told |= self._take_consents(consents, received_at)
        verdicts = self.log.take([event for _, event in events])
        told |= {position: _verdict(position, verdict) for (position, _), verdict in zip(events, verdicts, strict=True)}
        if not self.log.letters.add([letter for _, letter in letters]):
            told |= {position: msgspec.structs.replace(told[position], status="refused") for position, _ in letters}
        taken = sum(each.status in ("kept", "known") for each in told.values())
        return Taken(
            events=[told[position] for position in range(len(sent.events))],
            taken=taken,
            not_taken=len(sent.events) - taken,
            received_at=received_at,
        )

    def take_webhook(self, sent: shopify.Delivery, shop: Shop) -> None:
        """A webhook whose signature holds; kept, in the ledger, or set aside on return. Raises: LogFullError."""
        received_at = self.clock.now()
        try:
            self._take_webhook(sent, shop, received_at)
        except UnreadableError as error:
            self._set_aside(_webhook_letter(sent, error, received_at))

    def take_messages(self, data: bytes, call: str) -> segment.Tracked:
        """Messages of a tracking library. Raises: ProblemError for a body that holds none, LogFullError."""
        received_at, token = self.clock.now(), self._hub.rules.token
        events: list[NewEvent] = []
        letters: list[NewLetter] = []
        for message in segment.unpacked(data, call):
            try:
                events.append(segment.read(message, token, received_at))
            except UnreadableError as error:
                letters.append(_letter(segment.ROUTE, segment.SOURCE_NAME, error, received_at, message))
        most = self.log.bounds.most_events
        verdicts = [verdict for at in range(0, len(events), most) for verdict in self.log.take(events[at : at + most])]
        self._set_aside(*letters)
        kinds = [verdict.kind for verdict in verdicts]
        return segment.Tracked(
            success=True,
            kept=kinds.count("new"),
            known=kinds.count("known"),
            set_aside=len(letters) + kinds.count("conflict"),
        )

    def replay(self, letter_ids: Sequence[int] | None, *, dry_run: bool = False) -> list[Replayed]:
        """Read waiting dead letters again, all of them for None: what is good now is kept. A dry run changes nothing."""
        letters = self.log.letters
        wanted = None if letter_ids is None else set(letter_ids)
        found: list[Replayed] = []
        after = 0
        while page := letters.list("waiting", after):
            after = page[-1].letter_id
            found += [self._replayed(each, dry_run) for each in page if wanted is None or each.letter_id in wanted]
        return found

    def _replayed(self, letter: Letter, dry_run: bool) -> Replayed:
        try:
            event = self._read_again(letter)
            kind = "new" if dry_run or event is None else self.log.take([event])[0].kind
        except UnreadableError as error:
            return Replayed(letter_id=letter.letter_id, outcome="dead", detail=str(error))
        if kind == "conflict":
            return Replayed(letter_id=letter.letter_id, outcome="dead", detail="its id is known with another content.")
        if not dry_run:
            self.log.letters.settle([letter.letter_id], "replayed", self.clock.now())
        outcome: Literal["kept", "known"] = "known" if kind == "known" else "kept"
        return Replayed(letter_id=letter.letter_id, outcome=outcome, detail="would be" if dry_run else "")

    def _read_again(self, letter: Letter) -> NewEvent | None:
        """The event of a letter as it is read today; None where a webhook said nothing but consent. Raises: UnreadableError."""
        payload = self.log.letters.payload(letter.letter_id)
        if letter.route == PLAIN:
            event = plain.read(payload, letter.source_name, letter.received_at)
            if isinstance(event, NewEvent):
                return event
        elif letter.route == segment.ROUTE:
            return segment.read(payload, self._hub.rules.token, letter.received_at)
        elif letter.route.startswith(shopify.ROUTE):
            return self._read_webhook_again(letter, payload)
        elif letter.route == OF_PROJECTOR and letter.event_offset is not None:
            (event,) = self.log.read(letter.event_offset - 1, 1)
            if event.offset == letter.event_offset and not event.is_erased:
                fields = {name: getattr(event, name) for name in NewEvent.__struct_fields__}
                return NewEvent(**fields | {"event_id": f"{event.event_id}#replayed/{letter.letter_id}"})
        raise UnreadableError(
            "letter", "expected one that can be read again, found another. Send it anew, and drop it."
        )

    def _read_webhook_again(self, letter: Letter, payload: bytes) -> NewEvent | None:
        domain = letter.route.partition(":")[2]
        sent = shopify.Delivery(letter.topic, domain, letter.event_id, None, payload)
        if letter.topic in (*shopify.TOPICS, *shopify.CONSENT_TOPICS):
            shop = self.shops.find(domain)
            if shop is not None:
                self._take_said(sent, shop, letter.received_at)
            return shopify.read(sent, letter.received_at) if letter.topic in shopify.TOPICS else None
        raise UnreadableError("topic", "expected one that is known, found another.")

    def _take_webhook(self, sent: shopify.Delivery, shop: Shop, received_at: datetime) -> None:
        if sent.topic in shopify.CONSENT_TOPICS:
            self._take_said(sent, shop, received_at)
            return
        if sent.topic not in shopify.TOPICS:
            raise UnreadableError("topic", "expected one that is known, found another.")
        event = shopify.read(sent, received_at)
        fault: UnreadableError | None = None
        if event.event_type == "customer":
            try:
                self._take_said(sent, shop, received_at)
            except UnreadableError as error:
                fault = error
        self.log.take([event])
        if fault is not None:
            raise fault

    def _take_said(self, sent: shopify.Delivery, shop: Shop, received_at: datetime) -> None:
        """Consent in a webhook's body, into the ledger. Raises: UnreadableError for what cannot be."""
        said = [msgspec.json.encode(each) for each in shopify.consents(sent, shop, received_at)]
        for told in self._take_consents(list(enumerate(said)), received_at).values():
            if told.status == "refused":
                raise UnreadableError(told.field or "consent", told.detail or "")

    def _take_consents(self, said: Sequence[tuple[int, bytes]], received_at: datetime) -> dict[int, Told]:
        """Consent events into the ledger, under a signed checkpoint on return; each bad one is refused by itself."""
        told: dict[int, Told] = {}
        good = []
        for position, raw in said:
            try:
                good.append((position, read_batch(b'{"events":[' + raw + b"]}", self._hub.rules, received_at)[0]))
            except ProblemError as problem:
                first = problem.details.errors[0] if problem.details.errors else None
                told[position] = Told(
                    position=position,
                    status="refused",
                    field=first.field if first else "said",
                    detail=first.detail if first else problem.details.detail,
                )
        if good:
            leaves = self._hub.ledger.append([event for _, event in good])
            for (position, _), leaf in zip(good, leaves, strict=True):
                told[position] = Told(position=position, status="kept", leaf_index=leaf)
        return told

    def _set_aside(self, *letters: NewLetter) -> None:
        if not self.log.letters.add(letters):
            raise LogFullError(_LETTERS_FULL, 60)


class _Tagged(msgspec.Struct):
    event_type: str = ""


def _is_consent(raw: bytes | msgspec.Raw) -> bool:
    """Whether a bad event may be about consent: all that cannot be told apart counts as such where it carries `said`."""
    try:
        return msgspec.json.decode(raw, type=_Tagged).event_type == "consent"
    except msgspec.MsgspecError:
        return b'"said"' in bytes(raw)


def _verdict(position: int, verdict: Verdict) -> Told:
    if verdict.kind == "conflict":
        detail = "expected an id of its own, found one that is known with another content. It is set aside."
        return Told(position=position, status="conflict", offset=verdict.offset, field="event_id", detail=detail)
    return Told(position=position, status=_STATUS[verdict.kind], offset=verdict.offset)


def _unread(position: int, error: UnreadableError, status: Status) -> Told:
    return Told(position=position, status=status, field=error.field, detail=error.detail)


def _letter(route: str, source_name: str, error: UnreadableError, received_at: datetime, payload: bytes) -> NewLetter:
    return NewLetter(
        route=route,
        source_name=source_name,
        reason_code="not_as_described",
        detail=str(error),
        received_at=received_at,
        payload=payload,
    )


def _webhook_letter(sent: shopify.Delivery, error: UnreadableError, received_at: datetime) -> NewLetter:
    letter = _letter(f"{shopify.ROUTE}:{sent.shop_domain}", shopify.SOURCE_NAME, error, received_at, sent.body)
    reason = "unknown_topic" if error.field == "topic" else letter.reason_code
    return msgspec.structs.replace(letter, event_id=sent.event_id, topic=sent.topic, reason_code=reason)
