with locations as (
    select * from {{ ref('stg_wms__locations') }}
),

-- What each business step does to recorded stock; steps not named here (a cycle count, packing) do nothing. Every opening count is here;
-- which of them opens a stock is for int_stock__opened to say.
typed_events as (
    select
        *,
        case
            when biz_step = 'stock_taking' and action = 'OBSERVE' then 'opening'
            when biz_step = 'receiving' and action <> 'DELETE' and transaction_type = 'desadv' then 'transfer_in'
            when biz_step = 'receiving' and action <> 'DELETE' then 'receipt'
            when biz_step = 'shipping' and action <> 'ADD' and has_destination then 'transfer_out'
            when biz_step = 'shipping' and action <> 'ADD' then 'shipment'
            when biz_step = 'inspecting' and action <> 'OBSERVE' and transaction_type = 'adjustment' then 'adjustment'
            when biz_step = 'destroying' and action = 'DELETE' then 'destruction'
        end as movement_type
    from {{ ref('int_stock_events__placed') }}
),

warehouse_movements as (
    select
        stock_event_id as movement_id,
        location_code,
        sku,
        movement_type,
        case
            when biz_step in ('shipping', 'destroying') or (biz_step = 'inspecting' and action = 'DELETE') then -quantity_units
            else quantity_units
        end as units,
        occurred_at,
        recorded_at as told_at,
        received_at,
        'wms' as source_name,
        event_id as source_ref,
        known_at,
        superseded_at,
        reason_code
    from typed_events
    where movement_type is not null
),

till_lines as (
    select * from {{ ref('int_receipt_lines__timed') }}
    where location_code is not null and (line_type = 'sale' or is_restocked)
),

-- Other systems hear of till sales when the trading day closes.
trading_days as (
    select
        days.location_code,
        days.business_date,
        {{ wall_clock_to_utc(
            "try_cast(cast(days.business_date as " ~ dbt.type_string() ~ ") || ' ' || coalesce(locations.closes_at, '23:59') || ':00' as timestamp)",
            'locations.timezone_name'
        ) }} as closed_at,
        locations.known_at
    from (select distinct location_code, business_date from till_lines) as days
    inner join locations
        on days.location_code = locations.location_code
),

till_movements as (
    select
        till_lines.receipt_line_id as movement_id,
        till_lines.location_code,
        till_lines.sku,
        till_lines.line_type as movement_type,
        case till_lines.line_type when 'sale' then -till_lines.quantity_units else till_lines.quantity_units end as units,
        till_lines.occurred_at,
        greatest(till_lines.occurred_at, trading_days.closed_at) as told_at,
        till_lines.received_at,
        'pos' as source_name,
        till_lines.receipt_id as source_ref,
        greatest(till_lines.known_at, trading_days.known_at) as known_at
    from till_lines
    inner join trading_days
        on till_lines.location_code = trading_days.location_code
        and till_lines.business_date = trading_days.business_date
),

shipment_movements as (
    select
        'shipment/' || shipments.shipment_ref || '/' || cast(shipments.line_number as {{ dbt.type_string() }}) as movement_id,
        locations.location_code,
        shipments.sku,
        case when shipments.ship_to_gln is null then 'shipment' else 'transfer_out' end as movement_type,
        -shipments.shipped_units as units,
        shipments.shipped_at as occurred_at,
        shipments.shipped_at as told_at,
        shipments.received_at,
        'wms' as source_name,
        shipments.order_ref as source_ref,
        greatest(shipments.received_at, locations.known_at) as known_at
    from {{ ref('stg_wms__shipments') }} as shipments
    inner join locations
        on shipments.ship_from_gln = locations.gln
    where shipments.shipped_units > 0
),

-- What a distribution centre picks leaves by its shipping advice; what a store picks leaves with the pick.
pick_movements as (
    select
        'pick/' || picks.pick_id as movement_id,
        picks.location_code,
        picks.sku,
        'pick' as movement_type,
        -picks.picked_units as units,
        picks.finished_at as occurred_at,
        picks.finished_at as told_at,
        picks.received_at,
        'wms' as source_name,
        picks.order_ref as source_ref,
        greatest(picks.received_at, locations.known_at) as known_at
    from {{ ref('stg_wms__picks') }} as picks
    inner join locations
        on picks.location_code = locations.location_code and locations.location_type = 'store'
    where picks.picked_units > 0
),

