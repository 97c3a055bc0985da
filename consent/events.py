"""The consent event: its fields and its one canonical encoding. What it means is in `standing.py`.

Every text is a code, an id or a token: the grammar has no space and no `@`, and a subject must be a keyed token, so
that contact data cannot slip into a log that never forgets.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import polars as pl

from consent.errors import ConsentError
from consent.log.merkle import canonical

EVENT_TYPES = (
    *("grant", "renew", "confirm", "refuse", "withdraw", "object", "restrict", "unrestrict", "expire"),
    *("notice_shown", "signal_seen", "identity_linked", "identity_unlinked", "erased"),
)
ACTOR_TYPES = ("subject", "associate", "system")
KEY_FIELDS = ("signal_id", "subject_id", "event_type", "purpose_code", "channel_code")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing a subject said, was shown or sent, about one purpose and channel (`*`: all). Times are aware.

    `linked_subject_id` and `link_type` are told by identity events alone; each side of a link has an event of its own.
    """

    subject_id: str
    event_type: str
    purpose_code: str
    channel_code: str
    occurred_at: datetime
    recorded_at: datetime
    received_at: datetime
    notice_id: str | None
    notice_version: int | None
    language_code: str | None
    capture_method: str
    capture_place: str
    actor_type: str
    jurisdiction_code: str
    signal_id: str
    actor_id: str | None = None
    linked_subject_id: str | None = None
    link_type: str | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event and the leaf it has in the ledger."""

    leaf_index: int
    event: Event


FIELDS = tuple(field.name for field in fields(Event))
OPTIONAL = ("actor_id", "linked_subject_id", "link_type")  # a frame may leave these out
TIMES = ("occurred_at", "recorded_at", "received_at")
_CODE = r'"[A-Za-z0-9_.:/*=-]{1,100}"'
_SUBJECT = r'"[a-z]+_[a-z2-7]{22}"'
_TIME = r'"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"'
# Each field's spelling in JSON. No value needs an escape, so text order and JSON order are the same.
_GRAMMAR = {
    "subject_id": _SUBJECT,
    "event_type": f'"(?:{"|".join(EVENT_TYPES)})"',
    "purpose_code": r'"(?:\*|[a-z_]{1,40})"',
    "channel_code": r'"(?:\*|[a-z_]{1,40})"',
    **dict.fromkeys(TIMES, _TIME),
    "notice_id": f"(?:null|{_CODE})",
    "notice_version": r"(?:null|[1-9][0-9]{0,8})",
    "language_code": f"(?:null|{_CODE})",
    "capture_method": _CODE,
    "capture_place": _CODE,
    "actor_type": f'"(?:{"|".join(ACTOR_TYPES)})"',
    "jurisdiction_code": _CODE,
    "signal_id": _CODE,
    "actor_id": f"(?:null|{_CODE})",
    "linked_subject_id": f"(?:null|{_SUBJECT})",
    "link_type": r'(?:null|"[a-z_]{1,40}")',
}
_SORTED = tuple(sorted(FIELDS))
_LINE = r"\{" + ",".join(f'"{name}":{_GRAMMAR[name]}' for name in _SORTED) + r"\}"
_WHOLE = re.compile(_LINE.encode())

SCHEMA: dict[str, pl.DataType] = {
    "leaf_index": pl.Int64(),
    **{name: pl.Datetime("us", "UTC") if name in TIMES else pl.String() for name in FIELDS},
    "notice_version": pl.Int64(),
    "ledger_size": pl.Int64(),
}


def encode(event: Event) -> bytes:
    """Canonical JSON of an event: keys sorted, times in UTC to the microsecond.

    Raises: ConsentError naming the field, never quoting it, when a value is outside the grammar.
    """
    values: dict[str, Any] = {name: getattr(event, name) for name in _SORTED}
    for name in TIMES:
        values[name] = _instant(values[name])
    encoded = canonical(values)
    if not _WHOLE.fullmatch(encoded):
        raise _outside_grammar(encoded.decode())
    return encoded


def encode_frame(frame: pl.DataFrame) -> list[bytes]:
    """`encode` for every row of a frame that has the event's columns, in order.

    Raises: ConsentError naming the first row and its field.
    """
    texts, kept = _texts(frame)
    if not kept.all():
        row = (~kept).arg_true()[0]
        raise ConsentError(f"row {row}: {_outside_grammar(texts[row])}")
    return [text.encode() for text in texts]


def set_aside(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that can be encoded; and of the others `row_number` (from 0) and `detail` (the field, not its value)."""
    texts, kept = _texts(frame)
    rows = (~kept).arg_true()
    details = [str(_outside_grammar(texts[row])) for row in rows]
    aside = pl.DataFrame(
        {"row_number": rows, "detail": details}, schema={"row_number": pl.Int64(), "detail": pl.String()}
    )
    return frame.filter(kept), aside


