"""Loyalty files become members and points; a bad row is set aside and stops no good one."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.sources import loyalty
from orchestration.sources.contract import Contract, Reading, conform

MEMBER = {
    "member_id": "M-17",
    "card_number": "6299 0000 0017",
    "enrolled_at": "2026-01-05T09:00:00-05:00",
    "updated_at": "2026-03-01T02:00:00Z",
    "first_name": "Ida",
    "email": "ida@example.com",
    "birth_date": "1981-04-30",
    "tier_code": "silver",
    "points_balance": "340",
}
ENTRY = {
    "entry_id": "P-1",
    "member_id": "M-17",
    "occurred_at": "2026-03-01T15:00:00Z",
    "entry_type": "redeem",
    "points": "-200",
    "order_ref": "1/2/77/2026-03-01",
}


def csv_bytes(contract: Contract, *rows: dict | bytes) -> bytes:
    names = [column.name for column in contract.columns if not column.token_of]
    lines = [",".join(names).encode()]
    lines += [row if isinstance(row, bytes) else ",".join(row.get(name, "") for name in names).encode() for row in rows]
    return b"\n".join(lines) + b"\n"


def read(folder: Path, contract: Contract, data: bytes) -> Reading:
    path = folder / "file.csv"
    path.write_bytes(data)
    return loyalty.read_members(path) if contract is loyalty.MEMBERS else loyalty.read_points(path)


def kept_and_aside(reading: Reading, contract: Contract) -> tuple[list[dict], list[tuple[int, str]]]:
    kept, bad = conform(reading.frames[contract.table], contract, lambda kind, value: value and f"{kind}_ref")
    rejected = reading.rejections
    out = list(zip(rejected.record_offset, rejected.reason_code, strict=True))
    return kept.to_dicts(), out + [(row["record_offset"], row["reason_code"]) for row in bad.to_dicts()]


def test_a_member_lands_typed_with_tokens_beside_the_identifiers(tmp_path):
    (row,), aside = kept_and_aside(read(tmp_path, loyalty.MEMBERS, csv_bytes(loyalty.MEMBERS, MEMBER)), loyalty.MEMBERS)
    assert aside == []
    assert (row["points_balance"], row["birth_date"].year, row["account_id"]) == (340, 1981, None)
    assert (row["card_ref"], row["email_ref"], row["account_ref"]) == ("card_ref", "email_ref", None)
    assert row["enrolled_at"].isoformat() == "2026-01-05T14:00:00+00:00"


def test_points_keep_their_sign(tmp_path):
    (row,), _ = kept_and_aside(read(tmp_path, loyalty.POINTS, csv_bytes(loyalty.POINTS, ENTRY)), loyalty.POINTS)
    assert row["points"] == -200


def test_a_column_nobody_knows_is_left_out_and_named(tmp_path):
    data = (
        csv_bytes(loyalty.POINTS, ENTRY).replace(b"order_ref", b"order_ref,mood").replace(b"03-01\n", b"03-01,sunny\n")
    )
    kept, aside = kept_and_aside(read(tmp_path, loyalty.POINTS, data), loyalty.POINTS)
    assert (len(kept), aside) == (1, [(0, "unknown_column")])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"P-2,M-17,2026-03-01T15:00:00Z,red", "ragged_row"),
        (b'P-2,"M-17,2026-03-01T15:00:00Z,redeem,-1,', "bad_quoting"),
        ("P-2,M-17,2026-03-01T15:00:00Z,redeem,-1,Düne".encode("latin-1"), "wrong_encoding"),
        (ENTRY | {"points": "many"}, "wrong_type"),
        (ENTRY | {"occurred_at": "2026-03-01 15:00"}, "wrong_type"),
        (ENTRY | {"entry_type": "gift"}, "unknown_code"),
        (ENTRY | {"member_id": ""}, "missing_value"),
        (ENTRY | {"order_ref": "x" * 2_000}, "too_long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_row_is_set_aside_with_its_line_and_the_good_ones_land(tmp_path, row, reason):
    data = csv_bytes(loyalty.POINTS, ENTRY, row, ENTRY)
    kept, aside = kept_and_aside(read(tmp_path, loyalty.POINTS, data), loyalty.POINTS)
    assert aside == [(3, reason)]
    assert [r["record_offset"] for r in kept] == [2, 4]


def test_a_row_sent_twice_lands_twice_for_staging_to_choose(tmp_path):
    assert (
        len(kept_and_aside(read(tmp_path, loyalty.POINTS, csv_bytes(loyalty.POINTS, ENTRY, ENTRY)), loyalty.POINTS)[0])
        == 2
    )


def test_every_file_kind_gives_the_table_it_names(tmp_path):
    for kind in loyalty.SOURCE.files:
        contract = next(c for c in loyalty.CONTRACTS if c.table in kind.tables)
        (tmp_path / "file.csv").write_bytes(csv_bytes(contract))
        assert tuple(kind.read(tmp_path / "file.csv").frames) == kind.tables


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), new=st.binary(max_size=3).filter(lambda b: b'"' not in b), dropped=st.integers(0, 3))
def test_no_edit_of_one_row_makes_it_raise_or_touches_the_next(tmp_path, place, new, dropped):
    names = csv_bytes(loyalty.POINTS, ENTRY)
    header, row = names.splitlines()
    at = int(place * len(row))
    edited = row[:at] + new.replace(b"\n", b" ").replace(b"\r", b" ") + row[at + dropped :]
    data = b"\n".join([header, edited, row]) + b"\n"
    kept, _ = kept_and_aside(read(tmp_path, loyalty.POINTS, data), loyalty.POINTS)
    assert kept[-1]["record_offset"] == 3
