"""Web shop and marketplaces: Shopify-shaped JSON lines and Segment-spec events. Contracts and the readers."""

from itertools import chain
from pathlib import Path
from typing import TypeVar

import polars as pl

from orchestration.sources.contract import Column, Contract, FileKind, Reading, Source, cents
from orchestration.sources.json_lines import Children, Lines, Scalar, column, read_json_lines, texts, total
from orchestration.sources.web_messages import (
    Address,
    Buyer,
    Context,
    Customer,
    DeliveryMethod,
    Destination,
    Device,
    EmailConsent,
    FulfilledLine,
    Fulfillment,
    FulfillmentOrder,
    InventoryLevel,
    Line,
    Message,
    Order,
    Product,
    Properties,
    Refund,
    RefundLine,
    System,
    Transaction,
    Variant,
)

PRODUCTS = Contract(
    table="raw_ecommerce__products",
    description="Catalogue as the web shop exported it. One row per variant and export.",
    key=("sku", "updated_at"),
    columns=(
        Column("product_id", "text", "Shop's product id (gid tail)."),
        Column("variant_id", "text", "Shop's variant id.", required=True),
        Column("inventory_item_id", "text", "Shop's stock item id, one to one with the variant.", required=True),
        Column("sku", "text", "Retailer's item code.", required=True),
        Column("gtin", "text", "GTIN of the variant (barcode)."),
        Column("product_name", "text", "Title.", required=True),
        Column("category_name", "text", "Product type."),
        Column("brand_name", "text", "Vendor."),
        Column("price_cents", "integer", "List price.", required=True, minimum=0),
        Column("cost_cents", "integer", "Unit cost.", minimum=0),
        Column("weight_grams", "integer", "Shipping weight.", minimum=0),
        Column("updated_at", "timestamp", "Last change in the shop.", required=True),
    ),
    freshness_hours=24 * 14,
)
CUSTOMERS = Contract(
    table="raw_ecommerce__customers",
    description="Shop accounts, each time they changed. One row per account and change.",
    key=("account_id", "updated_at"),
    columns=(
        Column("account_id", "text", "Shop's customer id.", required=True, personal="identifier"),
        Column(
            "account_ref", "text", "Token of the account.", personal="identifier", token_of=("account", "account_id")
        ),
        Column("created_at", "timestamp", "Account opened.", required=True),
        Column("updated_at", "timestamp", "Last change.", required=True),
        Column("email", "text", "E-mail as typed.", personal="contact"),
        Column("email_ref", "text", "Token of the e-mail.", personal="identifier", token_of=("email", "email")),
        Column("is_email_verified", "boolean", "The shop verified the e-mail.", required=True),
        Column("phone", "text", "Phone as typed.", personal="contact"),
        Column("phone_ref", "text", "Token of the phone.", personal="identifier", token_of=("phone", "phone")),
        Column("first_name", "text", "First name.", personal="name"),
        Column("last_name", "text", "Last name.", personal="name"),
        Column("street_address", "text", "Street and number of the default address.", personal="address"),
        Column("city", "text", "City.", personal="address"),
        Column("region_code", "text", "State or province.", personal="address"),
        Column("postal_code", "text", "Postal code.", personal="address"),
        Column("country_code", "text", "ISO 3166 alpha-2."),
        Column(
            "email_consent_state",
            "text",
            "Shop's record of e-mail marketing consent.",
            values=("subscribed", "not_subscribed", "unsubscribed", "pending", "redacted", "invalid"),
        ),
        Column(
            "email_consent_level",
            "text",
            "M3AAWG opt-in level.",
            values=("single_opt_in", "confirmed_opt_in", "unknown"),
        ),
        Column("email_consent_updated_at", "timestamp", "When that consent last changed."),
        Column("is_test", "boolean", "Test account: never a real shopper."),
    ),
)
ORDERS = Contract(
    table="raw_ecommerce__orders",
    description="Web and marketplace orders, each time they changed. One row per order and change.",
    key=("order_id", "updated_at"),
    columns=(
        Column("order_id", "text", "Shop's order id.", required=True),
        Column("order_name", "text", "Number printed for people, such as #10001.", required=True),
        Column("created_at", "timestamp", "Order placed.", required=True),
        Column("updated_at", "timestamp", "This version of the order.", required=True),
        Column("cancelled_at", "timestamp", "Order cancelled."),
        Column(
            "cancel_reason",
            "text",
            "Who or what ended it.",
            values=("customer", "declined", "fraud", "inventory", "other", "staff"),
        ),
        Column("marketplace_order_id", "text", "What the marketplace it was placed on calls the order."),
        Column("account_id", "text", "Shop's customer id; null for guests.", personal="identifier"),
        Column(
            "account_ref", "text", "Token of the account.", personal="identifier", token_of=("account", "account_id")
        ),
        Column("email", "text", "E-mail given with the order.", personal="contact"),
        Column("email_ref", "text", "Token of the e-mail.", personal="identifier", token_of=("email", "email")),
        Column("phone", "text", "Phone given with the order.", personal="contact"),
        Column("phone_ref", "text", "Token of the phone.", personal="identifier", token_of=("phone", "phone")),
        Column("source_name", "text", "Where it was placed: web, app, pos, or a marketplace.", required=True),
        Column(
            "financial_status",
            "text",
            "Payment state.",
            values=("pending", "authorized", "partially_paid", "paid", "partially_refunded", "refunded", "voided"),
        ),
        Column(
            "fulfillment_status",
            "text",
            "Delivery state; null while nothing shipped.",
            values=("fulfilled", "partial", "restocked"),
        ),
        Column(
            "fulfillment_method",
            "text",
            "How the goods reach the shopper.",
            required=True,
            values=("ship_to_home", "ship_from_store", "click_and_collect", "curbside", "drop_ship", "in_store"),
        ),
        Column(
            "location_id",
            "text",
            "Shop's id of the location that fulfils, or code/ and its own code; null for drop-ship.",
        ),
        Column("currency_code", "text", "ISO 4217 code.", required=True),
        Column("net_cents", "integer", "Lines after discount, before tax and shipping.", required=True),
        Column("discount_cents", "integer", "Discounts on the lines.", minimum=0),
        Column("shipping_cents", "integer", "Shipping charged, before tax.", required=True, minimum=0),
        Column("tax_cents", "integer", "Tax.", required=True),
        Column("gross_cents", "integer", "What the shopper pays.", required=True),
        Column("payment_token", "text", "Card-on-file token of the payment service.", personal="identifier"),
        Column(
            "payment_ref",
            "text",
            "Token of the payment token.",
            personal="identifier",
            token_of=("payment", "payment_token"),
        ),
        Column("first_name", "text", "First name of who pays, else of who receives.", personal="name"),
        Column("last_name", "text", "Their last name.", personal="name"),
        Column("street_address", "text", "Street and number billed, else shipped to.", personal="address"),
        Column("city", "text", "City of that address.", personal="address"),
        Column("region_code", "text", "Its state or province.", personal="address"),
        Column("postal_code", "text", "Postal code shipped to, else billed.", personal="address"),
        Column("country_code", "text", "Country shipped to, ISO 3166 alpha-2 or a name where the source gives one."),
        Column("is_test", "boolean", "Test order: never a real sale.", required=True),
    ),
)
ORDER_LINES = Contract(
    table="raw_ecommerce__order_lines",
    description="Lines of web and marketplace orders. One row per line, order and change.",
    key=("order_id", "line_id", "updated_at"),
    columns=(
        Column("order_id", "text", "Shop's order id.", required=True),
        Column("line_id", "text", "Shop's line id.", required=True),
        Column("updated_at", "timestamp", "Version of the order the line stood in.", required=True),
        Column("sku", "text", "Retailer's item code.", required=True),
        Column("quantity_units", "integer", "Pieces ordered.", required=True, minimum=1),
        Column("unit_price_cents", "integer", "Price asked for one.", required=True),
        Column("discount_cents", "integer", "Discount on the line.", minimum=0),
        Column("net_cents", "integer", "After discount, before tax.", required=True),
        Column("tax_cents", "integer", "Tax on the line.", required=True),
    ),
)
REFUNDS = Contract(
    table="raw_ecommerce__refunds",
    description="Refunds as they were paid, and what of them is for no line: shipping, and the difference from what was due. "
    "One row per refund.",
    key=("refund_id",),
    columns=(
        Column("refund_id", "text", "Shop's refund id.", required=True),
        Column("order_id", "text", "Order refunded; null where the source cannot say."),
        Column("created_at", "timestamp", "When.", required=True),
        Column("paid_cents", "integer", "What the payment service gave back; null where the refund does not say."),
        Column("shipping_cents", "integer", "Of it for shipping, before tax.", required=True),
        Column("shipping_tax_cents", "integer", "Of it for tax on shipping.", required=True),
        Column("adjustment_cents", "integer", "Given beyond what was due; negative where less was.", required=True),
        Column("adjustment_tax_cents", "integer", "Tax of that.", required=True),
        Column("currency_code", "text", "ISO 4217 code.", required=True),
    ),
)
REFUND_LINES = Contract(
    table="raw_ecommerce__refund_lines",
    description="Refunded lines. A refund is not a restock: `restock_type` says what became of the goods. "
    "One row per refund and line.",
    key=("refund_id", "refund_line_id"),
    columns=(
        Column("refund_id", "text", "Shop's refund id.", required=True),
        Column("refund_line_id", "text", "Shop's refund line id.", required=True),
        Column("order_id", "text", "Order refunded; null where the source cannot say."),
        Column("account_id", "text", "Shop's customer id, where the refund itself names one.", personal="identifier"),
        Column(
            "account_ref",
            "text",
            "Token of the account.",
            personal="identifier",
            token_of=("account", "account_id"),
        ),
        Column("line_id", "text", "Line refunded; null where the source cannot say."),
        Column("created_at", "timestamp", "When.", required=True),
        Column("sku", "text", "Retailer's item code.", required=True),
        Column("quantity_units", "integer", "Pieces refunded.", required=True, minimum=1),
        Column(
            "restock_type",
            "text",
            "What became of the goods.",
            required=True,
            values=("cancel", "return", "no_restock", "legacy_restock"),
        ),
        Column("location_id", "text", "Where they were put back: shop's id, or code/ and its own code."),
        Column("net_cents", "integer", "Money given back before tax, not negative.", required=True, minimum=0),
        Column("tax_cents", "integer", "Tax given back, not negative.", required=True, minimum=0),
        Column("currency_code", "text", "ISO 4217 code.", required=True),
    ),
)
FULFILLMENT_ORDERS = Contract(
    table="raw_ecommerce__fulfillment_orders",
    description="What the shop asks a location or supplier to do for an order, with what was promised to the shopper. "
    "One row per fulfilment order and change.",
    key=("fulfillment_order_id", "updated_at"),
    columns=(
        Column("fulfillment_order_id", "text", "Shop's id of the fulfilment order.", required=True),
        Column("order_id", "text", "Order to fulfil.", required=True),
        Column("created_at", "timestamp", "When it was asked for.", required=True),
        Column("updated_at", "timestamp", "This version of it.", required=True),
        Column("status_code", "text", "open, in_progress, scheduled, on_hold, incomplete, closed or cancelled."),
        Column("method_type", "text", "shipping, pick_up, local, retail or none."),
        Column("location_id", "text", "Shop's id of the location it was given to; null for a supplier."),
        Column("promised_from_at", "timestamp", "Promised no earlier than this."),
        Column("promised_at", "timestamp", "Promised by this time: delivered, or ready to be picked up."),
        Column("fulfill_by_at", "timestamp", "Goods are to leave, or to be ready, by this time."),
        Column("email", "text", "E-mail of whoever it goes to.", personal="contact"),
        Column("email_ref", "text", "Token of the e-mail.", personal="identifier", token_of=("email", "email")),
    ),
)
FULFILLMENTS = Contract(
    table="raw_ecommerce__fulfillments",
    description="Lines on their way to the shopper and how far they have come, each time it changed. "
    "One row per fulfilment, line and change.",
    key=("fulfillment_id", "line_id", "updated_at"),
    columns=(
        Column("fulfillment_id", "text", "Shop's fulfilment id.", required=True),
        Column("order_id", "text", "Order fulfilled.", required=True),
        Column("line_id", "text", "Shop's line id.", required=True),
        Column("created_at", "timestamp", "When the goods were ready or left.", required=True),
        Column("updated_at", "timestamp", "This version of it.", required=True),
        Column(
            "status_code",
            "text",
            "Whether the fulfilment stands.",
            values=("pending", "open", "success", "cancelled", "error", "failure"),
        ),
        Column(
            "shipment_status",
            "text",
            "How far it has come; null until somebody says.",
            values=(
                *(
                    "label_printed",
                    "label_purchased",
                    "confirmed",
                    "ready_for_pickup",
                    "in_transit",
                    "out_for_delivery",
                ),
                *("attempted_delivery", "delivered", "failure"),
            ),
        ),
        Column("service_name", "text", "Who fulfils: manual for the retailer, else a supplier or service."),
        Column("location_id", "text", "Shop's id of the location it left; null for a supplier."),
        Column("carrier_name", "text", "Carrier."),
        Column("tracking_number", "text", "Carrier's number of the parcel."),
        Column("sku", "text", "Retailer's item code.", required=True),
        Column("quantity_units", "integer", "Pieces.", required=True, minimum=1),
        Column("email", "text", "E-mail of whoever it goes to.", personal="contact"),
        Column("email_ref", "text", "Token of the e-mail.", personal="identifier", token_of=("email", "email")),
    ),
)
INVENTORY_LEVELS = Contract(
    table="raw_ecommerce__inventory_levels",
    description="Absolute available quantities the web shop announced. "
    "One row per stock item, location and announcement.",
    key=("inventory_item_id", "location_id", "updated_at"),
    columns=(
        Column("inventory_item_id", "text", "Shop's stock item id.", required=True),
        Column("location_id", "text", "Shop's location id.", required=True),
        Column("available_units", "integer", "Available, absolute; null if untracked, may be negative."),
        Column("updated_at", "timestamp", "When the shop knew it; its high-water mark.", required=True),
    ),
)
EVENTS = Contract(
    table="raw_ecommerce__events",
    description="Web and app behaviour in Segment's spec. One row per message.",
    key=("message_id",),
    columns=(
        Column("message_id", "text", "Sender's id; repeats when sent again.", required=True),
        Column("call_type", "text", "Segment call.", required=True, values=("track", "page", "screen", "identify")),
        Column("event_name", "text", "Name of a tracked event, such as Product Viewed.", required=True),
        Column("anonymous_id", "text", "Device or browser id.", personal="device"),
        Column(
            "device_ref", "text", "Token of the device.", personal="identifier", token_of=("device", "anonymous_id")
        ),
        Column("account_id", "text", "Shop's customer id when signed in.", personal="identifier"),
        Column(
            "account_ref", "text", "Token of the account.", personal="identifier", token_of=("account", "account_id")
        ),
        Column("occurred_at", "timestamp", "Sender's clock (originalTimestamp).", required=True),
        Column("sent_at", "timestamp", "Sender's clock when sent."),
        Column("recorded_at", "timestamp", "Collector's clock (receivedAt).", required=True),
        Column("sku", "text", "Product in question.", personal="behaviour"),
        Column("order_id", "text", "Order in question."),
        Column("search_query", "text", "Words searched for.", personal="behaviour"),
        Column("device_type", "text", "mobile, desktop, tablet, app ..."),
        Column("os_name", "text", "Operating system."),
        Column("has_gpc", "boolean", "Global Privacy Control was on."),
    ),
)
ADJUSTMENTS = Contract(
    table="raw_ecommerce__adjustments",
    description="Corrections booked among the sales that are neither order nor refund: stock found or written off, "
    "debts adjusted. One row per correction.",
    key=("adjustment_id",),
    columns=(
        Column("adjustment_id", "text", "Shop's id of the correction.", required=True),
        Column("adjusted_at", "timestamp", "When.", required=True),
        Column("adjustment_type", "text", "What it corrects.", required=True, values=("stock", "money")),
        Column("sku", "text", "Retailer's item code; a code of its own for money.", required=True),
        Column("location_id", "text", "Shop's id of the location; null where the source cannot say."),
        Column("quantity_units", "integer", "Signed pieces.", required=True),
        Column("net_cents", "integer", "Signed money; 0 for stock.", required=True),
        Column("currency_code", "text", "ISO 4217 code.", required=True),
        Column("reason_name", "text", "Why, in the words of whoever booked it."),
    ),
    freshness_hours=24 * 365,
)
CONTRACTS = (
    *(PRODUCTS, CUSTOMERS, ORDERS, ORDER_LINES, FULFILLMENT_ORDERS, FULFILLMENTS, REFUNDS, REFUND_LINES),
    *(INVENTORY_LEVELS, EVENTS, ADJUSTMENTS),
)

