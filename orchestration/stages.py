"""What the steps between the rooms do, without Dagster: consents into the ledger, contacts into the vault, features online, models.

Each function is handed the home and says what it did; the assets give it a name, an upstream and checks.
"""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from orchestration import taking
from orchestration.catalog import contracts
from orchestration.errors import NOTHING_READABLE, STEP_FAILED, RunError
from orchestration.raw import raw_rows, write_table
from serving.operations.runs import BeliefRow, FeatureRow, IdentityRow, LedgerRow, ModelRow, SegmentRow
from troth.clock import Clock
from troth.home import Home

if TYPE_CHECKING:
    from consent.ledger.ledger import Ledger

Advance = Callable[[str, int, int], None]
CONSENTS_PER_CHECKPOINT = 10_000


def append_consents(home: Home, clock: Clock, advance: Advance) -> LedgerRow:
    """Append to the ledger who is linked to whom by what was published last, then what was captured; write its events, links and
    the policy where SQL reads them.

    Links come first and of the last version, so that whoever readers took for one person is joined in the ledger before another
    version takes its place, and nothing is appended after standing was decided. Appending twice changes nothing: every event
    has a key of its own.
    """
    from consent.events import FIELDS, OPTIONAL, set_aside
    from consent.ledger.opening import open_ledger
    from consent.rule.identity import joined_frame
    from consent.rule.policy import notices_frame, policy_frame, read_policy

    said = [
        name for name in FIELDS if name not in OPTIONAL
    ]  # a capturing place does not say who acted or what was linked
    captured, aside = set_aside(raw_rows(home, "raw_consent__signals", said))
    with open_ledger(home, clock) as ledger:
        before = ledger.size
        known = ledger.frame(before)
        links = _new_links(home, known)
        done, total = 0, links.height + captured.height
        for frame in (links, captured):
            for part in frame.iter_slices(CONSENTS_PER_CHECKPOINT):
                ledger.append_frame(part)
                done += part.height
                advance("append consents", done, total)
        checkpoint = ledger.verify()
        recorded = _with_tail(ledger, known, before)
    write_table(home, "consent_ledger", recorded)
    write_table(home, "consent_links", joined_frame(recorded))
    policy = read_policy()
    write_table(home, "consent_policy", policy_frame(policy))
    write_table(home, "consent_notices", notices_frame(policy))
    return LedgerRow(
        checkpoint.size,
        checkpoint.size - before,
        checkpoint.root.hex(),
        True,
        dict(aside["detail"].value_counts().iter_rows()),
        links.height,
    )


def _new_links(home: Home, known: pl.DataFrame) -> pl.DataFrame:
    """Link events that follow from the published identities and are not in what the ledger is known to hold."""
    from consent.rule.linking import record_links
    from troth.published import POINTER, current

    if not (home.published / "customer_identities" / POINTER).exists():
        return known.clear()
    believed = pl.read_parquet(current(home, "customer_identities"))
    return record_links(known, believed.filter(~pl.col("is_test")), known_until(home))


def _with_tail(ledger: "Ledger", known: pl.DataFrame, size: int) -> pl.DataFrame:
    """What the ledger holds: its first `size` leaves, as `known`, and those since. Read anew where somebody was erased meanwhile."""
    tail = ledger.frame(start=size)
    if tail.filter(event_type="erased").height:
        return ledger.frame()
    newest = tail["ledger_size"].max() if tail.height else None
    if newest is None:
        return known
    return pl.concat([known.with_columns(pl.lit(newest, pl.Int64()).alias("ledger_size")), tail])


def resolve_identities(home: Home, advance: Advance) -> IdentityRow:
    """Decide anew whose identifiers are one customer's, as far as something changed."""
    from orchestration.identities import resolve_identities as resolve

    return resolve(home, known_until(home), advance)


def believe_stock(home: Home, advance: Advance) -> BeliefRow:
    """Believe anew what is on the shelves, and decide safety stock from it."""
    from orchestration.beliefs import believe_stock as believe

    return believe(home, known_until(home), advance)


