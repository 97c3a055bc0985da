"""Point of sale: numbers receipts till by till and writes them as ARTS POSLog XML, one file per store and trading day."""

import numpy as np
import polars as pl

from simulator.landing import Kind, Landing
from simulator.people import People
from simulator.places import Places
from simulator.products import Products
from simulator.spelling import moments, money, offsets

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<POSLog xmlns="http://www.nrf-arts.org/IXRetail/namespace/">\n'
TAIL = "\n</POSLog>"
LAST_NUMBER = 9_999  # the till's counter wraps from here to 1
SALE, RETURN, HANDOVER, CANCELLED, TRAINING, SIGN_ON, SIGN_OFF = range(7)
_OPENING = [
    "<Transaction>", "<Transaction>", "<Transaction>", '<Transaction CancelFlag="true">', '<Transaction TrainingModeFlag="true">',
    "<Transaction>", "<Transaction>",
]  # fmt: skip


def _bad_line(transaction: str) -> str | None:
    """A receipt with one more line, whose quantity the till spelled out."""
    start = transaction.find("<LineItem")
    stop = transaction.find("</LineItem>") + len("</LineItem>")
    line = transaction[start:stop]
    at = line.find("<Quantity>")
    if at < 0:
        return None
    line = line[:at] + "<Quantity>one</Quantity>" + line[line.find("</Quantity>") + len("</Quantity>") :]
    line = line.replace("<SequenceNumber>1<", "<SequenceNumber>99<", 1)
    return transaction[:stop] + line + transaction[stop:]


KIND = Kind("pos", "raw_pos__transactions", (("raw_pos__sale_lines", _bad_line),), in_place=True, may_drop=True)


def numbered(receipts: pl.DataFrame, rng: np.random.Generator, places: Places, next_number: np.ndarray) -> pl.DataFrame:
    """Receipts with `till` and `number`, by store, till and time; a sign-on and sign-off at every till in use.

    `next_number` (place x till) is moved on.
    """
    till = rng.integers(0, places.tills[receipts["place"].to_numpy()])
    receipts = receipts.with_columns(till=pl.Series(till, dtype=pl.Int64))
    used = receipts.group_by("place", "till", maintain_order=True).agg(
        on=pl.col("second").min() - 240, off=pl.col("second").max() + 120
    )
    controls = pl.concat(
        [
            used.select("place", "till", second=pl.col(at), kind=pl.lit(kind, pl.Int64))
            for at, kind in (("on", SIGN_ON), ("off", SIGN_OFF))
        ]
    )
    receipts = pl.concat([receipts, controls], how="diagonal").sort(
        "place", "till", "second", "kind", maintain_order=True
    )
    place, till = receipts["place"].to_numpy(), receipts["till"].to_numpy()
    key = place * next_number.shape[1] + till
    first = np.r_[True, key[1:] != key[:-1]]
    rank = np.arange(len(key)) - np.repeat(np.flatnonzero(first), np.diff(np.r_[np.flatnonzero(first), len(key)]))
    number = (next_number[place, till] + rank - 1) % LAST_NUMBER + 1
    np.add.at(next_number, (place, till), 1)
    return receipts.with_columns(number=pl.Series(number), till=pl.col("till") + 1)


