with orders as (
    select * from {{ ref('int_orders__placed') }}
),

lines as (
    select * from {{ ref('int_order_lines__placed') }}
),

line_units as (
    select order_id, sum(quantity_units) as units from lines group by order_id
),

lines_by_sku as (
    select order_id, sku, order_line_id from lines where is_only_of_its_sku
),

locations as (
    select location_code, gln, ecommerce_location_id from {{ ref('stg_wms__locations') }}
),

-- What warehouses and tills call a web order: its name, or what its marketplace calls it.
known_as as (
    select name, min(order_id) as order_id
    from (
        select order_name as name, order_id from orders where source_name = 'ecommerce'
        union all
        select marketplace_order_id, order_id from orders where marketplace_order_id is not null
    ) as names
    group by name
),

versions as (
    select
        *,
        case
            when cancelled_at is not null or fulfillment_status = 'restocked' then 'cancelled'
            when fulfillment_status = 'fulfilled' then 'fulfilled'
            when fulfillment_status = 'partial' then 'partially_fulfilled'
            else 'reopened'
        end as state,
        coalesce(financial_status in ('paid', 'partially_refunded', 'refunded'), false) as is_paid,
        order_id || '@' || cast(updated_at as {{ dbt.type_string() }}) as source_ref
    from {{ ref('stg_ecommerce__order_versions') }}
),

compared as (
    select
        *,
        row_number() over (partition by order_id order by updated_at) as version_number,
        coalesce(lag(state) over (partition by order_id order by updated_at), 'reopened') as state_before,
        coalesce(lag(is_paid) over (partition by order_id order by updated_at), false) as was_paid
    from versions
),

promises as (
    select
        *,
        row_number() over (partition by fulfillment_order_id order by updated_at) as version_number,
        lag(promised_at) over (partition by fulfillment_order_id order by updated_at) as promised_before_at
    from {{ ref('stg_ecommerce__fulfillment_orders') }}
    where promised_at is not null
),

sent as (
    select
        *,
        lag(shipment_status) over (partition by fulfillment_line_id order by updated_at) as status_before
    from {{ ref('stg_ecommerce__fulfillments') }}
    where is_standing
),

picks as (
    select picks.*, known_as.order_id
    from {{ ref('stg_wms__picks') }} as picks
    inner join known_as
        on picks.order_ref = known_as.name
),

shipments as (
    select shipments.*, known_as.order_id
    from {{ ref('stg_wms__shipments') }} as shipments
    inner join known_as
        on shipments.order_ref = known_as.name
    where shipments.shipped_units > 0 and shipments.ship_to_gln is null
),

advised as (
    select distinct order_id from shipments
),

refunds as (
    select
        refunds.*,
        sum(refunds.gross_cents) over (partition by refunds.order_id order by refunds.refunded_at, refunds.refund_line_id) as so_far_cents
    from {{ ref('refunds') }} as refunds
    where refunds.order_id is not null
),

