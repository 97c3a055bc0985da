"""POSLog: what a till wrote is what lands; what it botched is set aside, and nothing beside it."""

from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from orchestration.sources.contract import Reading, UnreadableFile, conform
from orchestration.sources.pos import CONTRACTS, SALE_LINES, SOURCE, TRANSACTIONS, read_poslog
from troth.ids import tokeniser

TOKEN = tokeniser(b"k" * 32)
NAMESPACE = 'xmlns="http://www.nrf-arts.org/IXRetail/namespace/"'


def sale(number: int = 1, inside: str = "", attributes: str = 'EntryMethod="Scanned"', **said: str) -> str:
    """A line item with a mug sold for 12.50 and 1.03 tax; `said` replaces texts by element name."""
    texts = {"ItemID": "SKU-00001", "ExtendedAmount": "12.50", "Quantity": "1"} | said
    body = "".join(f"<{name}>{text}</{name}>" for name, text in texts.items())
    return (
        f"<LineItem {attributes}><SequenceNumber>{number}</SequenceNumber><Sale>"
        '<POSIdentity POSIDType="GTIN"><POSItemID>00614141000012</POSItemID></POSIdentity>'
        f"{body}<Tax><Amount>1.03</Amount></Tax>{inside}</Sale></LineItem>"
    )


def tender(amount: str, inside: str = "", attributes: str = 'TenderType="Cash"') -> str:
    return (
        "<LineItem><SequenceNumber>90</SequenceNumber>"
        f"<Tender {attributes}><Amount>{amount}</Amount>{inside}</Tender></LineItem>"
    )


def receipt(body: str = "", number: int = 7, attributes: str = "", ended: str = "2026-03-14T10:01:30") -> str:
    """A retail transaction at till 2 of store 1 in Duluth, on Pi day."""
    return (
        f"<Transaction {attributes}><RetailStoreID>1</RetailStoreID><WorkstationID>2</WorkstationID>"
        f"<SequenceNumber>{number}</SequenceNumber><BusinessDayDate>2026-03-14</BusinessDayDate>"
        f"<BeginDateTime>2026-03-14T10:00:00</BeginDateTime><EndDateTime>{ended}</EndDateTime>"
        f"<OperatorID>31</OperatorID><CurrencyCode>USD</CurrencyCode><RetailTransaction>{body}"
        '<Total TotalType="TransactionNetAmount">12.50</Total></RetailTransaction></Transaction>\n'
    )


def document(*receipts: str, root: str = f"POSLog {NAMESPACE}") -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>\n{"".join(receipts)}</POSLog>'


def read(tmp_path: Path, content: str | bytes) -> Reading:
    path = tmp_path / "poslog_1_2026-03-14.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_poslog(path)


def landed(reading: Reading, contract=SALE_LINES) -> list[dict]:
    kept, aside = conform(reading.frames[contract.table], contract, TOKEN)
    assert aside.is_empty(), aside.rows()
    return kept.to_dicts()


def numbers(reading: Reading) -> list[int]:
    return [row["sequence_number"] for row in landed(reading, TRANSACTIONS)]


def aside(reading: Reading) -> list[tuple[str, int, str]]:
    """Table, offset and reason of all that was set aside, by the reader and by the contract."""
    found = list(
        zip(reading.rejections.table, reading.rejections.record_offset, reading.rejections.reason_code, strict=True)
    )
    for contract in CONTRACTS:
        _, rows = conform(reading.frames[contract.table], contract, TOKEN)
        found += [(contract.table, offset, reason) for offset, reason, _ in rows.rows()]
    return found


