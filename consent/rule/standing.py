"""May this person's data be used for this purpose, over this channel, at this time? For one person, and for all.

The rule is written in README.md, "The rule of standing"; the numbers in the comments are its steps. Fails closed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import polars as pl

from consent.events import Event, Recorded
from consent.rule.identity import (
    JOINED_SCHEMA,
    LINK_EVENTS,
    PROBABILISTIC,
    PROVED,
    Joined,
    Readable,
    joined,
    joined_frame,
    joined_of,
)
from consent.rule.policy import EVERY, Policy, notices_frame, policy_frame

DENIALS = {
    "refuse": "refused",
    "withdraw": "withdrawn",
    "object": "objected",
    "signal_seen": "gpc",
    "restrict": "restricted",
    "erased": "erased",
    "expire": "expired",
}
ALLOWED = ("granted", "contract", "not_opted_out", "notice_given")
REFUSALS = ("refused", "withdrawn", "objected", "gpc", "restricted", "erased")  # what a person said no with
UNKNOWABLE = ("unknown_purpose", "unknown_channel", "ledger_unreadable")
REASONS = (*ALLOWED, "never_asked", *REFUSALS, "expired", "stale_notice", "unconfirmed", *UNKNOWABLE)
IDENTITIES = ("customer_id", "identity_ref", "link_type", "group_ref")  # what is read of whose identities are whose
GRANTING_LINKS = (*PROVED, PROBABILISTIC)  # within the proved group that `group_ref` names
BY_NOTICE = {"opt_out": "not_opted_out", "notice_only": "notice_given"}
AGREEING = ("grant", "renew", "confirm")  # their `*` means the purposes that rest on consent
HELPING = (*AGREEING, "unrestrict", "notice_shown")  # ranked by the earliest clock, and must cover all that is asked
ALL_REACHING = ("restrict", "erased", "signal_seen")  # whatever purpose and channel they carry
NEVER_COMPLETE = ("stale_notice", "unconfirmed")
EVER_YES = ("granted", "expired")  # reasons of a grant that was complete


@dataclass(frozen=True)
class Standing:
    """The answer, its reason (`REASONS`), since when it stands, when it ends by itself, and the deciding leaf.

    `over_contact`: what it is to somebody linked as a contact, where that is something else: a no that came to the identity over
    one contact passes no other. `is_by_likeness`: a customer's no that is not every group's own, but one's which is only likely to be
    the same person.
    """

    is_allowed: bool
    reason_code: str
    since_at: datetime | None = None
    expires_at: datetime | None = None
    leaf_index: int | None = None
    over_contact: "Standing | None" = field(default=None, compare=False, repr=False)
    is_by_likeness: bool = field(default=False, compare=False, repr=False)


def standing(
    events: Readable | Sequence[Recorded],
    subject_id: str,
    purpose_code: str,
    channel_code: str,
    at: datetime,
    *,
    policy: Policy,
    known_at: datetime | None = None,
    links: Sequence[Joined] | None = None,
) -> Standing:
    """Standing of one subject at a time (aware), from what had been received by `known_at` where that is given.

    A purpose asked as a whole is answered as a whole, whatever the channel. `*` asks for every channel at once.
    `links` is the table of `consent.rule.identity.joined`; without it, the link events among `events` are followed.
    """
    purpose = policy.purposes.get(purpose_code)
    if purpose is None:
        return Standing(False, "unknown_purpose")
    if channel_code != EVERY and channel_code not in (
        policy.channels if EVERY in purpose.channels else purpose.channels
    ):
        return Standing(False, "unknown_channel")
    if purpose.rests_on_contract:
        return Standing(True, "contract")
    asked = _Asked(purpose_code, EVERY if EVERY in purpose.channels else channel_code, at, known_at, policy)
    try:
        return _among_others(events, subject_id, asked, _links(events, subject_id, known_at, links))
    except Exception:  # whatever keeps us from looking, the answer is no
        return Standing(False, "ledger_unreadable")


def merged(standings: Iterable[tuple[str, Standing]]) -> Standing:
    """Step 6: standing of one proved group from (link type, standing) of each of its identities."""
    brought = []
    for link_type, found in standings:
        said = found if link_type in GRANTING_LINKS else found.over_contact or found
        if link_type in GRANTING_LINKS or said.reason_code in REFUSALS or said.reason_code in UNKNOWABLE:
            brought.append(said)
    denied = [found for found in brought if not found.is_allowed and found.reason_code != "never_asked"]
    if denied:
        return max(denied, key=lambda found: (found.reason_code in UNKNOWABLE, *_latest(found)))
    allowed = [found for found in brought if found.is_allowed]
    if not allowed:
        return Standing(False, "never_asked")
    ends = [found.expires_at for found in allowed if found.expires_at is not None]
    return replace(max(allowed, key=_latest), expires_at=min(ends, default=None))


def merged_groups(standings: Iterable[tuple[str | None, str, Standing]]) -> Standing:
    """Step 6: standing of a customer from (group, link type, standing) of each identity: only what every proved group may."""
    groups: dict[str | None, list[tuple[str, Standing]]] = {}
    for group_ref, link_type, found in standings:
        groups.setdefault(group_ref, []).append((link_type, found))
    answers = [merged(group) for group in groups.values()]
    if len(answers) < 2:
        return answers[0] if answers else Standing(False, "never_asked")
    denied = [found for found in answers if not found.is_allowed]
    if not denied:
        ends = [found.expires_at for found in answers if found.expires_at is not None]
        return replace(max(answers, key=_latest), expires_at=min(ends, default=None))
    decided = max(denied, key=_first_no)
    alone = [merged((kind, found.over_contact or found) for kind, found in group) for group in groups.values()]
    is_ones_own = any(not found.is_allowed and found.leaf_index == decided.leaf_index for found in alone)
    return replace(decided, is_by_likeness=is_ones_own and any(found.is_allowed for found in alone))


def _first_no(found: Standing) -> tuple[bool, bool, bool, datetime, int]:
    """Step 6: of several groups' nos, what cannot be known, then a person's, then any other, silence last; the latest of each."""
    reason = found.reason_code
    return (reason in UNKNOWABLE, reason in REFUSALS, reason != "never_asked", *_latest(found))


@dataclass(frozen=True, slots=True)
class _Asked:
    """One question, to every event alike."""

    purpose_code: str
    channel_code: str
    at: datetime
    known_at: datetime | None
    policy: Policy


@dataclass(frozen=True, slots=True)
class _Said:
    """What one event says by itself at the time asked: steps 1 to 4."""

    event_type: str
    ranked_at: datetime
    standing: Standing

    @property
    def rank(self) -> tuple[datetime, int, int]:
        """Step 5: the latest first; at the same instant a person's no, any other no, silence, a yes; then the higher leaf."""
        reason = self.standing.reason_code
        strength = 1 if reason in ALLOWED else 2 if reason == "never_asked" else 4 if reason in REFUSALS else 3
        return (self.ranked_at, strength, -1 if self.standing.leaf_index is None else self.standing.leaf_index)


