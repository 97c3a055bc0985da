"""What the ledger measures: how many of those asked said yes, to what, where and under which notice; how soon a no is heard.

All of it is counted from the ledger's own events by the rule of standing, and reconciled to it leaf by leaf. A unit is one
answer: one subject, one purpose, one asked channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import polars as pl

from consent.errors import ConsentError
from consent.rule.identity import LINK_EVENTS, joined_frame
from consent.rule.policy import EVERY, Policy, policy_frame
from consent.rule.standing import (
    ALLOWED,
    GRANTING_LINKS,
    IDENTITIES,
    REFUSALS,
    judged_frame,
    last_words_frame,
    proved_groups,
    standing_frame,
    subject_frame,
)
from consent.suppression import hidden_cells

DIMENSIONS = ("purpose_code", "channel_code", "notice_id", "notice_version", "capture_place")
LEAST_PEOPLE = 10
MEASURES = ("asked", "yes", "standing", "lapsed", "no", *REFUSALS, "unanswered")
TAKING_BACK = ("withdraw", "object", "restrict", "erased")
_QUESTION = ("purpose_code", "channel_code")
_PAIR = ["subject_id", *_QUESTION]
_ASKS = ("grant", "refuse", "notice_shown")
_SILENT = (*LINK_EVENTS, "renew", "confirm", "unrestrict")
_SUMS = {"asked": ("yes", "no", "unanswered"), "yes": ("standing", "lapsed"), "no": REFUSALS}
_Z = 1.959963984540054  # of a 95 % interval
_KNOWN_BY = {
    "consumer": pl.String(),
    "purpose_code": pl.String(),
    "ledger_size": pl.Int64(),
    "acted_at": pl.Datetime("us", "UTC"),
}
USES_SCHEMA = _KNOWN_BY
DELIVERIES_SCHEMA = {"consumer": pl.String(), "leaf_index": pl.Int64(), "acted_at": pl.Datetime("us", "UTC")}


@dataclass(frozen=True)
class Measured:
    """The answers that count at a time, and what every leaf of the ledger is to them.

    `answers`: one row per answer, placed where the subject was asked last: `outcome` is one of `MEASURES`, `rests_on` its leaf.
    `control`: every leaf in one row, by event type, purpose, channel, outcome and, where it says nothing, why.
    """

    answers: pl.DataFrame
    control: pl.DataFrame
    judged: pl.DataFrame

    def rates(self, by: Sequence[str] = _QUESTION, least: int = LEAST_PEOPLE) -> pl.DataFrame:
        """Asked, yes, no by kind, still standing, and the rate of yes with its 95 % interval (E. B. Wilson, 1927), per cell.

        `by`: some of `DIMENSIONS`. With others than purpose and channel among them each purpose and channel has a row of
        its sum too (`is_total`). Null where too few people are in a cell, or would be found out. Raises: ConsentError
        where the cells do not add up to the answers.
        """
        return _cells(self.answers, _dimensions(by), least, has_totals=True)

    def weekly(self, by: Sequence[str] = _QUESTION, least: int = LEAST_PEOPLE) -> pl.DataFrame:
        """`rates` of those asked in each week (from Monday, UTC), by what they had said at its end."""
        judged = self.judged.with_columns(pl.col("since_at").dt.truncate("1w").dt.date().alias("week"))
        keys = [*_PAIR, "week"]
        asked = _answers(judged, last_words_frame(judged, keys), keys).with_columns(
            pl.when(pl.col("outcome") == "yes").then(pl.lit("standing")).otherwise("outcome").alias("outcome")
        )
        found = _cells(asked, ["week", *_dimensions(by)], least, has_totals=False)
        return found.drop("standing", "lapsed", "is_total")


def measure(
    events: pl.DataFrame,
    policy: Policy,
    at: datetime,
    ledger_size: int,
    destroyed_count: int = 0,
    known_at: datetime | None = None,
    links: pl.DataFrame | None = None,
) -> Measured:
    """Count every answer at a time, from what was known by `known_at`, and every leaf.

    `events`: the ledger's frame. `destroyed_count`: its leaves that cannot be opened, counted by themselves. `links`
    (customer_id, identity_ref, link_type, group_ref): with them a yes stands only where it stands for the identity's customers.
    Raises: ConsentError with both numbers where a leaf is counted twice or not at all.
    """
    _refuse_other("leaves", ledger_size, events["leaf_index"].n_unique() + destroyed_count)
    events = events.sort("leaf_index")
    asked = policy_frame(policy).group_by(_QUESTION).agg(
        pl.col("legal_basis").min(), pl.col("is_refused_by_gpc").any()
    )  # fmt: skip
    judged = judged_frame(events, asked, policy, at, known_at).join(
        events.select("leaf_index", *DIMENSIONS[2:]), on="leaf_index"
    )
    words = last_words_frame(judged, _PAIR)
    answers = _answers(judged, words, _PAIR)
    answers = _standing_now(answers, judged, events, policy, at, known_at, links)
    unsilenced = judged
    if (events["event_type"] == "erased").any():
        unsilenced = judged_frame(events.filter(pl.col("event_type") != "erased"), asked, policy, at, known_at)
    control = _control(events, answers, judged, words, unsilenced, destroyed_count, at, known_at)
    _refuse_other("leaves in the control table", ledger_size, int(control["leaves"].sum()))
    _refuse_other("answers that leaves account for", answers.height, int(control["answers"].sum()))
    return Measured(answers, control, judged)


def _answers(judged: pl.DataFrame, words: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """One row per key that was asked: where it was asked last, what was said, and the leaf that says so. `words`: the last."""
    kind, leaf = pl.col("event_type"), pl.col("leaf_index")
    decided = words.select(*keys, "reason_code", leaf.alias("decided_by"))
    is_answer = kind != "notice_shown"
    asks = (
        judged.lazy()
        .filter(kind.is_in(_ASKS))
        .drop("reason_code")
        .join(decided.lazy(), on=keys, how="left")
        .with_columns(is_answer.alias("is_answer"), (is_answer & (leaf == pl.col("decided_by"))).alias("decides"))
        .sort("is_answer", "decides", "since_at", "strength", "leaf_index", descending=True, nulls_last=True)
        .unique(keys, keep="first", maintain_order=True)
        .collect()
    )
    is_no = pl.col("reason_code").is_in(REFUSALS).fill_null(False)
    return asks.select(
        *keys,
        *DIMENSIONS[2:],
        pl.when(is_no)
        .then("reason_code")
        .when(kind == "grant")
        .then(pl.lit("yes"))
        .when(kind == "refuse")
        .then(pl.lit("refused"))
        .otherwise(pl.lit("unanswered"))
        .alias("outcome"),
        pl.when(is_no).then("decided_by").otherwise(leaf).alias("rests_on"),
    )


def _standing_now(
    answers: pl.DataFrame,
    judged: pl.DataFrame,
    events: pl.DataFrame,
    policy: Policy,
    at: datetime,
    known_at: datetime | None,
    links: pl.DataFrame | None,
) -> pl.DataFrame:
    """Each yes as `standing` or `lapsed`, by the whole rule: ended, stale, unconfirmed, or somebody's no who is the same person."""
    together = joined_frame(events, known_at)
    stands = subject_frame(judged.drop(DIMENSIONS[2:]), together, at).select(
        *_PAIR, pl.col("reason_code").is_in(ALLOWED).alias("is_allowed")
    )
    is_yes = pl.col("outcome") == "yes"
    told = answers.join(stands, on=_PAIR, how="left", maintain_order="left")
    if links is not None:
        known = proved_groups(links).select(IDENTITIES)
        is_heard = pl.col("identity_ref").is_in(judged["subject_id"].unique().implode())
        is_grouped = pl.col("group_ref").n_unique().over("customer_id") > 1  # where silence is a no as well
        several = known.filter(is_heard | is_grouped).filter(
            (pl.len().over("customer_id") > 1) | ~pl.col("link_type").is_in(GRANTING_LINKS)
        )
        refused = (
            standing_frame(events, several, policy, at, known_at, together)
            .filter(~pl.col("is_allowed"))
            .join(several.select("customer_id", "identity_ref"), on="customer_id")
            .select(pl.col("identity_ref").alias("subject_id"), *_QUESTION, pl.lit(True).alias("is_refused"))
            .unique()
        )
        told = told.join(refused, on=_PAIR, how="left", maintain_order="left").with_columns(
            pl.col("is_allowed") & pl.col("is_refused").is_null()
        ).drop("is_refused")  # fmt: skip
    now = pl.when("is_allowed").then(pl.lit("standing")).otherwise(pl.lit("lapsed"))
    return told.with_columns(pl.when(is_yes).then(now).otherwise("outcome").alias("outcome")).drop("is_allowed")