def test_a_sale_comes_through_with_its_money_its_times_and_its_card(tmp_path):
    body = (
        "<LoyaltyAccount><LoyaltyCardNumber>9840000017</LoyaltyCardNumber></LoyaltyAccount>"
        + sale(RegularSalesUnitPrice="15.00", DiscountAmount="2.50")
        + tender("13.53", "<TokenizedCard>tok_9</TokenizedCard>", 'TenderType="CreditDebit"')
        + '<Total TotalType="TransactionTaxAmount">1.03</Total><Total TotalType="TransactionGrossAmount">13.53</Total>'
    )
    reading = read(tmp_path, document(receipt(body, ended="2026-03-14T10:01:30.250-05:00")))
    (transaction,) = landed(reading, TRANSACTIONS)
    assert transaction == {
        "store_code": "1",
        "workstation_code": "2",
        "sequence_number": 7,
        "business_date": date(2026, 3, 14),
        "transaction_type": "retail",
        "began_at_local": datetime(2026, 3, 14, 10),
        "ended_at_local": datetime(2026, 3, 14, 10, 1, 30, 250_000),
        "utc_offset": "-05:00",
        "operator_code": "31",
        "currency_code": "USD",
        "is_voided": False,
        "is_training": False,
        "net_cents": 1250,
        "tax_cents": 103,
        "gross_cents": 1353,
        "tendered_cents": 1353,
        "loyalty_card_number": "9840000017",
        "loyalty_card_ref": TOKEN("card", "9840000017"),
        "payment_token": "tok_9",
        "payment_ref": TOKEN("payment", "tok_9"),
        "order_name": None,
        "record_offset": 1,
    }
    (line,) = landed(reading)
    assert line == {
        "store_code": "1",
        "workstation_code": "2",
        "sequence_number": 7,
        "business_date": date(2026, 3, 14),
        "line_number": 1,
        "line_type": "sale",
        "is_voided": False,
        "entry_method": "Scanned",
        "sku": "SKU-00001",
        "gtin": "00614141000012",
        "quantity_units": 1,
        "measured_quantity": None,
        "unit_price_cents": 1500,
        "discount_cents": 250,
        "net_cents": 1250,
        "tax_cents": 103,
        "original_store_code": None,
        "original_workstation_code": None,
        "original_sequence_number": None,
        "original_business_date": None,
        "original_order_name": None,
        "is_restocked": None,
        "record_offset": 1,
    }


def test_a_return_names_the_receipt_it_brings_back_and_what_became_of_the_goods(tmp_path):
    link = (
        '<TransactionLink ReasonCode="Return"><RetailStoreID>3</RetailStoreID><WorkstationID>4</WorkstationID>'
        "<SequenceNumber>55</SequenceNumber><BusinessDayDate>2026-03-01</BusinessDayDate></TransactionLink>"
    )
    lines = [
        sale(1, link + "<Disposition>Restock</Disposition>"),
        sale(2, "<OrderReference>#10001</OrderReference><Disposition>Damaged</Disposition>", ExtendedAmount="-12.50"),
    ]
    body = "".join(lines).replace("<Sale>", "<Return>").replace("</Sale>", "</Return>")
    brought_back, of_the_web = landed(read(tmp_path, document(receipt(body))))
    assert brought_back["line_type"] == "return"
    assert brought_back["original_store_code"] == "3"
    assert brought_back["original_workstation_code"] == "4"
    assert brought_back["original_sequence_number"] == 55
    assert brought_back["original_business_date"] == date(2026, 3, 1)
    assert brought_back["is_restocked"] is True
    assert of_the_web["original_order_name"] == "#10001"
    assert of_the_web["is_restocked"] is False
    assert of_the_web["net_cents"] == 1250


def test_a_hand_over_is_a_receipt_with_an_order_and_no_lines(tmp_path):
    reading = read(tmp_path, document(receipt("<OrderReference>#10001</OrderReference>")))
    assert landed(reading, TRANSACTIONS)[0]["order_name"] == "#10001"
    assert landed(reading) == []


def test_voids_training_and_cancellations_are_read_as_flags(tmp_path):
    reading = read(
        tmp_path,
        document(
            receipt(sale(attributes='VoidFlag="true"')),
            receipt(number=8, attributes='CancelFlag="true"'),
            receipt(number=9, attributes='TrainingModeFlag="true"'),
        ),
    )
    assert landed(reading)[0]["is_voided"] is True
    flags = [(row["is_voided"], row["is_training"]) for row in landed(reading, TRANSACTIONS)]
    assert flags == [(False, False), (True, False), (False, True)]