happened as (
    select
        orders.order_id, cast(null as {{ dbt.type_string() }}) as order_line_id, cast(null as {{ dbt.type_string() }}) as sku, 'sold' as event_type,
        orders.ordered_at as occurred_at, orders.ordered_at as recorded_at, orders.received_at, 'pos' as source_name,
        'raw_pos__transactions' as source_table, orders.order_id as source_ref, orders.location_code, line_units.units,
        orders.gross_cents as amount_cents, cast(null as {{ dbt.type_string() }}) as reason_code, cast(null as timestamp) as promised_at,
        cast(null as {{ dbt.type_string() }}) as carrier_name, cast(null as {{ dbt.type_string() }}) as tracking_number
    from orders
    left join line_units
        on orders.order_id = line_units.order_id
    where orders.source_name = 'pos'
    union all
    select
        orders.order_id, null, null, 'placed', orders.ordered_at, compared.updated_at, compared.received_at, 'ecommerce',
        'raw_ecommerce__orders', compared.source_ref, orders.location_code, line_units.units, orders.gross_cents, null, null, null, null
    from orders
    inner join compared
        on orders.order_id = compared.order_id and compared.version_number = 1
    left join line_units
        on orders.order_id = line_units.order_id
    union all
    select
        orders.order_id, null, null, 'paid', compared.updated_at, compared.updated_at, compared.received_at, 'ecommerce',
        'raw_ecommerce__orders', compared.source_ref, null, null, orders.gross_cents, null, null, null, null
    from orders
    inner join compared
        on orders.order_id = compared.order_id and compared.is_paid and not compared.was_paid
    union all
    select
        orders.order_id, null, null, compared.state, case when compared.state = 'cancelled' then coalesce(compared.cancelled_at, compared.updated_at) else compared.updated_at end,
        compared.updated_at, compared.received_at, 'ecommerce', 'raw_ecommerce__orders', compared.source_ref, null, null, null,
        case when compared.state = 'cancelled' then compared.cancel_reason end, null, null, null
    from orders
    inner join compared
        on orders.order_id = compared.order_id and compared.state <> compared.state_before
    union all
    select
        promises.order_id, null, null, case when promises.version_number = 1 then 'promised' else 'promise_changed' end,
        case when promises.version_number = 1 then promises.created_at else promises.updated_at end, promises.updated_at, promises.received_at,
        'ecommerce', 'raw_ecommerce__fulfillment_orders',
        'ecommerce/' || promises.fulfillment_order_id || '@' || cast(promises.updated_at as {{ dbt.type_string() }}), locations.location_code,
        null, null, null, promises.promised_at, null, null
    from promises
    left join locations
        on promises.location_id = locations.ecommerce_location_id
    where promises.version_number = 1 or promises.promised_at <> promises.promised_before_at
    union all
    select
        order_id, null, sku, 'picked', finished_at, finished_at, received_at, 'wms', 'raw_wms__picks', pick_id, location_code, picked_units,
        null, null, null, null, null
    from picks
    where picked_units > 0
    union all
    select
        order_id, null, sku, 'pick_failed', finished_at, finished_at, received_at, 'wms', 'raw_wms__picks', pick_id, location_code,
        requested_units - picked_units, null, reason_code, null, null, null
    from picks
    where picked_units < requested_units
    union all
    select
        order_id, null, sku, 'packed', packed_at, packed_at, received_at, 'wms', 'raw_wms__picks', pick_id, location_code, picked_units,
        null, null, null, null, null
    from picks
    where packed_at is not null
    union all
    select
        shipments.order_id, null, shipments.sku, 'shipped', shipments.shipped_at, shipments.shipped_at, shipments.received_at, 'wms',
        'raw_wms__shipments', shipments.shipment_ref || '/' || cast(shipments.line_number as {{ dbt.type_string() }}),
        locations.location_code, shipments.shipped_units, null, null, null, shipments.carrier_code, shipments.tracking_number
    from shipments
    left join locations
        on shipments.ship_from_gln = locations.gln
    union all
    -- What no warehouse advises of, a store or a supplier sent: the shop says so.
    select
        sent.order_id, sent.order_line_id, sent.sku, 'shipped', sent.created_at, sent.updated_at, sent.received_at, 'ecommerce',
        'raw_ecommerce__fulfillments', sent.fulfillment_line_id || '@' || cast(sent.updated_at as {{ dbt.type_string() }}),
        locations.location_code, sent.quantity_units, null, null, null, sent.carrier_name, sent.tracking_number
    from sent
    inner join orders
        on sent.order_id = orders.order_id
    left join advised
        on sent.order_id = advised.order_id
    left join locations
        on sent.location_id = locations.ecommerce_location_id
    where sent.version_number = 1 and advised.order_id is null and orders.fulfillment_method not in ('click_and_collect', 'curbside')
    union all
    select
        sent.order_id, sent.order_line_id, sent.sku,
        case sent.shipment_status
            when 'failure' then 'delivery_failed'
            when 'attempted_delivery' then 'delivery_attempted'
            else sent.shipment_status
        end,
        case when sent.version_number = 1 then sent.created_at else sent.updated_at end, sent.updated_at, sent.received_at, 'ecommerce',
        'raw_ecommerce__fulfillments', sent.fulfillment_line_id || '@' || cast(sent.updated_at as {{ dbt.type_string() }}),
        locations.location_code, sent.quantity_units, null, null, null, sent.carrier_name, sent.tracking_number
    from sent
    left join locations
        on sent.location_id = locations.ecommerce_location_id
    where
        sent.shipment_status in ('ready_for_pickup', 'in_transit', 'out_for_delivery', 'attempted_delivery', 'delivered', 'failure')
        and coalesce(sent.status_before, '') <> sent.shipment_status
    union all
    select
        known_as.order_id, null, null, 'handed_over', receipts.occurred_at, receipts.occurred_at, receipts.received_at, 'pos',
        'raw_pos__transactions', receipts.receipt_id, receipts.location_code, null, null, null, null, null, null
    from {{ ref('int_receipts__timed') }} as receipts
    inner join known_as
        on receipts.order_name = known_as.name
    union all
    select
        refunds.order_id, refunds.order_line_id, refunds.sku,
        case when refunds.so_far_cents >= orders.gross_cents then 'refunded' else 'partially_refunded' end, refunds.refunded_at,
        refunds.refunded_at, refunds.received_at, refunds.source_name,
        case
            when refunds.source_name = 'pos' then 'raw_pos__sale_lines'
            when refunds.refund_type in ('shipping', 'adjustment') then 'raw_ecommerce__refunds'
            else 'raw_ecommerce__refund_lines'
        end,
        refunds.refund_line_id, refunds.location_code, refunds.quantity_units, refunds.gross_cents, refunds.refund_type, null, null, null
    from refunds
    inner join orders
        on refunds.order_id = orders.order_id
    union all
    select
        order_id, order_line_id, sku, 'returned', returned_at, returned_at, received_at, source_name,
        case source_name when 'pos' then 'raw_pos__sale_lines' else 'raw_ecommerce__refund_lines' end, return_line_id, location_code,
        quantity_units, null, restock_type, null, null, null
    from {{ ref('returns') }}
    where order_id is not null
),

final as (
    select
        happened.order_id,
        happened.event_type || '/' || happened.source_ref as order_event_id,
        coalesce(lines_by_id.order_line_id, lines_by_sku.order_line_id) as order_line_id,
        happened.sku,
        happened.event_type,
        happened.occurred_at,
        happened.recorded_at,
        happened.received_at,
        happened.source_name,
        happened.source_table,
        happened.source_ref,
        happened.location_code,
        cast(happened.units as bigint) as units,
        happened.amount_cents,
        happened.reason_code,
        happened.promised_at,
        happened.carrier_name,
        happened.tracking_number
    from happened
    inner join orders
        on happened.order_id = orders.order_id
    left join lines as lines_by_id
        on happened.order_line_id = lines_by_id.order_line_id
    left join lines_by_sku
        on happened.order_id = lines_by_sku.order_id and happened.sku = lines_by_sku.sku
)

select * from final