# Webhook topics whose bodies are what the file says; any other (customers/redact) is set aside as `wrong_topic`.
TOPICS = {
    PRODUCTS.table: ("products/create", "products/update"),
    CUSTOMERS.table: ("customers/create", "customers/update", "customers/enable", "customers/disable"),
    ORDERS.table: (
        "orders/create",
        "orders/updated",
        "orders/cancelled",
        "orders/paid",
        "orders/partially_fulfilled",
        "orders/fulfilled",
    ),
    REFUNDS.table: ("refunds/create",),
    FULFILLMENT_ORDERS.table: ("fulfillment_orders/order_routing_complete", "fulfillment_orders/rescheduled"),
    FULFILLMENTS.table: ("fulfillments/create", "fulfillments/update"),
    INVENTORY_LEVELS.table: ("inventory_levels/connect", "inventory_levels/update"),
}
Body = TypeVar("Body", Product, Customer, Order, FulfillmentOrder, Fulfillment, Refund, InventoryLevel)
HasId = Product | Variant | Customer | Buyer | Order | Line | Refund | FulfillmentOrder | Fulfillment | FulfilledLine
METHODS = frozenset(ORDERS.column("fulfillment_method").values)
NO_ADDRESS, NO_CONSENT, NO_CONTEXT = Address(), EmailConsent(), Context()
NO_DEVICE, NO_SYSTEM, NO_PROPERTIES, NO_LINE = Device(), System(), Properties(), Line()
NO_DELIVERY, NO_DESTINATION = DeliveryMethod(), Destination()


