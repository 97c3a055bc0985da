"""What web shops and apps send, as far as it is read: Shopify bodies (REST and webhook, 2026-01) and Segment messages.

Shapes only. Every field may be missing or null; a scalar may be of any type, because senders disagree on whether an id
or an amount is text. Webhook archives wrap a body as {"topic", "body"}: every top shape reads both.
"""

from msgspec import Struct

from orchestration.sources.json_lines import Scalar


class Money(Struct, gc=False):
    amount: Scalar = None
    currency_code: Scalar = None


class MoneySet(Struct, gc=False):
    shop_money: Money | None = None


class Variant(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    inventory_item_id: Scalar = None
    sku: Scalar = None
    barcode: Scalar = None
    price: Scalar = None
    cost: Scalar = None
    grams: Scalar = None


class Product(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    title: Scalar = None
    vendor: Scalar = None
    product_type: Scalar = None
    updated_at: Scalar = None
    variants: list[Variant] | None = None
    topic: Scalar = None
    body: "Product | None" = None


class Address(Struct, gc=False):
    first_name: Scalar = None
    last_name: Scalar = None
    address1: Scalar = None
    city: Scalar = None
    province_code: Scalar = None
    zip: Scalar = None
    country: Scalar = None
    country_code: Scalar = None


class EmailConsent(Struct, gc=False):
    state: Scalar = None
    opt_in_level: Scalar = None
    consent_updated_at: Scalar = None


class Customer(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    created_at: Scalar = None
    updated_at: Scalar = None
    email: Scalar = None
    verified_email: Scalar = None
    phone: Scalar = None
    first_name: Scalar = None
    last_name: Scalar = None
    default_address: Address | None = None
    email_marketing_consent: EmailConsent | None = None
    tags: str | list[str] | None = None
    topic: Scalar = None
    body: "Customer | None" = None


class TaxLine(Struct, gc=False):
    price: Scalar = None


class Allocation(Struct, gc=False):
    amount: Scalar = None


class Line(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    sku: Scalar = None
    quantity: Scalar = None
    price: Scalar = None
    total_discount: Scalar = None
    discount_allocations: list[Allocation] | None = None
    tax_lines: list[TaxLine] | None = None


class Buyer(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None


class ShippingLine(Struct, gc=False):
    code: Scalar = None
    price: Scalar = None


class Payment(Struct, gc=False):
    card_token: Scalar = None


class Order(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    name: Scalar = None
    created_at: Scalar = None
    updated_at: Scalar = None
    cancelled_at: Scalar = None
    cancel_reason: Scalar = None
    source_identifier: Scalar = None
    customer: Buyer | None = None
    email: Scalar = None
    phone: Scalar = None
    source_name: Scalar = None
    financial_status: Scalar = None
    fulfillment_status: Scalar = None
    shipping_lines: list[ShippingLine] | None = None
    location_id: Scalar = None
    currency: Scalar = None
    subtotal_price: Scalar = None
    total_discounts: Scalar = None
    total_shipping_price_set: MoneySet | None = None
    total_tax: Scalar = None
    total_price: Scalar = None
    payment_details: Payment | None = None
    shipping_address: Address | None = None
    billing_address: Address | None = None
    test: Scalar = None
    line_items: list[Line] | None = None
    topic: Scalar = None
    body: "Order | None" = None


class RefundLine(Struct, gc=False):
    id: Scalar = None
    line_item_id: Scalar = None
    line_item: Line | None = None
    quantity: Scalar = None
    restock_type: Scalar = None
    location_id: Scalar = None
    subtotal: Scalar = None
    subtotal_set: MoneySet | None = None
    total_tax: Scalar = None
    total_tax_set: MoneySet | None = None


class Transaction(Struct, gc=False):
    kind: Scalar = None
    status: Scalar = None
    amount: Scalar = None
    currency: Scalar = None


class RefundedShipping(Struct, gc=False):
    subtotal_amount_set: MoneySet | None = None
    tax_amount_set: MoneySet | None = None


class OrderAdjustment(Struct, gc=False):
    kind: Scalar = None
    amount: Scalar = None
    tax_amount: Scalar = None


class Refund(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    order_id: Scalar = None
    created_at: Scalar = None
    transactions: list[Transaction] | None = None
    refund_line_items: list[RefundLine] | None = None
    refund_shipping_lines: list[RefundedShipping] | None = None
    order_adjustments: list[OrderAdjustment] | None = None
    topic: Scalar = None
    body: "Refund | None" = None


class Destination(Struct, gc=False):
    email: Scalar = None


class DeliveryMethod(Struct, gc=False):
    method_type: Scalar = None
    min_delivery_date_time: Scalar = None
    max_delivery_date_time: Scalar = None


class FulfillmentOrder(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    order_id: Scalar = None
    status: Scalar = None
    created_at: Scalar = None
    updated_at: Scalar = None
    fulfill_by: Scalar = None
    assigned_location_id: Scalar = None
    destination: Destination | None = None
    delivery_method: DeliveryMethod | None = None
    topic: Scalar = None
    body: "FulfillmentOrder | None" = None


class FulfilledLine(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    sku: Scalar = None
    quantity: Scalar = None


class Fulfillment(Struct, gc=False):
    id: Scalar = None
    admin_graphql_api_id: Scalar = None
    order_id: Scalar = None
    status: Scalar = None
    shipment_status: Scalar = None
    created_at: Scalar = None
    updated_at: Scalar = None
    service: Scalar = None
    tracking_company: Scalar = None
    tracking_number: Scalar = None
    location_id: Scalar = None
    email: Scalar = None
    line_items: list[FulfilledLine] | None = None
    topic: Scalar = None
    body: "Fulfillment | None" = None


class InventoryLevel(Struct, gc=False):
    inventory_item_id: Scalar = None
    location_id: Scalar = None
    available: Scalar = None
    updated_at: Scalar = None
    topic: Scalar = None
    body: "InventoryLevel | None" = None


class Device(Struct, gc=False):
    type: Scalar = None


class System(Struct, gc=False):
    name: Scalar = None


class Context(Struct, gc=False):
    device: Device | None = None
    os: System | None = None
    gpc: Scalar = None


class Properties(Struct, gc=False):
    sku: Scalar = None
    order_id: Scalar = None
    query: Scalar = None


class Message(Struct, gc=False, rename="camel"):
    """https://segment.com/docs/connections/spec/common/"""

    message_id: Scalar = None
    type: Scalar = None
    event: Scalar = None
    name: Scalar = None
    anonymous_id: Scalar = None
    user_id: Scalar = None
    original_timestamp: Scalar = None
    timestamp: Scalar = None
    sent_at: Scalar = None
    received_at: Scalar = None
    context: Context | None = None
    properties: Properties | None = None