-- A refund is not a restock: only goods said to have come back to a named place did.
refund_movements as (
    select
        refund_lines.refund_line_id as movement_id,
        locations.location_code,
        refund_lines.sku,
        'web_return' as movement_type,
        refund_lines.quantity_units as units,
        refund_lines.created_at as occurred_at,
        refund_lines.created_at as told_at,
        refund_lines.received_at,
        'ecommerce' as source_name,
        coalesce(refund_lines.order_id, refund_lines.refund_line_id) as source_ref,
        greatest(refund_lines.received_at, locations.known_at) as known_at
    from {{ ref('stg_ecommerce__refund_lines') }} as refund_lines
    inner join {{ ref('int_locations__named') }} as locations
        on refund_lines.location_id = locations.location_ref
    where refund_lines.restock_type in ('return', 'legacy_restock')
),

-- Corrections the shop booked among its sales; those of no place are not stock of any.
adjustment_movements as (
    select
        adjustments.adjustment_id as movement_id,
        locations.location_code,
        adjustments.sku,
        'adjustment' as movement_type,
        adjustments.quantity_units as units,
        adjustments.adjusted_at as occurred_at,
        adjustments.adjusted_at as told_at,
        adjustments.received_at,
        'ecommerce' as source_name,
        adjustments.adjustment_id as source_ref,
        greatest(adjustments.received_at, locations.known_at) as known_at
    from {{ ref('stg_ecommerce__adjustments') }} as adjustments
    inner join locations
        on adjustments.location_id = locations.ecommerce_location_id
    where adjustments.adjustment_type = 'stock'
),

booked as (
    select * from warehouse_movements
    {%- for kind in ['till', 'shipment', 'pick', 'refund', 'adjustment'] %}
    union all
    select *, cast(null as timestamp), cast(null as {{ dbt.type_string() }}) from {{ kind }}_movements
    {%- endfor %}
),

-- What was told one by one as it happened, and comes again in a file of its source under the same name.
streamed as (
    select
        movements.*,
        greatest(movements.received_at, locations.known_at) as known_at
    from {{ ref('stg_stock__movements') }} as movements
    inner join locations
        on movements.location_code = locations.location_code
),

-- The file has the last word. Where it says the same, it was known since the earlier of the two.
filed as (
    select
        booked.movement_id,
        booked.location_code,
        booked.sku,
        booked.movement_type,
        booked.units,
        booked.occurred_at,
        booked.told_at,
        case when streamed.known_at < booked.known_at then streamed.received_at else booked.received_at end as received_at,
        booked.source_name,
        booked.source_ref,
        case when streamed.known_at < booked.known_at then streamed.known_at else booked.known_at end as known_at,
        booked.superseded_at,
        booked.reason_code
    from booked
    left join streamed
        on booked.movement_id = streamed.movement_id
        and booked.location_code = streamed.location_code
        and booked.sku = streamed.sku
        and booked.movement_type = streamed.movement_type
        and booked.units = streamed.units
        and booked.occurred_at = streamed.occurred_at
),

said_again as (
    select streamed.movement_id, min(filed.known_at) as known_at
    from streamed
    inner join filed
        on streamed.movement_id = filed.movement_id
    group by streamed.movement_id
),

streamed_alone as (
    select
        streamed.movement_id,
        streamed.location_code,
        streamed.sku,
        streamed.movement_type,
        streamed.units,
        streamed.occurred_at,
        streamed.told_at,
        streamed.received_at,
        streamed.source_name,
        coalesce(streamed.source_ref, streamed.movement_id) as source_ref,
        streamed.known_at,
        said_again.known_at as superseded_at,
        case when said_again.known_at is not null then 'told_otherwise' end as reason_code
    from streamed
    left join said_again
        on streamed.movement_id = said_again.movement_id
    where said_again.known_at is null or said_again.known_at > streamed.known_at
),

final as (
    select * from filed
    union all
    select * from streamed_alone
)

select * from final