def lines_text(lines: pl.DataFrame, products: Products) -> pl.Series:
    """`<LineItem>` of each sold or returned line; `lines` has line_number, sku, quantity, discount, net, tax, is_keyed,
    is_void, is_return, link (XML after the tax of a return, or null)."""
    item = products.frame.select(
        pl.concat_str([
            pl.lit('<POSIdentity POSIDType="GTIN"><POSItemID>'), "gtin", pl.lit("</POSItemID></POSIdentity><ItemID>"), "sku",
            pl.lit("</ItemID><Description>"), pl.col("title").str.replace_all("&", "&amp;", literal=True),
            pl.lit("</Description><RegularSalesUnitPrice>"), money(products.price), pl.lit("</RegularSalesUnitPrice><ExtendedAmount>"),
        ])
    ).to_series()  # fmt: skip
    opening = pl.Series([
        f'<LineItem{void} EntryMethod="{entry}"><SequenceNumber>'
        for void in ("", ' VoidFlag="true"') for entry in ("Scanned", "Keyed")
    ])  # fmt: skip
    which = lines["is_void"].cast(pl.Int64) * 2 + lines["is_keyed"].cast(pl.Int64)
    tag = pl.Series(["</SequenceNumber><Sale>", "</SequenceNumber><Return>"])[lines["is_return"].cast(pl.Int64)]
    ending = pl.Series(["</Sale></LineItem>", "</Return></LineItem>"])[lines["is_return"].cast(pl.Int64)]
    taxed = pl.when(lines["tax"] > 0).then(
        pl.concat_str([pl.lit("<Tax><Amount>"), money(lines["tax"].to_numpy()), pl.lit("</Amount></Tax>")])
    )
    return pl.select(
        pl.concat_str([
            opening[which], lines["line_number"].cast(pl.String), tag, item[lines["sku"]], money(lines["net"].to_numpy()),
            pl.lit("</ExtendedAmount><DiscountAmount>"), money(lines["discount"].to_numpy()), pl.lit("</DiscountAmount><Quantity>"),
            lines["quantity"].cast(pl.String), pl.lit("</Quantity>"), taxed, lines["link"], ending,
        ], ignore_nulls=True)
    ).to_series()  # fmt: skip


