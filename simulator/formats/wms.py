"""Warehouse: location master and picks as CSV, stock movements as EPCIS 2.0 JSON, stock and shipping advice as X12 846 and 945."""

import re
import uuid

import numpy as np
import polars as pl

from simulator.landing import Kind, Landing, cut_short, spoiled
from simulator.places import Places
from simulator.products import Products
from simulator.spelling import COMPANY_PREFIX, DAY, csv_lines, epoch_day, moments, offsets, scatter

EPCIS_TAIL = "\n]}}"
EVENTS_PER_DOCUMENT = 400
PICK_COLUMNS = "pick_id,order_ref,location_code,sku,requested_units,picked_units,pick_status,reason_code,started_at,finished_at,packed_at"
EVENT_SCHEMA = {
    "event": pl.Int64, "action": pl.String, "step": pl.String, "disposition": pl.String, "place": pl.Int64, "at": pl.Int64,
    "reference_type": pl.String, "reference": pl.String, "source": pl.Int64, "destination": pl.Int64,
}  # fmt: skip
ITEM_SCHEMA = {"event": pl.Int64, "sku": pl.Int64, "units": pl.Int64}
_STEP_SPELLINGS = ("", "https://ref.gs1.org/cbv/BizStep-", "urn:epcglobal:cbv:bizstep:")
_NO_TIME = spoiled(r'"eventTime":"[^"]*",', "")


def _event_without_time(event: str) -> str | None:
    """Only events of one item, so that one row is lost."""
    return _NO_TIME(event) if event.count('"quantity":') == 1 and '"epcList"' not in event else None


def _miscounted_set(transaction_set: str) -> str:
    """A small transaction set whose trailer counts one segment too many."""
    segments = transaction_set.strip().split("~\n")
    if segments[0].startswith("ST*846"):
        segments = [*segments[:6], "CTT*1", segments[-1]]
    control = "9" + segments[0].rsplit("*", 1)[1][1:]
    segments[0] = f"{segments[0].rsplit('*', 1)[0]}*{control}"
    segments[-1] = f"SE*{len(segments) + 1}*{control}"
    return "~\n".join(segments) + "~\n"


LOCATIONS = Kind("wms", "raw_wms__locations", may_repeat=False)
EPCIS = Kind(
    "wms",
    "raw_wms__epcis_events",
    (("raw_wms__epcis_events", _event_without_time),),
    ",\n",
    may_wait=True,
    fragility=6.0,
)
OPENING = Kind("wms", "raw_wms__epcis_events", (), ",\n")
ADVICE = Kind(
    "wms", "raw_wms__stock_advice", (("raw_wms__stock_advice", _miscounted_set),), "", may_repeat=False, fragility=250.0
)
SHIPMENTS = Kind(
    "wms", "raw_wms__shipments", (("raw_wms__shipments", _miscounted_set),), "", may_repeat=False, fragility=4.0
)
PICKS = Kind(
    "wms",
    "raw_wms__picks",
    (("raw_wms__picks", cut_short), ("raw_wms__picks", spoiled(r"^((?:[^,]*,){4})\d+", r"\1some"))),
    may_wait=True,
    may_drop=True,
)


def write_locations(landing: Landing, places: Places) -> None:
    frame = places.master
    landing.write_records(
        LOCATIONS, 0, f"locations_{landing.date(0)}.csv", csv_lines(frame), ",".join(frame.columns) + "\n"
    )


def sgln(places: Places) -> pl.Series:
    """SGLN URN of each place: the GLN without its check digit, split after the company prefix."""
    gln = places.gln
    return pl.select(
        pl.concat_str([pl.lit(f"urn:epc:id:sgln:{COMPANY_PREFIX}."), gln.str.slice(7, 5), pl.lit(".0")])
    ).to_series()


def event_ids(seed: int, numbers: np.ndarray) -> list[str]:
    """One UUID URN per event number."""
    high, low = scatter(31, seed, numbers), scatter(32, seed, numbers)
    return [
        f"urn:uuid:{uuid.UUID(int=(int(h) << 64) | int(low_bits), version=4)}"
        for h, low_bits in zip(high, low, strict=True)
    ]


