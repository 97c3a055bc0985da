"""Web shop and marketplaces: Shopify-shaped JSON lines for products, customers, orders, refunds and inventory levels."""

import numpy as np
import polars as pl

from simulator.demand import APP, CLICK_AND_COLLECT, CURBSIDE, DROP_SHIP, MARKETPLACE, METHODS, SOURCES
from simulator.duplicates import NEVER
from simulator.landing import Kind, Landing, cut_short, spoiled
from simulator.people import People
from simulator.places import Places
from simulator.products import Products
from simulator.scale import Scale
from simulator.spelling import DAY, epoch_day, json_lines, moments, money, offsets, scatter

FIRST_ORDER_ID, FIRST_ORDER_NAME = 5_000_000_000_000, 10_001
FIRST_FULFILLMENT_ORDER_ID, FIRST_FULFILLMENT_ID = 6_600_000_000_000, 4_900_000_000_000
FIRST_LINE_ID, FIRST_REFUND_ID, FIRST_REFUND_LINE_ID = 13_000_000_000_000, 900_000_000_000, 400_000_000_000
FIRST_VARIANT_ID, FIRST_INVENTORY_ITEM_ID = 45_000_000_000_001, 47_000_000_000_001
# Product ids lie above 2^53: senders that keep numbers as doubles round them, and only the gid is exact.
FIRST_PRODUCT_ID, PRODUCT_STEP = 788_032_119_674_292_913, 17
ORDER_STATUS = ("open", "fulfilled", "partial", "cancelled")
OPEN, FULFILLED, PARTIAL, CANCELLED = range(4)

PRODUCTS = Kind("ecommerce", "raw_ecommerce__products", (("raw_ecommerce__products", cut_short),))
CUSTOMERS = Kind(
    "ecommerce", "raw_ecommerce__customers",
    (("raw_ecommerce__customers", cut_short), ("raw_ecommerce__customers", spoiled(r'"created_at":"[^"]*"', '"created_at":"last spring"'))),
)  # fmt: skip
ORDERS = Kind("ecommerce", "raw_ecommerce__orders", (("raw_ecommerce__orders", cut_short),), may_wait=True)
REFUNDS = Kind("ecommerce", "raw_ecommerce__refunds", (("raw_ecommerce__refunds", cut_short),), fragility=3.0)
PROMISES = Kind(
    "ecommerce", "raw_ecommerce__fulfillment_orders",
    (("raw_ecommerce__fulfillment_orders", cut_short),
     ("raw_ecommerce__fulfillment_orders", spoiled(r'"updated_at":"[^"]*"', '"updated_at":"soon"'))),
    may_wait=True,
)  # fmt: skip
FULFILLMENTS = Kind(
    "ecommerce", "raw_ecommerce__fulfillments", (("raw_ecommerce__fulfillments", cut_short),), may_wait=True
)
LEVELS = Kind(
    "ecommerce", "raw_ecommerce__inventory_levels",
    (("raw_ecommerce__inventory_levels", cut_short),
     ("raw_ecommerce__inventory_levels", spoiled(r'"available":-?\d+', '"available":"plenty"'))),
)  # fmt: skip


def inventory_item_ids(sku: np.ndarray) -> pl.Series:
    return pl.Series(FIRST_INVENTORY_ITEM_ID + np.asarray(sku))


def _gid(kind: str, number: pl.Series) -> pl.Expr:
    return pl.concat_str([pl.lit(f"gid://shopify/{kind}/"), number.cast(pl.String)])


def write_products(landing: Landing, day: int, products: Products, sku: np.ndarray) -> None:
    """The catalogue, or what changed of it."""
    sku = np.asarray(sku)
    frame = products.frame[sku]
    product = pl.Series(FIRST_PRODUCT_ID + sku * PRODUCT_STEP)
    variant = pl.Series(FIRST_VARIANT_ID + sku)
    updated = moments(np.full(len(sku), (epoch_day(landing.scale.first_day) + day) * DAY + 4 * 3600))
    lines = json_lines(pl.select(
        id=product.cast(pl.Float64).cast(pl.Int64), admin_graphql_api_id=_gid("Product", product), title=frame["title"],
        vendor=frame["brand"], product_type=frame["category"], updated_at=updated,
        variants=pl.concat_list(pl.struct(
            id=variant, admin_graphql_api_id=_gid("ProductVariant", variant), sku=frame["sku"], barcode=frame["gtin"],
            price=money(frame["price"].to_numpy()), cost=money(frame["cost"].to_numpy()), grams=frame["grams"],
            inventory_item_id=inventory_item_ids(sku),
        )),
    ))  # fmt: skip
    landing.write_records(PRODUCTS, day, f"products_{landing.date(day)}.jsonl", lines)