def _among_others(
    events: Readable | Sequence[Recorded], subject_id: str, asked: _Asked, links: Sequence[Joined]
) -> Standing:
    """Step 6 for one identity: its own word, and the nos of those it is or was joined to."""
    own, nos = _firm(events, subject_id, asked, links)
    shared: dict[str, bool] = {}
    for row in links:
        if row.subject_id == subject_id and row.holds(asked.at):
            shared[row.other_subject_id] = shared.get(row.other_subject_id, False) or row.is_proved
    for other, is_proved in sorted(shared.items()):
        firm = _firm(events, other, asked, links)[1]
        nos += [(no, is_proved and was_proved) for no, was_proved in firm if is_proved or was_proved]
    decided = max((no for no, _ in nos), key=_latest, default=own)
    passing = max((no for no, is_proved in nos if is_proved), key=_latest, default=own)
    return decided if passing == decided else replace(decided, over_contact=passing)


def _firm(
    events: Readable | Sequence[Recorded], subject_id: str, asked: _Asked, links: Sequence[Joined]
) -> tuple[Standing, list[tuple[Standing, bool]]]:
    """An identity's own word, and the nos of persons that nothing said under it has lifted; of each, whether no contact is between."""
    said = _said_by(events, subject_id, asked)
    own = _last_word(said)
    yes_at = max((one.ranked_at for one in said if _was_yes(one)), default=_BEFORE_ALL)
    firm = [(own, True)] if own.reason_code in REFUSALS else []
    for row in links:
        if row.subject_id == subject_id and row.ended(asked.at) and row.unlinked_at is not None:
            heard = _last_word(_said_by(events, row.other_subject_id, asked), row.split_at)
            if heard.reason_code in REFUSALS and yes_at <= max(row.unlinked_at, heard.since_at or _BEFORE_ALL):
                firm.append((heard, row.is_proved))
    return own, firm


