with events as (
    select
        *,
        case biz_step
            when 'shipping' then coalesce(source_location, biz_location, read_point)
            when 'receiving' then coalesce(biz_location, destination_location, read_point)
            else coalesce(biz_location, read_point)
        end as gln
    from {{ ref('stg_wms__epcis_events') }}
),

locations as (
    select location_code, gln, known_at from {{ ref('stg_wms__locations') }}
),

gtins as (
    select * from {{ ref('int_gtins__carried') }}
),

placed as (
    select
        'epcis/' || events.event_id || '/' || cast(events.item_number as {{ dbt.type_string() }}) as stock_event_id,
        events.event_id,
        events.action,
        events.biz_step,
        events.disposition,
        events.transaction_type,
        events.transaction_ref,
        locations.location_code,
        destinations.location_code as to_location_code,
        events.destination_location is not null as has_destination,
        gtins.sku,
        events.quantity_units,
        events.occurred_at,
        events.recorded_at,
        events.received_at,
        greatest(events.received_at, locations.known_at, gtins.known_at) as known_at,
        case
            when events.superseded_at <= coalesce(gtins.superseded_at, events.superseded_at) then events.superseded_at
            else gtins.superseded_at
        end as superseded_at,
        case
            when events.superseded_at <= coalesce(gtins.superseded_at, events.superseded_at) then 'declared_wrong'
            when gtins.superseded_at is not null then 'carried_by_another_item'
        end as reason_code
    from events
    inner join locations
        on events.gln = locations.gln
    inner join gtins
        on events.gtin = gtins.gtin
    left join locations as destinations
        on events.destination_location = destinations.gln
),

final as (
    select * from placed
    where superseded_at is null or superseded_at > known_at
)

select * from final