def fill_vault(home: Home) -> int:
    """Put every contact point seen in raw under its token. Gives the number of contact points the vault now holds."""
    from consent.vault import open_vault

    with open_vault(home) as vault:
        for contract in contracts():
            for column in contract.columns:
                if column.token_of and column.token_of[0] in ("email", "phone"):
                    value = column.token_of[1]
                    pairs = (
                        raw_rows(home, contract.table, [column.name, value])
                        .drop_nulls()
                        .unique(column.name, keep="last", maintain_order=True)
                    )
                    vault.put(zip(pairs[column.name], pairs[value], strict=True))
        return vault.size


def publish_features(home: Home, advance: Advance) -> list[FeatureRow]:
    """Write the changed rows of every view to the online store, and the Feast registry where a definition changed."""
    from feature_repo.catalogue import INDEXES, VIEWS
    from feature_repo.definitions import apply
    from feature_repo.publish import publish

    views = (*VIEWS, *INDEXES)
    done = iter(range(1, len(views) + 1))
    counts = publish(home, lambda _view, _rows: advance("publish features", next(done), len(views)), views)
    apply(home)
    return [FeatureRow(name, count.rows, count.written, count.unchanged) for name, count in counts.items()]


def train_models(home: Home, clock: Clock, advance: Advance) -> list[ModelRow]:
    """Train what has new data, on rows whose consent for model_training held. Every training leaves a receipt."""
    from consent.ledger.opening import open_ledger
    from models.build import BASELINES, train_all
    from models.decisions import Basis, keeper
    from models.permission import LINKS
    from models.tables import versions
    from troth.published import current

    published = pl.scan_parquet(current(home, "consent_events")).select(pl.col("ledger_size").max()).collect().item()
    with open_ledger(home, clock) as ledger:
        size = published or 0  # what was published is learned under; the ledger may have heard more since
        root = ledger.root(size).hex()
        note = next((each.note for each in ledger.signed_sizes() if each.size == size), None)
    if note is None:
        raise RunError(
            f"published consent events: expected a size the ledger had a checkpoint of, found {size}. Run `troth run`.",
            STEP_FAILED,
        )
    keep = keeper(home, Basis(note, versions(home, [LINKS])[LINKS]), clock)
    done = iter(range(len(BASELINES)))
    reports = train_all(
        home, known_until(home), size, root, lambda _: advance("train models", next(done), len(BASELINES)), keep=keep
    )
    advance("train models", len(BASELINES), len(BASELINES))
    return [ModelRow(r.model, r.version or "", r.outcome, r.rows_kept, dict(r.left_out)) for r in reports]


def preview_segments(home: Home, advance: Advance) -> list[SegmentRow]:
    """Who every described segment matches, who of them may be contacted, and why the others may not; kept for later runs.

    One that reads what its purpose does not cover is left out: nobody may be selected for it.
    """
    from models.purpose_flow.kept import uncovered
    from models.purpose_flow.uses import of_segments
    from models.segments.described import loader, names
    from models.segments.preview import record

    loaded = loader(home)
    described = [loaded(name) for name in names(home)]
    refused = {each.use.name for each in uncovered(home, of_segments(described, loaded)) if each.use.kind == "segment"}
    found = [segment for segment in described if segment.name not in refused]
    seen = record(
        home,
        found,
        known_until(home),
        loaded=loaded,
        advance=lambda done: advance("preview segments", done, len(found)),
    )
    advance("preview segments", len(found), len(found))
    return [
        SegmentRow(each.name, each.purpose, channel, each.matched, counts.may_be_contacted, dict(counts.refused))
        for each in seen
        for channel, counts in each.channels.items()
    ]


def measure_results(home: Home, advance: Advance) -> dict[str, str]:
    """What every segment that went out did, kept as one more look; what may be said of each."""
    from models.results.figures import MAIN
    from models.results.results import record, went_out

    until = known_until(home)
    names = went_out(home, until)
    found = record(home, names, until, lambda done: advance("measure results", done, len(names)))
    advance("measure results", len(names), len(names))
    return {
        each.name: next(said.verdict for said in each.channels[0].windows[-1].estimates if said.measure == MAIN)
        for each in found
    }


def known_until(home: Home) -> datetime:
    """What the home knows until. Raises: RunError when nothing was taken."""
    until = taking.known_until(home)
    if until is None:
        raise RunError(
            f"home: expected files taken, found none in {home.taken}. Run `troth run` first.", NOTHING_READABLE
        )
    return until


def as_metadata(row: Any) -> dict[str, Any]:
    """A summary row as Dagster metadata."""
    import msgspec

    return dict(msgspec.to_builtins(row))
