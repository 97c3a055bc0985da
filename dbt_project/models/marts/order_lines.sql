with orders as (
    select * from {{ ref('orders') }}
),

lines as (
    select * from {{ ref('int_order_lines__placed') }}
),

sent as (
    select
        order_line_id,
        sum(quantity_units) as units
    from {{ ref('stg_ecommerce__fulfillments') }}
    where is_latest and is_standing
    group by order_line_id
),

refunded as (
    select
        order_line_id,
        sum(gross_cents) as gross_cents,
        sum(case when refund_type = 'cancelled' then quantity_units else 0 end) as cancelled_units
    from {{ ref('refunds') }}
    where order_line_id is not null
    group by order_line_id
),

returned as (
    select
        order_line_id,
        sum(quantity_units) as units
    from {{ ref('returns') }}
    where order_line_id is not null
    group by order_line_id
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
        cast(case when orders.source_name = 'pos' then lines.quantity_units else sent.units end as bigint) as sent_units,
        cast(coalesce(refunded.cancelled_units, 0) as bigint) as cancelled_units,
        cast(coalesce(returned.units, 0) as bigint) as returned_units,
        cast(coalesce(refunded.gross_cents, 0) as bigint) as refunded_cents,
        orders.currency_code,
        orders.customer_id,
        orders.location_code,
        orders.ordered_at,
        orders.channel_type,
        orders.is_cancelled
    from lines
    inner join orders
        on lines.order_id = orders.order_id
    left join sent
        on lines.order_line_id = sent.order_line_id
    left join refunded
        on lines.order_line_id = refunded.order_line_id
    left join returned
        on lines.order_line_id = returned.order_line_id
)

select * from final