def _items(items: pl.DataFrame, products: Products) -> pl.DataFrame:
    """`quantityList` or `epcList` of each event. Serialised goods are listed one by one, a third as Digital Links."""
    sku, units = items["sku"].to_numpy(), items["units"].to_numpy()
    serial = products.is_serialised[sku] & (units > 0) & (units <= 24) & ~items["event"].is_duplicated().to_numpy()
    bulk = items.filter(pl.Series(~serial))
    pattern = pl.Series(["urn:epc:class:lgtin:", "urn:epc:idpat:sgtin:"])[bulk["sku"] % 2]
    lot = (
        pl.when(bulk["sku"] % 2 == 0)
        .then(pl.concat_str([pl.lit(".L"), (bulk["event"] % 97).cast(pl.String)]))
        .otherwise(pl.lit(".*"))
    )
    text = pl.select(
        pl.concat_str([
            pl.lit('{"epcClass":"'), pattern, products.epc_class[bulk["sku"]], lot, pl.lit('","quantity":'),
            bulk["units"].cast(pl.String), pl.lit("}"),
        ])
    ).to_series()  # fmt: skip
    listed = bulk.select("event", text=text).group_by("event", maintain_order=True).agg(pl.col("text").str.join(","))
    listed = listed.with_columns(text=pl.concat_str([pl.lit('"quantityList":['), "text", pl.lit("]")]))
    single = np.repeat(np.flatnonzero(serial), units[serial])
    if not len(single):
        return listed
    event = items["event"].to_numpy()[single]
    number = pl.Series(scatter(33, event, np.arange(len(single))) % np.uint64(10**12)).cast(pl.String)
    one = pl.select(
        pl.when(pl.Series(np.arange(len(single)) % 3 == 0))
        .then(
            pl.concat_str(
                [
                    pl.lit('"https://id.gs1.org/01/'),
                    products.gtin[sku[single]],
                    pl.lit("/21/"),
                    number,
                    pl.lit('"'),
                ]
            )
        )
        .otherwise(
            pl.concat_str(
                [pl.lit('"urn:epc:id:sgtin:'), products.epc_class[sku[single]], pl.lit("."), number, pl.lit('"')]
            )
        )
    ).to_series()
    each = (
        pl.DataFrame({"event": event, "text": one})
        .group_by("event", maintain_order=True)
        .agg(pl.col("text").str.join(","))
    )
    return pl.concat([listed, each.with_columns(text=pl.concat_str([pl.lit('"epcList":['), "text", pl.lit("]")]))])


def events_text(
    events: pl.DataFrame, items: pl.DataFrame, places: Places, products: Products, day: int, ids: pl.Series
) -> pl.Series:
    """EPCIS 2.0 events as JSON, in order of `events` (EVENT_SCHEMA); a null id leaves `eventID` out."""
    place, at = events["place"].to_numpy(), events["at"].to_numpy()
    minutes = places.offset_minutes[place, day].astype(np.int64)
    offset = offsets(minutes)
    location = sgln(places)
    step = pl.Series(_STEP_SPELLINGS)[place % len(_STEP_SPELLINGS)]
    listed = events.select("event").join(_items(items, products), on="event", how="left", maintain_order="left")["text"]
    where = location[place]
    parts = [
        pl.lit('{"type":"ObjectEvent",'),
        pl.concat_str([pl.lit('"eventID":"'), ids, pl.lit('",')]),
        pl.concat_str([pl.lit('"eventTime":"'), moments(at + minutes * 60, offset), pl.lit('","eventTimeZoneOffset":"'), offset]),
        pl.concat_str([pl.lit('","recordTime":"'), moments(at + 90), pl.lit('","action":"'), events["action"]]),
        pl.concat_str([pl.lit('","bizStep":"'), step, events["step"], pl.lit('","disposition":"'), events["disposition"]]),
        pl.concat_str([pl.lit('","readPoint":{"id":"'), where, pl.lit('"},"bizLocation":{"id":"'), where, pl.lit('"},')]),
        pl.concat_str([
            pl.lit('"bizTransactionList":[{"type":"'), events["reference_type"], pl.lit('","bizTransaction":"'), events["reference"], pl.lit('"}],'),
        ]),
        pl.concat_str([
            pl.lit('"sourceList":[{"type":"location","source":"'), location.gather(events["source"]),
            pl.lit('"}],"destinationList":[{"type":"location","destination":"'), location.gather(events["destination"]), pl.lit('"}],'),
        ]),
        listed,
        pl.lit("}"),
    ]  # fmt: skip
    return pl.select(pl.concat_str(parts, ignore_nulls=True)).to_series()


