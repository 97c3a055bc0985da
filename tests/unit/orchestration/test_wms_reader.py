"""EPCIS events, locations and picks: every item lands that can be read, whatever stands beside it."""

import json
from datetime import UTC, date, datetime
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestration.sources import gs1
from orchestration.sources.contract import Reading, UnreadableFile, conform
from orchestration.sources.wms import EPCIS_EVENTS, SOURCE, read_epcis, read_locations, read_picks
from troth.ids import tokeniser

TOKEN = tokeniser(b"k" * 32)
CONTEXT = "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"
MUGS = {"epcClass": "urn:epc:class:lgtin:0614141.000002.L7", "quantity": 12}
MUG, DULUTH, FARGO = "00614141000029", "0614141000012", "0614141000029"


def event(**said) -> dict:
    """Twelve mugs received in Duluth on Pi day; None takes a field away."""
    whole = {
        "type": "ObjectEvent",
        "eventID": "urn:uuid:374d95fc-9457-4a51-bd6a-0bba133845a8",
        "eventTime": "2026-03-14T09:26:53.589-05:00",
        "eventTimeZoneOffset": "-05:00",
        "recordTime": "2026-03-14T14:30:00Z",
        "action": "ADD",
        "bizStep": "receiving",
        "disposition": "in_progress",
        "readPoint": {"id": "urn:epc:id:sgln:0614141.00001.0"},
        "bizLocation": {"id": "urn:epc:id:sgln:0614141.00001.0"},
        "bizTransactionList": [{"type": "po", "bizTransaction": "urn:epcglobal:cbv:bt:0614141000012:PO-7"}],
        "quantityList": [MUGS],
    } | said
    return {name: value for name, value in whole.items() if value is not None}


def document(*events: object, context: object = CONTEXT) -> dict:
    return {
        "@context": context,
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": "2026-03-14T23:00:00Z",
        "epcisBody": {"eventList": list(events)},
    }


def read(tmp_path: Path, content: object) -> Reading:
    path = tmp_path / "epcis_2026-03-14_1.json"
    if isinstance(content, str):
        content = content.encode()
    path.write_bytes(content if isinstance(content, bytes) else orjson.dumps(content))
    return read_epcis(path)


def landed(reading: Reading) -> list[dict]:
    kept, rows = conform(reading.frames[EPCIS_EVENTS.table], EPCIS_EVENTS, TOKEN)
    assert rows.is_empty(), rows.rows()
    return kept.to_dicts()


def aside(reading: Reading) -> list[tuple[int, str]]:
    """Offset and reason of all that was set aside, by the reader and by the contract."""
    _, rows = conform(reading.frames[EPCIS_EVENTS.table], EPCIS_EVENTS, TOKEN)
    found = zip(reading.rejections.record_offset, reading.rejections.reason_code, strict=True)
    return [*found, *[row[:2] for row in rows.rows()]]


def offsets(reading: Reading) -> list[int]:
    return [row["record_offset"] for row in landed(reading)]


def test_an_event_comes_through_with_its_item_its_places_and_its_times(tmp_path):
    assert landed(read(tmp_path, document(event()))) == [
        {
            "event_id": "urn:uuid:374d95fc-9457-4a51-bd6a-0bba133845a8",
            "item_number": 1,
            "event_type": "ObjectEvent",
            "action": "ADD",
            "biz_step": "receiving",
            "disposition": "in_progress",
            "occurred_at": datetime(2026, 3, 14, 14, 26, 53, 589_000, tzinfo=UTC),
            "utc_offset": "-05:00",
            "recorded_at": datetime(2026, 3, 14, 14, 30, tzinfo=UTC),
            "read_point": DULUTH,
            "biz_location": DULUTH,
            "source_location": None,
            "destination_location": None,
            "transaction_type": "po",
            "transaction_ref": "urn:epcglobal:cbv:bt:0614141000012:PO-7",
            "gtin": MUG,
            "quantity_units": 12,
            "is_error_declaration": False,
            "error_declared_at": None,
            "error_reason": None,
            "corrective_event_ids": None,
            "record_offset": 1,
        }
    ]


