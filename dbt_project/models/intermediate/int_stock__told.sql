with movements as (
    select * from {{ ref('stock_movements') }}
),

web_lines as (
    select order_lines.location_code, order_lines.sku, order_lines.quantity_units, order_lines.ordered_at
    from {{ ref('order_lines') }} as order_lines
    inner join {{ ref('orders') }} as orders
        on order_lines.order_id = orders.order_id
    where orders.source_name = 'ecommerce' and not orders.is_cancelled and orders.location_code is not null
),

cancelled_units as (
    select orders.location_code, refunds.sku, refunds.quantity_units, refunds.refunded_at
    from {{ ref('refunds') }} as refunds
    inner join {{ ref('orders') }} as orders
        on refunds.order_id = orders.order_id
    where refunds.refund_type = 'cancelled' and not orders.is_cancelled and orders.location_code is not null
),

-- The shop knows its orders at once and hears of every other movement but their shipping and picking, which would count
-- them twice; a warehouse hears of every movement but the till's.
final as (
    select
        location_code,
        sku,
        'ecommerce' as source_name,
        told_at,
        case when movement_type in ('shipment', 'pick') then 0 else units end as units,
        case when movement_type in ('shipment', 'pick') then -units else 0 end as gone_units,
        0 as promised_units
    from movements
    union all
    select location_code, sku, 'ecommerce', ordered_at, -quantity_units, 0, quantity_units from web_lines
    union all
    select location_code, sku, 'ecommerce', refunded_at, quantity_units, 0, -quantity_units from cancelled_units
    union all
    select
        location_code,
        sku,
        'wms',
        told_at,
        units,
        case when movement_type in ('shipment', 'pick', 'transfer_out') then -units else 0 end,
        0
    from movements
    where source_name <> 'pos'
)

select * from final
