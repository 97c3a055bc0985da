with events as (
    {{ kept(source('wms', 'raw_wms__epcis_events'), ['event_id', 'item_number', 'is_error_declaration']) }}
),

annulled as (
    select distinct event_id
    from events
    where is_error_declaration
),

final as (
    select
        events.event_id,
        events.item_number,
        events.action,
        events.biz_step,
        {{ utc('events.occurred_at') }} as occurred_at,
        {{ utc('coalesce(events.recorded_at, events.occurred_at)') }} as recorded_at,
        events.biz_location,
        events.read_point,
        events.source_location,
        events.destination_location,
        events.transaction_type,
        lpad(events.gtin, 14, '0') as gtin,
        events.quantity_units,
        {{ utc('events.received_at') }} as received_at
    from events
    left join annulled
        on events.event_id = annulled.event_id
    where annulled.event_id is null
)

select * from final