@pytest.mark.parametrize(
    "item",
    [
        "urn:epc:id:sgtin:0614141.000002.2017",
        "https://id.gs1.org/01/00614141000029/21/2017",
        "https://shop.example.org/goods/01/0614141000029",
        "http://example.org/gtin/614141000029?17=261231",
    ],
)
def test_a_serial_in_any_spelling_is_one_piece_of_its_gtin(tmp_path, item):
    (row,) = landed(read(tmp_path, document(event(quantityList=None, epcList=[item]))))
    assert (row["gtin"], row["quantity_units"]) == (MUG, 1)


@pytest.mark.parametrize(
    ("element", "units"),
    [
        ({"epcClass": "urn:epc:idpat:sgtin:0614141.000002.*", "quantity": 12.0}, 12),
        ({"epcClass": "https://id.gs1.org/01/00614141000029/10/L7", "quantity": "12", "uom": "EA"}, 12),
        ({"epcClass": "urn:epc:class:lgtin:0614141.000002.L7", "quantity": 0}, 0),
    ],
)
def test_a_quantity_in_any_spelling_is_pieces_of_its_gtin(tmp_path, element, units):
    (row,) = landed(read(tmp_path, document(event(quantityList=[element]))))
    assert (row["gtin"], row["quantity_units"]) == (MUG, units)


def test_items_are_numbered_serials_first(tmp_path):
    serial = "urn:epc:id:sgtin:0614141.000002."
    rows = landed(read(tmp_path, document(event(epcList=[serial + "1", serial + "2"]))))
    assert [(row["item_number"], row["quantity_units"]) for row in rows] == [(1, 1), (2, 1), (3, 12)]


def test_an_aggregation_lists_children_and_a_transformation_consumes_its_inputs(tmp_path):
    packed = event(type="AggregationEvent", quantityList=None, childQuantityList=[MUGS])
    glazed = event(
        type="TransformationEvent",
        action=None,
        quantityList=None,
        inputQuantityList=[MUGS],
        inputEPCList=["urn:epc:id:sgtin:0614141.000002.1"],
        outputQuantityList=[MUGS | {"quantity": 11}],
    )
    assert [row["quantity_units"] for row in landed(read(tmp_path, document(packed, glazed)))] == [12, -1, -12, 11]


@pytest.mark.parametrize(
    ("step", "disposition", "kind"),
    [
        ("shipping", "in_transit", "desadv"),
        ("urn:epcglobal:cbv:bizstep:shipping", "urn:epcglobal:cbv:disp:in_transit", "urn:epcglobal:cbv:btt:desadv"),
        ("https://ref.gs1.org/cbv/BizStep-shipping", "https://ref.gs1.org/cbv/Disp-in_transit", "cbv:BTT-desadv"),
    ],
)
def test_a_word_of_the_vocabulary_reads_the_same_bare_or_full(tmp_path, step, disposition, kind):
    transactions = [{"type": kind, "bizTransaction": "TR-1"}]
    said = event(bizStep=step, disposition=disposition, bizTransactionList=transactions)
    (row,) = landed(read(tmp_path, document(said)))
    assert (row["biz_step"], row["disposition"], row["transaction_type"]) == ("shipping", "in_transit", "desadv")


def test_words_that_are_not_of_the_vocabulary_keep_their_meaning(tmp_path):
    said = event(
        bizStep="http://epcis.example.org/hc/bizstep/glazing",
        bizTransactionList=[{"type": "urn:troth:btt:adjustment", "bizTransaction": "ADJ-1"}],
    )
    (row,) = landed(read(tmp_path, document(said)))
    assert row["biz_step"] == "http://epcis.example.org/hc/bizstep/glazing"
    assert row["transaction_type"] == "adjustment"


def test_goods_come_from_and_go_to_places_before_parties(tmp_path):
    said = event(
        sourceList=[
            {"type": "owning_party", "source": "urn:epc:id:pgln:0614141.00009"},
            {"type": "https://ref.gs1.org/cbv/SDT-location", "source": "https://id.gs1.org/414/0614141000012/254/7"},
        ],
        destinationList=[
            {"type": "urn:epcglobal:cbv:sdt:possessing_party", "destination": "urn:epc:id:sgln:0614141.00002.0"}
        ],
        readPoint={"id": "urn:uuid:a-place-without-gln"},
    )
    (row,) = landed(read(tmp_path, document(said)))
    assert (row["source_location"], row["destination_location"]) == (DULUTH, FARGO)
    assert row["read_point"] == "urn:uuid:a-place-without-gln"