def _texts(frame: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Each row as canonical JSON, and whether the grammar allows it."""
    missing = [name for name in FIELDS if name not in frame.columns and name not in OPTIONAL]
    if missing:
        raise ConsentError(
            f"consent events: expected columns {', '.join(FIELDS)}, found none for {', '.join(missing)}. Add them."
        )
    rows = frame.select(
        pl.col(name).dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
        if name in TIMES
        else pl.col(name)
        if name in frame.columns
        else pl.lit(None, pl.String()).alias(name)
        for name in _SORTED
    )
    texts = rows.select(pl.struct(_SORTED).struct.json_encode().alias("event")).to_series()
    if all(_fits(rows[name], name).all() for name in _SORTED):
        return texts, pl.repeat(True, frame.height, eager=True)
    return texts, texts.str.contains(f"^{_LINE}$")


def _fits(column: pl.Series, name: str) -> pl.Series:
    """Whether each different value of a column is one the grammar allows: codes repeat, so few are looked at."""
    spelled = column.unique().cast(pl.String)
    if column.dtype == pl.String:
        spelled = '"' + spelled + '"'
    return spelled.fill_null("null").str.contains(f"^{_GRAMMAR[name]}$")


def decode(encoded: bytes) -> Event:
    """The event of its canonical bytes."""
    values = json.loads(encoded)
    for name in TIMES:
        values[name] = datetime.fromisoformat(values[name])
    return Event(**values)


def decode_frame(encoded: Sequence[bytes], leaves: Sequence[int], ledger_size: int) -> pl.DataFrame:
    """Events as rows in the shape of the raw table `consent_ledger` (`SCHEMA`), each with its leaf."""
    texts = {name: pl.Int64() if name == "notice_version" else pl.String() for name in FIELDS}
    if not encoded:
        return pl.DataFrame(schema=SCHEMA)
    return pl.read_ndjson(b"\n".join(encoded), schema=texts).select(
        pl.Series("leaf_index", leaves, pl.Int64()),
        *(
            pl.col(name).str.to_datetime("%Y-%m-%dT%H:%M:%S%.6fZ", time_unit="us", time_zone="UTC")
            if name in TIMES
            else pl.col(name)
            for name in FIELDS
        ),
        pl.lit(ledger_size, pl.Int64()).alias("ledger_size"),
    )


def _instant(at: datetime) -> str:
    if at.tzinfo is None:
        return ""
    text = at.isoformat(timespec="microseconds")
    if not text.endswith("+00:00"):
        text = at.astimezone(UTC).isoformat(timespec="microseconds")
    return text[:-6] + "Z"


def _outside_grammar(text: str) -> ConsentError:
    values = json.loads(text)
    name = next(
        (name for name in FIELDS if not re.fullmatch(_GRAMMAR[name].encode(), canonical(values.get(name)))), "record"
    )
    return ConsentError(
        f"consent event field {name}: expected {_GRAMMAR.get(name, 'the fields of an event').replace('(?:', '(')}, "
        "found something else. Correct the capturing system's value."
    )
