with open_orders as (
    select * from {{ ref('orders') }}
    where source_name = 'ecommerce' and order_status in ('open', 'partial') and location_code is not null
),

newest_requests as (
    select
        order_id,
        status_code,
        row_number() over (partition by order_id order by updated_at desc, fulfillment_order_id) as request_rank
    from {{ ref('stg_ecommerce__fulfillment_orders') }}
),

-- Lines of one item in one order are served in their order: `until_units` is what this line and those before it ask for.
promised as (
    select
        open_orders.order_id,
        open_orders.order_name,
        open_orders.location_code,
        open_orders.channel_type,
        open_orders.ordered_at,
        open_orders.promised_at,
        order_lines.order_line_id,
        order_lines.sku,
        order_lines.quantity_units,
        sum(order_lines.quantity_units) over (
            partition by open_orders.order_id, order_lines.sku order by order_lines.line_number rows between unbounded preceding and current row
        ) as until_units
    from open_orders
    inner join {{ ref('order_lines') }} as order_lines
        on open_orders.order_id = order_lines.order_id
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

waiting as (
    select
        promised.*,
        newest_requests.status_code,
        least(
            promised.quantity_units,
            greatest(0, promised.until_units - coalesce(left_already.units, 0) - coalesce(given_up.units, 0))
        ) as units
    from promised
    left join left_already
        on promised.order_name = left_already.order_name and promised.sku = left_already.sku
    left join given_up
        on promised.order_id = given_up.order_id and promised.sku = given_up.sku
    left join newest_requests
        on promised.order_id = newest_requests.order_id and newest_requests.request_rank = 1
),

final as (
    select
        order_line_id as stock_demand_id,
        case when status_code = 'scheduled' and promised_at is not null then 'scheduled' else 'committed' end as demand_type,
        location_code,
        sku,
        cast(units as bigint) as units,
        order_id,
        channel_type,
        ordered_at,
        promised_at as due_at
    from waiting
    where units > 0
)

select * from final