def test_an_error_declaration_is_a_row_of_the_same_event(tmp_path):
    declaration = {
        "declarationTime": "2026-03-15T00:00:00Z",
        "reason": "https://ref.gs1.org/cbv/ER-incorrect_data",
        "correctiveEventIDs": ["urn:uuid:1", "urn:uuid:2"],
    }
    told, taken_back = landed(read(tmp_path, document(event(), event(errorDeclaration=declaration))))
    assert told["event_id"] == taken_back["event_id"]
    assert (told["is_error_declaration"], taken_back["is_error_declaration"]) == (False, True)
    assert taken_back["error_declared_at"] == datetime(2026, 3, 15, tzinfo=UTC)
    assert taken_back["error_reason"] == "incorrect_data"
    assert taken_back["corrective_event_ids"] == "urn:uuid:1 urn:uuid:2"


def test_an_event_without_id_has_the_same_canonical_hash_in_every_spelling(tmp_path):
    bare = event(eventID=None)
    full = event(
        eventID=None,
        bizStep="urn:epcglobal:cbv:bizstep:receiving",
        disposition="https://ref.gs1.org/cbv/Disp-in_progress",
        eventTime="2026-03-14T14:26:53.589Z",
        recordTime=None,
    )
    full = dict(reversed(full.items()))
    taken_back = bare | {"errorDeclaration": {"declarationTime": "2026-03-15T00:00:00Z"}}
    other = event(eventID=None, action="OBSERVE")
    rows = landed(read(tmp_path, document(bare, full, taken_back, other)))
    ids = [row["event_id"] for row in rows]
    assert ids[0].startswith("ni:///sha-256;")
    assert ids[0].endswith("?ver=CBV2.0")
    assert ids[0] == ids[1] == ids[2] != ids[3]


def test_a_hash_does_not_depend_on_other_events_or_documents(tmp_path):
    mine = event(eventID=None, **{"shop:shelf": "A4"})
    context = [CONTEXT, {"shop": "https://shop.example.org/", "shop:shelf": {"@type": "xsd:string"}}]
    (alone,) = landed(read(tmp_path, document(mine, context=context)))
    other = event(eventID=None, disposition="returned", **{"shop:shelf": "B1"})
    landed(read(tmp_path, document(other, context=[CONTEXT, {"shop": "https://elsewhere.example.org/"}])))
    landed(read(tmp_path, document(other)))
    among_others = landed(read(tmp_path, document(other, mine, context=context)))
    assert alone["event_id"] == among_others[1]["event_id"]


def test_a_context_on_the_network_is_never_fetched(tmp_path):
    said = event(eventID=None)
    (row,) = landed(read(tmp_path, document(said, context=["https://nowhere.invalid/context.jsonld"])))
    assert row["event_id"] == landed(read(tmp_path, document(said)))[0]["event_id"]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda events: events,
        lambda events: events[0],
        lambda events: {"@context": [CONTEXT], "epcisBody": {"event": events[0]}},
        lambda events: {"epcisBody": {"queryResults": {"queryName": "q", "resultsBody": {"eventList": events}}}},
    ],
    ids=["list of events", "single event", "capture of one", "query answer"],
)
def test_every_envelope_of_events_is_read(tmp_path, wrap):
    assert offsets(read(tmp_path, wrap([event()]))) == [1]


