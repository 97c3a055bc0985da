"""Consent signals from web banner, till tablet, loyalty enrolment and unsubscribe links. Contract and the reader."""

from pathlib import Path

import polars as pl
from msgspec import Struct

from orchestration.sources.contract import Column, Contract, FileKind, Reading, Source
from orchestration.sources.json_lines import Children, Scalar, column, read_json_lines, texts

SIGNALS = Contract(
    table="raw_consent__signals",
    description="What shoppers said about the use of their data. One row per signal, event, purpose and channel.",
    key=("signal_id", "event_type", "purpose_code", "channel_code"),
    columns=(
        Column("signal_id", "text", "Capturing system's id; repeats when sent again.", required=True),
        Column("occurred_at", "timestamp", "Clock of the capturing device.", required=True),
        Column("recorded_at", "timestamp", "Clock of the capturing system.", required=True),
        Column(
            "identifier_type",
            "text",
            "What the person was known by.",
            required=True,
            values=("email", "phone", "card", "account", "device"),
        ),
        Column("identifier", "text", "The identifier itself.", required=True, personal="identifier"),
        Column(
            "subject_id",
            "text",
            "Token of the identifier: the subject.",
            personal="identifier",
            token_of=("@identifier_type", "identifier"),
        ),
        Column(
            "event_type",
            "text",
            "What was said.",
            required=True,
            values=("grant", "refuse", "withdraw", "object", "signal_seen"),
        ),
        Column("purpose_code", "text", "Purpose; `*` for every purpose that rests on consent.", required=True),
        Column("channel_code", "text", "Channel; `*` for every channel.", required=True),
        Column("notice_id", "text", "Notice shown; null where none was."),
        Column("notice_version", "integer", "Its version."),
        Column("language_code", "text", "Language it was shown in."),
        Column(
            "capture_method",
            "text",
            "How: banner_accept, banner_reject, form_tick, one_click_unsubscribe, gpc ...",
            required=True,
        ),
        Column(
            "capture_place",
            "text",
            "Where.",
            required=True,
            values=("web_banner", "till_tablet", "loyalty_enrolment", "unsubscribe_link", "preference_centre"),
        ),
        Column("actor_type", "text", "Who acted.", required=True, values=("subject", "associate", "system")),
        Column("jurisdiction_code", "text", "Law that applies, such as US-CA.", required=True),
    ),
)
CONTRACTS = (SIGNALS,)


class Decision(Struct, gc=False):
    event: Scalar = None
    purpose: Scalar = None
    channel: Scalar = None


class Identifier(Struct, gc=False):
    type: Scalar = None
    value: Scalar = None


class Notice(Struct, gc=False):
    id: Scalar = None
    version: Scalar = None
    language: Scalar = None


class Signal(Struct, gc=False, rename="camel"):
    """One act of a shopper: who, where, under which notice, and what was decided."""

    signal_id: Scalar = None
    occurred_at: Scalar = None
    recorded_at: Scalar = None
    identifier: Identifier | None = None
    place: Scalar = None
    method: Scalar = None
    actor: Scalar = None
    jurisdiction: Scalar = None
    notice: Notice | None = None
    gpc: Scalar = None
    decisions: list[Decision] | None = None


NOBODY, NO_NOTICE = Identifier(), Notice()
# What a browser's Global Privacy Control says by itself, whatever else was decided: an opt-out of sale and sharing.
GPC_SEEN = Decision("signal_seen", "third_party_sharing", "*")


def read_signals(path: Path) -> Reading:
    """Consent signals, one row per decision, and one more for a signal sent with Global Privacy Control on.

    A signal that decides nothing is set aside as `no_decision`; of one with a bad decision, the others land.
    """
    lines = read_json_lines(path, Signal, SIGNALS.table, Children("decisions", Decision, SIGNALS.table))
    offsets: list[int] = []
    signals: list[Signal] = []
    decisions: list[Decision] = []
    for offset, signal in zip(lines.offsets, lines.records, strict=True):
        said = [*(signal.decisions or ()), *((GPC_SEEN,) if _is_on(signal.gpc) else ())]
        if not said:
            lines.rejections.add(SIGNALS.table, offset, "no_decision", "decisions: expected at least one")
        offsets += [offset] * len(said)
        signals += [signal] * len(said)
        decisions += said
    people = [signal.identifier or NOBODY for signal in signals]
    notices = [signal.notice or NO_NOTICE for signal in signals]
    frame = pl.DataFrame(
        {
            "signal_id": texts([s.signal_id for s in signals]),
            "occurred_at": texts([s.occurred_at for s in signals]),
            "recorded_at": texts([s.recorded_at for s in signals]),
            "identifier_type": texts([p.type for p in people]),
            "identifier": texts([p.value for p in people]),
            "event_type": texts([d.event for d in decisions]),
            "purpose_code": texts([d.purpose for d in decisions]),
            "channel_code": texts([d.channel for d in decisions]),
            "notice_id": texts([n.id for n in notices]),
            "notice_version": column([n.version for n in notices]),
            "language_code": texts([n.language for n in notices]),
            "capture_method": texts(
                ["gpc" if d is GPC_SEEN else s.method for s, d in zip(signals, decisions, strict=True)]
            ),
            "capture_place": texts([s.place for s in signals]),
            "actor_type": texts([s.actor for s in signals]),
            "jurisdiction_code": texts([s.jurisdiction for s in signals]),
            "record_offset": pl.Series(offsets, dtype=pl.Int64()),
        }
    )
    return Reading({SIGNALS.table: frame}, lines.rejections)


def _is_on(gpc: Scalar) -> bool:
    """Privacy control in any spelling that means it: the header says 1, the browser's property says true."""
    return gpc is True or gpc == 1 or (isinstance(gpc, str) and gpc.strip().lower() in ("1", "true"))


SOURCE = Source(
    name="consent",
    description="Consent signals from web banner, till tablet, loyalty enrolment and unsubscribe links.",
    contracts=CONTRACTS,
    files=(FileKind("*.jsonl", (SIGNALS.table,), read_signals),),
)