def write_epcis(landing: Landing, kind: Kind, day: int, texts: pl.Series, first_number: int = 1) -> int:
    """Documents of a bounded number of events; returns the next document number."""
    created = moments(np.array([_day_start(landing, day) + DAY]))[0]
    head = (
        '{"@context":["https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld"],"type":"EPCISDocument","schemaVersion":"2.0",'
        f'"creationDate":"{created}","epcisBody":{{"eventList":[\n'
    )
    disturbed = landing.disturbed(kind, day, texts, "epcis")
    number = first_number
    for start in range(0, len(disturbed.records), EVENTS_PER_DOCUMENT):
        stop = start + EVENTS_PER_DOCUMENT
        garbled = int(disturbed.is_garbled[start:stop].sum())
        name = f"epcis_{landing.date(day)}_{number}.json"
        landing.write(kind, day, name, disturbed.records[start:stop], garbled, head, EPCIS_TAIL)
        number += 1
    return number


def declared_wrong(events: list[str], at: int) -> tuple[list[str], list[str]]:
    """For single-item events: the same with a wrong quantity under another id, and that event declared an error."""
    wrong, declarations = [], []
    said = moments(np.array([at]))[0]
    for number, event in enumerate(events):
        right_id = re.search(r'"eventID":"([^"]*)"', event)
        if right_id is None:
            continue
        wrong_id = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, right_id[1])}"
        text = event.replace(right_id[1], wrong_id)
        before, units, after = re.split(r'(?<="quantity":)(\d+)', text, maxsplit=1)
        text = f"{before}{int(units) + 7 + number % 5}{after}"
        wrong.append(text)
        declaration = f'"errorDeclaration":{{"declarationTime":"{said}","reason":"incorrect_data","correctiveEventIDs":["{right_id[1]}"]}}'
        declarations.append(f"{text[:-1]},{declaration}}}")
    return wrong, declarations


def _day_start(landing: Landing, day: int) -> int:
    return (epoch_day(landing.scale.first_day) + day) * DAY


def _interchange(kind: str, group: str, day_text: str, control: int) -> tuple[str, str]:
    """ISA and GS, and the GE and IEA that close them; the number of sets goes where `{}` stands."""
    compact = day_text.replace("-", "")
    head = (
        f"ISA*00*          *00*          *ZZ*TROTHWMS       *ZZ*RETAILER       *{compact[2:]}*0600*U*00401*{control:09d}*0*P*>~\n"
        f"GS*{group}*TROTHWMS*RETAILER*{compact}*0600*{control}*X*004010~\n"
    )
    return head, f"GE*{{}}*{control}~\nIEA*1*{control:09d}~"


def write_stock_advice(
    landing: Landing,
    day: int,
    place: int,
    places: Places,
    products: Products,
    on_hand: np.ndarray,
    committed: np.ndarray,
    known_until: int,
) -> None:
    """X12 846 of one distribution centre: on hand (QTY 17) of every SKU, committed (QTY 20) where there is any."""
    date_text = str(landing.date(day))
    stamp = moments(np.array([known_until]), "")[0]
    reference = f"IA{places.code[place]}{date_text.replace('-', '')}"
    loop = pl.select(
        pl.concat_str([
            pl.lit("LIN**SK*"), products.sku, pl.lit("*UK*"), products.gtin, pl.lit("~\nQTY*17*"), pl.Series(on_hand).cast(pl.String), pl.lit("~\n"),
            pl.when(pl.Series(committed > 0)).then(pl.concat_str([pl.lit("QTY*20*"), pl.Series(committed).cast(pl.String), pl.lit("~\n")])).otherwise(pl.lit("")),
        ])
    ).to_series()  # fmt: skip
    segments = 4 + 2 * len(products) + int((committed > 0).sum()) + 2
    text = (
        f"ST*846*0001~\nBIA*00*SI*{reference}*{date_text.replace('-', '')}~\n"
        f"DTM*405*{stamp[:10].replace('-', '')}*{stamp[11:].replace(':', '')}*UT~\n"
        f"N1*WH*{places.master['location_name'][place]}*UL*{places.gln[place]}~\n"
        f"{''.join(loop)}CTT*{len(products)}~\nSE*{segments}*0001~\n"
    )
    head, tail = _interchange("846", "IB", date_text, day * 100 + place + 1)
    name = f"846_{places.code[place]}_{date_text}.edi"
    landing.write_records(ADVICE, day, name, pl.Series([text]), head, tail.format)