def read_products(path: Path) -> Reading:
    """Products, one row per variant: Shopify product bodies."""
    lines = _bodies(path, Product, PRODUCTS.table, Children("variants", Variant, PRODUCTS.table))
    owners = _by_record(
        lines, product_id=texts([_id(p) for p in lines.records]), **_fields(lines.records, _PRODUCT_FIELDS)
    )
    variants, frame = _children(owners, [p.variants for p in lines.records])
    frame = frame.with_columns(
        variant_id=texts([_id(v) for v in variants]),
        inventory_item_id=texts([v.inventory_item_id for v in variants]),
        sku=texts([v.sku for v in variants]),
        gtin=texts([v.barcode for v in variants]),
        price_cents=texts([v.price for v in variants]),
        cost_cents=texts([v.cost for v in variants]),
        weight_grams=column([v.grams for v in variants]),
    ).with_columns(_cents("price_cents", "cost_cents"))
    return Reading({PRODUCTS.table: frame}, lines.rejections)


_PRODUCT_FIELDS = {
    "product_name": "title",
    "category_name": "product_type",
    "brand_name": "vendor",
    "updated_at": "updated_at",
}


def read_customers(path: Path) -> Reading:
    """Shop accounts: Shopify customer bodies. An account tagged `test` is a test account."""
    lines = _bodies(path, Customer, CUSTOMERS.table)
    customers = lines.records
    addresses = [c.default_address or NO_ADDRESS for c in customers]
    consents = [c.email_marketing_consent or NO_CONSENT for c in customers]
    frame = _by_record(
        lines,
        account_id=texts([_id(c) for c in customers]),
        **_fields(customers, {name: name for name in ("created_at", "updated_at", "email", "phone")}),
        is_email_verified=column([c.verified_email for c in customers]),
        **_fields(customers, {name: name for name in ("first_name", "last_name")}),
        **_fields(addresses, _ADDRESS_FIELDS),
        **_fields(consents, _CONSENT_FIELDS),
        is_test=pl.Series([_is_tagged_test(c.tags) for c in customers], dtype=pl.Boolean()),
    )
    return Reading({CUSTOMERS.table: frame}, lines.rejections)