def _control(
    events: pl.DataFrame,
    answers: pl.DataFrame,
    judged: pl.DataFrame,
    words: pl.DataFrame,
    unsilenced: pl.DataFrame,
    destroyed_count: int,
    at: datetime,
    known_at: datetime | None,
) -> pl.DataFrame:
    """Every leaf once, by what it is to the answers; the first reason of a leaf counts."""
    leaf, kind = pl.col("leaf_index"), pl.col("event_type")
    is_yes = pl.col("outcome").is_in(("standing", "lapsed"))
    rests = answers.group_by(pl.col("rests_on").alias("leaf_index")).agg(
        pl.len().cast(pl.Int64).alias("answers"),
        pl.when(is_yes).then(pl.lit("yes")).when(pl.col("outcome") == "unanswered").then(pl.lit("asked"))
        .otherwise(pl.lit("no")).max().alias("outcome"),
    )  # fmt: skip
    unasked = words.join(answers, on=_PAIR, how="anti")["leaf_index"]
    happened = pl.min_horizontal("occurred_at", "recorded_at", "received_at")
    is_later, is_unknown = happened > at, pl.lit(False) if known_at is None else pl.col("received_at") > known_at
    why = (
        pl.when(pl.col("answers").is_not_null())
        .then(None)
        .when(is_later)
        .then(pl.lit("later"))
        .when(is_unknown)
        .then(pl.lit("not_known_then"))
        .when(kind.is_in(_SILENT) | ((kind == "signal_seen") & (pl.col("capture_method") != "gpc")))
        .then(pl.lit("says_nothing"))
        .when(leaf.is_in(unsilenced["leaf_index"].implode()) & ~leaf.is_in(judged["leaf_index"].implode()))
        .then(pl.lit("silenced"))
        .when(~leaf.is_in(judged["leaf_index"].implode()))
        .then(pl.lit("not_asked_for"))
        .when(leaf.is_in(unasked.implode()))
        .then(pl.lit("unasked"))
        .otherwise(pl.lit("overtaken"))
    )
    told = (
        events.join(rests, on="leaf_index", how="left")
        .with_columns(
            why.alias("why"), pl.col("outcome").fill_null("nothing"), pl.col("answers").fill_null(0).alias("answers")
        )
        .group_by("event_type", *_QUESTION, "outcome", "why")
        .agg(pl.len().cast(pl.Int64).alias("leaves"), pl.col("answers").sum())
        .sort("event_type", *_QUESTION, "outcome", "why", nulls_last=True)
    )
    gone = pl.DataFrame({"outcome": "destroyed", "leaves": destroyed_count, "answers": 0})
    return pl.concat([told, gone], how="diagonal") if destroyed_count else told


