"""Consent signals as they are captured: cookie banner, till tablet, loyalty enrolment, unsubscribe links. JSON lines."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from simulator.landing import Kind, Landing, cut_short, spoiled
from simulator.people import People, leans
from simulator.spelling import json_lines, moments

TABLE = "raw_consent__signals"
_YESTERDAY = spoiled(r'"occurredAt":"[^"]*"', '"occurredAt":"yesterday"')


def _undated(signal: str) -> str | None:
    """Only signals of one decision, so that one row is lost."""
    return _YESTERDAY(signal) if signal.count('"event":') == 1 else None


GARBLERS = ((TABLE, cut_short), (TABLE, _undated))
KIND = Kind("consent", TABLE, GARBLERS, may_wait=True)
BULK = Kind("consent", TABLE, GARBLERS)
# (purpose, channel): what each place asks, and how readily people agree.
BANNER = (
    ("analytics", "*", 0.70),
    ("personalization", "*", 0.62),
    ("model_training", "*", 0.48),
    ("third_party_sharing", "*", 0.30),
)
ENROLMENT = (
    ("profile_unification", "*", 0.82),
    ("personalization", "*", 0.72),
    ("model_training", "*", 0.58),
    ("marketing", "email", 0.66),
    ("marketing", "sms", 0.36),
    ("marketing", "post", 0.45),
)
TABLET = (("marketing", "email", 0.72), ("marketing", "sms", 0.45), ("profile_unification", "*", 0.70))
BANNER_RENEWED = 30  # day from which version 2 of the banner is shown
LANGUAGES = ("en", "es")


def agrees(people: People, person: np.ndarray, purpose: str, channel: str, ease: float) -> np.ndarray:
    """Whether each person says yes: the same answer to the same question wherever it is asked, mostly."""
    stream = 900 + sum(map(ord, purpose + channel))
    return np.asarray(leans(people, person, stream) * 0.5 + people.wariness[person] * 0.5 < ease)


def _decisions(
    people: People, person: np.ndarray, questions: Sequence[tuple[str, str, float]], refusing: str = "refuse"
) -> pl.Series:
    """List of decisions of each person, as structs."""
    answers = [
        pl.struct(
            event=pl.when(pl.Series(agrees(people, person, purpose, channel, ease)))
            .then(pl.lit("grant"))
            .otherwise(pl.lit(refusing)),
            purpose=pl.lit(purpose),
            channel=pl.lit(channel),
        )
        for purpose, channel, ease in questions
    ]
    return pl.select(pl.concat_list(answers)).to_series()


def _signals(
    people: People, person: np.ndarray, at: np.ndarray, first_number: int, identifier_type: str | pl.Series, identifier: pl.Series,
    place: str | pl.Series, method: str | pl.Series, actor: str, notice: pl.Expr, decisions: pl.Series, gpc: pl.Expr | None = None,
) -> pl.Series:  # fmt: skip
    columns: dict[str, str | pl.Series | pl.Expr] = {
        "signalId": pl.concat_str(
            [
                pl.lit("sig-"),
                pl.Series(np.arange(first_number, first_number + len(person))).cast(pl.String).str.zfill(10),
            ]
        ),
        "occurredAt": moments(at),
        "recordedAt": moments(at + 2),
        "identifier": pl.struct(type=_expression(identifier_type), value=identifier),
        "place": _expression(place),
        "method": _expression(method),
        "actor": pl.lit(actor),
        "jurisdiction": pl.concat_str([pl.lit("US-"), people.text("region", person)]),
        "notice": notice,
        "gpc": pl.lit(None, pl.Boolean) if gpc is None else gpc,
        "decisions": decisions,
    }
    lines = json_lines(pl.select([_expression(value).alias(name) for name, value in columns.items()]))
    return lines.str.replace('"gpc":null,', "", literal=True)


def _expression(value: str | pl.Series | pl.Expr) -> pl.Expr:
    return value if isinstance(value, pl.Expr) else pl.lit(value)


def _notice(name: str, version: int, person: np.ndarray) -> pl.Expr:
    language = pl.Series(LANGUAGES)[(person % 11 == 0).astype(np.int64)]
    return pl.struct(id=pl.lit(name), version=pl.lit(version), language=language)


def banner(
    people: People, person: np.ndarray, device: np.ndarray, at: np.ndarray, day: int, first_number: int
) -> pl.Series:
    """First sight of a device: the banner's answers; with Global Privacy Control the browser says so too."""
    decisions = _decisions(people, person, BANNER)
    eager = pl.Series(people.wariness[person] < 0.5)
    method = pl.select(pl.when(eager).then(pl.lit("banner_accept")).otherwise(pl.lit("banner_reject"))).to_series()
    gpc = pl.when(pl.Series(people.has_gpc[person])).then(True)
    version = 1 if day < BANNER_RENEWED else 2
    return _signals(
        people, person, at, first_number, "device", people.devices(person, device), "web_banner", method, "subject",
        _notice("web_banner", version, person), decisions, gpc,
    )  # fmt: skip