_ADDRESS_FIELDS = {
    "street_address": "address1",
    "city": "city",
    "region_code": "province_code",
    "postal_code": "zip",
    "country_code": "country_code",
}
_CONSENT_FIELDS = {
    "email_consent_state": "state",
    "email_consent_level": "opt_in_level",
    "email_consent_updated_at": "consent_updated_at",
}


def _is_tagged_test(tags: str | list[str] | None) -> bool:
    names = tags.split(",") if isinstance(tags, str) else tags or ()
    return any(name.strip().lower() == "test" for name in names)


_BUYER_FIELDS = {
    "first_name": "first_name",
    "last_name": "last_name",
    "street_address": "address1",
    "city": "city",
    "region_code": "province_code",
}


def read_orders(path: Path) -> Reading:
    """Orders and their lines: Shopify order bodies.

    The two tables are held to their contracts apart: an order whose line is set aside lands without it, and the lines
    of an order that is set aside land and wait in raw until the order is mended.
    """
    lines = _bodies(path, Order, ORDERS.table, Children("line_items", Line, ORDER_LINES.table))
    orders = lines.records
    addresses = [o.shipping_address or o.billing_address or NO_ADDRESS for o in orders]
    buyers = [o.billing_address or o.shipping_address or NO_ADDRESS for o in orders]
    frame = _by_record(
        lines,
        order_id=texts([_id(o) for o in orders]),
        order_name=texts([o.name for o in orders]),
        **_fields(orders, {name: name for name in ("created_at", "updated_at", "cancelled_at", "cancel_reason")}),
        marketplace_order_id=texts([o.source_identifier for o in orders]),
        account_id=texts([_id(o.customer) if o.customer else None for o in orders]),
        **_fields(orders, _ORDER_FIELDS),
        fulfillment_method=pl.Series([_method(o) for o in orders], dtype=pl.String()),
        shipping_cents=texts([_shipping(o) for o in orders]),
        payment_token=texts([o.payment_details.card_token if o.payment_details else None for o in orders]),
        **_fields(buyers, _BUYER_FIELDS),
        postal_code=texts([a.zip for a in addresses]),
        country_code=texts([a.country_code or a.country for a in addresses]),
        is_test=column([False if o.test is None else o.test for o in orders]),
    ).with_columns(_cents("net_cents", "discount_cents", "shipping_cents", "tax_cents", "gross_cents"))
    items, item_frame = _children(
        frame.select("order_id", "updated_at", "record_offset"), [o.line_items for o in orders]
    )
    item_frame = item_frame.with_columns(
        line_id=texts([_id(i) for i in items]),
        sku=texts([i.sku for i in items]),
        quantity_units=column([i.quantity for i in items]),
        unit_price_cents=texts([i.price for i in items]),
        discount_cents=texts([_discount(i) for i in items]),
        tax_cents=texts([total([t.price for t in i.tax_lines or ()]) for i in items]),
    ).with_columns(_cents("unit_price_cents", "discount_cents", "tax_cents"))
    # 128 bits: no product of a price and a quantity wraps around; `conform` refuses what 64 cannot hold.
    price, units, discount = (
        pl.col(name).cast(pl.Int128, strict=False) for name in ("unit_price_cents", "quantity_units", "discount_cents")
    )
    net = price * units - pl.when(pl.col("discount_cents").is_null()).then(0).otherwise(discount)
    return Reading({ORDERS.table: frame, ORDER_LINES.table: item_frame.with_columns(net_cents=net)}, lines.rejections)