def test_tenders_are_summed_less_change_refunds_and_voided_ones(tmp_path):
    change = "<TenderChange><Amount>6.50</Amount></TenderChange>"
    void = tender("99.00").replace("<LineItem>", '<LineItem VoidFlag="true">')
    reading = read(
        tmp_path,
        document(
            receipt(tender("20.00", change) + tender("5.00") + void),
            receipt(tender("4.00", attributes='TypeCode="Refund"'), number=8),
            receipt(tender("-4.00"), number=9),
            receipt(tender("four"), number=10),
        ),
    )
    kept, _ = conform(reading.frames[TRANSACTIONS.table], TRANSACTIONS, TOKEN)
    assert kept["tendered_cents"].to_list() == [1850, -400, -400]
    assert aside(reading) == [(TRANSACTIONS.table, 4, "wrong_type")]


def test_a_weighed_piece_is_one_unit_and_keeps_its_measure(tmp_path):
    lines = (
        sale(1, Quantity="0.42", RegularSalesUnitPrice="2.999")
        + sale(2, Quantity="3.000")
        + sale(3, attributes='weightItem="true"', Quantity="2.000")
        + sale(4).replace("<Quantity>1<", '<Quantity UnitOfMeasureCode="LB">1.0<')
    )
    rows = landed(read(tmp_path, document(receipt(lines))))
    assert [(row["quantity_units"], row["measured_quantity"]) for row in rows] == [
        (1, 0.42),
        (3, None),
        (1, 2.0),
        (1, 1.0),
    ]
    assert rows[0]["unit_price_cents"] is None


def test_several_taxes_on_a_line_are_summed_and_none_is_nothing(tmp_path):
    lines = sale(1, "<Tax><Amount>0.07</Amount></Tax>") + sale(2).replace("<Tax><Amount>1.03</Amount></Tax>", "")
    assert [row["tax_cents"] for row in landed(read(tmp_path, document(receipt(lines))))] == [110, 0]


@pytest.mark.parametrize(
    "root", ["POSLog", 'POSLog xmlns="urn:another"', 'POSLog xmlns="urn:a" xmlns:acs="urn:b"', "POSLog Version='2.1'"]
)
def test_any_namespace_or_none_reads_the_same(tmp_path, root):
    assert len(landed(read(tmp_path, document(receipt(sale()), root=root)))) == 1


def test_prefixed_elements_read_the_same(tmp_path):
    plain = document(receipt(sale()), root="POSLog")
    prefixed = plain.replace("</", "</p:").replace("<p:", "<").replace("<", "<p:")
    prefixed = prefixed.replace("<p:/p:", "</p:").replace("<p:?", "<?").replace("<p:/", "</p:")
    prefixed = prefixed.replace("<p:POSLog", '<p:POSLog xmlns:p="urn:x"')
    assert landed(read(tmp_path, prefixed)) == landed(read(tmp_path, plain))


NCR = """<POSLog xmlns="http://www.nrf-arts.org/IXRetail/namespace/" xmlns:acs="http://www.ncr.com/tlog/2.1">
<Transaction><RetailStoreID>9</RetailStoreID><WorkstationID>34</WorkstationID><SequenceNumber>161</SequenceNumber>
<BusinessDayDate>2017-09-30</BusinessDayDate><EndDateTime>2017-10-01T02:02:54</EndDateTime><CurrencyCode>USD</CurrencyCode>
<RetailTransaction Version="2.1"><ReceiptDateTime>2017-10-01T02:02:54</ReceiptDateTime>
<LineItem EntryMethod="acs:Keyed" acs:weightItem="true"><SequenceNumber>1</SequenceNumber><Sale ItemType="Stock">
<POSIdentity POSIDType="GTIN"><POSItemID>00000000067591</POSItemID></POSIdentity><ItemID>00000000067591</ItemID>
<ExtendedAmount>1.26</ExtendedAmount><Quantity>0.42</Quantity></Sale></LineItem>
<LineItem><SequenceNumber>3</SequenceNumber><acs:LoyaltyMembership><acs:LoyaltyID>40000066677</acs:LoyaltyID>
</acs:LoyaltyMembership></LineItem><LineItem><SequenceNumber>4</SequenceNumber><LoyaltyReward><PromotionID>1</PromotionID>
<acs:RewardBasis><acs:ItemID>00000000067591</acs:ItemID></acs:RewardBasis></LoyaltyReward></LineItem>
<Total TotalType="TransactionGrandAmount">1.07</Total><Total TotalType="acs:GrossPositive">1.26</Total>
</RetailTransaction></Transaction></POSLog>"""