def enrolment(people: People, person: np.ndarray, at: np.ndarray, first_number: int) -> pl.Series:
    """The loyalty form, under the card it issued."""
    return _signals(
        people, person, at, first_number, "card", people.text("card", person), "loyalty_enrolment", "form_tick", "subject",
        _notice("loyalty_terms", 1, person), _decisions(people, person, ENROLMENT),
    )  # fmt: skip


def tablet(people: People, person: np.ndarray, at: np.ndarray, first_number: int) -> pl.Series:
    """Asked at the till: members by card, others by e-mail or phone, entered by an associate."""
    kind = np.where(people.member_day[person] < 0, 0, 1 + person % 2)
    values = [people.text(column, person) for column in ("card", "email", "phone")]
    value = pl.select(
        pl.when(pl.Series(kind == 0)).then(values[0]).when(pl.Series(kind == 1)).then(values[1]).otherwise(values[2])
    ).to_series()
    return _signals(
        people, person, at, first_number, pl.Series(["card", "email", "phone"])[kind], value, "till_tablet", "associate_entry",
        "associate", _notice("till_tablet", 1, person), _decisions(people, person, TABLET),
    )  # fmt: skip


def unsubscribe(
    people: People, person: np.ndarray, at: np.ndarray, first_number: int, is_broad: np.ndarray
) -> pl.Series:
    """One click in an e-mail withdraws e-mail marketing; in the preference centre some withdraw all of it and object to profiling."""
    narrow = [{"event": "withdraw", "purpose": "marketing", "channel": "email"}]
    broad = [
        {"event": "withdraw", "purpose": "marketing", "channel": "*"},
        {"event": "object", "purpose": "personalization", "channel": "*"},
        {"event": "withdraw", "purpose": "model_training", "channel": "*"},
    ]
    decisions = pl.Series([broad if wide else narrow for wide in is_broad])
    wide = pl.Series(is_broad)
    place = pl.select(pl.when(wide).then(pl.lit("preference_centre")).otherwise(pl.lit("unsubscribe_link"))).to_series()
    method = pl.select(
        pl.when(wide).then(pl.lit("preference_form")).otherwise(pl.lit("one_click_unsubscribe"))
    ).to_series()
    notice = pl.when(wide).then(_notice("preference_centre", 1, person))
    return _signals(
        people,
        person,
        at,
        first_number,
        "email",
        people.text("email", person),
        place,
        method,
        "subject",
        notice,
        decisions,
    )


def write(landing: Landing, day: int, place: str, lines: Sequence[pl.Series]) -> None:
    """The day's signals of one capturing place."""
    found = [part for part in lines if len(part)]
    records = pl.concat(found) if found else pl.Series([], dtype=pl.String)
    landing.write_records(KIND, day, f"{place}_{landing.date(day)}.jsonl", records)