_ORDER_FIELDS = {
    "email": "email",
    "phone": "phone",
    "source_name": "source_name",
    "financial_status": "financial_status",
    "fulfillment_status": "fulfillment_status",
    "location_id": "location_id",
    "currency_code": "currency",
    "net_cents": "subtotal_price",
    "discount_cents": "total_discounts",
    "tax_cents": "total_tax",
    "gross_cents": "total_price",
}


def _method(order: Order) -> str:
    """The first shipping line whose code is one of ours. Shops name codes as they like; any other is shipped home."""
    for line in order.shipping_lines or ():
        if isinstance(line.code, str) and line.code.strip().lower() in METHODS:
            return line.code.strip().lower()
    return "in_store" if order.source_name == "pos" and not order.shipping_lines else "ship_to_home"


def _shipping(order: Order) -> Scalar:
    charged = order.total_shipping_price_set
    if charged and charged.shop_money and charged.shop_money.amount is not None:
        return charged.shop_money.amount
    return total([line.price for line in order.shipping_lines or ()])


def _discount(line: Line) -> Scalar:
    """What the line's allocations sum to, shares of order discounts included; `total_discount` leaves those out."""
    if line.discount_allocations:
        return total([allocation.amount for allocation in line.discount_allocations])
    return line.total_discount