def test_json_ld_spellings_of_type_and_id_are_read(tmp_path):
    said = event(type=None, eventID=None, isA="epcis:ObjectEvent", id="urn:uuid:1")
    (row,) = landed(read(tmp_path, document(said)))
    assert (row["event_type"], row["event_id"]) == ("ObjectEvent", "urn:uuid:1")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (event(eventTime=None), "missing_value"),
        (event(eventTime="yesterday"), "wrong_type"),
        (event(eventTime="2026-03-14T09:26:53"), "wrong_type"),
        (event(eventTime=20260314), "wrong_type"),
        (event(action="TELEPORT"), "unknown_code"),
        (event(type="MiracleEvent"), "unknown_code"),
        (event(quantityList=None), "missing_value"),
        (event(quantityList="twelve"), "wrong_type"),
        (event(quantityList=["twelve"]), "wrong_type"),
        (event(quantityList=[MUGS | {"quantity": "twelve"}]), "wrong_type"),
        (event(quantityList=[MUGS | {"quantity": 1.5}]), "wrong_type"),
        (event(quantityList=[MUGS | {"quantity": True}]), "wrong_type"),
        (event(quantityList=[MUGS | {"quantity": -1}]), "below_minimum"),
        (event(quantityList=[{"epcClass": MUGS["epcClass"]}]), "missing_value"),
        (event(quantityList=[MUGS | {"uom": "KGM"}]), "unknown_unit"),
        (event(quantityList=[MUGS | {"epcClass": "urn:epc:id:sscc:0614141.1234567890"}]), "not_a_trade_item"),
        (event(quantityList=[MUGS | {"epcClass": "urn:epc:class:lgtin:0614141.0002.L7"}]), "not_a_trade_item"),
        (event(quantityList=[MUGS | {"epcClass": "https://id.gs1.org/01/00614141000028"}]), "wrong_check_digit"),
        (event(errorDeclaration="oops"), "wrong_type"),
        (event(eventID={"id": 1}), "wrong_type"),
        (event(disposition="x" * 1_001), "too_long"),
        ("an event", "wrong_type"),
        (None, "wrong_type"),
    ],
)
def test_a_bad_event_is_set_aside_and_the_others_land(tmp_path, bad, reason):
    reading = read(tmp_path, document(event(), bad, event()))
    assert aside(reading) == [(2, reason)]
    kept, _ = conform(reading.frames[EPCIS_EVENTS.table], EPCIS_EVENTS, TOKEN)
    assert kept["record_offset"].to_list() == [1, 3]


def test_a_bad_item_is_set_aside_and_the_rest_of_its_event_lands(tmp_path):
    reading = read(tmp_path, document(event(quantityList=[MUGS, MUGS | {"uom": "KGM"}, MUGS])))
    assert aside(reading) == [(1, "unknown_unit")]
    assert [row["item_number"] for row in landed(reading)] == [1, 3]


def test_a_truncated_document_keeps_every_whole_event(tmp_path):
    content = json.dumps(document(event(), event(), event()))
    reading = read(tmp_path, content[: content.rindex("quantityList")])
    assert offsets(reading) == [1, 2]
    assert aside(reading) == [(3, "truncated")]


def test_a_cut_between_events_is_noticed_too(tmp_path):
    content = json.dumps(document(event(), event()))
    reading = read(tmp_path, content[: content.rindex("]}}")])
    assert offsets(reading) == [1, 2]
    assert aside(reading) == [(3, "truncated")]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_damage_inside_one_event_spares_the_others(tmp_path, position):
    events = [json.dumps(event(action="ADD")) for _ in range(3)]
    events[position] = events[position].replace('"ADD"', '"ADD')
    content = json.dumps(document("@")).replace('"@"', ",".join(events))
    reading = read(tmp_path, content)
    assert offsets(reading) == [n for n in (1, 2, 3) if n != position + 1]
    assert aside(reading) == [(position + 1, "not_well_formed")]


def test_damage_around_the_events_is_reported_and_the_events_land(tmp_path):
    reading = read(tmp_path, json.dumps(document(event())).replace('"2.0"', "2.0.0"))
    assert offsets(reading) == [1]
    assert aside(reading) == [(0, "not_well_formed")]


def test_bytes_that_are_not_utf_8_set_aside_their_event_alone(tmp_path):
    content = json.dumps(document(event(), event(disposition="caf\xe9"), event()), ensure_ascii=False)
    reading = read(tmp_path, content.encode("latin-1"))
    assert offsets(reading) == [1, 3]
    assert aside(reading) == [(2, "wrong_encoding")]


