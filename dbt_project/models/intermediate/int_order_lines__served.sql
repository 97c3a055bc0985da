with lines as (
    select * from {{ ref('order_lines') }}
),

orders as (
    select * from {{ ref('orders') }} where source_name = 'ecommerce'
),

products as (
    select sku, category_name from {{ ref('products') }}
),

cancellations as (
    select
        order_id,
        reason_code,
        row_number() over (partition by order_id order by occurred_at desc, reason_code) as place
    from {{ ref('order_exceptions') }}
    where exception_type in ('cancelled_by_shopper', 'cancelled_by_shop')
),

asked as (
    select
        lines.order_line_id,
        lines.order_id,
        lines.sku,
        products.category_name,
        orders.fulfillment_method,
        orders.location_code,
        orders.ordered_at,
        orders.is_cancelled,
        case when orders.is_cancelled then coalesce(cancellations.reason_code, 'not_said') end as cancel_reason_code,
        lines.quantity_units as asked_units,
        lines.cancelled_units,
        case
            when orders.is_cancelled then 0
            when lines.sent_units is null and orders.order_status = 'fulfilled' then lines.quantity_units - lines.cancelled_units
            else least(lines.quantity_units, coalesce(lines.sent_units, 0))
        end as served_units
    from lines
    inner join orders
        on lines.order_id = orders.order_id
    left join products
        on lines.sku = products.sku
    left join cancellations
        on lines.order_id = cancellations.order_id and cancellations.place = 1
),

settled as (
    select
        *,
        is_cancelled or served_units + cancelled_units >= asked_units as is_settled
    from asked
),

-- Of a single line nobody says who gave it up: it counts as the shop's.
final as (
    select
        order_line_id,
        order_id,
        sku,
        category_name,
        fulfillment_method,
        location_code,
        ordered_at,
        cancel_reason_code,
        coalesce(cancel_reason_code in ('customer', 'declined', 'fraud'), false) as is_withdrawn,
        is_settled,
        cast(asked_units as bigint) as asked_units,
        cast(greatest(0, served_units) as bigint) as served_units,
        cast(case
            when not is_settled then null
            when cancel_reason_code is null then asked_units - greatest(0, served_units)
            when cancel_reason_code = 'inventory' then asked_units
            else 0
        end as bigint) as oversold_units
    from settled
)

select * from final
