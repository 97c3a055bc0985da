"""Published feature tables into the online store: only what changed, and only once per version.

What a view's rows are made of is said here; how they are stored is `store.py`'s business.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from feature_repo.catalogue import (
    CUSTOMER_CONTEXT,
    CUSTOMER_IDENTITY,
    FOREVER,
    INDEXES,
    NEVER,
    REASONS,
    STANDING_SLOTS,
    SUBJECT_GATE,
    SUBJECT_STANDING,
    VIEWS,
    View,
)
from feature_repo.errors import FeatureError
from feature_repo.packed import Layout
from feature_repo.store import OnlineStore, online_store
from troth import published
from troth.home import Home

if TYPE_CHECKING:
    import polars as pl

LAST = "published"  # folder of what each view was last published as
RECENT_DAYS = 90
RECENT_SKUS = 20
# Links of a customer's own identifiers, each proved within its group; groups are joined where their people said yes to that. A
# shared, unverified contact carries refusals, never a person's features.
OWN_LINKS = ("hub", "deterministic", "probabilistic")


@dataclass(frozen=True)
class PublishedCount:
    """One view's publication: rows it now holds, and what became of the rows offered."""

    rows: int
    written: int
    skipped: int
    unchanged: int
    removed: int
    refused: int
    is_new: bool


def publish(
    home: Home, progress: Callable[[str, int], None] | None = None, views: Sequence[View] = (*VIEWS, *INDEXES)
) -> dict[str, PublishedCount]:
    """Bring the online store to the published versions; `progress` is told (view, rows) as each is done.

    `written` rows are new or changed, `skipped` older than what is there, `removed` no longer published, `refused`
    without a key or an event time. A version that is already there costs nothing.
    Raises: TrothError when a table has not been published; FeatureError when its columns do not fit the catalogue.
    """
    store = online_store(home.features)
    store.keep(views)
    counts = {}
    for view, standing in zip(views, store.standings(views), strict=True):
        version = _version(home, view)
        counts[view.name] = (
            _unchanged(standing.rows) if standing.version == version else _refresh(home, store, view, version)
        )
        if progress:
            progress(view.name, counts[view.name].rows)
    store.close()
    return counts


def _unchanged(rows: int) -> PublishedCount:
    return PublishedCount(rows=rows, written=0, skipped=0, unchanged=rows, removed=0, refused=0, is_new=False)


def _refresh(home: Home, store: OnlineStore, view: View, version: str) -> PublishedCount:
    import polars as pl

    from feature_repo.changes import refresh

    frame = _rows(home, view)
    needed = [pl.col(name).is_not_null() for name in (*view.entity.join_keys, view.event_column)]
    whole = frame.filter(needed)
    newest = _newest(view, whole)
    done = refresh(store, view, newest, version, home.features / LAST, _mark(home, view))
    return PublishedCount(
        rows=newest.height,
        written=done.written,
        skipped=done.skipped,
        unchanged=done.unchanged,
        removed=done.removed,
        refused=frame.height - whole.height,
        is_new=True,
    )


def _mark(home: Home, view: View) -> int | None:
    """What is kept of a version once: of standing, how many events of the ledger it was decided under; None where there is nothing."""
    import polars as pl

    if view.mark_column is None:
        return None
    found = pl.read_parquet(published.current(home, view.table), columns=[view.mark_column])[view.mark_column].min()
    return None if found is None else int(found)  # type: ignore[arg-type]


def _tables(view: View) -> tuple[str, ...]:
    """The published tables a view's rows are made of."""
    others = {
        SUBJECT_STANDING.name: ("consent_standing",),
        SUBJECT_GATE.name: ("consent_standing",),
        CUSTOMER_CONTEXT.name: ("order_lines", SUBJECT_STANDING.table),
        CUSTOMER_IDENTITY.name: (SUBJECT_STANDING.table,),
    }
    return (view.table, *others.get(view.name, ()))


def _version(home: Home, view: View) -> str:
    """Names the content of a view: its tables' versions and its layout."""
    stems = [published.current(home, table).stem for table in _tables(view)]
    return ".".join([*stems, f"{Layout(view.online_fields).schema_id:08x}"])


def _rows(home: Home, view: View) -> "pl.DataFrame":
    if view is CUSTOMER_CONTEXT:
        return _customer_context(home)
    if view is CUSTOMER_IDENTITY:
        return _customer_identity(home)
    if view is SUBJECT_GATE:
        return in_short(_rows(home, SUBJECT_STANDING))
    frame = _published(home, view)
    if view is SUBJECT_STANDING:
        return frame.join(_expiries(home), on="customer_id", how="left")
    return frame


