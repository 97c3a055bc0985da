"""What goes out, by the destination's format: `members.csv`, `members.parquet`, or the bodies of messages with so many people each.

Each person stands under the reference that a recall will name, beside the fields that the destination declares.
"""

import io
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import polars as pl

from models.segments.decision import CONTACT_POINTS
from models.segments.export import MEMBERS, File, csv_bytes
from serving.activation.deliveries import Delivery

PARQUET = "members.parquet"
MOST_IN_MESSAGE = 1_000  # people: some 100 kB, which a receiver takes in one exchange


def files_of(delivery: Delivery, people: pl.DataFrame, at: datetime) -> Mapping[str, File]:
    """The files of a delivery, by name. `people`: customer_id, contact_ref, contact, member_ref, in order of ids."""
    rows = _rows(delivery, people)
    if delivery.to.format == "csv":
        return {MEMBERS: File(csv_bytes(rows.columns, rows), rows.height)}
    if delivery.to.format == "parquet":
        data = io.BytesIO()
        rows.write_parquet(data, compression="zstd")
        return {PARQUET: File(data.getvalue(), rows.height)}
    count = max(1, -(-rows.height // MOST_IN_MESSAGE))
    return {
        f"part-{number:05d}.json": _message(delivery, part, number, count, at)
        for number, part in enumerate(rows.iter_slices(MOST_IN_MESSAGE), start=1)
    }


def _rows(delivery: Delivery, people: pl.DataFrame) -> pl.DataFrame:
    columns = [pl.col("member_ref")]
    if "customer_id" in delivery.to.fields:
        columns.append(pl.col("customer_id"))
    if "contact" in delivery.to.fields and CONTACT_POINTS[delivery.channel_code] is not None:
        columns.append(pl.col("contact").alias(delivery.channel_code))
    return people.select(columns)


def _message(delivery: Delivery, rows: pl.DataFrame, number: int, count: int, at: datetime) -> File:
    told = {
        "type": "activation.members",
        "timestamp": at.astimezone(UTC).isoformat(),
        "data": {
            "delivery_id": delivery.delivery_id,
            "attempt": delivery.attempt,
            "part": number,
            "parts": count,
            "members": rows.to_dicts(),
        },
    }
    return File(msgspec.json.encode(told), rows.height)
