with orders as (
    select order_id, source_name, fulfillment_method from {{ ref('int_orders__placed') }}
),

events as (
    select * from {{ ref('order_events') }}
),

-- The one rule of where an order is: cancelled if that was last said of the whole, else the furthest stage any of its goods reached.
stages as (
    select * from (values
        ('placed', 10, 'placed'), ('paid', 10, 'placed'), ('promised', 10, 'placed'), ('picked', 20, 'in_preparation'),
        ('pick_failed', 20, 'in_preparation'), ('packed', 30, 'in_preparation'), ('partially_fulfilled', 30, 'in_preparation'),
        ('fulfilled', 40, 'sent'), ('ready_for_pickup', 50, 'ready_for_pickup'), ('shipped', 50, 'shipped'), ('in_transit', 60, 'shipped'),
        ('out_for_delivery', 60, 'shipped'), ('delivery_attempted', 60, 'shipped'), ('delivery_failed', 70, 'lost'),
        ('delivered', 80, 'delivered'), ('handed_over', 80, 'handed_over'), ('sold', 80, 'sold')
    ) as ranked (event_type, stage_rank, order_stage)
),

furthest as (
    select
        events.order_id,
        stages.order_stage,
        row_number() over (partition by events.order_id order by stages.stage_rank desc, stages.order_stage) as place
    from events
    inner join stages
        on events.event_type = stages.event_type
),

-- What the shop, or the till, last said of the order as a whole.
stated as (
    select
        order_id,
        event_type,
        row_number() over (partition by order_id order by recorded_at desc, event_type) as place
    from events
    where event_type in ('sold', 'cancelled', 'fulfilled', 'partially_fulfilled', 'reopened')
),

measured as (
    select
        order_id,
        max(case when event_type = 'promised' then promised_at end) as promised_at,
        min(case when event_type = 'promised' then source_ref end) as promise_ref,
        max(case when event_type = 'ready_for_pickup' then occurred_at end) as ready_at,
        min(case when event_type = 'handed_over' then occurred_at end) as handed_over_at,
        max(case when event_type = 'delivered' then occurred_at end) as delivered_at,
        max(case when event_type = 'sold' then occurred_at end) as sold_at,
        sum(case when event_type = 'shipped' then units else 0 end) as shipped_units,
        sum(case when event_type = 'delivered' then units else 0 end) as delivered_units,
        max(occurred_at) as last_event_at,
        max(received_at) as known_at
    from events
    group by order_id
),

-- A promise is kept when what was promised has happened: all of it ready at the store, or all that was sent delivered.
kept as (
    select
        orders.order_id,
        case stated.event_type
            when 'sold' then 'completed'
            when 'cancelled' then 'cancelled'
            when 'fulfilled' then 'fulfilled'
            when 'partially_fulfilled' then 'partial'
            else 'open'
        end as order_status,
        case when stated.event_type = 'cancelled' then 'cancelled' else coalesce(furthest.order_stage, 'placed') end as order_stage,
        measured.promised_at,
        measured.promise_ref,
        case
            when measured.promised_at is null then null
            when orders.fulfillment_method in ('click_and_collect', 'curbside') then 'ready_by'
            else 'delivered_by'
        end as promise_type,
        case
            when orders.source_name = 'pos' then measured.sold_at
            when orders.fulfillment_method in ('click_and_collect', 'curbside') then coalesce(measured.ready_at, measured.handed_over_at)
            when measured.delivered_units >= measured.shipped_units then measured.delivered_at
        end as fulfilled_at,
        measured.last_event_at,
        measured.known_at
    from orders
    left join measured
        on orders.order_id = measured.order_id
    left join furthest
        on orders.order_id = furthest.order_id and furthest.place = 1
    left join stated
        on orders.order_id = stated.order_id and stated.place = 1
),

-- What still waits is late by what the shop last told of anything: of later hours nobody has spoken yet.
heard as (
    select max(recorded_at) as until_at
    from events
    where source_name = 'ecommerce'
),

timed as (
    select
        kept.*,
        cast(
            floor((
                {{ epoch_microseconds('coalesce(kept.fulfilled_at, heard.until_at)') }} - {{ epoch_microseconds('kept.promised_at') }}
            ) / 60000000.0) as bigint
        ) as minutes_after_promise
    from kept
    cross join heard
),

final as (
    select
        order_id,
        order_status,
        order_status = 'cancelled' as is_cancelled,
        order_stage,
        promised_at,
        promise_ref,
        promise_type,
        fulfilled_at,
        case when promised_at is not null then order_status <> 'cancelled' and minutes_after_promise > 0 end as is_late,
        case
            when promised_at is null then null
            when order_status <> 'cancelled' and minutes_after_promise > 0 then minutes_after_promise
            else 0
        end as late_minutes,
        last_event_at,
        known_at
    from timed
)

select * from final