def _links(
    events: Readable | Sequence[Recorded], subject_id: str, known_at: datetime | None, links: Sequence[Joined] | None
) -> Sequence[Joined]:
    """The rows of the table of pairs that can matter: the subject's own, and of those it is joined to."""
    if links is not None:
        return links
    if isinstance(events, Sequence):
        return joined(one.event for one in events if known_at is None or one.event.received_at <= known_at)
    return joined_of(events, subject_id, known_at)


def _said_by(events: Readable | Sequence[Recorded], subject_id: str, asked: _Asked) -> list[_Said]:
    """Steps 1 to 4 for every event of a subject that reaches what is asked and counts; what was erased says nothing."""
    found = events if isinstance(events, Sequence) else events.events_of(subject_id)
    heard = [one for one in found if one.event.subject_id == subject_id and _counts(one.event, asked)]
    mine = [one for one in heard if _reaches(one.event, asked)]
    said = [_said(one, mine, asked) for one in mine if one.event.event_type not in ("renew", "confirm")]
    erased_at = max((one.ranked_at for one in said if one.event_type == "erased"), default=_BEFORE_ALL)
    return [one for one in said if one.ranked_at > erased_at or one.event_type == "erased"]


def _last_word(said: Sequence[_Said], until: datetime | None = None) -> Standing:
    """Step 5: which event decides, of those before a time where one is given."""
    if until is not None:
        said = [
            one
            for one in said
            if one.event_type == "erased" or one.ranked_at < until + (_NO_TIME if one.event_type in HELPING else _TICK)
        ]
    restricts = [one for one in said if one.event_type == "restrict"]
    freed_at = max((one.ranked_at for one in said if one.event_type == "unrestrict"), default=_BEFORE_ALL)
    if restricts and max(one.ranked_at for one in restricts) >= freed_at:
        return max(restricts, key=lambda one: one.rank).standing
    nos = [one.ranked_at for one in said if one.standing.reason_code in REFUSALS and one.event_type != "restrict"]
    no_at, yes_at = max(nos, default=None), max((one.ranked_at for one in said if _was_yes(one)), default=_BEFORE_ALL)
    is_refused = no_at is not None and no_at >= yes_at
    speaking = [
        one
        for one in said
        if one.event_type not in ("restrict", "unrestrict", "notice_shown") and not (is_refused and _takes_nothing(one))
    ]
    notices = [one for one in said if one.event_type == "notice_shown"]
    last = max(speaking or notices, key=lambda one: one.rank, default=None)
    return (
        Standing(False, "never_asked") if last is None or last.standing.reason_code == "never_asked" else last.standing
    )


def _was_yes(one: _Said) -> bool:
    return one.event_type == "grant" and one.standing.reason_code in EVER_YES


def _takes_nothing(one: _Said) -> bool:
    """A grant that was never complete and the end of one take back no person's no."""
    return one.event_type == "expire" or (one.event_type == "grant" and one.standing.reason_code in NEVER_COMPLETE)


def _counts(event: Event, asked: _Asked) -> bool:
    """Step 3, and step 1 for what says nothing."""
    if event.event_type in LINK_EVENTS or (event.event_type == "signal_seen" and event.capture_method != "gpc"):
        return False
    return _happened_at(event) <= asked.at and (asked.known_at is None or event.received_at <= asked.known_at)


def _reaches(event: Event, asked: _Asked) -> bool:
    """Step 2: a yes must cover all that is asked; a no need only touch it."""
    if event.event_type == "signal_seen":
        return asked.purpose_code in asked.policy.gpc_purposes
    if event.event_type in ALL_REACHING:
        return True
    if event.purpose_code == EVERY:
        if event.event_type in AGREEING and not asked.policy.purposes[asked.purpose_code].rests_on_consent:
            return False
    elif event.purpose_code != asked.purpose_code:
        return False
    touches = asked.channel_code == EVERY and event.event_type not in HELPING
    return touches or event.channel_code in (asked.channel_code, EVERY)