def read_refunds(path: Path) -> Reading:
    """Refunds and their lines: Shopify refund bodies. Ids above 2^53 may be rounded where the body gives no gid for them."""
    lines = _bodies(path, Refund, REFUNDS.table, Children("refund_line_items", RefundLine, REFUND_LINES.table))
    refunds = lines.records
    whole = _by_record(
        lines,
        refund_id=texts([_id(r) for r in refunds]),
        order_id=texts([r.order_id for r in refunds]),
        created_at=texts([r.created_at for r in refunds]),
        currency_code=texts([_currency(r) for r in refunds]),
        paid_cents=texts([total([t.amount for t in r.transactions or () if _is_paid_back(t)]) for r in refunds]),
        shipping_cents=texts([_for_shipping(r, "subtotal_amount_set", "amount") for r in refunds]),
        shipping_tax_cents=texts([_for_shipping(r, "tax_amount_set", "tax_amount") for r in refunds]),
        adjustment_cents=texts([_adjusted(r, "refund_discrepancy", "amount") for r in refunds]),
        adjustment_tax_cents=texts([_adjusted(r, "refund_discrepancy", "tax_amount") for r in refunds]),
    ).with_columns(
        _cents("paid_cents", "shipping_cents", "shipping_tax_cents", "adjustment_cents", "adjustment_tax_cents")
    )
    items, frame = _children(
        whole.select("refund_id", "order_id", "created_at", "currency_code", "record_offset"),
        [r.refund_line_items for r in refunds],
    )
    sold = [i.line_item or NO_LINE for i in items]
    money = [
        (i.subtotal_set and i.subtotal_set.shop_money, i.total_tax_set and i.total_tax_set.shop_money) for i in items
    ]
    frame = frame.with_columns(
        refund_line_id=texts([i.id for i in items]),
        line_id=texts([_id(s) or i.line_item_id for s, i in zip(sold, items, strict=True)]),
        sku=texts([s.sku for s in sold]),
        quantity_units=column([i.quantity for i in items]),
        restock_type=texts([i.restock_type for i in items]).str.to_lowercase(),
        location_id=texts([i.location_id for i in items]),
        net_cents=texts([net.amount if net else i.subtotal for i, (net, _) in zip(items, money, strict=True)]),
        tax_cents=texts([tax.amount if tax else i.total_tax for i, (_, tax) in zip(items, money, strict=True)]),
        currency_code=pl.coalesce("currency_code", texts([net.currency_code if net else None for net, _ in money])),
    ).with_columns(_cents("net_cents", "tax_cents"))
    return Reading({REFUNDS.table: whole, REFUND_LINES.table: frame}, lines.rejections)


