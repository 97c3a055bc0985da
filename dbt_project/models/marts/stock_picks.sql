with picks as (
    select * from {{ ref('stg_wms__picks') }}
),

locations as (
    select location_code, known_at from {{ ref('stg_wms__locations') }}
),

final as (
    select
        picks.pick_id as stock_pick_id,
        picks.location_code,
        picks.sku,
        picks.order_ref,
        picks.pick_status,
        picks.requested_units as asked_units,
        picks.picked_units,
        picks.requested_units - picks.picked_units as missed_units,
        picks.reason_code,
        picks.finished_at as picked_at,
        picks.received_at,
        greatest(picks.received_at, locations.known_at) as known_at
    from picks
    inner join locations
        on picks.location_code = locations.location_code
)

select * from final