def _said(recorded: Recorded, mine: Sequence[Recorded], asked: _Asked) -> _Said:
    """Steps 1, 3 and 4: what one event says, among those of its subject that reach and count."""
    event, leaf_index = recorded.event, recorded.leaf_index
    if event.event_type not in HELPING:
        ranked_at = min(event.recorded_at, event.received_at)
        reason = DENIALS.get(event.event_type, "refused")
        return _Said(event.event_type, ranked_at, Standing(False, reason, ranked_at, None, leaf_index))
    since_at = _happened_at(event)
    clock, is_silent = since_at, event.event_type == "notice_shown"
    is_current = asked.policy.is_current(event.notice_id, event.notice_version, of_silence=is_silent)
    days = asked.policy.days(asked.purpose_code, event.jurisdiction_code)
    if event.event_type == "grant":
        clock, is_current = _renewed(event, is_current, days, mine, asked)
        reason = "granted" if _is_confirmed(event, mine, asked) else "unconfirmed"
        reason = reason if is_current else "stale_notice"
    else:
        mechanism = asked.policy.mechanism(asked.purpose_code, event.jurisdiction_code)
        reason = BY_NOTICE.get(mechanism, "never_asked") if is_current else "never_asked"
    expires_at = None if days is None else clock + timedelta(days=days)
    if reason in ALLOWED and expires_at is not None and asked.at >= expires_at:
        reason = "expired"
    is_allowed = reason in ALLOWED
    found = Standing(is_allowed, reason, since_at, expires_at if is_allowed else None, leaf_index)
    return _Said(event.event_type, since_at, found)


def _renewed(
    grant: Event, is_current: bool, days: int | None, mine: Sequence[Recorded], asked: _Asked
) -> tuple[datetime, bool]:
    """The clock of a grant and whether its notice counts: its own, or those of the last renewal that came in time."""
    clock = given_at = _happened_at(grant)
    renewals = [
        (_happened_at(one.event), not asked.policy.is_current(one.event.notice_id, one.event.notice_version))
        for one in mine
        if one.event.event_type == "renew" and _happened_at(one.event) >= given_at
    ]
    for renewed_at, is_stale in sorted(renewals):
        if days is not None and renewed_at >= clock + timedelta(days=days):
            break
        clock, is_current = renewed_at, not is_stale
    return clock, is_current


def _is_confirmed(grant: Event, mine: Sequence[Recorded], asked: _Asked) -> bool:
    """Whether a grant needs no second event, or has it in time."""
    days = asked.policy.confirm_days(asked.purpose_code, asked.channel_code, grant.jurisdiction_code)
    given_at = _happened_at(grant)
    return days is None or any(
        given_at <= _happened_at(one.event) <= given_at + timedelta(days=days)
        for one in mine
        if one.event.event_type == "confirm"
    )


def _happened_at(event: Event) -> datetime:
    return min(event.occurred_at, event.recorded_at, event.received_at)


_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)
_NO_TIME, _TICK = timedelta(0), timedelta(microseconds=1)


def _latest(found: Standing) -> tuple[datetime, int]:
    return (found.since_at or _BEFORE_ALL, -1 if found.leaf_index is None else found.leaf_index)


_ASKED = ["purpose_code", "channel_code"]
_SUBJECT = ["subject_id", *_ASKED]
_GRANT = ["leaf_index", *_ASKED]