def test_half_a_surrogate_is_no_text(tmp_path):
    content = json.dumps(document(event(), event(disposition="@"))).replace('"@"', '"\\ud800"')
    reading = read(tmp_path, content)
    assert offsets(reading) == [1]
    assert aside(reading) == [(2, "wrong_encoding")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_marked_encoding_is_read(tmp_path, encoding):
    assert offsets(read(tmp_path, json.dumps(document(event())).encode(encoding))) == [1]


def test_a_document_nested_beyond_reason_does_not_stop_its_neighbours(tmp_path):
    deep = "[" * 5_000 + "]" * 5_000
    content = json.dumps(document(event(), "@", event())).replace('"@"', deep)
    reading = read(tmp_path, content)
    assert offsets(reading) == [1, 3]


def test_duplicates_are_kept_for_staging_to_judge(tmp_path):
    assert offsets(read(tmp_path, document(event(), event()))) == [1, 2]


@pytest.mark.parametrize("content", ["", "[", "7", "{}", '{"epcisBody": 1}', "<EPCISDocument/>", b"\xff\xfe"])
def test_what_holds_no_events_is_refused(tmp_path, content):
    with pytest.raises(UnreadableFile, match="expected an EPCIS document"):
        read(tmp_path, content)


def test_locations_and_picks_are_read_by_their_header(tmp_path):
    locations = tmp_path / "locations_2026-03-14.csv"
    names = [column.name for column in SOURCE.contracts[0].columns]
    said = {
        "location_code": "S001",
        "location_type": "store",
        "location_name": '"Duluth, Canal Park"',
        "gln": DULUTH,
        "timezone_name": "America/Chicago",
        "latitude": "46.78",
        "country_code": "US",
        "opened_date": "2001-05-01",
        "updated_at": "2026-03-14T00:00:00Z",
    }
    locations.write_text(",".join(names) + "\n" + ",".join(said.get(name, "") for name in names) + "\n")
    kept, rows = conform(read_locations(locations).frames["raw_wms__locations"], SOURCE.contracts[0], TOKEN)
    assert rows.is_empty()
    assert kept.row(0, named=True)["location_name"] == "Duluth, Canal Park"
    assert kept.row(0, named=True)["opened_date"] == date(2001, 5, 1)
    picks = tmp_path / "picks_2026-03-14.csv"
    picks.write_text(
        "pick_id,order_ref,location_code,sku,requested_units,picked_units,pick_status,reason_code,"
        "started_at,finished_at,packed_at\n"
        "P1,#10001,S001,MUG,2,2,picked,,2026-03-14T15:00:00Z,2026-03-14T15:04:00Z,2026-03-14T15:09:00Z\n"
        "P2,#10002,S001,MUG,1,some,not_found,missing,2026-03-14T15:00:00Z,2026-03-14T15:04:00Z,\n"
    )
    kept, rows = conform(read_picks(picks).frames["raw_wms__picks"], SOURCE.contracts[-1], TOKEN)
    assert kept["pick_id"].to_list() == ["P1"]
    assert [row[:2] for row in rows.rows()] == [(3, "wrong_type")]


def test_the_source_covers_its_contracts():
    assert {table for kind in SOURCE.files for table in kind.tables} == {
        contract.table for contract in SOURCE.contracts
    }


@given(st.integers(0, 10**13 - 1), st.integers(6, 12))
def test_a_gtin_is_the_same_through_urn_and_link(number, length):
    body = f"{number:013d}"
    expected = body + gs1.check_digit(body)
    urn = f"urn:epc:id:sgtin:{body[1 : length + 1]}.{body[0]}{body[length + 1 :]}.serial"
    assert (
        gs1.gtin(urn) == gs1.gtin(gs1.without_serial(urn)) == gs1.gtin(f"https://id.gs1.org/01/{expected}") == expected
    )
    assert gs1.is_checked(expected)


def test_check_digits_follow_the_general_specifications():
    assert gs1.check_digit("629104150021") == "3"
    assert not gs1.is_checked("6291041500214")
    assert not gs1.is_checked("")


VALID = json.dumps(document(event(), event(eventID="urn:uuid:2"))).encode()
EDITS = st.lists(st.tuples(st.integers(0, len(VALID)), st.binary(max_size=3), st.integers(0, 3)), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(EDITS)
def test_no_edit_of_a_document_breaks_the_reader(tmp_path, edits):
    content = bytearray(VALID)
    for at, new, gone in edits:
        content[at : at + gone] = new
    try:
        reading = read(tmp_path, bytes(content))
    except UnreadableFile:
        return
    kept, rows = conform(reading.frames[EPCIS_EVENTS.table], EPCIS_EVENTS, TOKEN)
    assert kept.height + rows.height + len(reading.rejections.table) > 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*event(), "id", "epcList"]), inner, max_size=5)
    ),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from([*event(), "epcList", "errorDeclaration", "sourceList"]), JSON, max_size=6))
def test_no_event_of_any_shape_breaks_the_reader(tmp_path, said):
    reading = read(tmp_path, json.dumps(document(event() | said, event())).encode())
    kept, _ = conform(reading.frames[EPCIS_EVENTS.table], EPCIS_EVENTS, TOKEN)
    assert kept["record_offset"].to_list()[-1] == 2
