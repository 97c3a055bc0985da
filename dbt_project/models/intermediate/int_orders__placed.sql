with receipt_lines as (
    select * from {{ ref('int_receipt_lines__timed') }}
    where line_type = 'sale'
),

web_orders as (
    select * from {{ ref('stg_ecommerce__orders') }} where not is_test
),

identities as (
    select * from {{ ref('int_identities__resolved') }}
),

locations as (
    select location_code, location_ref from {{ ref('int_locations__named') }}
),

-- Only what was sold makes an order: a receipt of returns alone, or of a hand-over, has no sale line.
receipts as (
    select
        receipt_id,
        min(receipt_name) as receipt_name,
        min(loyalty_card_ref) as loyalty_card_ref,
        min(payment_ref) as payment_ref,
        min(location_code) as location_code,
        min(occurred_at) as occurred_at,
        min(business_date) as business_date,
        min(currency_code) as currency_code,
        sum(net_cents) as net_cents,
        sum(discount_cents) as discount_cents,
        sum(tax_cents) as tax_cents,
        min(received_at) as received_at
    from receipt_lines
    group by receipt_id
),

-- Whose a receipt is says the loyalty card shown, else the payment card, where that was tied to somebody.
till_sales as (
    select
        receipts.receipt_id as order_id,
        receipts.receipt_name as order_name,
        cast(null as {{ dbt.type_string() }}) as marketplace_order_id,
        'pos' as source_name,
        'store' as channel_type,
        'in_store' as fulfillment_method,
        identities.customer_id,
        identities.hub_identity_ref as group_ref,
        identities.identity_type,
        identities.identity_ref,
        coalesce(identities.is_test, false) as is_test,
        receipts.location_code,
        receipts.occurred_at as ordered_at,
        receipts.business_date as order_date,
        receipts.currency_code,
        receipts.net_cents,
        receipts.discount_cents,
        0 as shipping_cents,
        receipts.tax_cents,
        receipts.net_cents + receipts.tax_cents as gross_cents,
        receipts.received_at
    from receipts
    left join identities
        on identities.identity_type = case when receipts.loyalty_card_ref is null then 'payment' else 'card' end
        and coalesce(receipts.loyalty_card_ref, receipts.payment_ref) = identities.identity_ref
),

web_sales as (
    select
        web_orders.order_id,
        web_orders.order_name,
        web_orders.marketplace_order_id,
        'ecommerce' as source_name,
        case web_orders.source_name
            when 'web' then 'web'
            when 'app' then 'app'
            when 'pos' then 'store'
            else 'marketplace'
        end as channel_type,
        web_orders.fulfillment_method,
        identities.customer_id,
        identities.hub_identity_ref as group_ref,
        identities.identity_type,
        identities.identity_ref,
        coalesce(identities.is_test, false) as is_test,
        locations.location_code,
        web_orders.created_at as ordered_at,
        cast(web_orders.created_at as date) as order_date,
        web_orders.currency_code,
        web_orders.net_cents,
        web_orders.discount_cents,
        web_orders.shipping_cents,
        web_orders.tax_cents,
        web_orders.gross_cents,
        web_orders.received_at
    from web_orders
    left join identities
        on identities.identity_type = case when web_orders.account_ref is null then 'email' else 'account' end
        and coalesce(web_orders.account_ref, web_orders.email_ref) = identities.identity_ref
    left join locations
        on web_orders.location_id = locations.location_ref
),

sales as (
    select * from till_sales
    union all
    select * from web_sales
),

final as (
    select
        order_id,
        order_name,
        marketplace_order_id,
        source_name,
        channel_type,
        fulfillment_method,
        customer_id,
        group_ref,
        identity_type,
        identity_ref,
        location_code,
        ordered_at,
        order_date,
        currency_code,
        cast(net_cents as bigint) as net_cents,
        cast(discount_cents as bigint) as discount_cents,
        cast(shipping_cents as bigint) as shipping_cents,
        cast(tax_cents as bigint) as tax_cents,
        cast(gross_cents as bigint) as gross_cents,
        received_at
    from sales
    where not is_test
)

select * from final
