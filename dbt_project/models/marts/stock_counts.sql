with counts as (
    select * from {{ ref('int_stock_events__placed') }}
    where superseded_at is null and biz_step in ('stock_taking', 'cycle_counting') and action = 'OBSERVE'
),

movements as (
    select * from {{ ref('stock_movements') }}
),

streamed as (
    select streamed.*, locations.known_at
    from {{ ref('stg_stock__counts') }} as streamed
    inner join {{ ref('stg_wms__locations') }} as locations
        on streamed.location_code = locations.location_code
    left join counts
        on streamed.count_id = counts.event_id
    where counts.event_id is null
),

events as (
    select
        event_id,
        location_code,
        sku,
        min(biz_step) as biz_step,
        sum(quantity_units) as counted_units,
        min(occurred_at) as counted_at,
        min(received_at) as received_at,
        max(known_at) as known_at
    from counts
    group by event_id, location_code, sku
    union all
    select count_id, location_code, sku, 'cycle_counting', counted_units, occurred_at, received_at, greatest(received_at, known_at)
    from streamed
),

-- A count is held against what was recorded when it was made; what is booked because of it comes after it. An opening is the count itself.
recorded as (
    select
        events.event_id,
        events.location_code,
        events.sku,
        sum(movements.units) as recorded_units
    from events
    inner join movements
        on events.location_code = movements.location_code
        and events.sku = movements.sku
        and movements.occurred_at <= events.counted_at
    group by events.event_id, events.location_code, events.sku
),

adjusted as (
    select
        events.event_id,
        events.location_code,
        events.sku,
        sum(movements.units) as adjusted_units,
        min(movements.occurred_at) as adjusted_at
    from events
    inner join movements
        on events.location_code = movements.location_code
        and events.sku = movements.sku
        and movements.movement_type = 'adjustment'
        and movements.occurred_at > events.counted_at
        and movements.occurred_at <= {{ add_minutes('events.counted_at', var('count_is_booked_within_minutes')) }}
    where events.biz_step = 'cycle_counting'
    group by events.event_id, events.location_code, events.sku
),

final as (
    select
        events.event_id || '/' || events.location_code || '/' || events.sku as stock_count_id,
        events.location_code,
        events.sku,
        case events.biz_step when 'stock_taking' then 'opening' else 'cycle' end as count_type,
        cast(events.counted_units as bigint) as counted_units,
        cast(coalesce(recorded.recorded_units, 0) as bigint) as recorded_units,
        cast(events.counted_units - coalesce(recorded.recorded_units, 0) as bigint) as difference_units,
        cast(coalesce(adjusted.adjusted_units, 0) as bigint) as adjusted_units,
        events.counted_at,
        adjusted.adjusted_at,
        events.received_at,
        events.known_at,
        events.event_id as source_ref
    from events
    left join recorded
        on events.event_id = recorded.event_id
        and events.location_code = recorded.location_code
        and events.sku = recorded.sku
    left join adjusted
        on events.event_id = adjusted.event_id
        and events.location_code = adjusted.location_code
        and events.sku = adjusted.sku
)

select * from final