def test_the_ncr_dialect_reads(tmp_path):
    reading = read(tmp_path, NCR)
    assert aside(reading) == []
    (transaction,), (line,) = landed(reading, TRANSACTIONS), landed(reading)
    assert transaction["loyalty_card_number"] == "40000066677"
    assert transaction["gross_cents"] == 107
    assert transaction["began_at_local"] is None
    assert (line["entry_method"], line["quantity_units"], line["tax_cents"]) == ("Keyed", 1, 0)


def test_a_control_transaction_is_a_receipt_without_lines(tmp_path):
    control = receipt().replace("RetailTransaction>", "ControlTransaction>")
    assert landed(read(tmp_path, document(control)), TRANSACTIONS)[0]["transaction_type"] == "control"


def test_a_bad_line_is_set_aside_and_the_rest_of_the_receipt_lands(tmp_path):
    reading = read(tmp_path, document(receipt(sale(1) + sale(2, Quantity="one") + sale(3))))
    assert aside(reading) == [(SALE_LINES.table, 2, "wrong_type")]
    kept, _ = conform(reading.frames[SALE_LINES.table], SALE_LINES, TOKEN)
    assert kept["line_number"].to_list() == [1, 3]
    assert numbers(reading) == [7]


def test_a_truncated_document_keeps_every_whole_receipt(tmp_path):
    text = document(*[receipt(sale(), number) for number in (1, 2, 3)])
    reading = read(tmp_path, text[: text.rindex("<ExtendedAmount>")])
    assert numbers(reading) == [1, 2]
    assert aside(reading) == [(TRANSACTIONS.table, 3, "truncated")]


def test_a_cut_between_receipts_is_noticed_too(tmp_path):
    text = document(*[receipt(sale(), number) for number in (1, 2)])
    reading = read(tmp_path, text[: text.rindex("</POSLog>")])
    assert numbers(reading) == [1, 2]
    assert aside(reading) == [(TRANSACTIONS.table, 3, "truncated")]


def test_damage_inside_one_receipt_spares_the_others_and_their_offsets(tmp_path):
    broken = receipt(sale(1) + sale(2), 2).replace("</Sale>", "</Sold>", 1)
    reading = read(tmp_path, document(receipt(sale(), 1), broken, receipt(sale(), 3)))
    assert numbers(reading) == [1, 3]
    assert aside(reading) == [(TRANSACTIONS.table, 2, "not_well_formed")]
    assert [row["record_offset"] for row in landed(reading)] == [1, 4]


def test_bytes_that_are_not_utf_8_set_aside_their_receipt_alone(tmp_path):
    text = document(receipt(sale(), 1), receipt(sale(Description="Caf\xe9 mug"), 2), receipt(sale(), 3))
    reading = read(tmp_path, text.encode("latin-1"))
    assert numbers(reading) == [1, 3]
    assert aside(reading) == [(TRANSACTIONS.table, 2, "wrong_encoding")]


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "windows-1252", "UTF-16", "utf-16-le", "UTF-8-SIG"])
def test_a_declared_or_marked_encoding_is_read(tmp_path, encoding):
    text = document(receipt(sale(ItemID="SKU-\xe9"))).replace("UTF-8", encoding)
    assert landed(read(tmp_path, text.encode(encoding)))[0]["sku"] == "SKU-\xe9"


def test_an_encoding_we_do_not_read_is_refused_by_name(tmp_path):
    with pytest.raises(UnreadableFile, match=r"expected UTF-8.*found UTF-7 declared"):
        read(tmp_path, document(receipt(sale())).replace("UTF-8", "UTF-7"))


