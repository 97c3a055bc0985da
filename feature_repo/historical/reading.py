"""A historical read: entity rows, the features of a service as of each row's time, and consent in it.

Personal features are read for a service of the catalogue or not at all, and a row comes out only where its person allowed
`model_training` when it happened and allows it still; features of the others are never looked up. Every such read leaves a receipt.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from feature_repo import catalogue
from feature_repo.catalogue import SERVICES, Service, View
from feature_repo.errors import FeatureError
from feature_repo.historical.consenting import SUBJECT, judged
from feature_repo.historical.joining import Asked, Engine, EntityRows, Joinable, joined
from feature_repo.historical.spans import ANY_CHANNEL, PURPOSE, Spans, training_spans
from troth.clock import Clock
from troth.home import Home
from troth.published import current

if TYPE_CHECKING:
    import pyarrow as pa

CUSTOMERS = "customers"


@dataclass(frozen=True)
class TrainingRows:
    """The rows that came out, how many were looked at, and how many were left out by reason.

    `service`: the use they were read for. `ledger_size` and `receipt`: what consent was decided under, and the number of the
    decision's receipt; None where no personal feature was read.
    """

    rows: "pa.Table"
    service: str
    considered: int
    left_out: Mapping[str, int]
    at: datetime
    ledger_size: int | None = None
    receipt: int | None = None

    @property
    def kept(self) -> int:
        return int(self.rows.num_rows)

    @property
    def summary(self) -> str:
        """What can be printed: counts alone."""
        lines = [f"{self.service}: {self.kept:,} of {self.considered:,} rows, as of {self.at.isoformat()}"]
        lines += [f"  {count:>12,} {reason}" for reason, count in self.left_out.items()]
        if self.receipt is not None:
            lines.append(f"  decided under ledger size {self.ledger_size:,}, receipt {self.receipt}")
        return "\n".join(lines)


def training_rows(
    home: Home,
    service: str | Service,
    entities: "pa.Table",
    clock: Clock,
    *,
    at: datetime | None = None,
    time_column: str = "event_timestamp",
    engine: Engine | None = None,
) -> TrainingRows:
    """Features of a service as of each entity row, from the published tables; who may not be learned from is left out.

    `at`: until when standing must still hold, aware; now where it is not given.
    Raises: FeatureError for an unknown service, or columns that do not fit; TrothError where consent cannot be read.
    """
    use = catalogue.service(service) if isinstance(service, str) else service
    views = [published_view(home, view) for view in use.views]
    return read(home, [use], EntityRows(entities, time_column), views, clock, at=at, engine=engine)


def published_view(home: Home, view: View) -> Joinable:
    """A view of the catalogue over its published table."""
    return Joinable(
        name=view.name,
        files=(current(home, view.table),),
        keys={key: key for key in view.entity.join_keys},
        event_column=view.event_column,
        features={each.name: each.name for each in view.fields},
        time_to_live=view.time_to_live,
    )


def read(
    home: Home | None,
    uses: Sequence[Service],
    entities: EntityRows,
    views: Sequence[Joinable],
    clock: Clock,
    *,
    at: datetime | None = None,
    engine: Engine | None = None,
) -> TrainingRows:
    """`training_rows` of views wherever they are, for the services that have exactly them; without a service nothing personal is in it."""
    moment = at or clock.now()
    name = "/".join(use.name for use in uses) or "none"
    with (engine or Engine()).opened() as connection:
        asked = Asked(connection, entities)
        if not any(use.is_personal for use in uses):
            return TrainingRows(joined(asked, views), name, entities.table.num_rows, {}, moment)
        if home is None:
            raise FeatureError(
                f"feature service {name}: expected the home whose consent ledger is asked, found none. Set `home`."
            )
        for use in uses:
            refuse_unasked(use)
        if SUBJECT not in entities.table.column_names:
            raise FeatureError(f"entity rows: expected a column {SUBJECT}, found none. Add it: consent is asked by it.")
        spans = training_spans(home, clock)
        moment = at or clock.now()  # after the ledger was read: what was said before counts
        found = judged(asked, spans.path, current(home, CUSTOMERS), spans.identities, moment)
        with ThreadPoolExecutor(1) as pool:  # hashed in Python while DuckDB joins
            receipt = pool.submit(_keep_receipt, home, name, views, found.people, spans, moment, clock)
            asked.keep(found.kept)
            rows = joined(asked, views)
    return TrainingRows(
        rows, name, entities.table.num_rows, found.left_out, moment, spans.basis.ledger_size, receipt.result()
    )


def refuse_unasked(use: Service) -> None:
    """Raises: FeatureError for a service whose purpose people are not asked for: what rests on a contract is not learned from."""
    from consent.rule.policy import read_policy

    purpose = read_policy().purposes.get(use.purpose_code or "")
    if purpose is None or purpose.rests_on_contract:
        raise FeatureError(
            f"feature service {use.name}: expected a purpose that people are asked for, found {use.purpose_code}. "
            "Learn from a service that has one."
        )


def services_of(refs: Collection[str], services: Sequence[Service] = SERVICES) -> list[Service]:
    """The services whose features are exactly these, each as `view:feature`."""
    wanted = set(refs)
    return [
        use for use in services if {f"{view.name}:{each.name}" for view in use.views for each in view.fields} == wanted
    ]


def _keep_receipt(
    home: Home, name: str, views: Sequence[Joinable], people: "pa.Table", spans: Spans, at: datetime, clock: Clock
) -> int:
    """Sign and keep who was decided on and how, as of `at`. Gives the receipt's number."""
    import polars as pl

    from consent.receipts.uses import Basis, record

    standing = pl.DataFrame(pl.from_arrow(people)).with_columns(pl.col(SUBJECT).cast(pl.String))
    features = "\n".join(sorted(f"{view.name}:{each}" for view in views for each in view.features))
    receipt = record(
        home,
        "training",
        f"service:{name}",
        (PURPOSE, ANY_CHANNEL, at.astimezone(UTC).replace(tzinfo=None)),
        standing[SUBJECT],
        standing,
        Basis(spans.checkpoint, spans.basis.identities_version),
        clock,
        definition=hashlib.sha256(features.encode()).hexdigest(),
    )
    return receipt.number