def customers_text(
    people: People, person: np.ndarray, created: np.ndarray, updated: np.ndarray, is_subscribed: np.ndarray, has_left: np.ndarray,
    consent_at: np.ndarray,
) -> pl.Series:  # fmt: skip
    """Shop accounts as they stand: `has_left` are those who unsubscribed."""

    def text(column: str) -> pl.Series:
        return people.text(column, person)

    account = text("account_id").cast(pl.Int64)
    state = (
        pl.when(pl.Series(has_left))
        .then(pl.lit("unsubscribed"))
        .when(pl.Series(is_subscribed))
        .then(pl.lit("subscribed"))
    )
    return json_lines(pl.select(
        id=account, admin_graphql_api_id=_gid("Customer", account), email=text("email"), phone=text("phone"),
        first_name=text("account_first_name"), last_name=text("account_last_name"), verified_email=pl.Series(people.is_verified[person]),
        created_at=moments(created), updated_at=moments(updated), tags=pl.lit(""),
        default_address=pl.struct(
            address1=text("account_street"), city=text("account_city"), province_code=text("account_region"), zip=text("account_postal"),
            country_code=pl.lit("US")
        ),
        email_marketing_consent=pl.struct(
            state=state.otherwise(pl.lit("not_subscribed")),
            opt_in_level=pl.when(pl.Series(person % 3 == 0)).then(pl.lit("confirmed_opt_in")).otherwise(pl.lit("single_opt_in")),
            consent_updated_at=moments(consent_at),
        ),
    ))  # fmt: skip