def _cells(answers: pl.DataFrame, by: list[str], least: int, *, has_totals: bool) -> pl.DataFrame:
    """Counts per cell, small ones hidden, with rates."""
    outcome = pl.col("outcome")
    parts = {
        "asked": pl.lit(True),
        "yes": outcome.is_in(_SUMS["yes"]),
        "no": outcome.is_in(REFUSALS),
        **{name: outcome == name for name in ("standing", "lapsed", *REFUSALS, "unanswered")},
    }
    flagged = answers.with_columns(parts[name].alias(name) for name in MEASURES)
    counted = [pl.col(name).sum().cast(pl.Int64) for name in MEASURES]
    people = [pl.col("subject_id").filter(name).n_unique().cast(pl.Int64).alias(f"{name}_people") for name in MEASURES]
    block = [name for name in by if name in _QUESTION]
    cells = flagged.group_by(by).agg(*counted, *people).with_columns(pl.lit(False).alias("is_total"))
    _refuse_other("answers in the cells", answers.height, int(cells["asked"].sum()))
    if has_totals and len(block) < len(by):
        whole = flagged.group_by(block) if block else flagged.group_by(pl.lit(1).alias("_"))
        totals = whole.agg(*counted, *people).drop("_", strict=False).with_columns(pl.lit(True).alias("is_total"))
        cells = pl.concat([cells, totals], how="diagonal_relaxed")
    else:
        block = by
    cells = cells.sort("is_total", *by, nulls_last=True)
    blocks = cells.partition_by(block, maintain_order=True) if block else [cells]
    hidden = [_hidden(rows, least) for rows in blocks if rows.height]
    return _with_rates(
        pl.concat([cells.clear().drop(_people()), *hidden]).sort(*block, "is_total", *by, nulls_last=True)
    )


