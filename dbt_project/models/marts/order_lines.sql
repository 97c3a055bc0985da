with orders as (
    select * from {{ ref('orders') }}
),

lines as (
    select
        receipt_line_id as order_line_id,
        receipt_id as order_id,
        line_number,
        sku,
        quantity_units,
        unit_price_cents,
        discount_cents,
        net_cents,
        tax_cents
    from {{ ref('int_receipt_lines__timed') }}
    where line_type = 'sale'
    union all
    select
        order_id || '/' || line_id as order_line_id,
        order_id,
        cast(row_number() over (partition by order_id order by length(line_id), line_id) as integer) as line_number,
        sku,
        quantity_units,
        unit_price_cents,
        discount_cents,
        net_cents,
        tax_cents
    from {{ ref('stg_ecommerce__order_lines') }}
),

final as (
    select
        lines.order_line_id,
        lines.order_id,
        lines.line_number,
        lines.sku,
        lines.quantity_units,
        lines.unit_price_cents,
        lines.discount_cents,
        lines.net_cents,
        lines.tax_cents,
        lines.net_cents + lines.tax_cents as gross_cents,
        orders.currency_code,
        orders.customer_id,
        orders.location_code,
        orders.ordered_at,
        orders.channel_type,
        orders.is_cancelled
    from lines
    inner join orders
        on lines.order_id = orders.order_id
)

select * from final