def receipt_text(
    receipts: pl.DataFrame, lines: pl.DataFrame, places: Places, products: Products, people: People, day_start: int, date_text: str, day: int
) -> pl.Series:  # fmt: skip
    """`<Transaction>` of each numbered receipt, in order. `receipts` has receipt, place, till, number, second, kind,
    person, cardholder, shows_card, pays_card, order_name; `lines` has receipt as well, and is in order of it."""
    bodies = (
        lines.select("receipt", xml=lines_text(lines, products))
        .group_by("receipt", maintain_order=True)
        .agg(pl.col("xml").str.join(""))
    )
    sign = pl.when("is_return").then(-1).otherwise(1) * (~pl.col("is_void")).cast(pl.Int64)
    sums = lines.group_by("receipt", maintain_order=True).agg(
        net=(pl.col("net") * sign).sum(), tax=(pl.col("tax") * sign).sum(), count=pl.len()
    )
    whole = receipts.join(bodies, on="receipt", how="left", maintain_order="left").join(
        sums, on="receipt", how="left", maintain_order="left"
    ).with_columns(pl.col("net", "tax", "count").fill_null(0), pl.col("person", "cardholder").fill_null(-1), pl.col("shows_card", "pays_card").fill_null(False))  # fmt: skip
    place, second, kind = (whole[name].to_numpy() for name in ("place", "second", "kind"))
    offset = pl.select(
        pl.when(pl.Series(places.writes_offset[place]))
        .then(offsets(places.offset_minutes[place, day]))
        .otherwise(pl.lit(""))
    ).to_series()
    net, tax = whole["net"].to_numpy(), whole["tax"].to_numpy()
    person = whole["person"].to_numpy()
    retail = kind <= TRAINING
    began = np.where(retail, second - 25 - 14 * whole["count"].to_numpy(), second)
    card = pl.when(whole["shows_card"]).then(
        pl.concat_str(
            [
                pl.lit("<LoyaltyAccount><LoyaltyCardNumber>"),
                people.text("card", whole["cardholder"].to_numpy()),
                pl.lit("</LoyaltyCardNumber></LoyaltyAccount>"),
            ]
        )
    )
    order = pl.concat_str([pl.lit("<OrderReference>"), whole["order_name"], pl.lit("</OrderReference>")])
    amount = money(net + tax)
    paid = pl.concat_str([
        pl.lit("<LineItem><SequenceNumber>"), (whole["count"] + 1).cast(pl.String), pl.lit('</SequenceNumber><Tender TenderType="'),
        pl.when(whole["pays_card"]).then(pl.lit("CreditDebit")).otherwise(pl.lit("Cash")), pl.lit('"><Amount>'), amount, pl.lit("</Amount>"),
        pl.when(whole["pays_card"]).then(
            pl.concat_str([pl.lit("<TokenizedCard>"), people.text("payment", person), pl.lit("</TokenizedCard>")])
        ).otherwise(pl.lit("")),
        pl.lit("</Tender></LineItem>"),
    ])  # fmt: skip
    totals = pl.concat_str([
        pl.lit('<Total TotalType="TransactionNetAmount">'), money(net), pl.lit('</Total><Total TotalType="TransactionTaxAmount">'),
        money(tax), pl.lit('</Total><Total TotalType="TransactionGrossAmount">'), amount, pl.lit("</Total>"),
    ])  # fmt: skip
    control = pl.Series(kind == SIGN_ON).cast(pl.Int64)
    body = (
        pl.when(pl.Series(retail))
        .then(pl.concat_str([
            pl.lit("<RetailTransaction>"), order, card, whole["xml"], pl.when(pl.Series(kind != HANDOVER)).then(paid), totals,
            pl.lit("</RetailTransaction>"),
        ], ignore_nulls=True))
        .otherwise(pl.Series([
            "<ControlTransaction><ReasonCode>SignOff</ReasonCode></ControlTransaction>",
            "<ControlTransaction><ReasonCode>SignOn</ReasonCode></ControlTransaction>",
        ])[control])
    )  # fmt: skip
    return pl.select(
        pl.concat_str([
            pl.Series(_OPENING)[kind], pl.lit("<RetailStoreID>"), places.master["pos_store_code"][place],
            pl.lit("</RetailStoreID><WorkstationID>"), whole["till"].cast(pl.String), pl.lit("</WorkstationID><SequenceNumber>"),
            whole["number"].cast(pl.String), pl.lit(f"</SequenceNumber><BusinessDayDate>{date_text}</BusinessDayDate><BeginDateTime>"),
            moments(day_start + began, offset), pl.lit("</BeginDateTime><EndDateTime>"), moments(day_start + second, offset),
            pl.lit("</EndDateTime><OperatorID>"), (place * 20 + whole["till"] * 2 + second // 25_200).cast(pl.String),
            pl.lit("</OperatorID><CurrencyCode>USD</CurrencyCode>"), body, pl.lit("</Transaction>"),
        ])
    ).to_series()  # fmt: skip


def write(landing: Landing, day: int, receipts: pl.DataFrame, texts: pl.Series, places: Places) -> None:
    """One file per store; `texts` are in the order of `receipts`, store by store."""
    disturbed = landing.disturbed(KIND, day, texts)
    place = receipts["place"].to_numpy()[disturbed.origin]
    codes = places.master["pos_store_code"]
    for store in range(places.centers, len(places)):
        start, stop = np.searchsorted(place, [store, store + 1])
        if stop > start:
            name = f"poslog_{codes[store]}_{landing.date(day)}.xml"
            garbled = int(disturbed.is_garbled[start:stop].sum())
            landing.write(KIND, day, name, disturbed.records[int(start) : int(stop)], garbled, HEAD, TAIL)


def receipt_names(receipts: pl.DataFrame, places: Places, date_text: str) -> pl.Series:
    """`store/till/number/day` of each receipt, as loyalty writes it."""
    code = places.master["pos_store_code"][receipts["place"]]
    return pl.select(
        pl.concat_str(
            [code, receipts["till"].cast(pl.String), receipts["number"].cast(pl.String), pl.lit(date_text)],
            separator="/",
        )
    ).to_series()


def links(receipts: pl.DataFrame, places: Places, date_text: str) -> pl.Series:
    """`<TransactionLink>` by which a return names the receipt it brings back."""
    return pl.select(
        pl.concat_str([
            pl.lit('<TransactionLink ReasonCode="Return"><RetailStoreID>'), places.master["pos_store_code"][receipts["place"]],
            pl.lit("</RetailStoreID><WorkstationID>"), receipts["till"].cast(pl.String), pl.lit("</WorkstationID><SequenceNumber>"),
            receipts["number"].cast(pl.String), pl.lit(f"</SequenceNumber><BusinessDayDate>{date_text}</BusinessDayDate></TransactionLink>"),
        ])
    ).to_series()  # fmt: skip