def _hidden(rows: pl.DataFrame, least: int) -> pl.DataFrame:
    """The rows of one block with nulls where nothing may be shown."""
    at = {name: number for number, name in enumerate(MEASURES)}
    mask = hidden_cells(
        rows.select(MEASURES).to_numpy(),
        rows.select(_people()).to_numpy(),
        {at[whole]: [at[part] for part in parts] for whole, parts in _SUMS.items()},
        least,
        has_total=bool(rows["is_total"].any()),
    )
    shown = [
        pl.when(pl.Series(~mask[:, number])).then(pl.col(name)).alias(name) for number, name in enumerate(MEASURES)
    ]
    return rows.with_columns(shown).drop(_people())


def _people() -> list[str]:
    return [f"{name}_people" for name in MEASURES]


def _with_rates(cells: pl.DataFrame) -> pl.DataFrame:
    """Wilson's score interval for yes out of asked."""
    asked = pl.when(pl.col("asked") > 0).then(pl.col("asked"))
    rate = pl.col("yes") / asked
    width = 1 + _Z**2 / asked
    middle = (rate + _Z**2 / (2 * asked)) / width
    spread = _Z * ((rate * (1 - rate) + _Z**2 / (4 * asked)) / asked).sqrt() / width
    return cells.with_columns(
        rate.round(4).alias("rate"),
        (middle - spread).clip(0, 1).round(4).alias("rate_low"),
        (middle + spread).clip(0, 1).round(4).alias("rate_high"),
    )


def _dimensions(by: Sequence[str]) -> list[str]:
    odd = [name for name in by if name not in DIMENSIONS]
    if odd or len({*by}) < len(by):
        raise ConsentError(
            f"rates: expected some of {', '.join(DIMENSIONS)}, each once, found {', '.join(by)}. Correct them."
        )
    return [name for name in DIMENSIONS if name in by]


def _refuse_other(what: str, expected: int, found: int) -> None:
    if expected != found:
        raise ConsentError(
            f"measures, {what}: expected {expected}, found {found}. Do not publish them: run `troth audit verify`."
        )


