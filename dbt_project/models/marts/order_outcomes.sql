with orders as (
    select * from {{ ref('orders') }} where source_name = 'ecommerce'
),

served as (
    select * from {{ ref('int_order_lines__served') }}
),

exceptions as (
    select
        order_id,
        max(case when exception_type = 'delivery_failed' then 1 else 0 end) as lost,
        max(case when exception_type = 'payment_mismatch' then 1 else 0 end) as papers_differ
    from {{ ref('order_exceptions') }}
    where order_id is not null
    group by order_id
),

damaged as (
    select distinct order_id from {{ ref('returns') }}
    where restock_type = 'damaged' and order_id is not null
),

lines as (
    select
        order_id,
        min(cancel_reason_code) as cancel_reason_code,
        min(case when is_withdrawn then 1 else 0 end) = 1 as is_withdrawn,
        min(case when is_settled then 1 else 0 end) = 1 as is_settled,
        sum(asked_units) as asked_units,
        sum(served_units) as served_units,
        sum(oversold_units) as oversold_units
    from served
    group by order_id
),

-- Advice of what was shipped goes before the pick it began with.
left_the_house as (
    select
        order_id,
        sku,
        coalesce(
            sum(case when event_type = 'shipped' then units end),
            sum(case when event_type = 'picked' then units end)
        ) as units
    from {{ ref('order_events') }}
    where source_name = 'wms' and event_type in ('picked', 'shipped')
    group by order_id, sku
),

compared as (
    select
        order_id,
        sku,
        sum(units) as difference_units,
        sum(is_told) as told
    from (
        select order_id, sku, served_units as units, 0 as is_told from served
        union all
        select order_id, sku, -units, 1 from left_the_house
    ) as both_sides
    group by order_id, sku
),

agreed as (
    select
        order_id,
        max(case when difference_units <> 0 then 1 else 0 end) = 0 as is_accurate
    from compared
    group by order_id
    having sum(told) > 0
),

heard as (
    select max(recorded_at) as until_at
    from {{ ref('order_events') }}
    where source_name = 'ecommerce'
),

-- No order is judged before its promise is due, or those kept early would stand for all of their week.
known as (
    select
        orders.order_id,
        orders.fulfillment_method,
        orders.channel_type,
        orders.location_code,
        orders.ordered_at,
        lines.cancel_reason_code,
        coalesce(lines.is_withdrawn, false) as is_withdrawn,
        not orders.is_cancelled as is_standing,
        coalesce(lines.is_settled, false) as is_settled,
        coalesce(lines.asked_units, 0) as asked_units,
        coalesce(lines.served_units, 0) as served_units,
        lines.oversold_units,
        coalesce(orders.promised_at <= heard.until_at, false) as is_due,
        case when not orders.is_cancelled and orders.promised_at <= heard.until_at then not orders.is_late end as is_on_time,
        case when lines.is_settled and not lines.is_withdrawn then lines.served_units >= lines.asked_units end as is_complete,
        coalesce(exceptions.lost, 0) = 0 and damaged.order_id is null as is_unharmed,
        coalesce(exceptions.papers_differ, 0) = 0 as is_paid_right,
        agreed.is_accurate,
        {{ seconds_between('orders.ordered_at', 'orders.fulfilled_at') }} as met_seconds
    from orders
    cross join heard
    left join lines
        on orders.order_id = lines.order_id
    left join exceptions
        on orders.order_id = exceptions.order_id
    left join damaged
        on orders.order_id = damaged.order_id
    left join agreed
        on orders.order_id = agreed.order_id
),

judged as (
    select
        *,
        case when is_due and not is_withdrawn then is_standing and is_on_time and coalesce(is_complete, false) end as is_promise_kept
    from known
),

final as (
    select
        order_id,
        fulfillment_method,
        channel_type,
        location_code,
        ordered_at,
        cancel_reason_code,
        is_withdrawn,
        is_settled,
        cast(asked_units as bigint) as asked_units,
        cast(served_units as bigint) as served_units,
        cast(case when is_settled then oversold_units end as bigint) as oversold_units,
        is_on_time,
        is_complete,
        is_promise_kept,
        case when is_standing and served_units > 0 then is_unharmed end as is_undamaged,
        case when not is_withdrawn and is_settled then is_paid_right end as has_right_papers,
        case when is_standing and is_settled then is_accurate end as is_accurate,
        case when is_promise_kept is not null then is_promise_kept and is_unharmed and is_paid_right end as is_perfect,
        case when is_standing and fulfillment_method in ('click_and_collect', 'curbside') then met_seconds end as ready_seconds,
        case when is_standing and fulfillment_method not in ('click_and_collect', 'curbside') then met_seconds end as delivery_seconds
    from judged
)

select * from final