def _currency(refund: Refund) -> Scalar:
    paid = (t.currency for t in refund.transactions or () if t.currency)
    lines = (i.subtotal_set.shop_money for i in refund.refund_line_items or () if i.subtotal_set)
    shipping = (s.subtotal_amount_set.shop_money for s in refund.refund_shipping_lines or () if s.subtotal_amount_set)
    return next(chain(paid, (m.currency_code for m in chain(lines, shipping) if m and m.currency_code)), None)


def _is_paid_back(transaction: Transaction) -> bool:
    return transaction.kind in (None, "refund") and transaction.status in (None, "success")


def _for_shipping(refund: Refund, field: str, adjusted: str) -> Scalar:
    """What the refunded shipping lines sum to; older bodies say it as an adjustment of the order instead."""
    if not refund.refund_shipping_lines:
        return _adjusted(refund, "shipping_refund", adjusted)
    sets = [getattr(line, field) for line in refund.refund_shipping_lines]
    return total([each.shop_money.amount if each and each.shop_money else "0" for each in sets])


def _adjusted(refund: Refund, kind: str, field: str) -> Scalar:
    """What adjustments of a kind give back: the shop writes them from its own side, negative."""
    amount = total([getattr(each, field) or "0" for each in refund.order_adjustments or () if each.kind == kind])
    if isinstance(amount, str):
        return amount[1:] if amount.startswith("-") else f"-{amount}" if amount.strip("0.") else amount
    return -amount if amount else amount


def read_fulfillment_orders(path: Path) -> Reading:
    """What the shop asked for and promised: Shopify fulfilment orders."""
    lines = _bodies(path, FulfillmentOrder, FULFILLMENT_ORDERS.table)
    asked = lines.records
    frame = _by_record(
        lines,
        fulfillment_order_id=texts([_id(f) for f in asked]),
        **_fields(asked, {name: name for name in ("order_id", "created_at", "updated_at")}),
        **_fields(
            asked, {"status_code": "status", "location_id": "assigned_location_id", "fulfill_by_at": "fulfill_by"}
        ),
        **_fields([f.delivery_method or NO_DELIVERY for f in asked], _DELIVERY_FIELDS),
        email=texts([(f.destination or NO_DESTINATION).email for f in asked]),
    )
    return Reading({FULFILLMENT_ORDERS.table: frame}, lines.rejections)


_DELIVERY_FIELDS = {
    "method_type": "method_type",
    "promised_from_at": "min_delivery_date_time",
    "promised_at": "max_delivery_date_time",
}


def read_fulfillments(path: Path) -> Reading:
    """Lines on their way: Shopify fulfilment bodies."""
    lines = _bodies(path, Fulfillment, FULFILLMENTS.table, Children("line_items", FulfilledLine, FULFILLMENTS.table))
    sent = lines.records
    owners = _by_record(lines, fulfillment_id=texts([_id(f) for f in sent]), **_fields(sent, _FULFILLMENT_FIELDS))
    items, frame = _children(owners, [f.line_items for f in sent])
    frame = frame.with_columns(
        line_id=texts([_id(i) for i in items]),
        sku=texts([i.sku for i in items]),
        quantity_units=column([i.quantity for i in items]),
    )
    return Reading({FULFILLMENTS.table: frame}, lines.rejections)


_FULFILLMENT_FIELDS = {
    **{name: name for name in ("order_id", "created_at", "updated_at", "shipment_status", "location_id", "email")},
    "status_code": "status",
    "service_name": "service",
    "carrier_name": "tracking_company",
    "tracking_number": "tracking_number",
}