def propagation(
    events: pl.DataFrame, policy: Policy, signed: pl.DataFrame, uses: pl.DataFrame, deliveries: pl.DataFrame
) -> pl.DataFrame:
    """How long after a person took something back each consumer acted on it. One row per consumer, the ledger's stages first.

    `signed`: size and signed_at of every checkpoint. `uses`: consumer, purpose_code, ledger_size, acted_at of every use that says
    what it was decided under; it acts on what its ledger held. `deliveries`: consumer, leaf_index, acted_at (null: not yet).
    Seconds run from when the capturing system, or we, had it, whichever was first (step 3). `late_uses`: uses that were decided
    without a no that a signed checkpoint covered by then.
    """
    is_gpc = (pl.col("event_type") == "signal_seen") & (pl.col("capture_method") == "gpc")
    nos = (
        events.lazy()
        .filter(pl.col("event_type").is_in(TAKING_BACK) | is_gpc)
        .with_columns(
            pl.min_horizontal("recorded_at", "received_at").alias("said_at"),
            (pl.col("leaf_index") + 1).alias("size"),
            is_gpc.alias("is_gpc"),
        )
        .sort("leaf_index")
        .collect()
        .join_asof(signed.select("size", "signed_at").sort("size"), on="size", strategy="forward")
    )
    stages = [
        ("device to capturing system", pl.col("recorded_at"), pl.col("occurred_at")),
        ("capturing system to receipt", pl.col("received_at"), pl.col("said_at")),
        ("receipt to signed checkpoint", pl.col("signed_at"), pl.col("received_at")),
        ("all, to signed checkpoint", pl.col("signed_at"), pl.col("said_at")),
    ]
    rows = [_taken(nos.select(said_at=since, acted_at=until), name, "ledger") for name, until, since in stages]
    for (consumer, purpose_code), mine in uses.sort("consumer", "purpose_code").group_by(
        "consumer", "purpose_code", maintain_order=True
    ):
        heard = nos.filter(_touches(str(purpose_code), policy))
        rows.append(_by_use(heard, mine, str(consumer)))
    for (consumer,), mine in deliveries.sort("consumer").group_by("consumer", maintain_order=True):
        told = nos.select("leaf_index", "said_at").join(mine.drop("consumer"), on="leaf_index")
        rows.append(_taken(told, str(consumer), "webhook"))
    return pl.concat(rows)


def _touches(purpose_code: str, policy: Policy) -> pl.Expr:
    """Whether a no is about a purpose; the channel is not looked at."""
    everything = pl.col("event_type").is_in(("restrict", "erased"))
    by_signal = pl.col("is_gpc") & pl.lit(purpose_code in policy.gpc_purposes)
    return everything | by_signal | (~pl.col("is_gpc") & pl.col("purpose_code").is_in((purpose_code, EVERY)))


def _by_use(nos: pl.DataFrame, uses: pl.DataFrame, consumer: str) -> pl.DataFrame:
    """The first use decided under a ledger that held the no."""
    first = uses.sort("ledger_size").select(
        pl.col("ledger_size").alias("size"), pl.col("acted_at").cum_min(reverse=True)
    )
    told = nos.join_asof(first.unique("size", keep="first", maintain_order=True), on="size", strategy="forward")
    covered = nos["signed_at"].fill_null(datetime.max.replace(tzinfo=UTC)).to_numpy()
    by_then = np.searchsorted(covered, uses["acted_at"].to_numpy(), side="right")
    sizes = np.concatenate([[0], nos["size"].to_numpy()])
    late = int((sizes[by_then] > uses["ledger_size"].to_numpy()).sum())
    return _taken(told, consumer, "use").with_columns(pl.lit(late, pl.Int64).alias("late_uses"))


def _taken(told: pl.DataFrame, consumer: str, kind: str) -> pl.DataFrame:
    seconds = (pl.col("acted_at") - pl.col("said_at")).dt.total_microseconds() / 1e6
    waiting = pl.col("said_at").filter(pl.col("acted_at").is_null())
    return told.select(
        pl.lit(consumer).alias("consumer"),
        pl.lit(kind).alias("kind"),
        pl.col("acted_at").count().cast(pl.Int64).alias("acted"),
        waiting.len().cast(pl.Int64).alias("not_yet"),
        seconds.quantile(0.5, "lower").round(6).alias("p50_seconds"),
        seconds.quantile(0.99, "higher").round(6).alias("p99_seconds"),
        seconds.max().round(6).alias("longest_seconds"),
        waiting.min().alias("waiting_since_at"),
        pl.lit(None, pl.Int64).alias("late_uses"),
    )
