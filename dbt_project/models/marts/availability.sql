with positions as (
    select * from {{ ref('stock_positions') }}
),

locations as (
    select location_code, location_type from {{ ref('locations') }}
),

open_orders as (
    select * from {{ ref('orders') }}
    where source_name = 'ecommerce' and order_status in ('open', 'partial') and location_code is not null
),

promised as (
    select
        open_orders.order_id,
        open_orders.order_name,
        open_orders.location_code,
        order_lines.sku,
        sum(order_lines.quantity_units) as units
    from open_orders
    inner join {{ ref('order_lines') }} as order_lines
        on open_orders.order_id = order_lines.order_id
    group by open_orders.order_id, open_orders.order_name, open_orders.location_code, order_lines.sku
),

left_already as (
    select order_ref as order_name, sku, sum(units) as units
    from (
        select order_ref, sku, picked_units as units from {{ ref('stg_wms__picks') }}
        union all
        select order_ref, sku, shipped_units from {{ ref('stg_wms__shipments') }}
    ) as goods_out
    group by order_ref, sku
),

given_up as (
    select order_id, sku, sum(quantity_units) as units
    from {{ ref('refunds') }}
    where refund_type = 'cancelled'
    group by order_id, sku
),

committed as (
    select
        promised.location_code,
        promised.sku,
        sum(greatest(0, promised.units - coalesce(left_already.units, 0) - coalesce(given_up.units, 0))) as units
    from promised
    left join left_already
        on promised.order_name = left_already.order_name and promised.sku = left_already.sku
    left join given_up
        on promised.order_id = given_up.order_id and promised.sku = given_up.sku
    group by promised.location_code, promised.sku
),

counted as (
    select
        positions.location_code,
        positions.sku,
        positions.on_hand_units,
        cast(coalesce(committed.units, 0) as bigint) as committed_units,
        cast(
            case locations.location_type
                when 'store' then {{ var('safety_units_store') }}
                else {{ var('safety_units_distribution_center') }}
            end as bigint
        ) as safety_units,
        positions.last_movement_at
    from positions
    left join committed
        on positions.location_code = committed.location_code and positions.sku = committed.sku
    left join locations
        on positions.location_code = locations.location_code
),

final as (
    select
        location_code,
        sku,
        on_hand_units,
        committed_units,
        safety_units,
        greatest(0, on_hand_units - committed_units - safety_units) as available_units,
        last_movement_at,
        {{ as_of_at() }} as as_of_at
    from counted
)

select * from final