def standing_frame(
    events: pl.DataFrame,
    links: pl.DataFrame,
    policy: Policy,
    at: datetime,
    known_at: datetime | None = None,
    together: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Standing of every customer. One row per customer, asked purpose and asked channel, also without any event.

    `events`: columns of `consent.events.SCHEMA`. `links`: customer_id, identity_ref (the subject), link_type, group_ref (the
    hub of its proved group; a customer is one group where the column is missing). `together`: the table of
    `consent.rule.identity.joined_frame`, made from the link events where it is not given.
    Returns customer_id, purpose_code, channel_code, is_allowed, reason_code, since_at, expires_at, leaf_index and
    ledger_size: how much of the ledger was heard, from the first leaf on.
    """
    rules = policy_frame(policy)
    asked = rules.group_by(_ASKED).agg(pl.col("legal_basis").min(), pl.col("is_refused_by_gpc").any())
    judged = judged_frame(events, asked, policy, at, known_at)
    words = _words(judged, joined_frame(events, known_at) if together is None else together, at)
    keys = ["customer_id", *_ASKED]
    decided = _merged_frame(proved_groups(links).select(IDENTITIES), words)
    on_contract = pl.col("legal_basis") == "contract"
    return (
        links.lazy()
        .select("customer_id")
        .unique()
        .join(asked.lazy().drop("is_refused_by_gpc"), how="cross")
        .join(decided.lazy(), on=keys, how="left")
        .with_columns(
            pl.coalesce("is_allowed", on_contract),
            pl.coalesce("reason_code", pl.when(on_contract).then(pl.lit("contract")).otherwise(pl.lit("never_asked"))),
            pl.lit(_decided_under(events, at, known_at), pl.Int64()).alias("ledger_size"),
        )
        .drop("legal_basis")
        .sort(keys)
        .collect()
    )


def _decided_under(events: pl.DataFrame, at: datetime, known_at: datetime | None) -> int:
    """How much of the ledger was heard, from its first leaf on: up to an event that had not happened by then, or was not known.

    Whoever took the whole ledger's size for it would believe that a withdrawal which is not counted yet has been heard.
    """
    if "ledger_size" not in events.columns:
        return 0
    happened_at = pl.min_horizontal("occurred_at", "recorded_at", "received_at")
    is_unheard = happened_at > at if known_at is None else (happened_at > at) | (pl.col("received_at") > known_at)
    sizes = events.select(pl.col("leaf_index").filter(is_unheard).min(), pl.col("ledger_size").max()).row(0)
    return min((int(size) for size in sizes if size is not None), default=0)


def touching(purpose_code: str) -> pl.Expr:
    """The events that can matter to one purpose, with those that say who is whom."""
    is_any = pl.col("event_type").is_in((*ALL_REACHING, *LINK_EVENTS))
    return pl.col("purpose_code").is_in((purpose_code, EVERY)) | is_any


def proved_groups(links: pl.DataFrame) -> pl.DataFrame:
    """Whose identities are whose, with group_ref: where it is missing, a customer's identities are one group.

    But for what is only likely to be the customer's, which never joins that group.
    """
    if "group_ref" in links.columns:
        return links
    is_likely = pl.col("link_type") == PROBABILISTIC
    return links.with_columns(pl.when(is_likely).then("identity_ref").otherwise("customer_id").alias("group_ref"))


def _merged_frame(links: pl.DataFrame, words: pl.DataFrame) -> pl.DataFrame:
    """`merged_groups` for all: one row per customer and pair; none where a group that was never asked decides.

    `links`: `IDENTITIES`. `words`: of `_words`.
    """
    keys, answer = ["customer_id", *_ASKED], ("is_allowed", "reason_code", "since_at", "expires_at", "leaf_index")
    groups = links.select("customer_id", "group_ref").unique().group_by("customer_id").len("groups")
    several = groups.filter(pl.col("groups") > 1)

    def merged_by(keys: list[str], links: pl.LazyFrame) -> pl.LazyFrame:
        return (
            links.join(words.lazy(), left_on="identity_ref", right_on="subject_id")
            .filter(
                pl.col("link_type").is_in(GRANTING_LINKS)
                | (pl.col("reason_code").is_in(REFUSALS) & pl.col("is_proved"))
            )
            .with_columns(pl.col("reason_code").is_in(ALLOWED).alias("is_allowed"))
            .with_columns(pl.col("expires_at").min().over(keys))
            .sort("is_allowed", "since_at", "leaf_index", descending=[False, True, True])
            .unique(keys, keep="first", maintain_order=True)
            .with_columns(pl.when("is_allowed").then("expires_at").alias("expires_at"))
            .select(*keys, *answer)
        )

    if not several.height:
        return merged_by(keys, links.lazy()).collect()
    alone = merged_by(keys, links.lazy().join(several.lazy(), on="customer_id", how="anti"))
    together = (
        merged_by([*keys, "group_ref"], links.lazy().join(several.lazy(), on="customer_id"))
        .join(several.lazy(), on="customer_id")
        .with_columns(
            pl.col("reason_code").is_in(REFUSALS).alias("is_persons_no"),
            pl.len().over(keys).alias("answered"),
            pl.col("expires_at").min().over(keys),
        )
        .sort("is_allowed", "is_persons_no", "since_at", "leaf_index", descending=[False, True, True, True])
        .unique(keys, keep="first", maintain_order=True)
        .filter(~pl.col("is_allowed") | (pl.col("answered") == pl.col("groups")))
        .with_columns(pl.when("is_allowed").then("expires_at").alias("expires_at"))
        .select(*keys, *answer)
    )
    return pl.concat([alone, together]).collect()


def _reached(
    events: pl.DataFrame, asked: pl.DataFrame, policy: Policy, now: pl.Expr, known: pl.Expr | None
) -> pl.LazyFrame:
    """Steps 1 to 3: one row per event that counts and asked pair it reaches, with the terms of its place."""
    names = ["leaf_index", "subject_id", "event_type", *_ASKED, "notice_id", "notice_version", "jurisdiction_code"]
    kind, is_wide = pl.col("event_type"), pl.col("event_type").is_in(ALL_REACHING)
    heard = (
        events.lazy()
        .filter(~kind.is_in(LINK_EVENTS), (kind != "signal_seen") | (pl.col("capture_method") == "gpc"))
        .select(
            *(name for name in names if name not in _ASKED),
            *(pl.when(is_wide).then(pl.lit(EVERY)).otherwise(name).alias(name) for name in _ASKED),
            pl.min_horizontal("occurred_at", "recorded_at", "received_at").alias("happened_at"),
            pl.min_horizontal("recorded_at", "received_at").alias("bounded_at"),
            kind.is_in(HELPING).alias("is_helping"),
            *(() if known is None else ((pl.col("received_at") <= known).alias("is_known"),)),
        )
        .filter(pl.col("happened_at") <= now, *(() if known is None else ("is_known",)))
    )
    pairs = asked.lazy().filter(pl.col("legal_basis") != "contract").rename({"channel_code": "asked_code"})
    everything = (kind != "signal_seen") | pl.col("is_refused_by_gpc")
    agreeable = ~kind.is_in(AGREEING) | (pl.col("legal_basis") == "consent")
    touches = ~pl.col("is_helping") & (pl.col("asked_code") == EVERY)
    by_name = heard.filter(pl.col("purpose_code") != EVERY).join(pairs, on="purpose_code")
    by_every = heard.filter(pl.col("purpose_code") == EVERY).drop("purpose_code").join(pairs, how="cross")
    places = list(policy.jurisdictions)
    return (
        pl.concat([by_name, by_every.filter(everything & agreeable)], how="diagonal")
        .filter((pl.col("channel_code") == pl.col("asked_code")) | (pl.col("channel_code") == EVERY) | touches)
        .with_columns(
            pl.col("asked_code").alias("channel_code"),
            pl.when(pl.col("jurisdiction_code").is_in(places))
            .then("jurisdiction_code")
            .otherwise(pl.lit(EVERY))
            .alias("jurisdiction_code"),
        )
        .drop("asked_code", "legal_basis", "is_refused_by_gpc")
        .join(policy_frame(policy).lazy().drop("legal_basis", "is_refused_by_gpc"), on=[*_ASKED, "jurisdiction_code"])
        .join(notices_frame(policy).lazy(), on="notice_id", how="left")
        .with_columns((pl.col("notice_version") >= _least_version()).fill_null(False).alias("is_current"))
    )


def _least_version() -> pl.Expr:
    """From which version of its notice on an event counts."""
    return pl.when(pl.col("event_type") == "notice_shown").then("silence_version").otherwise("minimum_version")


def judged_frame(
    events: pl.DataFrame, asked: pl.DataFrame, policy: Policy, at: datetime, known_at: datetime | None
) -> pl.DataFrame:
    """Steps 1 to 4 for all: what each event says of each asked pair it reaches, by itself. One row per event and pair.

    `asked`: purpose_code, channel_code, legal_basis, is_refused_by_gpc. Returns subject_id, purpose_code, channel_code,
    event_type, reason_code, since_at, expires_at, leaf_index and strength (which wins at the same instant). What does not
    count then, and what an erasure silenced, has no row.
    """
    now = pl.lit(at.astimezone(UTC), pl.Datetime("us", "UTC"))
    known = None if known_at is None else pl.lit(known_at.astimezone(UTC), pl.Datetime("us", "UTC"))
    reached = _reached(events, asked, policy, now, known)
    kinds = set(events["event_type"].unique())
    kind = pl.col("event_type")
    clock, is_current, is_confirmed = pl.col("happened_at"), pl.col("is_current"), pl.lit(True)
    twice = {place.jurisdiction_code for place in policy.jurisdictions.values() if place.confirm_within_days}
    if "renew" in kinds or EVERY in twice or twice & set(events["jurisdiction_code"].unique()):
        reached = reached.collect().lazy()
        reached = reached.join(_renewals(reached), on=_GRANT, how="left").join(
            _confirmed(reached), on=_GRANT, how="left"
        )
        clock, is_current = pl.coalesce("renewed_at", clock), pl.coalesce("is_renewed_current", is_current)
        is_confirmed = pl.col("confirm_within_days").is_null() | pl.col("is_confirmed").fill_null(False)
    ends_at = clock + pl.duration(days="expires_after_days")
    has_ended = (ends_at <= now).fill_null(False)
    by_notice = pl.col("mechanism").replace_strict(BY_NOTICE, default=None, return_dtype=pl.String())
    reason = (
        pl.when(~pl.col("is_helping"))
        .then(kind.replace_strict(DENIALS, default="refused", return_dtype=pl.String()))
        .when(kind == "unrestrict")
        .then(pl.lit("unrestricted"))
        .when((kind == "notice_shown") & ~(is_current & by_notice.is_not_null()))
        .then(pl.lit("never_asked"))
        .when(~is_current)
        .then(pl.lit("stale_notice"))
        .when((kind == "grant") & ~is_confirmed)
        .then(pl.lit("unconfirmed"))
        .when(has_ended)
        .then(pl.lit("expired"))
        .when(kind == "notice_shown")
        .then(by_notice)
        .otherwise(pl.lit("granted"))
    )
    ranked_at = pl.when("is_helping").then("happened_at").otherwise("bounded_at")
    is_allowed = pl.col("reason_code").is_in(ALLOWED)
    said = reached.filter(~kind.is_in(("renew", "confirm"))).with_columns(reason.alias("reason_code"))
    judged = said.select(
        *_SUBJECT,
        "event_type",
        "reason_code",
        ranked_at.alias("since_at"),
        pl.when(is_allowed).then(ends_at).alias("expires_at"),
        "leaf_index",
        pl.when(is_allowed)
        .then(1)
        .when(pl.col("reason_code") == "never_asked")
        .then(2)
        .when(pl.col("reason_code").is_in(REFUSALS))
        .then(4)
        .otherwise(3)
        .cast(pl.Int8())
        .alias("strength"),
    )
    if "erased" in kinds:
        erased_at = pl.col("since_at").filter(pl.col("event_type") == "erased").max().over(_SUBJECT)
        is_silent = (pl.col("since_at") <= erased_at).fill_null(False) & (pl.col("event_type") != "erased")
        judged = judged.filter(~is_silent)
    return judged.collect()


def _renewals(reached: pl.LazyFrame) -> pl.LazyFrame:
    """Step 4: of every grant that was renewed in time, the last renewal's clock and whether its notice counts."""
    grants = reached.filter(pl.col("event_type") == "grant").select(
        *_GRANT, "subject_id", "happened_at", "expires_after_days"
    )
    renewals = reached.filter(pl.col("event_type") == "renew").select(
        *_SUBJECT, pl.col("happened_at").alias("renewed_at"), pl.col("is_current").alias("is_renewed_current")
    )
    before = pl.col("renewed_at").shift(1).over(_GRANT).fill_null(pl.col("happened_at"))
    is_late = before + pl.duration(days="expires_after_days") <= pl.col("renewed_at")
    return (
        grants.join(renewals, on=_SUBJECT)
        .filter(pl.col("renewed_at") >= pl.col("happened_at"))
        .sort("renewed_at", "is_renewed_current", descending=[False, True])
        .with_columns(is_late.fill_null(False).alias("is_late"))
        .filter(pl.col("is_late").cast(pl.Int32()).cum_sum().over(_GRANT) == 0)
        .group_by(_GRANT, maintain_order=True)
        .agg(pl.col("renewed_at").last(), pl.col("is_renewed_current").last())
    )


def _confirmed(reached: pl.LazyFrame) -> pl.LazyFrame:
    """Step 4: the grants that a second event confirmed in time."""
    confirms = reached.filter(pl.col("event_type") == "confirm").select(
        *_SUBJECT, pl.col("happened_at").alias("confirmed_at")
    )
    in_time = pl.col("happened_at") + pl.duration(days="confirm_within_days")
    return (
        reached.filter(pl.col("event_type") == "grant", pl.col("confirm_within_days").is_not_null())
        .join(confirms, on=_SUBJECT)
        .filter(pl.col("confirmed_at").is_between(pl.col("happened_at"), in_time))
        .select(_GRANT)
        .unique()
        .with_columns(pl.lit(True).alias("is_confirmed"))
    )


def last_words_frame(judged: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Step 5: of the rows of `judged_frame` the one that decides, one per key; none where nothing does.

    `keys`: within which the last word is sought, say subject_id, purpose_code and channel_code.
    """
    kind, since_at = pl.col("event_type"), pl.col("since_at")
    takes_nothing = (kind == "expire") | ((kind == "grant") & pl.col("reason_code").is_in(NEVER_COMPLETE))
    seldom = judged.filter(kind.is_in(("restrict", "unrestrict", "notice_shown")) | takes_nothing).select(keys).unique()
    judged = judged.with_columns(pl.lit(1, pl.Int8()).alias("turn"))
    if seldom.height:
        is_no = (pl.col("strength") == 4) & (kind != "restrict")
        was_yes = (kind == "grant") & pl.col("reason_code").is_in(EVER_YES)
        last = {
            name: since_at.filter(which).max().over(keys)
            for name, which in (
                ("no_at", is_no),
                ("yes_at", was_yes),
                ("restricted_at", kind == "restrict"),
                ("freed_at", kind == "unrestrict"),
            )
        }
        is_refused = pl.col("no_at").is_not_null() & (pl.col("no_at") >= pl.col("yes_at")).fill_null(True)
        is_restricted = (pl.col("restricted_at") >= pl.col("freed_at")).fill_null(True)
        special = (
            judged.join(seldom, on=keys, how="semi", nulls_equal=True)
            .with_columns(**last)
            .filter(kind != "unrestrict", ~(takes_nothing & is_refused), (kind != "restrict") | is_restricted)
            .with_columns(
                pl.when(kind == "restrict")
                .then(0)
                .when(kind == "notice_shown")
                .then(2)
                .otherwise(1)
                .cast(pl.Int8())
                .alias("turn")
            )
            .drop(*last)
        )
        judged = pl.concat([judged.join(seldom, on=keys, how="anti", nulls_equal=True), special])
    return (
        judged.sort("turn", "since_at", "strength", "leaf_index", descending=[False, True, True, True])
        .unique(keys, keep="first", maintain_order=True)
        .filter(pl.col("reason_code") != "never_asked")
        .drop("turn")
    )


def subject_frame(judged: pl.DataFrame, together: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Step 6 for every identity: its own word, and the nos of those it is or was joined to. One row per subject and pair.

    `judged`: of `judged_frame`. `together`: the table of `consent.rule.identity.joined_frame`. Returns subject_id,
    purpose_code, channel_code, reason_code, since_at, expires_at and leaf_index; no row where nobody said anything.
    """
    return _words(judged, together, at).unique(_SUBJECT, keep="first", maintain_order=True).drop("is_proved")


def _words(judged: pl.DataFrame, together: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """`subject_frame` with `is_proved`: whether no contact is between the identity and who said it.

    One row per subject and pair; a second one after it where the first came over a contact and another no did not.
    """
    columns = [*_SUBJECT, "reason_code", "since_at", "expires_at", "leaf_index", "is_proved"]
    own = last_words_frame(judged, _SUBJECT).with_columns(pl.lit(True).alias("is_proved")).select(columns)
    now = pl.lit(at.astimezone(UTC), pl.Datetime("us", "UTC"))
    begun = together.select(list(JOINED_SCHEMA)).filter(pl.col("linked_at") <= now)
    if not begun.height:
        return own
    ended = begun.filter(pl.col("unlinked_at") <= now).rename(
        {"subject_id": "hearer_id", "other_subject_id": "subject_id"}
    )
    is_through = (pl.col("split_at") < pl.col("unlinked_at")).fill_null(False)
    holding = begun.filter((pl.col("unlinked_at") > now).fill_null(True), ~is_through)
    kind, split_at = pl.col("event_type"), pl.col("split_at")
    is_before = (pl.col("since_at") < split_at) | ((pl.col("since_at") == split_at) & ~kind.is_in(HELPING))
    heard = judged.join(ended, on="subject_id").filter(is_before | (kind == "erased"))
    heard = last_words_frame(heard, ["hearer_id", "subject_id", "split_at", "unlinked_at", "is_proved", *_ASKED])
    yes = judged.filter(kind == "grant", pl.col("reason_code").is_in(EVER_YES))
    yes = yes.group_by(_SUBJECT).agg(pl.col("since_at").max().alias("yes_at"))
    is_lifted = pl.col("yes_at") > pl.max_horizontal("unlinked_at", "since_at")
    heard = (
        heard.filter(pl.col("reason_code").is_in(REFUSALS))
        .drop("subject_id")
        .rename({"hearer_id": "subject_id"})
        .join(yes, on=_SUBJECT, how="left")
        .filter(~is_lifted.fill_null(False))
    )
    firm = pl.concat([own.filter(pl.col("reason_code").is_in(REFUSALS)), heard.select(columns)])
    shared = (
        holding.join(firm, left_on="other_subject_id", right_on="subject_id", suffix="_of_no")
        .filter(pl.col("is_proved") | pl.col("is_proved_of_no"))
        .with_columns(pl.col("is_proved") & pl.col("is_proved_of_no"))
        .select(columns)
    )
    nos = (
        pl.concat([firm, shared])
        .sort("since_at", "leaf_index", "is_proved", descending=True)
        .unique([*_SUBJECT, "is_proved"], keep="first", maintain_order=True)
    )
    return pl.concat([nos, own.join(nos, on=_SUBJECT, how="anti")])
