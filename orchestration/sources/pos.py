"""Point of sale: POSLog XML receipts. Contracts and the reader."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from orchestration.sources.contract import (
    FILE_STRIDE,
    Column,
    Contract,
    FileKind,
    Reading,
    Source,
    UnreadableFile,
    cents,
)
from orchestration.sources.poslog import LINE_COLUMNS, RECEIPT_COLUMNS, Receipts, read_receipts

RECEIPT_KEY = (
    Column("store_code", "text", "Store as the till knows it.", required=True),
    Column("workstation_code", "text", "Till.", required=True),
    Column("sequence_number", "integer", "Till's own counter; wraps from 9999 to 1.", required=True, minimum=0),
    Column("business_date", "date", "Trading day the receipt belongs to; not always the calendar day.", required=True),
)
TRANSACTIONS = Contract(
    table="raw_pos__transactions",
    description="Till transactions as the point of sale exported them. One row per transaction and export.",
    key=("store_code", "workstation_code", "sequence_number", "business_date"),
    columns=(
        *RECEIPT_KEY,
        Column("transaction_type", "text", "Kind of transaction.", required=True, values=("retail", "control")),
        Column("began_at_local", "local_timestamp", "Start on the till's wall clock."),
        Column("ended_at_local", "local_timestamp", "End on the till's wall clock.", required=True),
        Column("utc_offset", "text", "Offset the till wrote, such as -05:00; null when it wrote none."),
        Column("operator_code", "text", "Operator signed on.", personal="identifier"),
        Column("currency_code", "text", "ISO 4217 code.", required=True),
        Column("is_voided", "boolean", "Whole transaction cancelled (CancelFlag).", required=True),
        Column("is_training", "boolean", "Training mode: never a real sale.", required=True),
        Column("net_cents", "integer", "Sum of the lines before tax, returns negative."),
        Column("tax_cents", "integer", "Tax, returns negative."),
        Column("gross_cents", "integer", "Net and tax together."),
        Column("tendered_cents", "integer", "Sum of tenders less change."),
        Column("loyalty_card_number", "text", "Card shown at the till.", personal="identifier"),
        Column(
            "loyalty_card_ref",
            "text",
            "Token of the card.",
            personal="identifier",
            token_of=("card", "loyalty_card_number"),
        ),
        Column("payment_token", "text", "Card-on-file token the payment terminal gave.", personal="identifier"),
        Column(
            "payment_ref",
            "text",
            "Token of the payment token.",
            personal="identifier",
            token_of=("payment", "payment_token"),
        ),
        Column("order_name", "text", "Web order handed over by this transaction (click and collect), such as #10001."),
    ),
)
SALE_LINES = Contract(
    table="raw_pos__sale_lines",
    description="Receipt lines as the point of sale exported them. One row per sold or returned line and export.",
    key=("store_code", "workstation_code", "sequence_number", "business_date", "line_number"),
    columns=(
        *RECEIPT_KEY,
        Column("line_number", "integer", "Position on the receipt.", required=True, minimum=1),
        Column("line_type", "text", "Sold or taken back.", required=True, values=("sale", "return")),
        Column("is_voided", "boolean", "Line struck out before payment (VoidFlag).", required=True),
        Column("entry_method", "text", "Scanned, Keyed ..."),
        Column("sku", "text", "Retailer's item code (ItemID).", required=True),
        Column("gtin", "text", "GTIN scanned, where the till wrote one."),
        Column(
            "quantity_units",
            "integer",
            "Pieces, positive for sale and return alike; 1 for a weighed piece.",
            required=True,
            minimum=1,
        ),
        Column("measured_quantity", "decimal", "Weight or length, for goods sold by measure."),
        Column("unit_price_cents", "integer", "Price asked for one unit."),
        Column("discount_cents", "integer", "Discount on the line, not negative.", minimum=0),
        Column(
            "net_cents",
            "integer",
            "Extended amount after discount, before tax, not negative.",
            required=True,
            minimum=0,
        ),
        Column("tax_cents", "integer", "Tax on the line, not negative.", required=True, minimum=0),
        Column("original_store_code", "text", "Return: store of the receipt brought back."),
        Column("original_workstation_code", "text", "Return: till of the receipt brought back."),
        Column("original_sequence_number", "integer", "Return: number of the receipt brought back."),
        Column("original_business_date", "date", "Return: trading day of the receipt brought back."),
        Column("original_order_name", "text", "Return of a web order in store: the order's name."),
        Column("is_restocked", "boolean", "Return: goods went back to saleable stock."),
    ),
)
CONTRACTS = (TRANSACTIONS, SALE_LINES)


def read_poslog(path: Path) -> Reading:
    """Transactions and sold or returned lines of a POSLog document.

    `record_offset` is the n of `(//Transaction)[n]` and of `(//LineItem)[n]`, by local name. Set aside: `truncated`,
    `not_well_formed`, `wrong_encoding` and `too_long` transactions, and lines of an `unknown_element` with money in it.

    Raises: UnreadableFile, see `read_receipts`.
    """
    return _reading({0: read_receipts(path)})


def read_poslogs(paths: Mapping[int, Path]) -> Reading:
    """`read_poslog` for many documents, by file number. Unreadable ones are set aside."""
    found: dict[int, Receipts] = {}
    unreadable: dict[int, str] = {}
    for number, path in paths.items():
        try:
            found[number] = read_receipts(path)
        except UnreadableFile as error:
            unreadable[number] = str(error)
    reading = _reading(found)
    for number, detail in unreadable.items():
        for contract in CONTRACTS:
            reading.rejections.add(contract.table, number * FILE_STRIDE, "unreadable_file", detail)
    return reading


def _reading(documents: Mapping[int, Receipts]) -> Reading:
    """Rows of all documents in one frame a table, places counted through."""
    reading = Reading()
    receipts: list[tuple[Any, ...]] = []
    lines: list[tuple[Any, ...]] = []
    for number, found in documents.items():
        start = number * FILE_STRIDE
        receipts += [(start + row[0], *row[1:]) for row in found.receipts] if start else found.receipts
        lines += [(start + row[0], *row[1:]) for row in found.lines] if start else found.lines
        for table, faults in ((TRANSACTIONS.table, found.faults), (SALE_LINES.table, found.line_faults)):
            for place, reason, detail in faults:
                reading.rejections.add(table, start + place, reason, detail)
    reading.frames[TRANSACTIONS.table] = _frame(receipts, RECEIPT_COLUMNS).select(_TRANSACTION)
    reading.frames[SALE_LINES.table] = _frame(lines, LINE_COLUMNS).select(_SALE_LINE)
    return reading


def _frame(rows: list[tuple[Any, ...]], names: tuple[str, ...]) -> pl.DataFrame:
    types = {"record_offset": pl.Int64(), "is_weighed": pl.Boolean()}
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return pl.DataFrame(
        [pl.Series(name, values, types.get(name, pl.String())) for name, values in zip(names, columns, strict=True)]
    )


# xs:date may carry an offset, and some tills write the trading day as a midnight.
_DAY = r"^\s*([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T00:00:00(?:\.0+)?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?\s*$"
_CLOCK = r"(T[0-9:.,]+)\s*([Zz]|[+-][0-9]{2}:?[0-9]{2})\s*$"


def _day(name: str) -> pl.Expr:
    return pl.coalesce(pl.col(name).str.extract(_DAY), pl.col(name)).alias(name)


def _transaction() -> list[pl.Expr]:
    began, ended = pl.col("began_at"), pl.col("ended_at")
    offset = pl.coalesce(ended.str.extract(_CLOCK, 2), began.str.extract(_CLOCK, 2))
    computed = [
        _day("business_date"),
        began.str.replace(_CLOCK, "$1").alias("began_at_local"),
        ended.str.replace(_CLOCK, "$1").alias("ended_at_local"),
        offset.str.replace("^[Zz]$", "+00:00").str.replace(r"^([+-]\d\d)(\d\d)$", "$1:$2").alias("utc_offset"),
        *[cents(pl.col(name)).alias(f"{name}_cents") for name in ("net", "tax", "gross", "tendered")],
    ]
    return _completed(computed, TRANSACTIONS, RECEIPT_COLUMNS)


def _sale_line() -> list[pl.Expr]:
    quantity = pl.col("quantity").str.strip_chars()
    is_measure = quantity.str.contains(r"^[0-9]+\.[0-9]+$")
    is_weighed = is_measure & (pl.col("is_weighed") | quantity.str.contains(r"\.0*[1-9]"))
    pieces = pl.when(is_weighed).then(pl.lit("1")).when(is_measure).then(quantity.str.replace(r"\..*$", ""))
    # A price per pound or litre may be finer than a cent; then no number of cents is the price.
    price = pl.when(~pl.col("unit_price").str.contains(r"^\s*[0-9]+\.[0-9]{2}[0-9]*[1-9][0-9]*\s*$")).then("unit_price")
    disposition = pl.col("disposition").str.strip_chars().str.to_lowercase()
    computed = [
        _day("business_date"),
        _day("original_business_date"),
        pieces.otherwise(quantity).alias("quantity_units"),
        pl.when(is_weighed).then(quantity).alias("measured_quantity"),
        cents(price).alias("unit_price_cents"),
        *[cents(pl.col(name)).alias(f"{name}_cents") for name in ("discount", "net", "tax")],
        pl.when(disposition.is_not_null()).then(disposition == "restock").alias("is_restocked"),
    ]
    return _completed(computed, SALE_LINES, LINE_COLUMNS)


def _completed(computed: list[pl.Expr], contract: Contract, read: tuple[str, ...]) -> list[pl.Expr]:
    """Computed columns, and those of the contract that the document states as they are."""
    made = {expression.meta.output_name() for expression in computed}
    stated = ["record_offset", *(c.name for c in contract.columns if c.name in read and c.name not in made)]
    return [*(pl.col(name) for name in stated), *computed]


# Built once: for the few rows of one store's day, building expressions costs more than computing them.
_TRANSACTION = _transaction()
_SALE_LINE = _sale_line()

SOURCE = Source(
    name="pos",
    description="Tills of every store: sales, returns, voids and web orders handed over, as POSLog XML.",
    contracts=CONTRACTS,
    files=(FileKind("poslog_*.xml", (TRANSACTIONS.table, SALE_LINES.table), read_poslog, read_poslogs),),
)