def write_shipments(
    landing: Landing, day: int, place: int, places: Places, products: Products, lines: pl.DataFrame
) -> None:
    """X12 945 of one distribution centre. `lines`: order_name, shipment, tracking, at, sku, ordered, shipped, in order of shipment."""
    date_text = str(landing.date(day))
    lines = lines.with_columns(line=pl.int_range(pl.len()).over("shipment") + 1)
    missing = lines["ordered"] - lines["shipped"]
    loop = pl.concat_str([
        pl.lit("LX*"), lines["line"].cast(pl.String), pl.lit("~\nMAN*CP*"), lines["tracking"], pl.lit("~\nW12*"),
        pl.when(missing == 0).then(pl.lit("CL*")).otherwise(pl.lit("CP*")), lines["ordered"].cast(pl.String), pl.lit("*"),
        lines["shipped"].cast(pl.String), pl.lit("*"), missing.cast(pl.String), pl.lit("*EA*"), products.gtin[lines["sku"]],
        pl.lit("*SK*"), products.sku[lines["sku"]], pl.lit("~\n"),
    ])  # fmt: skip
    sets = lines.with_columns(loop=pl.select(loop).to_series()).group_by("shipment", "order_name", "at", maintain_order=True).agg(
        pl.col("loop").str.join(""), pl.col("shipped").sum(), count=pl.len()
    )  # fmt: skip
    stamp = moments(sets["at"].to_numpy(), "")
    day_compact = stamp.str.slice(0, 10).str.replace_all("-", "", literal=True)
    time_compact = stamp.str.slice(11).str.replace_all(":", "", literal=True)
    control = pl.Series(np.arange(1, len(sets) + 1)).cast(pl.String).str.zfill(4)
    records = pl.select(
        pl.concat_str([
            pl.lit("ST*945*"), control, pl.lit("~\nW06*N*"), sets["order_name"], pl.lit("*"), day_compact, pl.lit("*SH"),
            sets["shipment"].cast(pl.String).str.zfill(9),
            pl.lit(f"~\nN1*WH*{places.master['location_name'][place]}*UL*{places.gln[place]}~\nN1*ST*CONSUMER~\nG62*11*"),
            day_compact, pl.lit("*T*"), time_compact, pl.lit("*UT~\nW27*M*"),
            pl.Series(["UPSN", "FDEG", "USPS"])[sets["shipment"] % 3], pl.lit("~\n"), sets["loop"], pl.lit("W03*"),
            sets["shipped"].cast(pl.String), pl.lit("~\nSE*"), (sets["count"] * 3 + 8).cast(pl.String), pl.lit("*"), control, pl.lit("~\n"),
        ])
    ).to_series()  # fmt: skip
    head, tail = _interchange("945", "SW", date_text, day * 100 + place + 1)
    landing.write_records(SHIPMENTS, day, f"945_{places.code[place]}_{date_text}.edi", records, head, tail.format)


def write_picks(landing: Landing, day: int, picks: pl.DataFrame) -> None:
    """Store picks, columns as the header says."""
    lines = csv_lines(picks) if len(picks) else pl.Series([], dtype=pl.String)
    landing.write_records(PICKS, day, f"picks_{landing.date(day)}.csv", lines, PICK_COLUMNS + "\n")
