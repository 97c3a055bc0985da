with told as (
    select * from {{ ref('int_refund_lines__told_once') }}
),

web_refunds as (
    select * from {{ ref('stg_ecommerce__refunds') }}
),

orders as (
    select order_id, customer_id from {{ ref('int_orders__placed') }}
),

shop_orders as (
    select order_id from {{ ref('stg_ecommerce__orders') }}
),

-- Money that is for no line: shipping, and what was given beyond what was due. A test's is none.
for_no_line as (
    select refund_id || '/shipping' as refund_line_id, order_id, 'shipping' as refund_type,
        shipping_cents as net_cents, shipping_tax_cents as tax_cents, currency_code, created_at, received_at
    from web_refunds
    where shipping_cents <> 0 or shipping_tax_cents <> 0
    union all
    select refund_id || '/adjustment', order_id, 'adjustment', adjustment_cents, adjustment_tax_cents, currency_code,
        created_at, received_at
    from web_refunds
    where adjustment_cents <> 0 or adjustment_tax_cents <> 0
),

given_back as (
    select
        refund_line_id,
        order_id,
        order_line_id,
        case when refund_type = 'returned' then refund_line_id end as return_line_id,
        source_name,
        customer_id,
        refund_type,
        sku,
        quantity_units,
        net_cents,
        tax_cents,
        currency_code,
        refunded_at,
        refund_date,
        location_code,
        also_told_ref,
        also_told_at,
        also_told_cents,
        also_told_tax_cents,
        received_at
    from told
    where refund_type = 'cancelled' or net_cents <> 0 or tax_cents <> 0
    union all
    select
        for_no_line.refund_line_id,
        orders.order_id,
        null,
        null,
        'ecommerce',
        orders.customer_id,
        for_no_line.refund_type,
        null,
        null,
        for_no_line.net_cents,
        for_no_line.tax_cents,
        for_no_line.currency_code,
        for_no_line.created_at,
        cast(for_no_line.created_at as date),
        null,
        null,
        null,
        null,
        null,
        for_no_line.received_at
    from for_no_line
    left join orders
        on for_no_line.order_id = orders.order_id
    left join shop_orders
        on for_no_line.order_id = shop_orders.order_id
    where orders.order_id is not null or shop_orders.order_id is null
),

final as (
    select
        order_id,
        refund_line_id,
        order_line_id,
        return_line_id,
        source_name,
        customer_id,
        refund_type,
        sku,
        quantity_units,
        net_cents,
        tax_cents,
        net_cents + tax_cents as gross_cents,
        currency_code,
        refunded_at,
        refund_date,
        location_code,
        also_told_ref,
        also_told_at,
        also_told_cents,
        also_told_tax_cents,
        received_at
    from given_back
)

select * from final
