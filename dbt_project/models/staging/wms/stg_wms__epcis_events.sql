with events as (
    {{ kept(source('wms', 'raw_wms__epcis_events'), ['event_id', 'item_number', 'is_error_declaration']) }}
),

annulled as (
    select event_id, min(received_at) as received_at
    from events
    where is_error_declaration
    group by event_id
),

final as (
    select
        events.event_id,
        events.item_number,
        events.action,
        events.biz_step,
        events.disposition,
        {{ utc('events.occurred_at') }} as occurred_at,
        {{ utc('coalesce(events.recorded_at, events.occurred_at)') }} as recorded_at,
        events.biz_location,
        events.read_point,
        events.source_location,
        events.destination_location,
        events.transaction_type,
        events.transaction_ref,
        lpad(events.gtin, 14, '0') as gtin,
        events.quantity_units,
        {{ utc('events.received_at') }} as received_at,
        {{ utc('annulled.received_at') }} as superseded_at
    from events
    left join annulled
        on events.event_id = annulled.event_id
    where not events.is_error_declaration and (annulled.event_id is null or annulled.received_at > events.received_at)
)

select * from final