def read_inventory_levels(path: Path) -> Reading:
    """Announced stock levels: Shopify inventory_levels bodies."""
    lines = _bodies(path, InventoryLevel, INVENTORY_LEVELS.table)
    frame = _by_record(
        lines,
        inventory_item_id=texts([level.inventory_item_id for level in lines.records]),
        location_id=texts([level.location_id for level in lines.records]),
        available_units=column([level.available for level in lines.records]),
        updated_at=texts([level.updated_at for level in lines.records]),
    )
    return Reading({INVENTORY_LEVELS.table: frame}, lines.rejections)


def read_events(path: Path) -> Reading:
    """Web and app behaviour: Segment messages. An identify call has the name `identify`."""
    lines = read_json_lines(path, Message, EVENTS.table)
    messages = lines.records
    contexts = [m.context or NO_CONTEXT for m in messages]
    properties = [m.properties or NO_PROPERTIES for m in messages]
    frame = _by_record(
        lines,
        **_fields(messages, {"message_id": "message_id", "call_type": "type"}),
        event_name=texts([m.event or m.name or m.type for m in messages]),
        **_fields(messages, {"anonymous_id": "anonymous_id", "account_id": "user_id"}),
        occurred_at=texts([m.original_timestamp or m.timestamp for m in messages]),
        **_fields(messages, {"sent_at": "sent_at", "recorded_at": "received_at"}),
        **_fields(properties, {"sku": "sku", "order_id": "order_id", "search_query": "query"}),
        device_type=texts([(c.device or NO_DEVICE).type for c in contexts]),
        os_name=texts([(c.os or NO_SYSTEM).name for c in contexts]),
        has_gpc=column([c.gpc for c in contexts]),
    )
    return Reading({EVENTS.table: frame}, lines.rejections)


def _bodies(path: Path, kind: type[Body], table: str, children: Children | None = None) -> Lines[Body]:
    """The bodies of a file, unwrapped; those under a foreign topic are set aside."""
    lines = read_json_lines(path, kind, table, children)
    if all(record.body is None for record in lines.records):
        return lines
    bare: Lines[Body] = Lines(rejections=lines.rejections)
    for offset, record in zip(lines.offsets, lines.records, strict=True):
        if record.body is not None and record.topic not in TOPICS[table]:
            lines.rejections.add(table, offset, "wrong_topic", f"topic: expected one of {', '.join(TOPICS[table])}")
        else:
            bare.records.append(record.body or record)
            bare.offsets.append(offset)
    return bare


def _id(thing: HasId) -> Scalar:
    """The tail of the gid where there is one: plain ids above 2^53 are rounded by many senders."""
    gid = thing.admin_graphql_api_id
    return gid.rpartition("/")[2].partition("?")[0] if isinstance(gid, str) and gid else thing.id


def _fields(things: list, names: dict[str, str]) -> dict[str, pl.Series]:
    return {name: texts([getattr(thing, field) for thing in things]) for name, field in names.items()}


def _cents(*names: str) -> list[pl.Expr]:
    return [cents(pl.col(name)).alias(name) for name in names]


def _by_record(lines: Lines, **columns: pl.Series) -> pl.DataFrame:
    return pl.DataFrame(columns).with_columns(record_offset=pl.Series(lines.offsets, dtype=pl.Int64()))


def _children(owners: pl.DataFrame, lists: list[list | None]) -> tuple[list, pl.DataFrame]:
    """All children in one list, and beside each the row of its owner."""
    index = [i for i, children in enumerate(lists) for _ in children or ()]
    return list(chain.from_iterable(children or () for children in lists)), owners[index]


SOURCE = Source(
    name="ecommerce",
    description="Web shop and marketplaces: orders, refunds, accounts, catalogue, stock levels and behaviour.",
    contracts=CONTRACTS,
    files=(
        FileKind("products_*.jsonl", (PRODUCTS.table,), read_products),
        FileKind("customers_*.jsonl", (CUSTOMERS.table,), read_customers),
        FileKind("orders_*.jsonl", (ORDERS.table, ORDER_LINES.table), read_orders),
        FileKind("fulfillment_orders_*.jsonl", (FULFILLMENT_ORDERS.table,), read_fulfillment_orders),
        FileKind("fulfillments_*.jsonl", (FULFILLMENTS.table,), read_fulfillments),
        FileKind("refunds_*.jsonl", (REFUNDS.table, REFUND_LINES.table), read_refunds),
        FileKind("inventory_levels_*.jsonl", (INVENTORY_LEVELS.table,), read_inventory_levels),
        FileKind("events_*.jsonl", (EVENTS.table,), read_events),
    ),
)
