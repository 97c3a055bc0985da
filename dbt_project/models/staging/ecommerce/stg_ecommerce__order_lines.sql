with order_lines as (
    {{ kept(source('ecommerce', 'raw_ecommerce__order_lines'), ['order_id', 'line_id', 'updated_at']) }}
),

orders as (
    select * from {{ ref('stg_ecommerce__orders') }}
),

final as (
    select
        orders.order_id,
        order_lines.line_id,
        order_lines.sku,
        order_lines.quantity_units,
        order_lines.unit_price_cents,
        coalesce(order_lines.discount_cents, 0) as discount_cents,
        order_lines.net_cents,
        order_lines.tax_cents
    from order_lines
    inner join orders
        on 'ecommerce/' || order_lines.order_id = orders.order_id
        and {{ utc('order_lines.updated_at') }} = orders.updated_at
)

select * from final
