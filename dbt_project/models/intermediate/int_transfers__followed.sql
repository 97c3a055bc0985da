with events as (
    select * from {{ ref('int_stock_events__placed') }}
    where superseded_at is null
),

locations as (
    select location_code, gln from {{ ref('stg_wms__locations') }}
),

leavings as (
    select
        coalesce(transaction_ref, event_id) as transfer_ref,
        location_code as from_location_code,
        to_location_code,
        sku,
        quantity_units,
        occurred_at
    from events
    where biz_step = 'shipping' and action <> 'ADD' and to_location_code is not null
    union all
    select
        shipments.order_ref,
        origins.location_code,
        goals.location_code,
        shipments.sku,
        shipments.shipped_units,
        shipments.shipped_at
    from {{ ref('stg_wms__shipments') }} as shipments
    inner join locations as origins
        on shipments.ship_from_gln = origins.gln
    inner join locations as goals
        on shipments.ship_to_gln = goals.gln
    where shipments.shipped_units > 0
),

sent as (
    select
        transfer_ref,
        to_location_code,
        sku,
        min(from_location_code) as from_location_code,
        sum(quantity_units) as units,
        min(occurred_at) as sent_at
    from leavings
    group by transfer_ref, to_location_code, sku
),

documents as (
    select transfer_ref, to_location_code, min(from_location_code) as from_location_code, min(sent_at) as sent_at
    from sent
    group by transfer_ref, to_location_code
),

arrived as (
    select
        events.transaction_ref as transfer_ref,
        events.location_code as to_location_code,
        events.sku,
        min(documents.from_location_code) as from_location_code,
        min(documents.sent_at) as sent_at,
        sum(events.quantity_units) as units,
        max(events.occurred_at) as arrived_at
    from events
    inner join documents
        on events.transaction_ref = documents.transfer_ref and events.location_code = documents.to_location_code
    where events.biz_step = 'receiving' and events.action <> 'DELETE' and events.transaction_type = 'desadv'
    group by events.transaction_ref, events.location_code, events.sku
),

final as (
    select
        coalesce(sent.transfer_ref, arrived.transfer_ref) as transfer_ref,
        coalesce(sent.from_location_code, arrived.from_location_code) as from_location_code,
        coalesce(sent.to_location_code, arrived.to_location_code) as to_location_code,
        coalesce(sent.sku, arrived.sku) as sku,
        cast(coalesce(sent.units, 0) as bigint) as sent_units,
        cast(coalesce(arrived.units, 0) as bigint) as arrived_units,
        coalesce(sent.sent_at, arrived.sent_at) as sent_at,
        arrived.arrived_at
    from sent
    full outer join arrived
        on sent.transfer_ref = arrived.transfer_ref
        and sent.to_location_code = arrived.to_location_code
        and sent.sku = arrived.sku
)

select * from final