def in_short(standing: "pl.DataFrame") -> "pl.DataFrame":
    """Rows of `SUBJECT_GATE` of rows of `SUBJECT_STANDING`. Raises: FeatureError for a reason there is no number for."""
    import polars as pl

    codes = {reason: number for number, reason in enumerate(REASONS)}
    slots = []
    for slot in STANDING_SLOTS:
        reason, ends = pl.col(f"reason_{slot}").fill_null("never_asked"), pl.col(f"expires_{slot}_at")
        until = (
            pl.when(ends.is_null())
            .then(FOREVER)
            .otherwise(ends.cast(pl.Datetime("us")).to_physical().clip(0, (FOREVER >> 8) - 1) * 256)
        )
        is_allowed = pl.col(f"is_{slot}_allowed").fill_null(value=False)
        code = reason.replace_strict(codes, return_dtype=pl.Int64)
        slots.append((pl.when(is_allowed).then(until).otherwise(pl.lit(NEVER)) + code).alias(slot))
    try:
        return standing.select("customer_id", SUBJECT_GATE.event_column, *slots)
    except pl.exceptions.InvalidOperationError:
        raise FeatureError("standing: expected reasons of the catalogue, found another. Add it to `REASONS`.") from None


def _published(home: Home, view: View) -> "pl.DataFrame":
    """The view's columns of its table."""
    import polars as pl

    path = published.current(home, view.table)
    needed = (*view.entity.join_keys, view.event_column, *(each.name for each in view.fields))
    missing = set(needed) - set(pl.read_parquet_schema(path))
    if missing:
        raise FeatureError(
            f"published table {view.table}: expected the columns of view {view.name}, "
            f"found none named {sorted(missing)}. Correct the model or the catalogue."
        )
    return pl.read_parquet(path, columns=list(needed))


def _newest(view: View, frame: "pl.DataFrame") -> "pl.DataFrame":
    """The newest row of each entity; history is for training."""
    import polars as pl

    if frame.select(view.entity.join_keys).is_unique().all():
        return frame
    newest = frame.filter(pl.col(view.event_column) == pl.col(view.event_column).max().over(view.entity.join_keys))
    return newest.unique(view.entity.join_keys, keep="last", maintain_order=True)


def _known_until(home: Home) -> "pl.Expr":
    """The time until which the customer tables were known: the newest standing decided."""
    import polars as pl

    table = pl.read_parquet(published.current(home, SUBJECT_STANDING.table), columns=["feature_at"])
    return pl.lit(table["feature_at"].max(), dtype=table.schema["feature_at"]).alias("feature_at")


def _expiries(home: Home) -> "pl.DataFrame":
    """When each grant ends. One row per customer that has one that does."""
    import polars as pl

    purpose, channel = pl.col("purpose_code"), pl.col("channel_code")
    slot = pl.when(channel == "*").then(purpose).otherwise(pl.concat_str(purpose, pl.lit("_"), channel))
    return (
        pl.scan_parquet(published.current(home, "consent_standing"))
        .filter(pl.col("is_allowed"), pl.col("expires_at").is_not_null())
        .group_by("customer_id")
        .agg(pl.col("expires_at").filter(slot == name).min().alias(f"expires_{name}_at") for name in STANDING_SLOTS)
        .collect()
    )


def _customer_context(home: Home) -> "pl.DataFrame":
    """Home location and newest items of each customer. One row per customer."""
    import polars as pl

    known_until = _known_until(home)
    since = known_until.cast(pl.Datetime("us")) - timedelta(days=RECENT_DAYS)
    recent = (
        pl.scan_parquet(published.current(home, "order_lines"))
        .filter(
            pl.col("customer_id").is_not_null(),
            ~pl.col("is_cancelled"),
            pl.col("ordered_at").cast(pl.Datetime("us")) >= since,
        )
        .group_by("customer_id", "sku")
        .agg(pl.col("ordered_at").max())
        .sort(["ordered_at", "sku"], descending=[True, False])
        .group_by("customer_id", maintain_order=True)
        .agg(pl.col("sku").head(RECENT_SKUS))
        .select("customer_id", recent_skus=pl.col("sku").list.join("\n"))
    )
    customers = pl.scan_parquet(published.current(home, "customers")).select("customer_id", "home_location_code")
    return customers.join(recent, on="customer_id", how="left").with_columns(known_until).collect()


def _customer_identity(home: Home) -> "pl.DataFrame":
    """The one customer each identifier belongs to. One row per identifier token."""
    import polars as pl

    customer = pl.col("customer_id").drop_nulls().unique()
    return (
        pl.scan_parquet(published.current(home, "customer_identities"))
        .filter(pl.col("link_type").is_in(OWN_LINKS), pl.col("identity_ref").is_not_null())
        .group_by("identity_ref")
        .agg(pl.when(customer.len() == 1).then(customer.first()).alias("customer_id"))
        .with_columns(_known_until(home))
        .collect()
    )
