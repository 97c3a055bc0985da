"""X12 846 and 945: sound transaction sets land, unsound ones are set aside whole, at the place of their ST."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.sources.contract import Contract, Reading, UnreadableFile, conform
from orchestration.sources.wms import SHIPMENTS, STOCK_ADVICE, read_shipments, read_stock_advice
from troth.ids import tokeniser

TOKEN = tokeniser(b"k" * 32)
GLN, MUG, TEAPOT = "0614141000012", "00614141000029", "00614141000036"


def transaction_set(identifier: str, segments: list[str], control: str = "0001", count: int | None = None) -> list[str]:
    return [f"ST*{identifier}*{control}", *segments, f"SE*{count or len(segments) + 2}*{control}"]


def advice(
    reference: str = "IA1", control: str = "0001", count: int | None = None, known: str = "0300*UT"
) -> list[str]:
    """What the Duluth warehouse says it has: 12 mugs, 3 of them promised, and no teapot."""
    return transaction_set(
        "846",
        [
            f"BIA*00*SI*{reference}*20260314",
            f"DTM*405*20260314*{known}",
            f"N1*WH*Duluth*UL*{GLN}",
            f"LIN**SK*MUG*UK*{MUG}",
            "QTY*17*12",
            "QTY*27*3",
            f"LIN**UP*{TEAPOT[2:]}*SK*TEAPOT",
            "QTY*17*0.0*EA",
            "CTT*2",
        ],
        control,
        count,
    )


def shipment(reference: str = "SH1", control: str = "0001", count: int | None = None) -> list[str]:
    return transaction_set(
        "945",
        [
            f"W06*N*#10001*20260314*{reference}",
            f"N1*WH*Duluth*UL*{GLN}",
            "N1*ST*CONSUMER",
            "G62*11*20260314*T*223015*UT",
            "W27*M*UPSN",
            "LX*1",
            "MAN*CP*1Z0001",
            f"W12*CL*2*2*0*EA*{MUG}*SK*MUG",
            "LX*2",
            "MAN*CP*1Z0002",
            f"W12*CP*3*1*2*EA*{TEAPOT}*SK*TEAPOT",
            "W03*3",
        ],
        control,
        count,
    )


def interchange(*sets: list[str], groups: int = 1, count: int | None = None, control: str = "000000007") -> list[str]:
    return [
        "ISA*00*          *00*          *ZZ*TROTHWMS       *ZZ*RETAILER       *260314*0600*U*00401*000000007*0*P*>",
        "GS*IB*TROTHWMS*RETAILER*20260314*0600*7*X*004010",
        *[segment for segments in sets for segment in segments],
        f"GE*{len(sets) if count is None else count}*7",
        f"IEA*{groups}*{control}",
    ]


def text(segments: list[str], end: str = "~\n") -> str:
    return "".join(f"{segment}{end}" for segment in segments)


def read(tmp_path: Path, content: str | bytes, contract: Contract = STOCK_ADVICE) -> Reading:
    path = tmp_path / "from_the_warehouse.edi"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return (read_stock_advice if contract is STOCK_ADVICE else read_shipments)(path)


def landed(reading: Reading, contract: Contract = STOCK_ADVICE) -> list[dict]:
    kept, aside_rows = conform(reading.frames[contract.table], contract, TOKEN)
    assert aside_rows.is_empty(), aside_rows.rows()
    return kept.to_dicts()


def references(reading: Reading, contract: Contract = STOCK_ADVICE) -> list[str]:
    name = "advice_ref" if contract is STOCK_ADVICE else "shipment_ref"
    return reading.frames[contract.table][name].unique(maintain_order=True).to_list()


def aside(reading: Reading) -> list[tuple[int, str]]:
    return list(zip(reading.rejections.record_offset, reading.rejections.reason_code, strict=True))


def test_an_846_says_what_a_warehouse_has_and_until_when_it_knew(tmp_path):
    reading = read(tmp_path, text(interchange(advice())))
    assert aside(reading) == []
    on_hand, committed, teapots = landed(reading)
    assert on_hand == {
        "advice_ref": "IA1",
        "purpose_code": "00",
        "advised_date": date(2026, 3, 14),
        "gln": GLN,
        "known_until_at": datetime(2026, 3, 14, 3, tzinfo=UTC),
        "sku": "MUG",
        "gtin": MUG,
        "quantity_type": "on_hand",
        "quantity_units": 12,
        "record_offset": 8,
    }
    assert (committed["quantity_type"], committed["quantity_units"], committed["record_offset"]) == ("committed", 3, 9)
    assert (teapots["sku"], teapots["gtin"], teapots["quantity_units"]) == ("TEAPOT", TEAPOT, 0)


def test_a_945_says_ordered_shipped_and_difference_by_line(tmp_path):
    reading = read(tmp_path, text(interchange(shipment())), SHIPMENTS)
    assert aside(reading) == []
    mugs, teapots = landed(reading, SHIPMENTS)
    assert mugs == {
        "shipment_ref": "SH1",
        "order_ref": "#10001",
        "shipped_at": datetime(2026, 3, 14, 22, 30, 15, tzinfo=UTC),
        "ship_from_gln": GLN,
        "ship_to_gln": None,
        "carrier_code": "UPSN",
        "tracking_number": "1Z0001",
        "line_number": 1,
        "status_code": "CL",
        "sku": "MUG",
        "gtin": MUG,
        "ordered_units": 2,
        "shipped_units": 2,
        "difference_units": 0,
        "record_offset": 11,
    }
    assert (teapots["line_number"], teapots["tracking_number"], teapots["difference_units"]) == (2, "1Z0002", 2)


def test_several_items_in_one_carton_are_several_lines(tmp_path):
    segments = shipment()
    del segments[segments.index("LX*2") : segments.index("LX*2") + 2]
    segments[-1] = f"SE*{len(segments)}*0001"
    rows = landed(read(tmp_path, text(interchange(segments)), SHIPMENTS), SHIPMENTS)
    assert [(row["line_number"], row["tracking_number"]) for row in rows] == [(1, "1Z0001"), (2, "1Z0001")]


@pytest.mark.parametrize(
    ("element", "segment"), [("*", "~"), ("|", "\n"), ("\x1d", "\x1e"), ("+", "'\r\n"), ("*", "~\r\n\r\n")]
)
@pytest.mark.parametrize("release", [("00401", "004010"), ("00501", "005010")])
def test_delimiters_come_from_the_isa_in_both_releases(tmp_path, element, segment, release):
    lines = [line.replace("*", element) for line in interchange(advice())]
    content = text(lines, segment).replace("00401", release[0]).replace("004010", release[1])
    assert landed(read(tmp_path, content)) == landed(read(tmp_path, text(interchange(advice()))))


def test_several_interchanges_in_one_file_may_have_delimiters_of_their_own(tmp_path):
    other = text([line.replace("*", "|") for line in interchange(advice("IA2"))], "^")
    reading = read(tmp_path, text(interchange(advice("IA1"))) + other)
    assert aside(reading) == []
    assert references(reading) == ["IA1", "IA2"]


def test_a_miscounted_set_is_set_aside_whole_and_the_others_land(tmp_path):
    sets = advice("IA1", "0001"), advice("IA2", "0002", count=99), advice("IA3", "0003")
    reading = read(tmp_path, text(interchange(*sets)))
    assert references(reading) == ["IA1", "IA3"]
    assert aside(reading) == [(14, "control_mismatch")]


def test_a_set_closed_under_another_number_is_set_aside(tmp_path):
    segments = advice()
    segments[-1] = segments[-1].replace("*0001", "*0002")
    assert aside(read(tmp_path, text(interchange(segments)))) == [(3, "control_mismatch")]


def test_a_set_of_another_kind_is_set_aside(tmp_path):
    reading = read(tmp_path, text(interchange(shipment(), advice(control="0002"))))
    assert references(reading) == ["IA1"]
    assert aside(reading) == [(3, "unexpected_set")]


@pytest.mark.parametrize("wrong", [{"count": 2}, {"groups": 2}, {"control": "000000008"}])
def test_an_envelope_that_miscounts_is_reported_and_its_sets_land(tmp_path, wrong):
    reading = read(tmp_path, text(interchange(advice(), **wrong)))
    assert references(reading) == ["IA1"]
    assert [reason for _, reason in aside(reading)] == ["control_mismatch"]


def test_a_truncated_file_keeps_the_sets_before_the_cut(tmp_path):
    whole = text(interchange(advice("IA1", "0001"), advice("IA2", "0002")))
    reading = read(tmp_path, whole[: whole.rindex("QTY")])
    assert references(reading) == ["IA1"]
    assert aside(reading) == [(14, "truncated")]


def test_a_cut_between_sets_is_noticed_too(tmp_path):
    whole = text(interchange(advice()))
    reading = read(tmp_path, whole[: whole.rindex("GE*")])
    assert references(reading) == ["IA1"]
    assert aside(reading) == [(14, "truncated")]


def test_a_set_without_trailer_does_not_swallow_the_next(tmp_path):
    reading = read(tmp_path, text(interchange(advice("IA1")[:-1], advice("IA2", "0002"))))
    assert references(reading) == ["IA2"]
    assert aside(reading) == [(3, "truncated")]


def test_bytes_that_are_not_utf_8_set_aside_their_set_alone(tmp_path):
    content = text(interchange(advice("IA1"), advice("IA2", "0002"))).replace("Duluth", "Duluth \xe9", 1)
    reading = read(tmp_path, content.encode("latin-1"))
    assert references(reading) == ["IA2"]
    assert aside(reading) == [(3, "wrong_encoding")]


def test_a_quantity_that_is_none_is_set_aside_by_its_own_segment(tmp_path):
    reading = read(
        tmp_path, text(interchange(advice())).replace("QTY*17*12", "QTY*17*dozen").replace("QTY*27", "QTY*77")
    )
    kept, rows = conform(reading.frames[STOCK_ADVICE.table], STOCK_ADVICE, TOKEN)
    assert kept["sku"].to_list() == ["TEAPOT"]
    assert [row[:2] for row in rows.rows()] == [(8, "wrong_type"), (9, "unknown_code")]


@pytest.mark.parametrize(("size", "where"), [(2_000, "conform"), (200_000, "reader")])
def test_a_huge_field_sets_aside_no_more_than_its_set(tmp_path, size, where):
    sets = advice("IA1"), advice("IA2", "0002")
    reading = read(tmp_path, text(interchange(*sets)).replace("SK*MUG", "SK*" + "x" * size, 1))
    _, rows = conform(reading.frames[STOCK_ADVICE.table], STOCK_ADVICE, TOKEN)
    found = aside(reading) if where == "reader" else [row[:2] for row in rows.rows()]
    assert found == ([(3, "too_long")] if where == "reader" else [(8, "too_long"), (9, "too_long")])
    assert "IA2" in references(reading)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ("0300*UT", datetime(2026, 3, 14, 3, tzinfo=UTC)),
        ("030015*ES", datetime(2026, 3, 14, 8, 0, 15, tzinfo=UTC)),
        ("03001550*24", datetime(2026, 3, 14, 4, 0, 15, 500_000, tzinfo=UTC)),
        ("0300*02", datetime(2026, 3, 14, 1, tzinfo=UTC)),
    ],
)
def test_a_time_code_is_an_offset(tmp_path, known, expected):
    assert landed(read(tmp_path, text(interchange(advice(known=known)))))[0]["known_until_at"] == expected


@pytest.mark.parametrize("known", ["0300*ET", "0300*LT", "0300", ""])
def test_a_time_that_could_be_two_instants_is_none(tmp_path, known):
    reading = read(tmp_path, text(interchange(advice(known=known))))
    _, rows = conform(reading.frames[STOCK_ADVICE.table], STOCK_ADVICE, TOKEN)
    assert set(rows["reason_code"]) == {"wrong_type"}


def test_duplicates_are_kept_for_staging_to_judge(tmp_path):
    assert len(landed(read(tmp_path, text(interchange(advice(), advice(control="0002")))))) == 6


@pytest.mark.parametrize("content", ["", "hello", "ISA", "ISA*00*~", "GS*IB~", "{}", b"\xff\xfe\x00"])
def test_what_is_no_interchange_is_refused(tmp_path, content):
    with pytest.raises(UnreadableFile, match="expected an X12 interchange, found no ISA"):
        read(tmp_path, content)


VALID = text(interchange(advice("IA1"), advice("IA2", "0002"))).encode()
EDITS = st.lists(st.tuples(st.integers(0, len(VALID)), st.binary(max_size=3), st.integers(0, 3)), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(EDITS)
def test_no_edit_of_an_interchange_breaks_the_reader(tmp_path, edits):
    content = bytearray(VALID)
    for at, new, gone in edits:
        content[at : at + gone] = new
    try:
        reading = read(tmp_path, bytes(content))
    except UnreadableFile:
        return
    kept, rows = conform(reading.frames[STOCK_ADVICE.table], STOCK_ADVICE, TOKEN)
    assert kept.height + rows.height + len(reading.rejections.table) > 0
