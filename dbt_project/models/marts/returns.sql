with orders as (
    select * from {{ ref('orders') }}
),

identities as (
    select * from {{ ref('int_identities__proved') }}
),

locations as (
    select location_code, ecommerce_location_id from {{ ref('stg_wms__locations') }}
),

-- Every order the shop ever named, those of test accounts too: what they gave back is no return.
web_orders as (
    select
        shop_orders.order_id,
        shop_orders.order_name,
        orders.order_id is null as is_test
    from {{ ref('stg_ecommerce__orders') }} as shop_orders
    left join orders
        on shop_orders.order_id = orders.order_id
),

-- Brought to a till: the original is a receipt or, for a web order, its name.
till_returns as (
    select
        receipt_lines.*,
        coalesce(web_orders.order_id, receipt_lines.original_receipt_id) as original_order_id,
        row_number() over (
            partition by web_orders.order_id, receipt_lines.sku
            order by receipt_lines.occurred_at, receipt_lines.receipt_line_id
        ) as mirror_rank
    from {{ ref('int_receipt_lines__timed') }} as receipt_lines
    left join web_orders
        on receipt_lines.original_order_name = web_orders.order_name
    where receipt_lines.line_type = 'return'
),

web_refunds as (
    select
        *,
        row_number() over (
            partition by order_id, sku, restock_type, location_id
            order by created_at, refund_line_id
        ) as mirror_rank
    from {{ ref('stg_ecommerce__refund_lines') }}
),

-- A web order taken back at a till is told twice, by till and shop; the till saw the goods, so its line is the one kept.
refunds_of_their_own as (
    select web_refunds.*
    from web_refunds
    left join till_returns
        on web_refunds.order_id = till_returns.original_order_id
        and web_refunds.sku = till_returns.sku
        and web_refunds.mirror_rank = till_returns.mirror_rank
        and web_refunds.restock_type = 'no_restock'
        and web_refunds.location_id is null
        and till_returns.original_order_name is not null
    where till_returns.receipt_line_id is null
),

brought_back as (
    select
        till_returns.receipt_line_id as return_line_id,
        till_returns.original_order_id,
        'pos' as source_name,
        identities.customer_id,
        coalesce(identities.is_test, false) as is_test,
        till_returns.sku,
        till_returns.quantity_units,
        till_returns.net_cents,
        till_returns.tax_cents,
        till_returns.currency_code,
        till_returns.occurred_at as returned_at,
        case
            when till_returns.is_restocked then 'restock'
            when not till_returns.is_restocked then 'damaged'
            else 'no_restock'
        end as restock_type,
        till_returns.location_code
    from till_returns
    left join identities
        on identities.identity_type = 'card'
        and till_returns.loyalty_card_ref = identities.identity_ref
    union all
    select
        refunds_of_their_own.refund_line_id,
        refunds_of_their_own.order_id,
        'ecommerce',
        identities.customer_id,
        coalesce(web_orders.is_test, identities.is_test, false),
        refunds_of_their_own.sku,
        refunds_of_their_own.quantity_units,
        refunds_of_their_own.net_cents,
        refunds_of_their_own.tax_cents,
        refunds_of_their_own.currency_code,
        refunds_of_their_own.created_at,
        case refunds_of_their_own.restock_type
            when 'legacy_restock' then 'restock'
            else refunds_of_their_own.restock_type
        end,
        locations.location_code
    from refunds_of_their_own
    left join web_orders
        on refunds_of_their_own.order_id = web_orders.order_id
    left join identities
        on identities.identity_type = 'account'
        and refunds_of_their_own.account_ref = identities.identity_ref
    left join locations
        on refunds_of_their_own.location_id = locations.ecommerce_location_id
),

final as (
    select
        brought_back.return_line_id,
        orders.order_id,
        brought_back.source_name,
        coalesce(brought_back.customer_id, orders.customer_id) as customer_id,
        brought_back.sku,
        brought_back.quantity_units,
        brought_back.net_cents,
        brought_back.tax_cents,
        brought_back.net_cents + brought_back.tax_cents as gross_cents,
        brought_back.currency_code,
        brought_back.returned_at,
        brought_back.restock_type,
        brought_back.location_code
    from brought_back
    left join orders
        on brought_back.original_order_id = orders.order_id
    where not brought_back.is_test
)

select * from final