def tester_ids(scale: Scale) -> pl.Series:
    """Account numbers of the shop's own testers."""
    return pl.Series(np.arange(6_800_000_000_001, 6_800_000_000_001 + max(1, scale.people // 5_000)))


def tester_accounts(scale: Scale) -> pl.Series:
    """Accounts of the shop's own testers: tagged, and never real shoppers."""
    account = tester_ids(scale)
    count = len(account)
    made = moments(np.full(count, epoch_day(scale.first_day) * DAY - 90 * DAY))
    number = pl.Series(np.arange(1, count + 1)).cast(pl.String)
    return json_lines(pl.select(
        id=account, admin_graphql_api_id=_gid("Customer", account),
        email=pl.concat_str([pl.lit("qa+"), number, pl.lit("@retailer.example")]), phone=pl.lit(None, pl.String),
        first_name=pl.lit("Quality"), last_name=pl.lit("Check"), verified_email=pl.lit(True), created_at=made, updated_at=made,
        tags=pl.lit("test, internal"),
        default_address=pl.struct(
            address1=pl.lit("1 Loading Dock"), city=pl.lit("Columbus"), province_code=pl.lit("OH"), zip=pl.lit("43215"), country_code=pl.lit("US")
        ),
        email_marketing_consent=pl.struct(state=pl.lit("not_subscribed"), opt_in_level=pl.lit("single_opt_in"), consent_updated_at=made),
    ))  # fmt: skip


def orders_text(
    orders: pl.DataFrame, lines: pl.DataFrame, people: People, places: Places, products: Products
) -> pl.Series:
    """Each order as it stands.

    `orders`: order, person (-1 for a tester), place (-1 for drop-ship), method, source, created, updated, offset (minutes), is_signed_in,
    status, cancel_reason, refunded_cents, shipping, version; `lines`: order, line, sku, quantity, price, discount, net, tax, version.
    """
    line_id = FIRST_LINE_ID + lines["line"]
    items = lines.select("version", "order", "net", "tax", "discount", item=pl.struct(
        id=line_id, admin_graphql_api_id=_gid("LineItem", line_id), sku=products.sku[lines["sku"]], quantity=lines["quantity"],
        price=money(lines["price"].to_numpy()), total_discount=money(lines["discount"].to_numpy()),
        tax_lines=pl.concat_list(pl.struct(price=money(lines["tax"].to_numpy()))),
    )).group_by("version", "order", maintain_order=True).agg("item", pl.col("net", "tax", "discount").sum())  # fmt: skip
    whole = orders.join(items, on=["version", "order"], how="left", maintain_order="left")
    array = {
        name: whole[name].to_numpy()
        for name in (
            "person",
            "place",
            "method",
            "source",
            "status",
            "net",
            "tax",
            "discount",
            "shipping",
            "refunded_cents",
        )
    }
    person = array["person"]
    gross = array["net"] + array["tax"] + array["shipping"]
    zone = offsets(whole["offset"].to_numpy())
    wall = 60 * whole["offset"].to_numpy().astype(np.int64)
    created, updated = (
        moments(whole["created"].to_numpy() + wall, zone),
        moments(whole["updated"].to_numpy() + wall, zone),
    )
    signed = whole["is_signed_in"] & (whole["person"] >= 0)
    tester = pl.Series(person < 0)
    email = _emails(whole, people)
    phone = pl.when(tester | pl.Series(array["source"] == MARKETPLACE) | pl.Series(person % 4 == 1)).then(
        pl.lit(None, pl.String)
    )
    account = pl.select(
        pl.when(signed).then(people.text("account_id", person).cast(pl.Int64)).when(tester).then(6_800_000_000_001)
    ).to_series()
    cancelled = pl.Series(array["status"] == CANCELLED)
    order_id = FIRST_ORDER_ID + whole["order"]
    status = pl.Series([None, "fulfilled", "partial", None], dtype=pl.String)[array["status"]]
    paid = (
        pl.when(cancelled | pl.Series((array["refunded_cents"] >= gross) & (gross > 0))).then(pl.lit("refunded"))
        .when(pl.Series(array["refunded_cents"] > 0)).then(pl.lit("partially_refunded")).otherwise(pl.lit("paid"))
    )  # fmt: skip
    collected = np.isin(array["method"], (CLICK_AND_COLLECT, CURBSIDE))
    address = pl.struct(
        first_name=people.text("first_name", person), last_name=people.text("last_name", person), address1=people.text("street", person),
        city=people.text("city", person), province_code=people.text("region", person), zip=people.text("postal", person), country_code=pl.lit("US"),
    )  # fmt: skip
    return json_lines(pl.select(
        id=order_id, admin_graphql_api_id=_gid("Order", order_id), name=order_names(whole["order"]), created_at=created, updated_at=updated,
        cancelled_at=pl.when(cancelled).then(updated), cancel_reason=whole["cancel_reason"], currency=pl.lit("USD"), email=email,
        source_identifier=pl.when(pl.Series(array["source"] == MARKETPLACE)).then(marketplace_refs(whole["order"])),
        phone=phone.when(signed).then(people.text("phone", person)).otherwise(people.text("guest_phone", person)),
        customer=pl.when(account.is_not_null()).then(pl.struct(id=account, admin_graphql_api_id=_gid("Customer", account))),
        source_name=pl.Series(SOURCES)[array["source"]], financial_status=paid, fulfillment_status=status,
        location_id=pl.when(pl.Series(array["place"] >= 0)).then(places.shop_id[np.maximum(array["place"], 0)].cast(pl.Int64)),
        subtotal_price=money(array["net"]), total_discounts=money(array["discount"]),
        total_shipping_price_set=pl.struct(shop_money=pl.struct(amount=money(array["shipping"]), currency_code=pl.lit("USD"))),
        total_tax=money(array["tax"]), total_price=money(gross), test=tester,
        payment_details=pl.struct(card_token=pl.when(pl.Series(array["source"] != MARKETPLACE)).then(people.text("payment", person))),
        shipping_lines=pl.concat_list(pl.struct(code=pl.Series(METHODS)[array["method"]])),
        shipping_address=pl.when(pl.Series(~collected & (person >= 0))).then(address),
        # Marketplaces keep it to themselves; everywhere else who pays says who they are.
        billing_address=pl.when(pl.Series((array["source"] != MARKETPLACE) & (person >= 0))).then(address),
        line_items=whole["item"],
    ))  # fmt: skip


def _emails(orders: pl.DataFrame, people: People) -> pl.Expr:
    """The address each order was given: the account's, the guest's, or one that a marketplace forwards."""
    person = orders["person"].to_numpy()
    signed = orders["is_signed_in"] & (orders["person"] >= 0)
    return (
        pl.when(pl.Series(person < 0)).then(pl.lit("qa+1@retailer.example"))
        .when(orders["source"] == MARKETPLACE).then(people.text("relay_email", person))
        .when(signed).then(people.text("email", person)).otherwise(people.text("guest_email", person))
    )  # fmt: skip


def marketplace_refs(order: pl.Series) -> pl.Series:
    """What the marketplace itself calls an order."""
    digits = pl.Series(scatter(36, order.to_numpy()) % np.uint64(10**10)).cast(pl.String).str.zfill(10)
    return pl.select(pl.concat_str([pl.lit("BZ-"), digits])).to_series()


def order_ids(order: pl.Series) -> pl.Series:
    """`ecommerce/<shop's id>`, as the truth and the platform write it."""
    return pl.select(pl.concat_str([pl.lit("ecommerce/"), (FIRST_ORDER_ID + order).cast(pl.String)])).to_series()


def fulfillment_orders_text(orders: pl.DataFrame, lines: pl.DataFrame, people: People, places: Places) -> pl.Series:
    """One fulfilment order for each placed order, with what was promised at the checkout."""
    items = lines.select(
        "order", item=pl.struct(line_item_id=FIRST_LINE_ID + lines["line"], quantity=lines["quantity"])
    )
    whole = orders.join(
        items.group_by("order", maintain_order=True).agg("item"), on="order", how="left", maintain_order="left"
    )
    number = FIRST_FULFILLMENT_ORDER_ID + whole["order"]
    method, place = whole["method"].to_numpy(), whole["place"].to_numpy()
    collected = pl.Series(np.isin(method, (CLICK_AND_COLLECT, CURBSIDE)))
    created, promised = whole["created"].to_numpy(), whole["promised"].to_numpy()
    return json_lines(pl.select(
        id=number, order_id=FIRST_ORDER_ID + whole["order"], admin_graphql_api_id=_gid("FulfillmentOrder", number),
        assigned_location_id=pl.when(pl.Series(place >= 0)).then(places.shop_id[np.maximum(place, 0)].cast(pl.Int64)),
        status=pl.lit("open"), request_status=pl.lit("unsubmitted"), created_at=moments(created + 1), updated_at=moments(created + 1),
        destination=pl.when(~collected).then(pl.struct(
            email=_emails(whole, people), country=pl.lit("United States")
        )),
        delivery_method=pl.struct(
            id=number + 7, method_type=pl.when(collected).then(pl.lit("pick_up")).otherwise(pl.lit("shipping")),
            min_delivery_date_time=pl.lit(None, pl.String), max_delivery_date_time=moments(promised),
        ),
        line_items=whole["item"],
    ))  # fmt: skip


def fulfillments_text(
    parcels: pl.DataFrame, items: pl.DataFrame, people: People, places: Places, products: Products
) -> pl.Series:
    """Each fulfilment as it stands. `parcels` (PARCEL_SCHEMA) and `items` (ITEM_SCHEMA) belong together by version and fulfillment."""
    line_id = FIRST_LINE_ID + items["line"]
    listed = items.select("version", "fulfillment", item=pl.struct(
        id=line_id, admin_graphql_api_id=_gid("LineItem", line_id), sku=products.sku[items["sku"]], quantity=items["quantity"]
    )).group_by("version", "fulfillment", maintain_order=True).agg("item")  # fmt: skip
    whole = parcels.join(listed, on=["version", "fulfillment"], how="left", maintain_order="left")
    number, place = FIRST_FULFILLMENT_ID + whole["fulfillment"], whole["place"].to_numpy()
    return json_lines(pl.select(
        id=number, order_id=FIRST_ORDER_ID + whole["order"], name=pl.concat_str([order_names(whole["order"]), pl.lit(".1")]),
        admin_graphql_api_id=_gid("Fulfillment", number), status=pl.lit("success"), created_at=moments(whole["created"].to_numpy()),
        updated_at=moments(whole["updated"].to_numpy()),
        service=pl.when(whole["method"] == DROP_SHIP).then(pl.lit("supplier-direct")).otherwise(pl.lit("manual")),
        shipment_status=whole["state"], tracking_company=whole["carrier"], tracking_number=whole["tracking"],
        location_id=pl.when(pl.Series(place >= 0)).then(places.shop_id[np.maximum(place, 0)].cast(pl.Int64)),
        email=_emails(whole, people), line_items=whole["item"],
    ))  # fmt: skip


def order_names(order: pl.Series) -> pl.Series:
    """`#10001` and on."""
    return pl.select(pl.concat_str([pl.lit("#"), (FIRST_ORDER_NAME + order).cast(pl.String)])).to_series()


def refunds_text(refunds: pl.DataFrame, places: Places, products: Products) -> pl.Series:
    """Refunds, one per order and moment. `refunds`: refund, refund_line, order, line, sku, quantity, restock (0 cancel, 1 return,
    2 no_restock), place (-1 for none), net, tax, shipping, at, in order of refund."""
    place = refunds["place"].to_numpy()
    amount = refunds["net"] + refunds["tax"] + refunds["shipping"]
    items = refunds.select("refund", "order", "at", "shipping", amount=amount, item=pl.struct(
        id=FIRST_REFUND_LINE_ID + refunds["refund_line"], line_item_id=FIRST_LINE_ID + refunds["line"],
        line_item=pl.struct(sku=products.sku[refunds["sku"]]), quantity=refunds["quantity"],
        restock_type=pl.Series(["cancel", "return", "no_restock"])[refunds["restock"]],
        location_id=pl.when(pl.Series(place >= 0)).then(places.shop_id[np.maximum(place, 0)].cast(pl.Int64)),
        subtotal=money(refunds["net"].to_numpy()), total_tax=money(refunds["tax"].to_numpy()),
    )).group_by("refund", maintain_order=True).agg(pl.col("order", "at").first(), pl.col("amount", "shipping").sum(), "item")  # fmt: skip
    refund_id = FIRST_REFUND_ID + items["refund"]
    return json_lines(pl.select(
        id=refund_id, admin_graphql_api_id=_gid("Refund", refund_id), order_id=FIRST_ORDER_ID + items["order"],
        created_at=moments(items["at"].to_numpy()),
        transactions=pl.concat_list(pl.struct(kind=pl.lit("refund"), currency=pl.lit("USD"), amount=money(items["amount"].to_numpy()))),
        refund_line_items=items["item"],
        refund_shipping_lines=pl.when(items["shipping"] > 0).then(pl.concat_list(pl.struct(
            id=refund_id + 5_000, subtotal_amount_set=pl.struct(shop_money=pl.struct(
                amount=money(items["shipping"].to_numpy()), currency_code=pl.lit("USD"))),
            tax_amount_set=pl.struct(shop_money=pl.struct(amount=pl.lit("0.00"), currency_code=pl.lit("USD"))),
        ))),
    ))  # fmt: skip


def levels_text(sku: np.ndarray, place: np.ndarray, available: np.ndarray, at: np.ndarray, places: Places) -> pl.Series:
    """Absolute quantities the shop announced."""
    item, location = inventory_item_ids(sku), places.shop_id[place]
    return json_lines(pl.select(
        inventory_item_id=item, location_id=location.cast(pl.Int64), available=pl.Series(available), updated_at=moments(at),
        admin_graphql_api_id=pl.concat_str([
            pl.lit("gid://shopify/InventoryLevel/"), location, pl.lit("?inventory_item_id="), item.cast(pl.String)
        ]),
    ))  # fmt: skip


def drawn_sources(
    rng: np.random.Generator, people: People, person: np.ndarray, day: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where each order is placed, and whether its person is signed in. The app needs an account."""
    has_account = people.account_day[person] <= day
    has_account &= people.account_day[person] < NEVER
    dice = rng.random(len(person))
    source = np.where(dice < 0.10, MARKETPLACE, np.where((dice < 0.45) & has_account, APP, 0))
    signed = has_account & (source != MARKETPLACE) & ((source == APP) | (rng.random(len(person)) < 0.75))
    return source, signed


def drawn_methods(rng: np.random.Generator, source: np.ndarray) -> np.ndarray:
    """How goods reach the shopper; marketplaces only ship."""
    method = rng.choice(5, len(source), p=[0.43, 0.16, 0.23, 0.10, 0.08])
    return np.where((source == MARKETPLACE) & ((method == CLICK_AND_COLLECT) | (method == CURBSIDE)), 0, method)


def shipping_cents(method: np.ndarray, net: np.ndarray) -> np.ndarray:
    """Collecting is free; so is shipping from fifty dollars."""
    free = np.isin(method, (CLICK_AND_COLLECT, CURBSIDE)) | (net >= 5_000)
    return np.where(free, 0, np.where(method == DROP_SHIP, 799, 495))