BOMB = '<!DOCTYPE POSLog [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
EXTERNAL = '<!DOCTYPE POSLog [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("prolog", [BOMB, EXTERNAL, '<!DOCTYPE POSLog SYSTEM "http://example.org/poslog.dtd">'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_before_anything_is_parsed(tmp_path, prolog, encoding):
    text = document(receipt(sale(ItemID="&a;"))).replace("<POSLog", f"{prolog}<POSLog")
    with pytest.raises(UnreadableFile, match="expected a document without DOCTYPE"):
        read(tmp_path, text.replace("UTF-8", encoding).encode(encoding))


def test_an_entity_nobody_declared_sets_aside_its_receipt(tmp_path):
    reading = read(tmp_path, document(receipt(sale(ItemID="&mug;"), 1), receipt(sale(), 2)))
    assert numbers(reading) == [2]
    assert aside(reading) == [(TRANSACTIONS.table, 1, "not_well_formed")]


@pytest.mark.parametrize("size", [1_001, 11_000_000])
def test_a_huge_field_sets_aside_no_more_than_its_receipt(tmp_path, size):
    reading = read(tmp_path, document(receipt(sale(), 1), receipt(sale(ItemID="x" * size), 2), receipt(sale(), 3)))
    assert [reason for _, _, reason in aside(reading)] == ["too_long"]
    kept, _ = conform(reading.frames[SALE_LINES.table], SALE_LINES, TOKEN)
    assert kept["sequence_number"].to_list() == [1, 3]


def test_unknown_elements_are_left_out_unless_they_carry_money(tmp_path):
    coupon = "<LineItem><SequenceNumber>4</SequenceNumber><Greeting><Text>Hello</Text></Greeting></LineItem>"
    layaway = coupon.replace("Greeting", "Layaway").replace("Text", "ExtendedAmount").replace("Hello", "5.00")
    reading = read(tmp_path, document(receipt("<Weather>rain</Weather>" + sale() + coupon + layaway)))
    assert aside(reading) == [(SALE_LINES.table, 3, "unknown_element")]
    assert len(landed(reading)) == 1


def test_duplicates_are_kept_for_staging_to_judge(tmp_path):
    reading = read(tmp_path, document(receipt(sale()), receipt(sale())))
    assert numbers(reading) == [7, 7]
    assert [row["record_offset"] for row in landed(reading)] == [1, 2]


def test_a_comment_inside_a_value_does_not_cut_it(tmp_path):
    assert landed(read(tmp_path, document(receipt(sale(ItemID="SKU-<!-- new -->00001")))))[0]["sku"] == "SKU-00001"


def test_a_document_without_receipts_is_empty_and_another_document_is_refused(tmp_path):
    assert landed(read(tmp_path, document()), TRANSACTIONS) == []
    for content in ("", "hello", "<Invoice/>", "{}", b"\x00\xff\xfe"):
        with pytest.raises(UnreadableFile, match="expected a POSLog document"):
            read(tmp_path, content)


def test_nothing_set_aside_quotes_the_file(tmp_path):
    reading = read(tmp_path, document(receipt(sale(Quantity="SECRET")), receipt("SECRET<", 8), receipt(sale(), 9)))
    details = " ".join(reading.rejections.detail)
    for contract in CONTRACTS:
        details += " ".join(conform(reading.frames[contract.table], contract, TOKEN)[1]["detail"])
    assert details
    assert "SECRET" not in details


def test_the_source_covers_its_contracts():
    assert {table for kind in SOURCE.files for table in kind.tables} == {
        contract.table for contract in SOURCE.contracts
    }


VALID = document(receipt(sale(1) + sale(2) + tender("25.00"), 1), receipt(sale(1), 2)).encode()
EDITS = st.lists(
    st.tuples(st.integers(0, len(VALID) - 1), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=4
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
@given(EDITS)
@example([(0, b"", 3)])
def test_no_edit_of_a_document_breaks_the_reader(tmp_path, edits):
    content = bytearray(VALID)
    for at, new, gone in edits:
        content[at : at + gone] = new
    try:
        reading = read(tmp_path, bytes(content))
    except UnreadableFile:
        return
    for contract in CONTRACTS:
        frame = reading.frames[contract.table]
        kept, _ = conform(frame, contract, TOKEN)
        assert kept.height <= frame.height
        assert frame.schema["record_offset"] == pl.Int64()
