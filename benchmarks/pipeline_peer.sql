-- The yardstick: raw Parquet to marts and features in one DuckDB script, as one analyst would write it by hand. No tests, no
-- contracts, no lineage, one dialect. benchmarks/pipeline.py runs it beside dbt and compares every table, row for row.
-- Handed in as variables: `raw` (folder of raw tables) and `as_of_at` (UTC; nothing received later is known).

set TimeZone = 'UTC';
set preserve_insertion_order = false;

create temp macro known(name) as table
    select * replace (received_at::timestamp as received_at)
    from read_parquet(getvariable('raw') || '/' || name || '/**/*.parquet', hive_partitioning = false)
    where received_at::timestamp <= getvariable('as_of_at');
create temp macro age_days(moment) as
    floor((epoch_us(getvariable('as_of_at')) - epoch_us(moment)) / 86400000000.0)::integer;
create temp macro receipt(store, till, number, day) as store || '/' || till || '/' || number || '/' || day;
-- Closing or cash-up times on a wall clock to UTC.
create temp macro wall_to_utc(wall, zone) as (wall at time zone zone) at time zone 'UTC';
-- Feature rows are true for as_of_at and for the same time 1 to 8 weeks before; an event counts in those that come after it.
create temp macro weeks_after(age) as range(0, least(8, age // 7) + 1);
create temp macro week_end(week) as getvariable('as_of_at') - to_days((7 * week)::integer);

-- Places and products

create table locations as
select
    location_code, location_type, location_name, gln, pos_store_code, ecommerce_location_id, timezone_name, latitude, longitude,
    city, region_code, postal_code, country_code, opens_at, closes_at, opened_date, updated_at::timestamp as updated_at
from known('raw_wms__locations')
qualify row_number() over (partition by location_code order by updated_at desc, received_at, file_hash, record_offset) = 1;

create temp table product_versions as
select
    sku, product_id, variant_id, inventory_item_id, lpad(gtin, 14, '0') as gtin, product_name, category_name, brand_name,
    price_cents, cost_cents, weight_grams, updated_at::timestamp as updated_at, received_at
from known('raw_ecommerce__products')
qualify row_number() over (partition by sku, updated_at order by received_at, file_hash, record_offset) = 1;

create table products as
select * exclude (received_at) from product_versions
qualify row_number() over (partition by sku order by updated_at desc) = 1;

-- The shop

create temp table web_orders as
select
    'ecommerce/' || order_id as order_id, order_id as shop_order_id, updated_at as version_at, order_name, marketplace_order_id, received_at,
    created_at::timestamp as created_at, cancelled_at is not null or coalesce(fulfillment_status, '') = 'restocked' as is_cancelled,
    account_ref, email_ref, phone_ref, if(account_ref is null, 'email', 'account') as by_type,
    coalesce(account_ref, email_ref) as by_ref, source_name, fulfillment_status, fulfillment_method, location_id, currency_code,
    net_cents, coalesce(discount_cents, 0) as discount_cents, shipping_cents, tax_cents, gross_cents, is_test
from known('raw_ecommerce__orders')
qualify row_number() over (partition by order_id order by updated_at desc, received_at, file_hash, record_offset) = 1;

create temp table web_lines as
select
    web_orders.order_id, line_id, sku, quantity_units, unit_price_cents, coalesce(lines.discount_cents, 0) as discount_cents,
    lines.net_cents, lines.tax_cents
from known('raw_ecommerce__order_lines') as lines
join web_orders on lines.order_id = shop_order_id and lines.updated_at = version_at
qualify row_number() over (
    partition by lines.order_id, line_id order by lines.received_at, lines.file_hash, lines.record_offset
) = 1;

create temp table shop_refund_lines as
select
    'ecommerce/' || raw_refunds.refund_id as refund_id, 'ecommerce/' || raw_refunds.refund_id || '/' || raw_refunds.refund_line_id as refund_line_id, 'ecommerce/' || order_id as order_id,
    'ecommerce/' || order_id || '/' || line_id as order_line_id, account_ref,
    created_at::timestamp as created_at, sku, quantity_units, restock_type, location_id, net_cents, tax_cents, currency_code,
    received_at
from known('raw_ecommerce__refund_lines') as raw_refunds
qualify row_number() over (partition by raw_refunds.refund_id, raw_refunds.refund_line_id order by received_at, file_hash, record_offset) = 1;

create temp table account_versions as
select
    account_id, account_ref, email_ref, is_email_verified, phone_ref, region_code, country_code, coalesce(is_test, false) as is_test,
    coalesce(first_name, last_name) is not null as has_name, street_address is not null as has_street,
    created_at::timestamp as created_at, updated_at::timestamp as updated_at, received_at,
    row_number() over (partition by account_id order by updated_at desc) = 1 as is_latest
from (
    from known('raw_ecommerce__customers')
    qualify row_number() over (partition by account_id, updated_at order by received_at, file_hash, record_offset) = 1
);

create temp table member_versions as
select
    member_id, card_ref, account_ref, email_ref, phone_ref, region_code, tier_code, points_balance,
    coalesce(first_name, last_name) is not null as has_name, street_address is not null as has_street, birth_date, enrolled_store_code,
    enrolled_at::timestamp as enrolled_at, updated_at::timestamp as updated_at, received_at,
    row_number() over (partition by member_id order by updated_at desc) = 1 as is_latest
from (
    from known('raw_loyalty__members')
    qualify row_number() over (partition by member_id, updated_at order by received_at, file_hash, record_offset) = 1
);

create temp table messages as
select
    message_id, event_name, device_ref, account_ref, sku, 'ecommerce/' || order_id as order_id, search_query, device_type, os_name,
    coalesce(has_gpc, false) as has_gpc, recorded_at::timestamp as recorded_at,
    -- A sender's clock may be wrong; how long the message waited there is not.
    recorded_at::timestamp - greatest(coalesce(sent_at - occurred_at, interval 0 second), interval 0 second) as occurred_at
from known('raw_ecommerce__events')
qualify row_number() over (partition by message_id order by received_at, file_hash, record_offset) = 1;

-- The tills

create temp table receipts as
select
    'pos/' || receipt(store_code, workstation_code, sequence_number, business_date) as receipt_id,
    store_code, workstation_code, sequence_number, business_date, location_code, loyalty_card_ref, payment_ref, currency_code,
    gross_cents, tendered_cents, order_name, transactions.received_at,
    case
        when upper(utc_offset) = 'Z' then ended_at_local
        when utc_offset is not null then ended_at_local - to_minutes(
            if(utc_offset[1] = '-', -1, 1) * (utc_offset[2:3]::integer * 60 + utc_offset[-2:]::integer)
        )
        when timezone_name is not null then wall_to_utc(ended_at_local, timezone_name)
        else ended_at_local
    end as occurred_at
from (
    from known('raw_pos__transactions')
    qualify row_number() over (
        partition by store_code, workstation_code, sequence_number, business_date order by received_at, file_hash, record_offset
    ) = 1
) as transactions
left join locations on store_code = pos_store_code
where transaction_type = 'retail' and not is_voided and not is_training;

create temp table till_lines as
select
    receipt_id, receipt_id || '/' || line_number as line_id, line_number::integer as line_number, line_type, location_code,
    business_date, occurred_at, loyalty_card_ref, sku, quantity_units,
    coalesce(unit_price_cents, round((net_cents + coalesce(discount_cents, 0)) / quantity_units)::bigint) as unit_price_cents,
    coalesce(discount_cents, 0) as discount_cents, net_cents, tax_cents, currency_code, original_order_name, is_restocked,
    'pos/' || receipt(original_store_code, original_workstation_code, original_sequence_number, original_business_date)
        as original_receipt_id,
    lines.received_at, greatest(lines.received_at, receipts.received_at) as known_at
from known('raw_pos__sale_lines') as lines
join receipts using (store_code, workstation_code, sequence_number, business_date)
qualify
    row_number() over (
        partition by store_code, workstation_code, sequence_number, business_date, line_number
        order by lines.received_at, lines.file_hash, lines.record_offset
    ) = 1
    and not is_voided;

-- People

-- Who is who is decided before; both sides begin from it.
create temp table proved as
select
    identity_type, identity_ref, hub_identity_type as hub_type, hub_identity_ref as hub_ref, customer_id, source_name,
    linked_at::timestamp as linked_at, link_type, match_probability, is_test
from read_parquet(getvariable('raw') || '/identity_members/*.parquet');

create table customer_identities as
select identity_type, identity_ref, customer_id, link_type, hub_ref as group_ref, source_name, linked_at, is_test from proved where identity_type <> 'payment'
union all
select identity_type, identity_ref, customer_id, 'contact', group_ref, source_name, linked_at::timestamp, is_test
from read_parquet(getvariable('raw') || '/identity_contacts/*.parquet');

create table loyalty_members as
select
    member_id, customer_id, card_ref, tier_code, enrolled_at, points_balance as points_balance_stated,
    coalesce(points, 0)::bigint as points_balance_ledger, points_balance = points_balance_ledger as is_reconciled
from member_versions
left join (from proved where identity_type = 'card') on card_ref = identity_ref
left join (
    select member_id, sum(points) as points
    from (
        from known('raw_loyalty__points')
        qualify row_number() over (partition by entry_id order by received_at, file_hash, record_offset) = 1
    )
    group by all
) using (member_id)
where is_latest and not coalesce(is_test, false);

create temp table shipments as
select shipment_ref, line_number, order_ref, shipped_at::timestamp as shipped_at, ship_from_gln, ship_to_gln, sku, shipped_units, received_at,
    carrier_code, tracking_number
from known('raw_wms__shipments')
qualify row_number() over (partition by shipment_ref, line_number order by received_at, file_hash, record_offset) = 1;

create temp table picks as
select pick_id, order_ref, location_code, sku, requested_units, picked_units, reason_code,
    started_at::timestamp as started_at, finished_at::timestamp as finished_at, packed_at::timestamp as packed_at, received_at
from known('raw_wms__picks')
qualify row_number() over (partition by pick_id order by received_at, file_hash, record_offset) = 1;

-- Orders: as they were placed, what came back, what was given back, what happened, what went wrong, and where each stands

create temp table placed as
select
    receipt_id as order_id, receipt_id[5:] as order_name, null::varchar as marketplace_order_id, 'pos' as source_name, 'store' as channel_type,
    'in_store' as fulfillment_method, customer_id, hub_ref as group_ref, identity_type as buyer_type, identity_ref as buyer_ref, location_code, occurred_at as ordered_at, business_date as order_date,
    currency_code, sums.net_cents, sums.discount_cents, 0::bigint as shipping_cents, sums.tax_cents,
    sums.net_cents + sums.tax_cents as gross_cents, false as is_cancelled, sums.line_received_at as received_at
from receipts
join (
    select receipt_id, sum(net_cents)::bigint as net_cents, sum(discount_cents)::bigint as discount_cents, sum(tax_cents)::bigint as tax_cents,
        min(received_at) as line_received_at
    from till_lines
    where line_type = 'sale'
    group by all
) as sums using (receipt_id)
left join (from proved where identity_type in ('card', 'payment'))
    on identity_ref = if(loyalty_card_ref is null, payment_ref, loyalty_card_ref)
    and identity_type = if(loyalty_card_ref is null, 'payment', 'card')
where not coalesce(is_test, false)
union all by name
select
    order_id, order_name, marketplace_order_id, 'ecommerce' as source_name,
    case web_orders.source_name when 'web' then 'web' when 'app' then 'app' when 'pos' then 'store' else 'marketplace' end as channel_type,
    fulfillment_method, customer_id, hub_ref as group_ref, identity_type as buyer_type, identity_ref as buyer_ref, location_code, created_at as ordered_at, created_at::date as order_date, currency_code,
    net_cents, discount_cents, shipping_cents, tax_cents, gross_cents, is_cancelled, received_at
from web_orders
left join proved on by_type = identity_type and by_ref = identity_ref
left join locations on location_id = ecommerce_location_id
where not web_orders.is_test and not coalesce(proved.is_test, false);

create temp table placed_lines as
select receipt_id as order_id, line_id as order_line_id, line_number, sku, quantity_units, unit_price_cents, discount_cents, net_cents, tax_cents
from till_lines
where line_type = 'sale'
union all by name
select
    * exclude (line_id), order_id || '/' || line_id as order_line_id,
    (row_number() over (partition by order_id order by length(line_id), line_id))::integer as line_number
from web_lines;

create temp table sole_lines as
select order_id, sku, any_value(order_line_id) as sole_line_id from placed_lines group by all having count(*) = 1;

create temp table given_back as
with at_till as (
    select
        till_lines.*, web_orders.order_id as web_order_id
    from till_lines
    left join web_orders on original_order_name = order_name
    where line_type = 'return'
),

by_shop as (
    from shop_refund_lines
),

-- What a till took back of a web order, the shop tells again as money without goods: the same amount first, else the next in time.
tellings as (
    select web_order_id as order_id, sku, net_cents + tax_cents as cents, line_id as ref, occurred_at as told_at, 'till' as side
    from at_till where web_order_id is not null
    union all
    select order_id, sku, net_cents + tax_cents, refund_line_id, created_at, 'shop'
    from by_shop where restock_type = 'no_restock' and location_id is null
),

by_amount as (
    select *, row_number() over (partition by side, order_id, sku, cents order by told_at, ref) as telling from tellings
),

agreed as (
    select till.ref as line_id, shop.ref as refund_line_id
    from (from by_amount where side = 'till') as till
    join (from by_amount where side = 'shop') as shop using (order_id, sku, cents, telling)
),

by_time as (
    select *, row_number() over (partition by side, order_id, sku order by told_at, ref) as telling
    from tellings
    where ref not in (select line_id from agreed union all select refund_line_id from agreed)
),

told_twice as (
    select pairs.line_id, refund_line_id, created_at as also_told_at, net_cents + tax_cents as also_told_cents, tax_cents as also_told_tax_cents
    from (
        from agreed
        union all
        select till.ref, shop.ref
        from (from by_time where side = 'till') as till
        join (from by_time where side = 'shop') as shop using (order_id, sku, telling)
    ) as pairs
    join shop_refund_lines using (refund_line_id)
),

taken_back as (
    select
        line_id as refund_line_id, coalesce(web_order_id, original_receipt_id) as of_order_id, null::varchar as of_line_id,
        'pos' as source_name, customer_id, sku, quantity_units, net_cents, tax_cents, currency_code, occurred_at as refunded_at,
        business_date as refund_date, location_code, 'returned' as refund_type,
        case is_restocked when true then 'restocked' when false then 'damaged' else 'not_said' end as restock_type,
        coalesce(original_receipt_id, original_order_name) is not null as has_reference, told_twice.refund_line_id as also_told_ref,
        also_told_at, also_told_cents, also_told_tax_cents, received_at
    from at_till
    left join told_twice using (line_id)
    left join (from proved where identity_type = 'card') on loyalty_card_ref = identity_ref
    where not coalesce(is_test, false)
    union all by name
    select
        refund_line_id, order_id as of_order_id, order_line_id as of_line_id, 'ecommerce' as source_name, customer_id, sku, quantity_units,
        net_cents, tax_cents, currency_code, created_at as refunded_at, created_at::date as refund_date, location_code,
        case restock_type when 'cancel' then 'cancelled' when 'no_restock' then 'kept' else 'returned' end as refund_type,
        if(location_code is null, 'not_said', 'restocked') as restock_type, order_id is not null as has_reference, received_at
    from by_shop
    anti join told_twice using (refund_line_id)
    left join locations on location_id = ecommerce_location_id
    left join (from proved where identity_type = 'account') on account_ref = identity_ref
    -- An order the shop knows and `placed` does not is a test; a refund of no known order is one when its account is.
    where case
        when order_id in (select order_id from web_orders) then order_id in (select order_id from placed)
        else not coalesce(is_test, false)
    end
)

select
    taken_back.* exclude (of_order_id, of_line_id, customer_id), placed.order_id,
    coalesce(taken_back.customer_id, placed.customer_id) as customer_id,
    coalesce(if(of_line_id in (select order_line_id from placed_lines), of_line_id, null), sole_line_id) as order_line_id
from taken_back
left join placed on of_order_id = placed.order_id
left join sole_lines on placed.order_id = sole_lines.order_id and taken_back.sku = sole_lines.sku;

create table returns as
select
    refund_line_id as return_line_id, order_id, order_line_id, source_name, customer_id, sku, quantity_units, refunded_at as returned_at,
    restock_type, location_code, has_reference, received_at
from given_back
where refund_type = 'returned';

create temp table shop_refunds as
select
    'ecommerce/' || refund_id as shop_refund_id, 'ecommerce/' || order_id as order_id, created_at::timestamp as created_at, paid_cents,
    shipping_cents, shipping_tax_cents, adjustment_cents, adjustment_tax_cents, currency_code, received_at
from known('raw_ecommerce__refunds')
qualify row_number() over (partition by refund_id order by received_at, file_hash, record_offset) = 1;

create table refunds as
select
    refund_line_id, order_id, order_line_id, if(refund_type = 'returned', refund_line_id, null) as return_line_id, source_name, customer_id,
    refund_type, sku, quantity_units, net_cents, tax_cents, net_cents + tax_cents as gross_cents, currency_code, refunded_at, refund_date,
    location_code, also_told_ref, also_told_at, also_told_cents, also_told_tax_cents, received_at
from given_back
where refund_type = 'cancelled' or net_cents <> 0 or tax_cents <> 0
union all by name
select
    shop_refund_id || '/' || part.of as refund_line_id, placed.order_id, 'ecommerce' as source_name, customer_id, part.of as refund_type,
    part.net as net_cents, part.tax as tax_cents, part.net + part.tax as gross_cents, shop_refunds.currency_code,
    created_at as refunded_at, created_at::date as refund_date, shop_refunds.received_at
from (
    select *, unnest([
        {'of': 'shipping', 'net': shipping_cents, 'tax': shipping_tax_cents},
        {'of': 'adjustment', 'net': adjustment_cents, 'tax': adjustment_tax_cents}
    ]) as part
    from shop_refunds
) as shop_refunds
left join placed using (order_id)
where (part.net <> 0 or part.tax <> 0)
    and (placed.order_id is not null or shop_refunds.order_id is null or shop_refunds.order_id not in (select order_id from web_orders));

create table order_events as
with names as (
    select name, min(order_id) as order_id
    from (
        select order_id, unnest([order_name, marketplace_order_id]) as name from placed where source_name = 'ecommerce'
    )
    where name is not null
    group by all
),

versions as (
    select
        'ecommerce/' || order_id as order_id, updated_at::timestamp as version_at, cancelled_at::timestamp as cancelled_at, cancel_reason,
        received_at, coalesce(financial_status in ('paid', 'partially_refunded', 'refunded'), false) as is_paid,
        case
            when cancelled_at is not null or fulfillment_status = 'restocked' then 'cancelled'
            when fulfillment_status = 'fulfilled' then 'fulfilled'
            when fulfillment_status = 'partial' then 'partially_fulfilled'
            else 'reopened'
        end as state
    from known('raw_ecommerce__orders')
    qualify row_number() over (partition by order_id, updated_at order by received_at, file_hash, record_offset) = 1
),

turns as (
    select *, order_id || '@' || version_at as source_ref, row_number() over in_turn as turn,
        lag(state, 1, 'reopened') over in_turn as state_before, lag(is_paid, 1, false) over in_turn as was_paid
    from versions
    window in_turn as (partition by order_id order by version_at)
),

promises as (
    select
        'ecommerce/' || order_id as order_id, 'ecommerce/' || fulfillment_order_id || '@' || updated_at::timestamp as source_ref,
        created_at::timestamp as created_at, updated_at::timestamp as version_at, coalesce(promised_at, fulfill_by_at)::timestamp as promised_at,
        location_id, received_at, row_number() over in_turn as turn,
        lag(coalesce(promised_at, fulfill_by_at)::timestamp) over in_turn as promised_before
    from (
        from known('raw_ecommerce__fulfillment_orders')
        qualify row_number() over (partition by fulfillment_order_id, updated_at order by received_at, file_hash, record_offset) = 1
    )
    where coalesce(promised_at, fulfill_by_at) is not null
    window in_turn as (partition by fulfillment_order_id order by updated_at)
),

parcels as (
    select
        'ecommerce/' || order_id as order_id, 'ecommerce/' || order_id || '/' || line_id as order_line_id,
        'ecommerce/' || fulfillment_id || '/' || line_id || '@' || updated_at::timestamp as source_ref, created_at::timestamp as created_at,
        updated_at::timestamp as version_at, coalesce(status_code, 'success') in ('pending', 'open', 'success') as is_standing,
        shipment_status, location_id, carrier_name, tracking_number, sku, quantity_units, received_at,
        row_number() over (partition by fulfillment_id, line_id order by updated_at) as turn, fulfillment_id, line_id
    from (
        from known('raw_ecommerce__fulfillments')
        qualify row_number() over (partition by fulfillment_id, line_id, updated_at order by received_at, file_hash, record_offset) = 1
    )
),

parcel_news as (
    select *, lag(shipment_status) over (partition by fulfillment_id, line_id order by version_at) as status_before
    from parcels
    where is_standing
),

parcel_places as (
    select parcel_news.*, location_code from parcel_news left join locations on location_id = ecommerce_location_id
),

advised as (
    select shipments.*, order_id, location_code
    from shipments
    join names on order_ref = name
    left join locations on ship_from_gln = gln
    where shipped_units > 0 and ship_to_gln is null
),

sums as (
    select order_id, sum(quantity_units)::bigint as units from placed_lines group by all
),

running as (
    select refunds.*, sum(gross_cents) over (partition by order_id order by refunded_at, refund_line_id) as so_far
    from refunds
    where order_id is not null
),

happened as (
    select order_id, 'sold' as event_type, ordered_at as occurred_at, ordered_at as recorded_at, received_at, 'pos' as source_name,
        'raw_pos__transactions' as source_table, order_id as source_ref, location_code, units, gross_cents as amount_cents
    from placed join sums using (order_id)
    where source_name = 'pos'
    union all by name
    select order_id, 'placed' as event_type, ordered_at as occurred_at, version_at as recorded_at, turns.received_at, 'ecommerce' as source_name,
        'raw_ecommerce__orders' as source_table, source_ref, location_code, units, gross_cents as amount_cents
    from placed join turns using (order_id) left join sums using (order_id)
    where turn = 1
    union all by name
    select order_id, 'paid' as event_type, version_at as occurred_at, version_at as recorded_at, turns.received_at, 'ecommerce' as source_name,
        'raw_ecommerce__orders' as source_table, source_ref, gross_cents as amount_cents
    from placed join turns using (order_id)
    where is_paid and not was_paid
    union all by name
    select order_id, state as event_type, if(state = 'cancelled', coalesce(cancelled_at, version_at), version_at) as occurred_at,
        version_at as recorded_at, received_at, 'ecommerce' as source_name, 'raw_ecommerce__orders' as source_table, source_ref,
        if(state = 'cancelled', cancel_reason, null) as reason_code
    from turns
    where state <> state_before
    union all by name
    select order_id, if(turn = 1, 'promised', 'promise_changed') as event_type, if(turn = 1, created_at, version_at) as occurred_at,
        version_at as recorded_at, received_at, 'ecommerce' as source_name, 'raw_ecommerce__fulfillment_orders' as source_table, source_ref,
        location_code, promised_at
    from promises left join locations on location_id = ecommerce_location_id
    where turn = 1 or promised_at <> promised_before
    union all by name
    select order_id, sku, news.kind as event_type, news.moment as occurred_at, news.moment as recorded_at, received_at, 'wms' as source_name,
        'raw_wms__picks' as source_table, pick_id as source_ref, location_code, news.units as units, news.reason as reason_code
    from (
        select *, unnest([
            {'kind': 'picked', 'moment': finished_at, 'units': nullif(picked_units, 0), 'reason': null},
            {'kind': 'pick_failed', 'moment': finished_at, 'units': nullif(greatest(requested_units - picked_units, 0), 0), 'reason': reason_code},
            {'kind': 'packed', 'moment': packed_at, 'units': picked_units, 'reason': null}
        ]) as news
        from picks
    )
    join names on order_ref = name
    where news.units is not null and news.moment is not null
    union all by name
    select order_id, sku, 'shipped' as event_type, shipped_at as occurred_at, shipped_at as recorded_at, received_at, 'wms' as source_name,
        'raw_wms__shipments' as source_table, shipment_ref || '/' || line_number as source_ref, location_code, shipped_units as units,
        carrier_code as carrier_name, tracking_number
    from advised
    union all by name
    select order_id, order_line_id, sku, 'shipped' as event_type, created_at as occurred_at, version_at as recorded_at,
        parcel_places.received_at, 'ecommerce' as source_name, 'raw_ecommerce__fulfillments' as source_table, source_ref,
        parcel_places.location_code, quantity_units as units, carrier_name, tracking_number
    from parcel_places
    join placed using (order_id)
    where turn = 1 and fulfillment_method not in ('click_and_collect', 'curbside') and order_id not in (select order_id from advised)
    union all by name
    select order_id, order_line_id, sku,
        case shipment_status when 'failure' then 'delivery_failed' when 'attempted_delivery' then 'delivery_attempted' else shipment_status end
            as event_type,
        if(turn = 1, created_at, version_at) as occurred_at, version_at as recorded_at, received_at, 'ecommerce' as source_name,
        'raw_ecommerce__fulfillments' as source_table, source_ref, location_code, quantity_units as units, carrier_name, tracking_number
    from parcel_places
    where shipment_status is distinct from status_before
        and shipment_status in ('ready_for_pickup', 'in_transit', 'out_for_delivery', 'attempted_delivery', 'delivered', 'failure')
    union all by name
    select order_id, 'handed_over' as event_type, occurred_at, occurred_at as recorded_at, received_at, 'pos' as source_name,
        'raw_pos__transactions' as source_table, receipt_id as source_ref, location_code
    from receipts join names on order_name = name
    union all by name
    select order_id, order_line_id, sku, if(so_far >= placed.gross_cents, 'refunded', 'partially_refunded') as event_type,
        refunded_at as occurred_at, refunded_at as recorded_at, running.received_at, running.source_name,
        case
            when running.source_name = 'pos' then 'raw_pos__sale_lines'
            when refund_type in ('shipping', 'adjustment') then 'raw_ecommerce__refunds'
            else 'raw_ecommerce__refund_lines'
        end as source_table,
        refund_line_id as source_ref, running.location_code, quantity_units as units, running.gross_cents as amount_cents, refund_type as reason_code
    from running join placed using (order_id)
    union all by name
    select order_id, order_line_id, sku, 'returned' as event_type, returned_at as occurred_at, returned_at as recorded_at, received_at,
        source_name, if(source_name = 'pos', 'raw_pos__sale_lines', 'raw_ecommerce__refund_lines') as source_table,
        return_line_id as source_ref, location_code, quantity_units as units, restock_type as reason_code
    from returns
    where order_id is not null
)

select
    event_type || '/' || source_ref as order_event_id, order_id,
    coalesce(if(order_line_id in (select order_line_id from placed_lines), order_line_id, null), sole_line_id) as order_line_id, sku, event_type,
    occurred_at, recorded_at, received_at, source_name, source_table, source_ref, location_code, units, amount_cents, reason_code,
    promised_at, carrier_name, tracking_number
from happened
semi join placed using (order_id)
left join sole_lines using (order_id, sku);

create temp table followed as
with words as (
    select
        order_id,
        arg_max(event_type, (recorded_at, -ascii(event_type)))
            filter (where event_type in ('sold', 'cancelled', 'fulfilled', 'partially_fulfilled', 'reopened')) as last_word,
        max(case
            when event_type in ('delivered', 'handed_over', 'sold') then 8
            when event_type = 'delivery_failed' then 7
            when event_type in ('in_transit', 'out_for_delivery', 'delivery_attempted') then 6
            when event_type in ('ready_for_pickup', 'shipped') then 5
            when event_type = 'fulfilled' then 4
            when event_type in ('picked', 'pick_failed', 'packed', 'partially_fulfilled') then 3
            else 1
        end) as stage_rank,
        list_sort(list(distinct event_type)) as kinds,
        max(promised_at) filter (where event_type = 'promised') as promised_at,
        min(source_ref) filter (where event_type = 'promised') as promise_ref,
        max(occurred_at) filter (where event_type = 'ready_for_pickup') as ready_at,
        min(occurred_at) filter (where event_type = 'handed_over') as handed_over_at,
        max(occurred_at) filter (where event_type = 'delivered') as delivered_at,
        coalesce(sum(units) filter (where event_type = 'shipped'), 0) as shipped_units,
        coalesce(sum(units) filter (where event_type = 'delivered'), 0) as delivered_units,
        max(occurred_at) as last_event_at, max(received_at) as known_at
    from order_events
    group by all
)

select
    order_id, is_cancelled,
    case
        when source_name = 'pos' then 'completed'
        when last_word = 'cancelled' then 'cancelled'
        when last_word = 'fulfilled' then 'fulfilled'
        when last_word = 'partially_fulfilled' then 'partial'
        else 'open'
    end as order_status,
    case
        when last_word = 'cancelled' then 'cancelled'
        when stage_rank = 8 then if('delivered' in kinds, 'delivered', if('handed_over' in kinds, 'handed_over', 'sold'))
        when stage_rank = 7 then 'lost'
        when stage_rank = 6 then 'shipped'
        when stage_rank = 5 then if('ready_for_pickup' in kinds, 'ready_for_pickup', 'shipped')
        when stage_rank = 4 then 'sent'
        when stage_rank = 3 then 'in_preparation'
        else 'placed'
    end as order_stage,
    promised_at, promise_ref,
    if(promised_at is null, null, if(fulfillment_method in ('click_and_collect', 'curbside'), 'ready_by', 'delivered_by')) as promise_type,
    case
        when source_name = 'pos' then ordered_at
        when fulfillment_method in ('click_and_collect', 'curbside') then coalesce(ready_at, handed_over_at)
        when delivered_units >= shipped_units then delivered_at
    end as fulfilled_at,
    greatest(0, if(
        order_status = 'cancelled', 0,
        floor((epoch_us(coalesce(fulfilled_at, heard_until)) - epoch_us(promised_at)) / 60e6)
    ))::bigint as minutes,
    if(promised_at is null, null, minutes) as late_minutes, late_minutes > 0 as is_late, last_event_at, known_at
from placed
join words using (order_id)
cross join (select max(recorded_at) as heard_until from order_events where source_name = 'ecommerce');

create table order_exceptions as
with amiss as (
    select 'short_pick' as exception_type, * replace (coalesce(reason_code, 'not_said') as reason_code) from order_events where event_type = 'pick_failed'
    union all by name
    select if(reason_code is not distinct from 'customer', 'cancelled_by_shopper', 'cancelled_by_shop') as exception_type,
        * replace (coalesce(reason_code, 'not_said') as reason_code)
    from order_events where event_type = 'cancelled'
    union all by name
    select 'delivery_failed' as exception_type, * replace ('lost_by_carrier' as reason_code) from order_events where event_type = 'delivery_failed'
    union all by name
    select 'late' as exception_type, order_id,
        if(fulfilled_at is null, 'still_waiting', if(promise_type = 'ready_by', 'ready_late', 'delivered_late')) as reason_code,
        promised_at as occurred_at, known_at as received_at, 'ecommerce' as source_name, 'raw_ecommerce__fulfillment_orders' as source_table,
        promise_ref as source_ref, location_code, late_minutes
    from followed join placed using (order_id)
    where is_late
    union all by name
    select 'payment_mismatch' as exception_type, order_id, 'tender_differs' as reason_code, occurred_at, receipts.received_at, 'pos' as source_name,
        'raw_pos__transactions' as source_table, receipt_id as source_ref, receipts.location_code,
        tendered_cents - receipts.gross_cents as too_much_cents
    from receipts left join placed on receipt_id = order_id
    where too_much_cents <> 0
    union all by name
    select 'payment_mismatch' as exception_type, placed.order_id, 'refund_differs' as reason_code, created_at as occurred_at, told.received_at,
        'ecommerce' as source_name, 'raw_ecommerce__refunds' as source_table, shop_refund_id as source_ref,
        paid_cents - due_cents - told.shipping_cents - shipping_tax_cents - adjustment_cents - adjustment_tax_cents as too_much_cents
    from (
        select shop_refunds.*, coalesce(due_cents, 0) as due_cents
        from shop_refunds
        left join (select refund_id, sum(net_cents + tax_cents)::bigint as due_cents from shop_refund_lines group by all) as due on shop_refund_id = refund_id
    ) as told
    left join placed using (order_id)
    where too_much_cents <> 0
    union all by name
    select 'payment_mismatch' as exception_type, order_id, order_line_id, sku, 'till_and_shop_differ' as reason_code, refunded_at as occurred_at,
        received_at, source_name, 'raw_pos__sale_lines' as source_table, refund_line_id as source_ref, location_code,
        gross_cents - also_told_cents as too_much_cents
    from refunds
    where too_much_cents <> 0
    union all by name
    select 'payment_mismatch' as exception_type, order_id, 'refunded_more_than_paid' as reason_code, last_refunded_at as occurred_at,
        sums.received_at, placed.source_name, if(placed.source_name = 'pos', 'raw_pos__sale_lines', 'raw_ecommerce__refund_lines') as source_table,
        order_id as source_ref, location_code, back_cents - gross_cents as too_much_cents
    from (
        select order_id, sum(gross_cents)::bigint as back_cents, max(refunded_at) as last_refunded_at, max(received_at) as received_at
        from refunds where order_id is not null group by all
    ) as sums
    join placed using (order_id)
    where too_much_cents > 0
    union all by name
    select 'refund_without_order' as exception_type, sku, 'order_not_named_or_unknown' as reason_code, refunded_at as occurred_at, received_at, source_name,
        if(refund_type in ('shipping', 'adjustment'), 'raw_ecommerce__refunds', 'raw_ecommerce__refund_lines') as source_table,
        refund_line_id as source_ref, location_code, quantity_units as units, gross_cents as too_much_cents
    from refunds
    where order_id is null and source_name = 'ecommerce'
    union all by name
    select 'return_without_receipt' as exception_type, sku, if(has_reference, 'receipt_unknown', 'no_receipt') as reason_code, returned_at as occurred_at,
        received_at, source_name, 'raw_pos__sale_lines' as source_table, return_line_id as source_ref, location_code, quantity_units as units
    from returns
    where order_id is null and source_name = 'pos'
    union all by name
    select 'handover_of_unknown_order' as exception_type, 'order_unknown' as reason_code, occurred_at, received_at, 'pos' as source_name,
        'raw_pos__transactions' as source_table, receipt_id as source_ref, location_code
    from receipts
    where order_name is not null and order_name not in (
        select name from (select unnest([order_name, marketplace_order_id]) as name from web_orders) where name is not null
    )
)

select
    exception_type || '/' || reason_code || '/' || source_ref as order_exception_id, order_id, order_line_id, sku, exception_type, reason_code,
    occurred_at, received_at, source_name, source_table, source_ref, location_code, units, too_much_cents as amount_cents, late_minutes
from amiss;

create table orders as
select
    order_id, order_name, marketplace_order_id, source_name, channel_type, fulfillment_method, customer_id, location_code, ordered_at, order_date,
    currency_code, net_cents, discount_cents, shipping_cents, tax_cents, gross_cents, order_status, placed.is_cancelled, order_stage, promised_at,
    promise_type, fulfilled_at, is_late, late_minutes, coalesce(refunded_cents, 0)::bigint as refunded_cents,
    coalesce(returned_units, 0)::bigint as returned_units, coalesce(exception_count, 0)::bigint as exception_count, last_event_at, known_at
from placed
join followed using (order_id)
left join (select order_id, currency_code, sum(gross_cents) as refunded_cents from refunds group by all) using (order_id, currency_code)
left join (select order_id, sum(quantity_units) as returned_units from returns group by all) using (order_id)
left join (select order_id, count(*) as exception_count from order_exceptions group by all) using (order_id);

create table order_lines as
select
    order_line_id, order_id, line_number, sku, quantity_units, unit_price_cents, lines.discount_cents, lines.net_cents,
    lines.tax_cents, lines.net_cents + lines.tax_cents as gross_cents, if(source_name = 'pos', quantity_units, sent_units)::bigint as sent_units,
    coalesce(cancelled_units, 0)::bigint as cancelled_units, coalesce(back.returned_units, 0)::bigint as returned_units,
    coalesce(money.refunded_cents, 0)::bigint as refunded_cents, currency_code, customer_id, location_code, ordered_at,
    channel_type, is_cancelled
from placed_lines as lines
join orders using (order_id)
left join (
    select order_line_id, sum(units) as sent_units
    from (
        select 'ecommerce/' || order_id || '/' || line_id as order_line_id, arg_max(quantity_units, updated_at) as units,
            arg_max(coalesce(status_code, 'success'), updated_at) as status_code
        from known('raw_ecommerce__fulfillments')
        group by order_id, line_id, fulfillment_id
    )
    where status_code in ('pending', 'open', 'success')
    group by all
) using (order_line_id)
left join (
    select order_line_id, sum(gross_cents) as refunded_cents, sum(quantity_units) filter (where refund_type = 'cancelled') as cancelled_units
    from refunds
    group by all
) as money using (order_line_id)
left join (select order_line_id, sum(quantity_units) as returned_units from returns group by all) as back using (order_line_id);

create table web_events as
select message_id, customer_id, device_ref, event_name, sku, order_id, search_query, device_type, os_name, has_gpc, occurred_at, recorded_at
from messages
left join (from proved where identity_type in ('account', 'device')) as owners
    on if(account_ref is null, 'device', 'account') = identity_type and coalesce(account_ref, device_ref) = identity_ref
where not coalesce(is_test, false);

-- What records say of people, field by field. Of `name`, street and birth date only who holds them.
create temp table sayings as
with main_country as (
    select country_code from locations group by all order by count(*) desc, country_code limit 1
),

account_words as (
    select
        if(is_email_verified, 'verified_account', 'account') as kind, 'account' as identity_type, account_ref as identity_ref, 'ecommerce' as source_name,
        updated_at as said_at, received_at as known_at, unnest([
            {field: 'email', value: email_ref}, {field: 'phone', value: phone_ref}, {field: 'account', value: account_ref},
            {field: 'region', value: region_code}, {field: 'country', value: country_code},
            {field: 'jurisdiction', value: country_code || '-' || region_code}, {field: 'name', value: if(has_name, account_ref, null)},
            {field: 'street_address', value: if(has_street, account_ref, null)}
        ]) as word
    from account_versions
    where not is_test
),

member_words as (
    select
        'member' as kind, 'card' as identity_type, card_ref as identity_ref, 'loyalty' as source_name, member_versions.updated_at as said_at,
        received_at as known_at, unnest([
            {field: 'email', value: email_ref}, {field: 'phone', value: phone_ref}, {field: 'card', value: card_ref},
            {field: 'region', value: member_versions.region_code},
            {field: 'jurisdiction', value: (from main_country) || '-' || member_versions.region_code}, {field: 'tier', value: tier_code},
            {field: 'birth_year', value: year(birth_date)::varchar}, {field: 'home_location', value: location_code},
            {field: 'name', value: if(has_name, card_ref, null)}, {field: 'street_address', value: if(has_street, card_ref, null)},
            {field: 'birth_date', value: if(birth_date is null, null, card_ref)}
        ]) as word
    from member_versions
    left join locations on enrolled_store_code = pos_store_code
),

guest_words as (
    select
        'guest' as kind, 'email' as identity_type, email_ref as identity_ref, 'ecommerce' as source_name, updated_at::timestamp as said_at,
        received_at as known_at, unnest([
            {field: 'email', value: email_ref}, {field: 'phone', value: phone_ref}, {field: 'region', value: region_code},
            {field: 'country', value: if(length(country_code) = 2, country_code, null)},
            {field: 'jurisdiction', value: if(length(country_code) = 2, country_code, null) || '-' || region_code},
            {field: 'name', value: if(coalesce(first_name, last_name) is null, null, email_ref)},
            {field: 'street_address', value: if(street_address is null, null, email_ref)}
        ]) as word
    from (
        from known('raw_ecommerce__orders')
        qualify row_number() over (partition by order_id, updated_at order by received_at, file_hash, record_offset) = 1
    )
    where account_ref is null and email_ref is not null and not is_test
),

visit_words as (
    select
        'visit' as kind, buyer_type as identity_type, buyer_ref as identity_ref, source_name, ordered_at as said_at, received_at as known_at, order_id,
        unnest([
            {field: 'home_location', value: location_code}, {field: 'jurisdiction', value: country_code || '-' || region_code}
        ]) as word
    from placed
    join locations using (location_code)
    where fulfillment_method in ('in_store', 'click_and_collect', 'curbside') and customer_id is not null
),

notice_words as (
    select
        'notice' as kind, null as identity_type, subject_id as identity_ref, 'consent' as source_name, recorded_at::timestamp as said_at,
        received_at::timestamp as known_at, {field: 'language', value: language_code} as word
    from read_parquet(getvariable('raw') || '/consent_ledger/*.parquet')
    where language_code is not null and received_at::timestamp <= getvariable('as_of_at')
    qualify row_number() over (partition by subject_id order by recorded_at desc, leaf_index desc) = 1
),

words as (
    from account_words
    union all by name from member_words
    union all by name from (from guest_words where word.value is not null)
    union all by name from visit_words
    union all by name select * exclude (identity_type) from notice_words
    union all by name
    select 'identifier' as kind, identity_type, identity_ref, source_name, linked_at as said_at, linked_at as known_at,
        {field: identity_type, value: identity_ref} as word
    from proved
    where identity_type in ('account', 'card')
)

select distinct
    customer_id, word.field as field_name, word.value as field_value, kind, coalesce(order_id, identity_ref) as record_ref, proved.identity_type,
    identity_ref, words.source_name, said_at, known_at
from words
join (from proved where not is_test) as proved using (identity_ref)
where words.identity_type is null or words.identity_type = proved.identity_type;

create temp table trusted as
select
    rule.field as field_name, rule.rule as survivorship_rule, unnest(rule.kinds) as kind,
    generate_subscripts(rule.kinds, 1) as trust
from (
    select unnest([
        {field: 'email', rule: 'most_trusted', kinds: ['verified_account', 'member', 'account', 'guest']},
        {field: 'phone', rule: 'most_trusted', kinds: ['verified_account', 'account', 'member', 'guest']},
        {field: 'account', rule: 'most_trusted', kinds: ['verified_account', 'account', 'identifier']},
        {field: 'card', rule: 'most_trusted', kinds: ['member', 'identifier']},
        {field: 'region', rule: 'most_trusted', kinds: ['verified_account', 'account', 'member', 'guest']},
        {field: 'country', rule: 'most_trusted', kinds: ['verified_account', 'account', 'guest']},
        {field: 'jurisdiction', rule: 'most_trusted', kinds: ['verified_account', 'account', 'member', 'guest', 'visit']},
        {field: 'birth_year', rule: 'most_frequent', kinds: ['member']},
        {field: 'tier', rule: 'most_recent', kinds: ['member']},
        {field: 'home_location', rule: 'most_frequent', kinds: ['visit', 'member']},
        {field: 'language', rule: 'most_recent', kinds: ['notice']},
        {field: 'name', rule: 'most_trusted', kinds: ['member', 'verified_account', 'account', 'guest']},
        {field: 'street_address', rule: 'most_trusted', kinds: ['verified_account', 'account', 'member', 'guest']},
        {field: 'birth_date', rule: 'most_trusted', kinds: ['member']}
    ]) as rule
);

create temp macro in_clear(field) as field in ('name', 'street_address', 'birth_date');

create table customer_fields as
with newest as (
    from sayings
    qualify row_number() over (
        partition by customer_id, field_name, record_ref, kind = 'identifier' order by said_at desc, known_at desc, field_value
    ) = 1
),

candidates as (
    select newest.*, survivorship_rule, trust, count(*) filter (where kind <> 'identifier') over same as records
    from newest
    join trusted using (field_name, kind)
    where field_value is not null
    window same as (partition by customer_id, field_name, field_value)
    qualify row_number() over (same order by trust, said_at desc, record_ref) = 1
),

ranked as (
    select
        *, sum(records) over (partition by customer_id, field_name) as all_records,
        row_number() over (
            partition by customer_id, field_name
            order by if(survivorship_rule = 'most_frequent', -records, 0),
                if(survivorship_rule = 'most_recent', said_at, timestamp '1970-01-01') desc, trust, said_at desc, records desc, field_value
        ) as place
    from candidates
)

select
    customer_id, field_name, if(in_clear(field_name), null, best.field_value) as field_value, best.survivorship_rule, best.source_name,
    best.kind as record_type, best.identity_type, best.identity_ref, best.said_at,
    if(in_clear(field_name), null, best.records)::bigint as agreeing_count,
    if(in_clear(field_name), null, best.all_records - best.records)::bigint as differing_count,
    if(in_clear(field_name), null, next.field_value) as runner_up_value, next.source_name as runner_up_source_name,
    next.identity_ref as runner_up_identity_ref
from (from ranked where place = 1) as best
left join (from ranked where place = 2) as next using (customer_id, field_name);

create table customer_field_versions as
with spoken as (
    from sayings
    where field_name in ('email', 'phone', 'region', 'country', 'birth_year', 'tier', 'name', 'street_address', 'birth_date')
),

moments as (
    select distinct customer_id, field_name, known_at as moment from spoken
),

newest as (
    select spoken.*, moment
    from moments
    join spoken using (customer_id, field_name)
    where known_at <= moment
    qualify row_number() over (partition by customer_id, field_name, moment, record_ref order by said_at desc, known_at desc, field_value) = 1
),

candidates as (
    select newest.*, survivorship_rule, trust, count(*) over same as records
    from newest
    join trusted using (field_name, kind)
    where field_value is not null
    window same as (partition by customer_id, field_name, moment, field_value)
    qualify row_number() over (same order by trust, said_at desc, record_ref) = 1
),

beliefs as (
    from candidates
    qualify row_number() over (
        partition by customer_id, field_name, moment
        order by if(survivorship_rule = 'most_frequent', -records, 0),
            if(survivorship_rule = 'most_recent', said_at, timestamp '1970-01-01') desc, trust, said_at desc, records desc, field_value
    ) = 1
),

changes as (
    select *, lead(moment) over spans as until
    from (
        select
            moments.customer_id, moments.field_name, moments.moment, beliefs.* exclude (customer_id, field_name, moment),
            (field_value, kind, identity_ref) as belief
        from moments
        left join beliefs using (customer_id, field_name, moment)
        qualify belief is distinct from lag(belief) over (partition by moments.customer_id, moments.field_name order by moments.moment)
            or row_number() over (partition by moments.customer_id, moments.field_name order by moments.moment) = 1
    )
    window spans as (partition by customer_id, field_name order by moment)
)

select
    customer_id, field_name, moment as believed_from_at, until as believed_to_at, if(in_clear(field_name), null, field_value) as field_value,
    survivorship_rule, source_name, kind as record_type, identity_type, identity_ref, said_at
from changes
where field_value is not null;

create table customers as
with seen as (
    select customer_id, min(seen_at) as first_seen_at, max(seen_at) as last_seen_at
    from (
        select customer_id, linked_at as seen_at from customer_identities
        union all select customer_id, ordered_at from orders
        union all select customer_id, occurred_at from web_events
        union all select customer_id, returned_at from returns
    )
    where customer_id is not null
    group by all
),

identities as (
    select customer_id, count(*) as identity_count, count(*) filter (where identity_type = 'account' and link_type <> 'contact') as account_count,
        count(*) filter (where identity_type = 'card' and link_type <> 'contact') as card_count,
        count(*) filter (where link_type in ('hub', 'probabilistic')) as group_count
    from customer_identities
    group by all
),

fields as (
    pivot (select customer_id, field_name, field_value from customer_fields)
    on field_name in ('account', 'card', 'email', 'phone', 'home_location', 'region', 'jurisdiction', 'tier')
    using any_value(field_value)
)

select
    customer_id, hub_type as hub_identity_type, hub_ref as hub_identity_ref, first_seen_at, last_seen_at, hubs.is_test, identity_count,
    account_count, card_count, group_count, account as account_ref, card as card_ref, email as email_ref, phone as phone_ref,
    home_location as home_location_code, region as region_code, jurisdiction as jurisdiction_code, tier as tier_code,
    account_count > 0 as has_account, card_count > 0 as has_card
from (from proved where link_type = 'hub') as hubs
join seen using (customer_id)
join identities using (customer_id)
left join fields using (customer_id);

-- Stock

-- When a place, a GTIN or a stock item was first heard of: nothing can be known of it before.
create temp table heard as
select location_code, gln, ecommerce_location_id, location_type, timezone_name, closes_at, since
from locations
join (select location_code, min(received_at) as since from known('raw_wms__locations') group by all) using (location_code);

-- Which item a GTIN stood for, by the moments at which another could become known.
create temp table carried as
select gtin, sku, since, lead(since) over (partition by gtin order by since) as until
from (
    from (
        select gtin, moment as since, arg_max(sku, (updated_at, -rank_of_sku)) as sku
        from (select distinct gtin, received_at as moment from product_versions where gtin is not null) as moments
        join (select *, dense_rank() over (order by sku) as rank_of_sku from product_versions) as versions using (gtin)
        where received_at <= moment
        group by all
    )
    qualify sku is distinct from lag(sku) over (partition by gtin order by since)
);

-- What a warehouse told of goods, at places and of items that are known. An event declared wrong stood until that was heard.
create temp table told_steps as
with events as (
    from known('raw_wms__epcis_events')
    qualify row_number() over (
        partition by event_id, item_number, is_error_declaration order by received_at, file_hash, record_offset
    ) = 1
)

select
    'epcis/' || event_id || '/' || item_number as movement_id, event_id, biz_step, action, disposition, transaction_type, transaction_ref,
    place.location_code, goal.location_code as to_location_code, destination_location, sku, quantity_units, occurred_at::timestamp as occurred_at,
    coalesce(recorded_at, occurred_at)::timestamp as told_at, received_at, greatest(received_at, place.since, carried.since) as known_at,
    least(wrong_at, carried.until) as superseded_at,
    case when superseded_at is null then null when superseded_at = wrong_at then 'declared_wrong' else 'carried_by_another_item' end as reason_code
from (from events where not is_error_declaration) as events
left join (select event_id, min(received_at) as wrong_at from events where is_error_declaration group by all) as annulled using (event_id)
join carried on lpad(events.gtin, 14, '0') = carried.gtin
join heard as place on place.gln = case biz_step
    when 'shipping' then coalesce(source_location, biz_location, read_point)
    when 'receiving' then coalesce(biz_location, destination_location, read_point)
    else coalesce(biz_location, read_point)
end
left join heard as goal on goal.gln = destination_location
where superseded_at is null or superseded_at > known_at;

create temp table filed as
with steps as (
    select
        *,
        case
            when biz_step = 'stock_taking' and action = 'OBSERVE' then 'opening'
            when biz_step = 'receiving' and action <> 'DELETE' then if(coalesce(transaction_type, '') = 'desadv', 'transfer_in', 'receipt')
            when biz_step = 'shipping' and action <> 'ADD' then if(destination_location is null, 'shipment', 'transfer_out')
            when biz_step = 'inspecting' and action <> 'OBSERVE' and transaction_type = 'adjustment' then 'adjustment'
            when biz_step = 'destroying' and action = 'DELETE' then 'destruction'
        end as movement_type,
        if(movement_type in ('shipment', 'transfer_out', 'destruction') or (movement_type = 'adjustment' and action = 'DELETE'), -1, 1)
            * quantity_units as units
    from told_steps
    where movement_type is not null
),

closing as (
    select location_code, business_date, since,
        wall_to_utc(try_cast(business_date || ' ' || coalesce(closes_at, '23:59') || ':00' as timestamp), timezone_name) as closed_at
    from (select distinct location_code, business_date from till_lines)
    join heard using (location_code)
)

select
    movement_id, location_code, sku, movement_type, units, occurred_at, told_at, received_at, 'wms' as source_name, event_id as source_ref, known_at,
    superseded_at, reason_code
from steps
union all by name
select
    line_id as movement_id, location_code, sku, line_type as movement_type, if(line_type = 'sale', -quantity_units, quantity_units) as units, occurred_at,
    greatest(occurred_at, closed_at) as told_at, received_at, 'pos' as source_name, receipt_id as source_ref, greatest(known_at, since) as known_at
from till_lines
join closing using (location_code, business_date)
where line_type = 'sale' or is_restocked
union all by name
select
    'shipment/' || shipment_ref || '/' || line_number as movement_id, location_code, sku, if(ship_to_gln is null, 'shipment', 'transfer_out') as movement_type,
    -shipped_units as units, shipped_at as occurred_at, shipped_at as told_at, received_at, 'wms' as source_name, order_ref as source_ref,
    greatest(received_at, since) as known_at
from shipments
join heard on ship_from_gln = gln
where shipped_units > 0
union all by name
select
    'pick/' || pick_id as movement_id, location_code, sku, 'pick' as movement_type, -picked_units as units, finished_at as occurred_at,
    finished_at as told_at, received_at, 'wms' as source_name, order_ref as source_ref, greatest(received_at, since) as known_at
from picks
join (from heard where location_type = 'store') as stores using (location_code)
where picked_units > 0
union all by name
select
    refund_line_id as movement_id, location_code, sku, 'web_return' as movement_type, quantity_units as units, created_at as occurred_at,
    created_at as told_at, received_at, 'ecommerce' as source_name, coalesce(order_id, refund_line_id) as source_ref, greatest(received_at, since) as known_at
from shop_refund_lines
join heard on location_id = ecommerce_location_id
where restock_type in ('return', 'legacy_restock')
union all by name
select
    'ecommerce/' || adjustment_id as movement_id, location_code, sku, 'adjustment' as movement_type, quantity_units as units,
    adjusted_at::timestamp as occurred_at, adjusted_at::timestamp as told_at, received_at, 'ecommerce' as source_name,
    'ecommerce/' || adjustment_id as source_ref, greatest(received_at, since) as known_at
from (
    from known('raw_ecommerce__adjustments')
    qualify row_number() over (partition by adjustment_id order by received_at, file_hash, record_offset) = 1
)
join heard on location_id = ecommerce_location_id
where adjustment_type = 'stock';

-- What was told as it happened stands until a file says otherwise; where the file says the same it only came earlier.
create temp table booked as
with told as (
    select movement_id, location_code, sku, movement_type, units, occurred_at::timestamp as occurred_at, received_at, source_name,
        coalesce(source_ref, movement_id) as source_ref, greatest(received_at, since) as known_at
    from (
        from known('raw_stock__movements')
        qualify row_number() over (partition by movement_id order by received_at, file_hash, record_offset) = 1
    )
    join heard using (location_code)
),

merged as (
    select
        filed.* replace (
            if(told.known_at < filed.known_at, told.received_at, filed.received_at) as received_at, least(told.known_at, filed.known_at) as known_at
        )
    from filed
    left join told using (movement_id, location_code, sku, movement_type, units, occurred_at)
)

from merged
union all by name
select
    told.*, occurred_at as told_at, filed_at as superseded_at, if(filed_at is null, null, 'told_otherwise') as reason_code
from told
left join (select movement_id, min(known_at) as filed_at from merged group by all) using (movement_id)
where filed_at is null or filed_at > known_at;

create temp table reports as
with carriers as (
    select inventory_item_id, arg_max(sku, (updated_at, -rank_of_sku)) as sku, min(received_at) as since
    from (select *, dense_rank() over (order by sku) as rank_of_sku from product_versions)
    group by all
),

said as (
    select location_code, sku, 'ecommerce' as source_name, levels.updated_at::timestamp as known_until_at, levels.received_at,
        greatest(levels.received_at, heard.since, carriers.since) as known_at, available_units as reported_units, 1 as preference
    from (
        from known('raw_ecommerce__inventory_levels')
        qualify row_number() over (
            partition by inventory_item_id, location_id, updated_at order by received_at, file_hash, record_offset
        ) = 1
    ) as levels
    join heard on location_id = ecommerce_location_id
    join carriers using (inventory_item_id)
    where available_units is not null
    union all
    select location_code, sku, 'wms', known_until_at::timestamp, received_at, greatest(received_at, since), quantity_units,
        if(quantity_type = 'on_hand', 1, 2)
    from (
        from known('raw_wms__stock_advice')
        qualify row_number() over (partition by advice_ref, gln, sku, quantity_type order by received_at, file_hash, record_offset) = 1
    )
    join heard using (gln)
    where quantity_type in ('on_hand', 'available')
)

-- A figure stands until a better or a later one of the same mark is known.
select
    *,
    (
        select min(better.known_at) from said as better
        where (better.location_code, better.sku, better.source_name, better.known_until_at)
                = (said.location_code, said.sku, said.source_name, said.known_until_at)
            and (
                better.preference < said.preference
                or (better.preference = said.preference and (better.received_at, -better.reported_units) > (said.received_at, -said.reported_units))
            )
    ) as superseded_at
from said
where superseded_at is null or superseded_at > known_at;

create temp table latest_reports as
from reports
where superseded_at is null
qualify row_number() over (partition by location_code, sku order by known_until_at desc, source_name desc) = 1;

-- What opened each stock, asked anew at every moment at which the answer may have become another.
create temp table opened as
with counts as (
    from booked where movement_type = 'opening'
),

doubtful as (
    select location_code, sku from (
        select location_code, sku, known_at, superseded_at, true as is_count from counts
        union all
        select location_code, sku, known_at, null, false from reports
    )
    group by all
    having count(*) filter (where is_count) <> 1
        or count(superseded_at) filter (where is_count) > 0
        or min(known_at) filter (where not is_count) < min(known_at) filter (where is_count)
),

firsts as (
    from reports semi join doubtful using (location_code, sku)
    qualify known_until_at <= min(known_until_at) over (partition by location_code, sku order by known_at)
),

moves as (
    select booked.*
    from booked
    join (select location_code, sku, max(known_until_at) as until_at from firsts group by all) as edge using (location_code, sku)
    where movement_type <> 'opening' and occurred_at <= until_at
),

moments as (
    select distinct location_code, sku, unnest([known_at, superseded_at]) as moment
    from (
        select location_code, sku, known_at, superseded_at from counts semi join doubtful using (location_code, sku)
        union all select location_code, sku, known_at, superseded_at from firsts
        union all select location_code, sku, known_at, superseded_at from moves
    )
),

by_count as (
    select moments.*, counts.source_ref
    from moments
    join counts using (location_code, sku)
    where known_at <= moment and (superseded_at is null or superseded_at > moment)
    qualify row_number() over (partition by location_code, sku, moment order by occurred_at, source_ref) = 1
),

by_report as (
    select location_code, sku, moment, firsts.received_at, firsts.source_name, known_until_at, reported_units
    from (from moments anti join by_count using (location_code, sku, moment) where moment is not null) as moments
    join firsts using (location_code, sku)
    where known_at <= moment and (superseded_at is null or superseded_at > moment)
    qualify row_number() over (partition by location_code, sku, moment order by known_until_at, source_name desc) = 1
),

answers as (
    select location_code, sku, moment, counts.* exclude (location_code, sku, known_at, superseded_at, reason_code), counts.superseded_at as ended_at,
        counts.reason_code as ended_why, source_ref as opener
    from by_count
    join counts using (location_code, sku, source_ref)
    union all by name
    select
        by_report.location_code, by_report.sku, moment, 'opening/' || by_report.location_code || '/' || by_report.sku as movement_id,
        'opening' as movement_type, any_value(reported_units) - coalesce(sum(moves.units) filter (where moves.superseded_at is null or moves.superseded_at > moment), 0) as units,
        least(any_value(known_until_at), min(moves.occurred_at)) as occurred_at, least(any_value(known_until_at), min(moves.occurred_at)) as told_at,
        any_value(by_report.received_at) as received_at, any_value(by_report.source_name) as source_name, 'first report' as source_ref,
        by_report.source_name || by_report.known_until_at || by_report.received_at as opener
    from by_report
    left join moves
        on moves.location_code = by_report.location_code and moves.sku = by_report.sku
        and moves.known_at <= moment and moves.occurred_at <= known_until_at
    group by all
),

turns as (
    select location_code, sku, moment, lead(moment) over (partition by location_code, sku order by moment) as next_moment
    from (
        select
            location_code, sku, moment,
            (opener, units, occurred_at) as answer, lag((opener, units, occurred_at)) over (partition by location_code, sku order by moment) as before
        from (select distinct location_code, sku, moment from moments where moment is not null)
        left join (select location_code, sku, moment, max(opener) as opener, max(units) as units, max(occurred_at) as occurred_at from answers group by all)
            using (location_code, sku, moment)
        qualify answer is distinct from before or row_number() over (partition by location_code, sku order by moment) = 1
    )
)

select
    * exclude (moment, next_moment, ended_at, ended_why, opener), moment as known_at, next_moment as superseded_at,
    case when next_moment is null then null when next_moment = ended_at then ended_why else 'opened_otherwise' end as reason_code
from answers
join turns using (location_code, sku, moment)
union all by name
from counts anti join doubtful using (location_code, sku);

create temp table versions as
select
    movement_id, location_code, sku, movement_type, units::bigint as units, occurred_at, told_at, received_at, known_at, superseded_at,
    reason_code, source_name, source_ref
from (from booked where movement_type <> 'opening' union all by name from opened);

create table stock_movements as
select * exclude (superseded_at, reason_code) from versions where superseded_at is null;

create table superseded_movements as
from versions where superseded_at is not null;

create table stock_positions as
with latest as (
    from latest_reports
),

-- The shop knows its orders when they are placed, so that their shipping and picking is no news to it; the warehouse knows no till.
moved as (
    select
        location_code, sku, sum(units)::bigint as on_hand_units, count(*) as movement_count, max(occurred_at) as last_movement_at,
        sum(units) filter (where told_at <= known_until_at and if(
            latest.source_name = 'wms', movements.source_name <> 'pos', movement_type not in ('shipment', 'pick')
        )) as moved_units
    from stock_movements as movements
    left join latest using (location_code, sku)
    group by all
),

promised as (
    select location_code, sku, sum(units) as promised_units
    from (
        select location_code, sku, -quantity_units as units, ordered_at as told_at
        from order_lines
        semi join (from orders where source_name = 'ecommerce') as web using (order_id)
        where not is_cancelled
        union all
        select orders.location_code, sku, quantity_units, refunded_at
        from refunds
        join orders using (order_id)
        where refund_type = 'cancelled' and not is_cancelled
    ) as shop
    join latest using (location_code, sku)
    where latest.source_name = 'ecommerce' and told_at <= known_until_at
    group by all
)

select
    location_code, sku, on_hand_units, movement_count, last_movement_at, reported_units, source_name as reported_source_name,
    known_until_at as reported_until_at,
    if(reported_units is null, null, coalesce(moved_units, 0) + coalesce(promised_units, 0))::bigint as told_units,
    on_hand_units - told_units as in_flight_units, reported_units - told_units as unexplained_units, on_hand_units * cost_cents as value_cents
from moved
left join latest using (location_code, sku)
left join promised using (location_code, sku)
left join products using (sku);

create table stock_counts as
select
    event_id || '/' || location_code || '/' || sku as stock_count_id, location_code, sku, if(biz_step = 'stock_taking', 'opening', 'cycle') as count_type,
    counted_units, coalesce(recorded_units, 0) as recorded_units, counted_units - recorded_units as difference_units,
    if(biz_step = 'stock_taking', 0, coalesce(booked_units, 0))::bigint as adjusted_units, counted_at,
    if(biz_step = 'stock_taking', null, first_booked_at) as adjusted_at, received_at, known_at, event_id as source_ref
from (
    select
        event_id, location_code, sku, any_value(biz_step) as biz_step, counted_units, counted_at, counts.received_at, counts.known_at,
        coalesce(sum(units) filter (where occurred_at <= counted_at), 0)::bigint as recorded_units,
        sum(units) filter (where movement_type = 'adjustment' and occurred_at > counted_at and occurred_at <= counted_at + interval 1 day) as booked_units,
        min(occurred_at) filter (where movement_type = 'adjustment' and occurred_at > counted_at and occurred_at <= counted_at + interval 1 day)
            as first_booked_at
    from (
        select event_id, location_code, sku, min(biz_step) as biz_step, sum(quantity_units)::bigint as counted_units, min(occurred_at) as counted_at,
            min(received_at) as received_at, max(known_at) as known_at
        from told_steps
        where biz_step in ('stock_taking', 'cycle_counting') and action = 'OBSERVE' and superseded_at is null
        group by all
        union all
        select count_id, location_code, sku, 'cycle_counting', counted_units, occurred_at::timestamp, received_at, greatest(received_at, since)
        from (
            from known('raw_stock__counts')
            qualify row_number() over (partition by count_id order by received_at, file_hash, record_offset) = 1
        )
        join heard using (location_code)
        where count_id not in (
            select event_id from told_steps
            where biz_step in ('stock_taking', 'cycle_counting') and action = 'OBSERVE' and superseded_at is null
        )
    ) as counts
    left join (select location_code, sku, units, occurred_at, movement_type from stock_movements) as movements using (location_code, sku)
    group by all
);

create table stock_picks as
select
    pick_id as stock_pick_id, location_code, sku, order_ref,
    case when picked_units = requested_units then 'picked' when picked_units = 0 then 'not_found' else 'short' end as pick_status,
    requested_units as asked_units, picked_units, requested_units - picked_units as missed_units, reason_code, finished_at as picked_at, received_at,
    greatest(received_at, since) as known_at
from picks
join heard using (location_code);

create temp table transfers as
with leavings as (
    select coalesce(transaction_ref, event_id) as ref, location_code as origin, to_location_code as goal, sku, quantity_units as units, occurred_at as sent_at
    from told_steps
    where biz_step = 'shipping' and action <> 'ADD' and goal is not null and superseded_at is null
    union all
    select order_ref, origins.location_code, goals.location_code, sku, shipped_units, shipped_at
    from shipments
    join heard as origins on ship_from_gln = origins.gln
    join heard as goals on ship_to_gln = goals.gln
    where shipped_units > 0
)

select
    ref, goal, sku, coalesce(any_value(item_origin), any_value(papers.origin)) as origin, coalesce(min(item_sent_at), any_value(papers.sent_at)) as sent_at,
    coalesce(sum(sent), 0)::bigint as sent_units, coalesce(sum(came), 0)::bigint as arrived_units, max(came_at) as arrived_at
from (
    select ref, goal, sku, units as sent, sent_at as item_sent_at, origin as item_origin from leavings
    union all by name
    select transaction_ref as ref, location_code as goal, sku, quantity_units as came, occurred_at as came_at
    from told_steps
    where biz_step = 'receiving' and action <> 'DELETE' and transaction_type = 'desadv' and superseded_at is null
)
join (select ref, goal, min(origin) as origin, min(sent_at) as sent_at from leavings group by all) as papers using (ref, goal)
group by all;

create table stock_supplies as
select
    'transfer/' || ref || '/' || goal || '/' || sku as stock_supply_id, 'transfer' as supply_type, goal as location_code, sku,
    sent_units - arrived_units as units, origin as from_location_code, sent_at, sent_at + interval 2 days as expected_at,
    expected_at <= getvariable('as_of_at') as is_overdue, ref as source_ref
from transfers
where sent_units > arrived_units and sent_at + interval 7 days > getvariable('as_of_at')
union all
select
    supply_type || '/' || supply_id || '/' || location_code || '/' || sku, supply_type, location_code, sku, open_units, null, occurred_at::timestamp,
    expected_at::timestamp as due_at, due_at <= getvariable('as_of_at'), supply_id
from (
    from known('raw_stock__supplies')
    qualify row_number() over (partition by supply_id, location_code, sku order by occurred_at desc, received_at, file_hash, record_offset) = 1
)
where open_units > 0 and supply_id not in (select ref from transfers);

create table stock_demands as
with waiting as (
    from orders where source_name = 'ecommerce' and order_status in ('open', 'partial') and location_code is not null
),

gone as (
    select order_name, order_id, sku, sum(units) as units
    from (
        select order_name, order_id, sku, picked_units as units from picks join waiting on order_ref = order_name
        union all select order_name, order_id, sku, shipped_units from shipments join waiting on order_ref = order_name
        union all select order_name, order_id, refunds.sku, quantity_units from refunds join waiting using (order_id) where refund_type = 'cancelled'
    )
    group by all
),

later as (
    select 'ecommerce/' || order_id as order_id, arg_max(status_code, (updated_at, -rank_of_id)) as status_code
    from (
        select *, dense_rank() over (order by fulfillment_order_id) as rank_of_id
        from (
            from known('raw_ecommerce__fulfillment_orders')
            qualify row_number() over (partition by fulfillment_order_id, updated_at order by received_at, file_hash, record_offset) = 1
        )
    )
    group by all
)

select
    order_line_id as stock_demand_id, if(status_code = 'scheduled' and promised_at is not null, 'scheduled', 'committed') as demand_type,
    lines.location_code, lines.sku, left_units::bigint as units, lines.order_id, lines.channel_type, lines.ordered_at, promised_at as due_at
from (
    select
        order_lines.*, waiting.promised_at, status_code,
        -- What is gone was taken from the first lines of the item.
        sum(quantity_units) over (partition by order_id, sku order by line_number) - coalesce(gone.units, 0) as reach,
        greatest(0, least(quantity_units, reach)) as left_units
    from order_lines
    join waiting using (order_id)
    left join gone using (order_id, sku)
    left join later using (order_id)
) as lines
where left_units > 0;

create temp table dated as
with changes as (
    select location_code, sku, expected_at as moment, units from stock_supplies where not is_overdue
    union all
    select location_code, sku, greatest(due_at, getvariable('as_of_at')), -units from stock_demands where demand_type = 'scheduled'
)

select location_code, sku, moment, sum(net) over (partition by location_code, sku order by moment) as so_far
from (
    select location_code, sku, moment, sum(units) as net
    from (from changes union all select distinct location_code, sku, getvariable('as_of_at'), 0 from changes)
    group by all
);

create temp table least_to_come as
select here.location_code, here.sku, here.moment, min(later.so_far)::bigint as least_units
from dated as here
join dated as later on here.location_code = later.location_code and here.sku = later.sku and later.moment >= here.moment
group by all;

create temp table documents as
select
    location_code, sku, coalesce(transaction_ref, event_id) as document,
    greatest(0, coalesce(sum(case when biz_step = 'holding' and action <> 'DELETE' then quantity_units when biz_step = 'inspecting' and action = 'OBSERVE' then -quantity_units end), 0)) as inspected,
    greatest(0, coalesce(sum(case
        when biz_step = 'destroying' and action = 'DELETE' then -quantity_units
        when action <> 'OBSERVE' then null
        when biz_step in ('inspecting', 'storing', 'stocking')
            and disposition in ('damaged', 'expired', 'recalled', 'non_conformant', 'non_sellable_other', 'needs_replacement') then quantity_units
        when biz_step in ('storing', 'stocking') and disposition in ('sellable_accessible', 'sellable_not_accessible', 'conformant') then -quantity_units
    end), 0)) as damaged
from told_steps
where superseded_at is null
group by all;

create table stock_states as
select location_code, sku, state_type, '*' as channel_type, sum(units)::bigint as units
from (
    select location_code, sku, 'on_hand' as state_type, on_hand_units as units from stock_positions
    union all select location_code, sku, 'damaged', damaged from documents
    union all select location_code, sku, 'quality_control', inspected from documents
    union all select location_code, sku, 'committed', units from stock_demands where demand_type = 'committed'
    union all select location_code, sku, 'committed', greatest(0, -min(least_units)) from least_to_come group by all
    union all select location_code, sku, 'safety', 1 from stock_positions join locations using (location_code) where location_type = 'store'
    union all select location_code, sku, 'incoming', units from stock_supplies
)
group by all
having sum(units) <> 0 or state_type = 'on_hand';

create table availability as
select
    location_code, sku, on_hand_units, damaged_units, quality_control_units, committed_units, 0::bigint as held_units, safety_units,
    0::bigint as protected_units,
    greatest(0, on_hand_units - damaged_units - quality_control_units - committed_units - safety_units) as available_units, last_movement_at,
    getvariable('as_of_at') as as_of_at
from stock_positions
join (
    select
        location_code, sku, coalesce(max(units) filter (where state_type = 'damaged'), 0) as damaged_units,
        coalesce(max(units) filter (where state_type = 'quality_control'), 0) as quality_control_units,
        coalesce(max(units) filter (where state_type = 'committed'), 0) as committed_units,
        coalesce(max(units) filter (where state_type = 'safety'), 0) as safety_units
    from stock_states
    group by all
) using (location_code, sku);

-- What reports differ by, cause by cause

create temp table compared as
with reported as (
    from reports where superseded_at is null
),

heard_of as (
    select location_code, sku, 'ecommerce' as source_name, told_at, if(movement_type in ('shipment', 'pick'), 0, units) as units,
        if(movement_type in ('shipment', 'pick'), -units, 0) as gone, 0 as promised
    from stock_movements
    union all
    select location_code, sku, 'wms', told_at, units, if(movement_type in ('shipment', 'pick', 'transfer_out'), -units, 0), 0
    from stock_movements
    where source_name <> 'pos'
    union all
    select lines.location_code, sku, 'ecommerce', lines.ordered_at, -quantity_units, 0, quantity_units
    from order_lines as lines semi join (from orders where source_name = 'ecommerce' and not is_cancelled) as web using (order_id)
    where lines.location_code is not null
    union all
    select orders.location_code, refunds.sku, 'ecommerce', refunded_at, quantity_units, 0, -quantity_units
    from refunds join orders using (order_id)
    where refund_type = 'cancelled' and not is_cancelled and orders.location_code is not null
)

select
    location_code, sku, source_name, known_until_at, known_at, reported_units - sums.units + if(source_name = 'wms', 0, greatest(0, gone - promised)) as apart,
    gone, promised, gone_shortly, moved_late, row_number() over (partition by location_code, sku, source_name order by known_until_at) as number
from reported
join (
    select
        location_code, sku, source_name, known_until_at,
        coalesce(sum(units) filter (where told_at <= known_until_at), 0) as units,
        coalesce(sum(heard_of.gone) filter (where told_at <= known_until_at), 0) as gone,
        coalesce(sum(heard_of.promised) filter (where told_at <= known_until_at), 0) as promised,
        coalesce(sum(heard_of.gone) filter (where told_at <= known_until_at and told_at > known_until_at - interval 1 day), 0) as gone_shortly,
        coalesce(sum(units) filter (where told_at <= known_until_at and told_at > known_until_at - interval 1 hour), 0) as moved_late
    from (select distinct location_code, sku, source_name, known_until_at from reported)
    left join heard_of using (location_code, sku, source_name)
    group by all
) as sums using (location_code, sku, source_name, known_until_at);

create table stock_breaks as
with spells as (
    select *, sum(starts::int) over (partition by location_code, sku, source_name order by number) as spell
    from (
        select *, apart <> 0 and coalesce(lag(apart) over (partition by location_code, sku, source_name order by number), 0) = 0 as starts from compared
    )
),

lasting as (
    select
        location_code, sku, source_name, spell, min(known_until_at) as opened_at, min(known_at) as known_at, max(known_until_at) as last_seen_at,
        max(number) as last_number, arg_max(apart, number) as apart, arg_max(greatest(0, promised, gone), number) as untold,
        arg_max(gone_shortly, number) as gone_shortly, arg_max(-moved_late, number) as late
    from spells
    where apart <> 0
    group by all
),

caused as (
    select
        lasting.*, next.known_until_at as closed_at,
        if(source_name = 'ecommerce' and apart > 0, least(apart, untold), 0) as by_untold,
        if(source_name = 'wms' and apart > 0, least(apart, gone_shortly), 0) as by_blindness,
        apart - by_untold - by_blindness as remainder,
        if(remainder > 0, least(remainder, greatest(0, late)), greatest(remainder, least(0, late))) as by_lateness
    from lasting
    left join (select location_code, sku, source_name, number - 1 as last_number, known_until_at from compared) as next
        using (location_code, sku, source_name, last_number)
),

level as (
    select location_code, sku, occurred_at, known_at, sum(units) over (partition by location_code, sku order by occurred_at, movement_id) as height
    from stock_movements
    semi join (from stock_positions where on_hand_units < 0) as negative using (location_code, sku)
),

found as (
    select location_code, sku, source_name, source_name || '/' || spell as ref, opened_at, known_at, last_seen_at, closed_at,
        unnest([
            {kind: 'source_not_told', units: by_untold}, {kind: 'snapshot_ignores_shipments', units: by_blindness},
            {kind: 'late_movement', units: by_lateness}, {kind: 'unknown_movement', units: remainder - by_lateness}
        ], recursive := true)
    from caused
    union all by name
    select location_code, sku, 'wms' as source_name, source_ref as ref, counted_at as opened_at, known_at, counted_at as last_seen_at,
        if(adjusted_units = difference_units, adjusted_at, later_at) as closed_at, 'count_difference' as kind, difference_units as units
    from (
        select *, lead(counted_at) over (partition by location_code, sku order by counted_at, stock_count_id) as later_at
        from stock_counts where count_type = 'cycle'
    )
    union all by name
    select location_code, sku, 'stock_movements' as source_name, 'now' as ref, min(occurred_at) as opened_at, min(known_at) as known_at,
        max(occurred_at) as last_seen_at, 'negative_stock' as kind, -any_value(on_hand_units) as units
    from level
    left join (select location_code, sku, max(occurred_at) as sound_at from level where height >= 0 group by all) using (location_code, sku)
    join stock_positions using (location_code, sku)
    where height < 0 and (sound_at is null or occurred_at >= sound_at)
    group by location_code, sku
    union all by name
    select goal as location_code, sku, 'wms' as source_name, ref, if(arrived_units > sent_units, arrived_at, sent_at + interval 7 days) as opened_at,
        opened_at as known_at, coalesce(arrived_at, sent_at + interval 7 days) as last_seen_at,
        if(arrived_units > sent_units, 'transfer_gain', 'transfer_lost') as kind, arrived_units - sent_units as units
    from transfers
    where arrived_units > sent_units or (arrived_units < sent_units and sent_at + interval 7 days <= getvariable('as_of_at'))
)

select
    kind || '/' || location_code || '/' || sku || '/' || ref as stock_break_id, kind as break_type, location_code, sku, source_name,
    units::bigint as units, (units * cost_cents)::bigint as value_cents, closed_at is null as is_open, opened_at, last_seen_at, closed_at, known_at,
    floor((epoch_us(coalesce(closed_at, getvariable('as_of_at'))) - epoch_us(opened_at)) / 86400000000.0)::bigint as age_days,
    case
        when kind like 'transfer%' then 'inventory_control'
        when kind in ('unknown_movement', 'count_difference', 'negative_stock') then if(location_type = 'store', 'store_manager', 'inventory_control')
        when kind = 'source_not_told' or location_type = 'store' then 'integration_engineer'
        else 'warehouse_systems'
    end as owner_role,
    getvariable('as_of_at') as as_of_at
from found
join locations using (location_code)
left join products using (sku)
where units <> 0;

create table channel_availability as
select location_code, sku, unnest(['web', 'app', 'marketplace', 'store']) as channel_type, 0::bigint as protected_units, available_units, as_of_at
from availability;

create table location_groups as
select unnest(['all', 'type/' || location_type] || if(region_code is null, [], ['region/' || country_code || '-' || region_code])) as group_code,
    split_part(group_code, '/', 1) as group_type, location_code
from locations;

create table group_availability as
select
    group_code, sku, count(*) as location_count, count(*) filter (where available_units > 0) as stocked_location_count,
    sum(on_hand_units)::bigint as on_hand_units, sum(available_units)::bigint as available_units, max(last_movement_at) as last_movement_at,
    any_value(as_of_at) as as_of_at
from availability
join location_groups using (location_code)
group by all;

create table availability_dates as
select location_code, sku, moment as available_from_at, available_units, getvariable('as_of_at') as as_of_at
from (
    select
        location_code, sku, moment,
        greatest(0, coalesce(
            on_hand_units - damaged_units - quality_control_units - committed_units - safety_units
            + greatest(0, -min(least_units) over (partition by location_code, sku)), 0
        ) + least_units)::bigint as available_units
    from least_to_come
    left join availability using (location_code, sku)
)
qualify available_units is distinct from lag(available_units) over (partition by location_code, sku order by moment);

-- Consent

create table consent_events as
select * replace (
    occurred_at::timestamp as occurred_at, recorded_at::timestamp as recorded_at, received_at::timestamp as received_at
)
from read_parquet(getvariable('raw') || '/consent_ledger/*.parquet');

create temp table policy as
from read_parquet(getvariable('raw') || '/consent_policy/*.parquet');

create temp table joined as
select subject_id, other_subject_id, split_at::timestamp as split_at, unlinked_at::timestamp as unlinked_at
from read_parquet(getvariable('raw') || '/consent_links/*.parquet')
where linked_at::timestamp <= getvariable('as_of_at');

create temp macro no_of_a_person(reason) as reason in ('refused', 'withdrawn', 'objected', 'gpc', 'restricted', 'erased');
create temp macro a_yes(reason) as reason in ('granted', 'not_opted_out', 'notice_given');

create table consent_standing as
with asked as (
    select purpose_code, channel_code, min(legal_basis) as legal_basis, bool_or(is_refused_by_gpc) as is_refused_by_gpc from policy group by all
),

notices as (
    from read_parquet(getvariable('raw') || '/consent_notices/*.parquet')
),

said as (
    select
        subject_id, leaf_index, event_type, notice_id, notice_version, jurisdiction_code,
        event_type in ('grant', 'renew', 'confirm') as is_agreeing,
        event_type in ('grant', 'renew', 'confirm', 'unrestrict', 'notice_shown') as is_helping,
        event_type in ('restrict', 'erased', 'signal_seen') as is_wide,
        if(is_wide, '*', purpose_code) as purpose_code, if(is_wide, '*', channel_code) as channel_code,
        least(recorded_at, received_at, if(is_helping, occurred_at, null)) as ranked_at
    from consent_events
    where
        event_type not in ('identity_linked', 'identity_unlinked') and (event_type <> 'signal_seen' or capture_method = 'gpc')
        and received_at <= getvariable('as_of_at')
),

reaching as (
    select
        said.* exclude (purpose_code, channel_code), asked.purpose_code, asked.channel_code,
        if(own.purpose_code is null, anywhere, own) as terms, coalesce(notice_version >= if(event_type = 'notice_shown', silence_version, minimum_version), false) as is_current
    from said
    join asked
        on legal_basis <> 'contract' and (event_type <> 'signal_seen' or is_refused_by_gpc)
        and (said.purpose_code = asked.purpose_code or (said.purpose_code = '*' and (legal_basis = 'consent' or not is_agreeing)))
        and (said.channel_code = asked.channel_code or said.channel_code = '*' or (asked.channel_code = '*' and not is_helping))
    left join policy as own
        on asked.purpose_code = own.purpose_code and asked.channel_code = own.channel_code
        and said.jurisdiction_code = own.jurisdiction_code
    left join policy as anywhere
        on asked.purpose_code = anywhere.purpose_code and asked.channel_code = anywhere.channel_code
        and anywhere.jurisdiction_code = '*'
    left join notices using (notice_id)
),

-- Renewals that came before the grant, as renewed so far, had ended; the last of them counts.
renewed as (
    select leaf_index, purpose_code, channel_code, renewed_at, is_current as is_renewal_current
    from (
        select
            grants.leaf_index, purpose_code, channel_code, renewals.ranked_at as renewed_at, renewals.is_current,
            coalesce(lag(renewed_at) over by_time, grants.ranked_at) + to_days(grants.terms.expires_after_days::integer) <= renewed_at as is_late
        from (from reaching where event_type = 'grant') as grants
        join (from reaching where event_type = 'renew') as renewals using (subject_id, purpose_code, channel_code)
        where grants.ranked_at <= renewals.ranked_at
        window by_time as (partition by grants.leaf_index, purpose_code, channel_code order by renewals.ranked_at)
    )
    qualify not coalesce(bool_or(is_late) over (partition by leaf_index, purpose_code, channel_code order by renewed_at), false)
),

last_renewed as (
    from renewed
    qualify row_number() over (partition by leaf_index, purpose_code, channel_code order by renewed_at desc, is_renewal_current) = 1
),

confirmed as (
    select distinct grants.leaf_index, purpose_code, channel_code, true as is_confirmed
    from (from reaching where event_type = 'grant') as grants
    join (from reaching where event_type = 'confirm') as confirms using (subject_id, purpose_code, channel_code)
    where confirms.ranked_at between grants.ranked_at and grants.ranked_at + to_days(grants.terms.confirm_within_days::integer)
),

judged as (
    select
        * exclude (terms), coalesce(is_renewal_current, is_current) as is_good,
        coalesce(renewed_at, ranked_at) + to_days(terms.expires_after_days::integer) as ends_at,
        case event_type
            when 'withdraw' then 'withdrawn' when 'object' then 'objected' when 'signal_seen' then 'gpc' when 'restrict' then 'restricted'
            when 'unrestrict' then 'unrestricted' when 'erased' then 'erased' when 'expire' then 'expired'
            when 'notice_shown' then case
                when not is_good or terms.mechanism not in ('opt_out', 'notice_only') then 'never_asked'
                when ends_at <= getvariable('as_of_at') then 'expired'
                else if(terms.mechanism = 'opt_out', 'not_opted_out', 'notice_given')
            end
            when 'grant' then case
                when not is_good then 'stale_notice'
                when terms.confirm_within_days is not null and is_confirmed is null then 'unconfirmed'
                when ends_at <= getvariable('as_of_at') then 'expired'
                else 'granted'
            end
            else 'refused'
        end as reason_code,
        case when no_of_a_person(reason_code) then 4 when a_yes(reason_code) then 1 when reason_code = 'never_asked' then 2 else 3 end as strength,
        event_type = 'expire' or reason_code in ('stale_notice', 'unconfirmed') as takes_nothing
    from reaching
    left join last_renewed using (leaf_index, purpose_code, channel_code)
    left join confirmed using (leaf_index, purpose_code, channel_code)
    where event_type not in ('renew', 'confirm')
),

spoken as (
    from judged
    qualify
        event_type = 'erased'
        or coalesce(ranked_at > max(ranked_at) filter (where event_type = 'erased') over (partition by subject_id, purpose_code, channel_code), true)
),

-- What a subject said, and what those it was parted from had said until then.
heard as (
    select *, subject_id as hearer_id, null::timestamp as unlinked_at, null::timestamp as split_at from spoken
    union all by name
    select spoken.*, joined.subject_id as hearer_id, unlinked_at, split_at
    from spoken
    join joined on spoken.subject_id = other_subject_id
    where
        unlinked_at <= getvariable('as_of_at')
        and (event_type = 'erased' or ranked_at < split_at or (ranked_at = split_at and not is_helping))
),

compared as (
    select
        *, max(ranked_at) filter (where event_type = 'grant' and reason_code in ('granted', 'expired')) over of_one as yes_at,
        max(ranked_at) filter (where strength = 4 and event_type <> 'restrict') over of_one as no_at,
        max(ranked_at) filter (where event_type = 'restrict') over of_one as restricted_at,
        max(ranked_at) filter (where event_type = 'unrestrict') over of_one as freed_at
    from heard
    window of_one as (partition by hearer_id, subject_id, split_at, unlinked_at, purpose_code, channel_code)
),

-- Each last word; of two at once the no.
last_words as (
    from (
        from compared
        where
            event_type <> 'unrestrict' and (event_type <> 'restrict' or coalesce(restricted_at >= freed_at, true))
            and not (takes_nothing and no_at is not null and coalesce(no_at >= yes_at, true))
        qualify row_number() over (
            partition by hearer_id, subject_id, split_at, unlinked_at, purpose_code, channel_code
            order by case event_type when 'restrict' then 0 when 'notice_shown' then 2 else 1 end, ranked_at desc, strength desc, leaf_index desc
        ) = 1
    )
    where reason_code <> 'never_asked'
),

own as (
    from last_words
    where unlinked_at is null
),

firm as (
    select words.hearer_id as subject_id, purpose_code, channel_code, words.reason_code, words.ranked_at, words.leaf_index
    from last_words as words
    left join own using (hearer_id, purpose_code, channel_code)
    where
        no_of_a_person(words.reason_code)
        and (words.unlinked_at is null or own.yes_at is null or own.yes_at <= greatest(words.unlinked_at, words.ranked_at))
),

by_subject as (
    from (
        from firm
        union all by name
        select joined.subject_id, firm.* exclude (subject_id)
        from firm
        join joined on firm.subject_id = other_subject_id
        where unlinked_at is null or (unlinked_at > getvariable('as_of_at') and split_at = unlinked_at)
        union all by name
        select subject_id, purpose_code, channel_code, reason_code, ranked_at, leaf_index, ends_at
        from own
        where not no_of_a_person(reason_code)
    )
    qualify row_number() over (
        partition by subject_id, purpose_code, channel_code order by no_of_a_person(reason_code) desc, ranked_at desc, leaf_index desc
    ) = 1
),

-- A proved group's answer over all its subjects: any no wins; who merely shares a contact point passes on a person's no and nothing else.
by_group as (
    select
        customer_id, group_ref, purpose_code, channel_code, reason_code, ranked_at, leaf_index,
        min(if(a_yes(reason_code), ends_at, null)) over answers as first_end_at
    from by_subject
    join customer_identities on subject_id = identity_ref
    where link_type <> 'contact' or no_of_a_person(reason_code)
    window answers as (partition by customer_id, group_ref, purpose_code, channel_code)
    qualify row_number() over (answers order by a_yes(reason_code), ranked_at desc, leaf_index desc) = 1
),

-- A customer may what all its groups may.
decided as (
    select
        by_group.* exclude (group_ref) replace (min(if(a_yes(reason_code), first_end_at, null)) over answers as first_end_at),
        count(*) over answers as answers
    from by_group
    window answers as (partition by customer_id, purpose_code, channel_code)
    qualify row_number() over (answers order by no_of_a_person(reason_code) desc, a_yes(reason_code), ranked_at desc, leaf_index desc) = 1
),

group_counts as (
    select customer_id, count(distinct group_ref) as groups from customer_identities group by all
)

select
    customer_id, purpose_code, channel_code, legal_basis = 'contract' or coalesce(a_yes(decided.reason_code), false) as is_allowed,
    if(legal_basis = 'contract', 'contract', coalesce(decided.reason_code, 'never_asked')) as reason_code, ranked_at as since_at,
    if(a_yes(decided.reason_code), first_end_at, null) as expires_at, leaf_index,
    (
        select coalesce(least(max(ledger_size), min(if(least(occurred_at, recorded_at, received_at) > getvariable('as_of_at') or received_at > getvariable('as_of_at'), leaf_index, null))), 0)
        from consent_events
    ) as ledger_size
from (from customers where not is_test) as customers
cross join asked
left join (
    select decided.* from decided join group_counts using (customer_id) where answers = groups or not a_yes(reason_code)
) as decided using (customer_id, purpose_code, channel_code);

-- Features

create temp table weeks as
select week, week_end(week) as feature_at from range(9) as weeks (week);

create temp table categories as
select category_name, row_number() over (order by category_name) as category_number
from (select distinct category_name from products where category_name is not null);

create table ftr_customer_purchases as
with bought as (
    select *, age_days(ordered_at) as age
    from orders
    where customer_id is not null and not is_cancelled
),

main_currency as (
    select currency_code from bought group by all order by count(*) desc, currency_code limit 1
),

ordered as (
    select
        customer_id, week, min(age - 7 * week) as days_since_last_order,
        count(*) filter (where age - 7 * week < 30) as order_count_30d,
        count(*) filter (where age - 7 * week < 90) as order_count_90d,
        count(*) filter (where age - 7 * week < 90 and channel_type = 'store') as store_order_count_90d,
        sum(net_cents) filter (where age - 7 * week < 90 and is_main) as net_cents_90d,
        count(*) filter (where age - 7 * week < 90 and is_main) as money_order_count_90d
    from (
        select customer_id, age, channel_type, net_cents, currency_code = (from main_currency) as is_main, unnest(weeks_after(age)) as week
        from bought
        where age >= 0
    )
    group by all
),

category_days as (
    select customer_id, category_number, age_days(ordered_at) as age, sum(quantity_units)::bigint as units
    from order_lines
    left join products using (sku)
    left join categories using (category_name)
    where customer_id is not null and not is_cancelled
    group by all
),

category_units as (
    select customer_id, week, category_number, sum(units)::bigint as units
    from (select customer_id, category_number, units, age, unnest(weeks_after(age)) as week from category_days where age >= 0)
    where age - 7 * week < 90
    group by all
),

units as (
    select customer_id, week, sum(units)::bigint as unit_count_90d, max_by(category_number, units * 100000 - category_number) as category_number
    from category_units
    group by all
),

gave_back as (
    select customer_id, week, count(*) as return_count_90d
    from (
        select customer_id, age_days(returned_at) as age, unnest(weeks_after(age)) as week
        from returns
        where customer_id is not null and age >= 0
    )
    where age - 7 * week < 90
    group by all
)

select
    customer_id, feature_at, coalesce(ordered.order_count_30d, 0) as order_count_30d, coalesce(ordered.order_count_90d, 0) as order_count_90d,
    coalesce(ordered.net_cents_90d, 0)::bigint as net_cents_90d,
    round(ordered.net_cents_90d / nullif(money_order_count_90d, 0))::bigint as average_order_cents_90d,
    coalesce(units.unit_count_90d, 0) as unit_count_90d, coalesce(gave_back.return_count_90d, 0) as return_count_90d,
    days_since_last_order::bigint as days_since_last_order,
    store_order_count_90d::double / nullif(ordered.order_count_90d, 0) as store_order_share_90d,
    category_name as favourite_category_name
from (from customers where not is_test) as customers
join weeks on first_seen_at <= feature_at
left join ordered using (customer_id, week)
left join units using (customer_id, week)
left join categories using (category_number)
left join gave_back using (customer_id, week);

create table ftr_customer_engagement as
with devices as (
    select device_type, row_number() over (order by device_type) as device_number
    from (select distinct device_type from web_events where device_type is not null)
),

days as (
    select
        customer_id, age_days(occurred_at) as age, device_type, count(*) as events,
        count(*) filter (where event_name = 'Product Viewed') as views,
        count(*) filter (where event_name = 'Products Searched') as searches,
        count(*) filter (where event_name = 'Product Added') as carts
    from web_events
    where customer_id is not null
    group by all
),

by_device as (
    select
        customer_id, week, device_number, min(age - 7 * week) as last_visit,
        sum(events) filter (where age - 7 * week < 30) as events, sum(views) filter (where age - 7 * week < 30) as views,
        sum(searches) filter (where age - 7 * week < 30) as searches, sum(carts) filter (where age - 7 * week < 30) as carts
    from (select *, unnest(weeks_after(age)) as week from days where age >= 0)
    left join devices using (device_type)
    group by all
),

visits as (
    select
        customer_id, week, min(last_visit) as days_since_last_visit, sum(views) as view_count_30d, sum(searches) as search_count_30d,
        sum(carts) as cart_count_30d, max_by(device_number, events::bigint * 1000 - device_number) as device_number
    from by_device
    group by all
)

select
    customer_id, feature_at, coalesce(visits.view_count_30d, 0)::bigint as view_count_30d,
    coalesce(visits.search_count_30d, 0)::bigint as search_count_30d, coalesce(visits.cart_count_30d, 0)::bigint as cart_count_30d,
    days_since_last_visit::bigint as days_since_last_visit, device_type as main_device_type
from (from customers where not is_test) as customers
join weeks on first_seen_at <= feature_at
left join visits using (customer_id, week)
left join devices using (device_number);

create table ftr_product_popularity as
with sold as (
    select
        sku, week, sum(units) filter (where age - 7 * week < 7) as sold_units_7d, sum(units) as sold_units_28d, sum(orders) as order_count_28d
    from (
        select *, unnest(weeks_after(age)) as week
        from (
            -- An order is placed on one day, so that orders counted by day add up.
            select sku, age_days(ordered_at) as age, sum(quantity_units) as units, count(distinct order_id) as orders
            from order_lines
            where not is_cancelled
            group by all
        )
        where age >= 0
    )
    where age - 7 * week < 28
    group by all
),

returned as (
    select sku, week, sum(units) as returned_units
    from (
        select sku, quantity_units as units, age_days(returned_at) as age, unnest(weeks_after(age)) as week
        from returns
        where age >= 0
    )
    where age - 7 * week < 28
    group by all
),

viewed as (
    select sku, week, sum(views) as view_count_28d
    from (
        select *, unnest(weeks_after(age)) as week
        from (
            select sku, age_days(occurred_at) as age, count(*) as views
            from web_events
            where event_name = 'Product Viewed' and sku is not null
            group by all
        )
        where age >= 0
    )
    where age - 7 * week < 28
    group by all
)

select
    sku, feature_at, coalesce(sold.sold_units_7d, 0)::bigint as sold_units_7d, coalesce(sold.sold_units_28d, 0)::bigint as sold_units_28d,
    coalesce(sold.order_count_28d, 0)::bigint as order_count_28d,
    returned_units::double / nullif(sold.sold_units_28d, 0) as return_rate_28d, coalesce(viewed.view_count_28d, 0)::bigint as view_count_28d
from products
cross join weeks
left join sold using (sku, week)
left join returned using (sku, week)
left join viewed using (sku, week);

create table ftr_sku_location_availability as
select
    sku, location_code, as_of_at as feature_at, on_hand_units, available_units, coalesce(sold.sold_units_28d, 0)::bigint as sold_units_28d,
    greatest(0, age_days(last_movement_at))::bigint as days_since_last_movement, available_units > 0 as has_stock
from availability
left join (
    select location_code, sku, sum(quantity_units) as sold_units_28d
    from order_lines
    where not is_cancelled and age_days(ordered_at) between 0 and 27
    group by all
) as sold using (location_code, sku);

create table ftr_subject_standing as
select
    customer_id, getvariable('as_of_at') as feature_at, max(ledger_size) as ledger_size,
    max(is_allowed) filter (where purpose_code = 'service') as is_service_allowed,
    max(reason_code) filter (where purpose_code = 'service') as reason_service,
    max(is_allowed) filter (where purpose_code = 'personalization') as is_personalization_allowed,
    max(reason_code) filter (where purpose_code = 'personalization') as reason_personalization,
    max(is_allowed) filter (where purpose_code = 'analytics') as is_analytics_allowed,
    max(reason_code) filter (where purpose_code = 'analytics') as reason_analytics,
    max(is_allowed) filter (where purpose_code = 'model_training') as is_model_training_allowed,
    max(reason_code) filter (where purpose_code = 'model_training') as reason_model_training,
    max(is_allowed) filter (where purpose_code = 'profile_unification') as is_profile_unification_allowed,
    max(reason_code) filter (where purpose_code = 'profile_unification') as reason_profile_unification,
    max(is_allowed) filter (where purpose_code = 'third_party_sharing') as is_third_party_sharing_allowed,
    max(reason_code) filter (where purpose_code = 'third_party_sharing') as reason_third_party_sharing,
    max(is_allowed) filter (where purpose_code = 'marketing' and channel_code = 'email') as is_marketing_email_allowed,
    max(reason_code) filter (where purpose_code = 'marketing' and channel_code = 'email') as reason_marketing_email,
    max(is_allowed) filter (where purpose_code = 'marketing' and channel_code = 'sms') as is_marketing_sms_allowed,
    max(reason_code) filter (where purpose_code = 'marketing' and channel_code = 'sms') as reason_marketing_sms,
    max(is_allowed) filter (where purpose_code = 'marketing' and channel_code = 'push') as is_marketing_push_allowed,
    max(reason_code) filter (where purpose_code = 'marketing' and channel_code = 'push') as reason_marketing_push,
    max(is_allowed) filter (where purpose_code = 'marketing' and channel_code = 'post') as is_marketing_post_allowed,
    max(reason_code) filter (where purpose_code = 'marketing' and channel_code = 'post') as reason_marketing_post,
    max(is_allowed) filter (where purpose_code = 'marketing' and channel_code = 'in_app') as is_marketing_in_app_allowed,
    max(reason_code) filter (where purpose_code = 'marketing' and channel_code = 'in_app') as reason_marketing_in_app,
    max(is_allowed) filter (where purpose_code = 'marketing' and channel_code = 'onsite') as is_marketing_onsite_allowed,
    max(reason_code) filter (where purpose_code = 'marketing' and channel_code = 'onsite') as reason_marketing_onsite
from consent_standing
group by all;

-- One profile, and one person known twice

create table customer_profiles as
with bought as (
    select *, currency_code = (select currency_code from orders where customer_id is not null and not is_cancelled group by all order by count(*) desc, currency_code limit 1) as is_main
    from orders
    where customer_id is not null and not is_cancelled
),

totals as (
    select
        customer_id, count(*) as order_count, sum(net_cents) filter (where is_main) as net_cents,
        avg((channel_type = 'store')::int) as store_order_share, avg((channel_type = 'web')::int) as web_order_share,
        avg((channel_type = 'app')::int) as app_order_share, avg((channel_type = 'marketplace')::int) as marketplace_order_share
    from bought
    group by all
),

brands as (
    select customer_id, brand_name
    from order_lines
    join products using (sku)
    where customer_id is not null and not is_cancelled and brand_name is not null and age_days(ordered_at) between 0 and 89
    group by customer_id, brand_name
    qualify row_number() over (partition by customer_id order by sum(quantity_units) desc, brand_name) = 1
),

shelves as (
    select location_code as home_location_code, category_name as favourite_category_name, count(*) filter (where available_units > 0) as here
    from availability
    join products using (sku)
    group by all
),

categories_held as (
    select category_name as favourite_category_name, count(*) as favourite_sku_count from products group by all
),

last_seen_on as (
    select customer_id, device_type as last_device_type, os_name as last_os_name
    from web_events
    where customer_id is not null and (device_type is not null or os_name is not null)
    qualify row_number() over (partition by customer_id order by occurred_at desc, message_id) = 1
),

systems as (
    select customer_id, os_name as main_os_name
    from web_events
    where customer_id is not null and os_name is not null
    group by customer_id, os_name
    qualify row_number() over (partition by customer_id order by count(*) desc, os_name) = 1
),

wishes as (
    select customer_id, count(*) as wishes
    from web_events
    where customer_id is not null and event_name = 'Product Added to Wishlist' and age_days(occurred_at) between 0 and 29
    group by all
),

ends as (
    select customer_id, first(source_name order by first_at, source_name) as first_source_name, first(source_name order by last_at desc, source_name) as last_source_name
    from (
        select customer_id, source_name, min(seen_at) as first_at, max(seen_at) as last_at
        from (
            select customer_id, source_name, linked_at as seen_at from customer_identities
            union all select customer_id, source_name, ordered_at from bought
            union all select customer_id, source_name, returned_at from returns where customer_id is not null
            union all select customer_id, 'ecommerce', occurred_at from web_events where customer_id is not null
        )
        group by all
    )
    group by all
),

sureness as (
    select customer_id, min(match_probability) as match_probability from proved where link_type = 'probabilistic' group by all
),

languages as (
    select customer_id, field_value as language_code from customer_fields where field_name = 'language'
)

select
    customer_id, hub_identity_type, identity_count, group_count, account_count, card_count, match_probability, language_code,
    concat_ws(
        ' ', if(is_marketing_email_allowed, 'email', null), if(is_marketing_sms_allowed, 'sms', null), if(is_marketing_push_allowed, 'push', null),
        if(is_marketing_post_allowed, 'post', null), if(is_marketing_in_app_allowed, 'in_app', null), if(is_marketing_onsite_allowed, 'onsite', null)
    ) as allowed_channels,
    brand_name as favourite_brand_name, favourite_category_name, days_since_last_order, coalesce(order_count_30d, 0) as order_count_30d,
    coalesce(order_count_90d, 0) as order_count_90d, coalesce(totals.order_count, 0) as order_count, coalesce(net_cents_90d, 0) as net_cents_90d,
    coalesce(net_cents, 0)::bigint as net_cents, average_order_cents_90d, unit_count_90d::double / nullif(order_count_90d, 0) as units_per_order_90d,
    coalesce(return_count_90d, 0) as return_count_90d, days_since_last_visit, coalesce(view_count_30d, 0) as view_count_30d,
    coalesce(search_count_30d, 0) as search_count_30d, coalesce(cart_count_30d, 0) as cart_count_30d, coalesce(wishes, 0) as wish_count_30d,
    home_location_code, favourite_sku_count,
    if(home_location_code is null or favourite_category_name is null, null, coalesce(here, 0)) as favourite_sku_count_at_home,
    last_device_type, last_os_name, main_device_type, main_os_name, store_order_share, web_order_share, app_order_share, marketplace_order_share,
    first_source_name, last_source_name, first_seen_at, last_seen_at, getvariable('as_of_at') as as_of_at
from (from customers where not is_test) as customers
join ends using (customer_id)
left join (from ftr_customer_purchases where feature_at = getvariable('as_of_at')) using (customer_id)
left join (from ftr_customer_engagement where feature_at = getvariable('as_of_at')) using (customer_id)
left join ftr_subject_standing using (customer_id)
left join totals using (customer_id)
left join brands using (customer_id)
left join shelves using (home_location_code, favourite_category_name)
left join categories_held using (favourite_category_name)
left join last_seen_on using (customer_id)
left join systems using (customer_id)
left join wishes using (customer_id)
left join sureness using (customer_id)
left join languages using (customer_id);

create table customer_duplicates as
with made as (
    select account_ref as ref, 'account' as kind, 'ecommerce' as source_name, 'web_sign_up' as place, min(created_at) as made_at
    from account_versions
    group by all
    union all
    select card_ref, 'member', 'loyalty', if(bool_or(enrolled_store_code is null), 'online_enrolment', 'till_enrolment'), min(enrolled_at)
    from member_versions
    where is_latest
    group by card_ref
    union all
    select email_ref, 'guest', 'ecommerce', if(bool_and(source_name not in ('web', 'app', 'pos')), 'marketplace_checkout', 'guest_checkout'), min(created_at)
    from web_orders
    where account_ref is null and not is_test
    group by email_ref
),

records as (
    select made.*, customer_id, hub_ref from made join (from proved where not is_test) as proved on ref = identity_ref
),

pairs as (
    select
        round(probability * 1000000)::bigint as chance, decision, a.customer_id as a_customer, b.customer_id as b_customer, a.hub_ref as a_group,
        b.hub_ref as b_group, array_to_string(list_sort([a.kind, b.kind]), '-') as duplicate_type,
        array_to_string(list_sort([a.source_name, b.source_name]), '-') as source_pair,
        if((a.made_at, a.ref) > (b.made_at, b.ref), a.place, b.place) as capture_place,
        if((a.made_at, a.ref) > (b.made_at, b.ref), a.customer_id, b.customer_id) as younger, first_ref, second_ref
    from read_parquet(getvariable('raw') || '/identity_links/*.parquet')
    join records as a on first_ref = a.ref
    join records as b on second_ref = b.ref
),

added as (
    select proved.customer_id, identity_ref as hub_ref, duplicate_type, source_pair, capture_place
    from proved
    join pairs on proved.customer_id = a_customer and identity_ref in (a_group, b_group)
    where link_type = 'probabilistic' and decision in ('joined', 'forced') and not is_test
    qualify row_number() over (partition by identity_ref order by chance desc, first_ref, second_ref) = 1
),

apart as (
    select *, row_number() over (partition by younger order by decision = 'forbidden', chance desc, first_ref, second_ref) = 1 as counts
    from (
        from pairs
        where a_customer <> b_customer
        qualify row_number() over (
            partition by least(a_customer, b_customer), greatest(a_customer, b_customer) order by chance desc, first_ref, second_ref
        ) = 1
    )
),

bought as (
    select placed.customer_id, placed.group_ref as hub_ref, sum(placed.net_cents) as cents
    from placed
    join orders using (order_id)
    where placed.customer_id is not null and not orders.is_cancelled
        and orders.currency_code = (select currency_code from orders where customer_id is not null and not is_cancelled group by all order by count(*) desc, currency_code limit 1)
    group by all
),

worth as (
    select customer_id, sum(cents) as cents from bought group by all
),

mailable as (
    select customer_id, email_ref from customers join ftr_subject_standing using (customer_id) where is_marketing_email_allowed and email_ref is not null
),

addresses as (
    select hub_ref, field_value as email_ref
    from sayings
    join (from proved where not is_test) using (identity_type, identity_ref)
    where field_name = 'email'
    qualify row_number() over (partition by record_ref order by said_at desc, known_at desc, field_value) = 1
),

counted as (
    select
        duplicate_type, source_pair, capture_place, 'joined' as decision, customer_id, 1000000 as chance, coalesce(cents, 0) * 1000000 as cents,
        if(exists (
            from addresses join mailable on mailable.customer_id = added.customer_id where addresses.hub_ref = added.hub_ref and addresses.email_ref <> mailable.email_ref
        ), 1000000, 0) as letters
    from added
    left join bought using (customer_id, hub_ref)
    union all
    select
        duplicate_type, source_pair, capture_place, decision, null, if(counts, chance, 0), if(counts, least(coalesce(a_worth.cents, 0), coalesce(b_worth.cents, 0)) * chance, 0),
        if(counts and a_mail.email_ref <> b_mail.email_ref, chance, 0)
    from apart
    left join worth as a_worth on a_customer = a_worth.customer_id
    left join worth as b_worth on b_customer = b_worth.customer_id
    left join mailable as a_mail on a_customer = a_mail.customer_id
    left join mailable as b_mail on b_customer = b_mail.customer_id
),

summed as (
    select
        duplicate_type, source_pair, capture_place, count(distinct customer_id) as joined_customer_count, count(customer_id) as joined_profile_count,
        count(*) filter (where decision = 'below_the_bar') as below_the_bar_count, count(*) filter (where decision = 'outweighed') as outweighed_count,
        count(*) filter (where decision = 'not_allowed') as not_allowed_count, count(*) filter (where decision = 'forbidden') as forbidden_count,
        coalesce(sum(chance) filter (where decision not in ('joined', 'forbidden')), 0) / 1000000.0::double as expected_duplicates,
        count(*) filter (where decision = 'joined' and cents > 0) as joined_understated_count,
        coalesce(sum(cents) filter (where decision = 'joined'), 0) / 1000000.0::double as joined_cents,
        coalesce(sum(letters) filter (where decision = 'joined'), 0) / 1000000.0::double as joined_double_mailings,
        coalesce(sum(cents) filter (where decision not in ('joined', 'forbidden')), 0) / 1000000.0::double as expected_cents,
        coalesce(sum(letters) filter (where decision not in ('joined', 'forbidden')), 0) / 1000000.0::double as expected_double_mailings
    from counted
    group by all
)

select
    * exclude (joined_cents, expected_cents), round(joined_cents)::bigint as joined_split_cents, round(expected_cents)::bigint as expected_split_cents,
    round(joined_double_mailings * 52 * 200 / 1000 + joined_cents * 10 / 1000)::bigint as joined_cost_cents,
    round(expected_double_mailings * 52 * 200 / 1000 + expected_cents * 10 / 1000)::bigint as expected_cost_cents
from summed;

-- How well it went

create temp table web_asked as
select
    order_line_id, order_id, sku, category_name, fulfillment_method, orders.location_code, orders.ordered_at, orders.is_cancelled,
    if(orders.is_cancelled, coalesce(reason, 'not_said'), null) as reason, coalesce(reason in ('customer', 'declined', 'fraud') and orders.is_cancelled, false) as is_withdrawn,
    quantity_units as asked,
    greatest(0, if(orders.is_cancelled, 0, if(sent_units is null and order_status = 'fulfilled', asked - cancelled_units, least(asked, coalesce(sent_units, 0))))) as served,
    orders.is_cancelled or served + cancelled_units >= asked as is_settled,
    if(is_settled, case when not orders.is_cancelled then asked - served when reason = 'inventory' then asked else 0 end, null) as oversold
from order_lines
join (from orders where source_name = 'ecommerce') as orders using (order_id)
left join products using (sku)
left join (
    select order_id, reason_code as reason
    from order_exceptions
    where exception_type in ('cancelled_by_shopper', 'cancelled_by_shop')
    qualify row_number() over (partition by order_id order by occurred_at desc, reason_code) = 1
) using (order_id);

create table order_outcomes as
with gone as (
    select order_id, sku, coalesce(sum(units) filter (where event_type = 'shipped'), sum(units)) as gone
    from order_events
    where source_name = 'wms' and event_type in ('picked', 'shipped')
    group by all
),

agreed as (
    select order_id, bool_and(coalesce(served, 0) = coalesce(gone, 0)) as is_agreed
    from (select order_id, sku, sum(served) as served from web_asked group by all)
    full join gone using (order_id, sku)
    where order_id in (select order_id from gone)
    group by all
)

select
    order_id, fulfillment_method, channel_type, location_code, ordered_at, reason as cancel_reason_code, coalesce(withdrawn, false) as is_withdrawn,
    coalesce(settled, false) as is_settled, coalesce(asked, 0)::bigint as asked_units, coalesce(served, 0)::bigint as served_units,
    if(settled, oversold, null)::bigint as oversold_units,
    if(is_cancelled or promised_at > heard_until, null, not is_late) as is_on_time,
    if(settled and not withdrawn, served >= asked, null) as is_complete,
    if(promised_at > heard_until or is_withdrawn, null, case
        when promised_at is null then null when is_cancelled then false else not is_late and coalesce(is_complete, false)
    end) as is_promise_kept,
    if(not is_cancelled and served_units > 0, not (is_lost or is_harmed), null) as is_undamaged,
    if(is_settled and not is_withdrawn, not is_odd, null) as has_right_papers,
    if(is_settled and not is_cancelled, is_agreed, null) as is_accurate,
    if(is_promise_kept is null, null, is_promise_kept and not (is_lost or is_harmed or is_odd)) as is_perfect,
    if(is_cancelled, null, epoch_us(fulfilled_at - ordered_at) // 1000000) as met_seconds,
    if(fulfillment_method in ('click_and_collect', 'curbside'), met_seconds, null) as ready_seconds,
    if(fulfillment_method in ('click_and_collect', 'curbside'), null, met_seconds) as delivery_seconds
from (
    select
        orders.*, order_id in (select order_id from order_exceptions where exception_type = 'delivery_failed' and order_id is not null) as is_lost,
        order_id in (select order_id from order_exceptions where exception_type = 'payment_mismatch' and order_id is not null) as is_odd,
        order_id in (select order_id from returns where restock_type = 'damaged' and order_id is not null) as is_harmed
    from orders
    where source_name = 'ecommerce'
)
cross join (select max(recorded_at) as heard_until from order_events where source_name = 'ecommerce')
left join (
    select
        order_id, any_value(reason) as reason, bool_and(is_withdrawn) as withdrawn, bool_and(is_settled) as settled, sum(asked) as asked,
        sum(served) as served, sum(oversold) as oversold
    from web_asked
    group by all
) using (order_id)
left join agreed using (order_id);

alter table order_outcomes drop met_seconds;

create temp table cases as
with picked as (
    select
        pick_id, location_code, fulfillment_method, category_name, requested_units as asked, picked_units as found, finished_at,
        epoch_us(finished_at - started_at) // 1000000 as seconds,
        found < asked and coalesce((
            select sum(units) from stock_movements as moved
            where moved.location_code = picks.location_code and moved.sku = picks.sku and occurred_at < finished_at
        ), 0) >= asked as is_phantom
    from picks
    left join products using (sku)
    left join (
        select name as order_ref, min(order_id) as order_id
        from (select order_id, unnest([order_name, marketplace_order_id]) as name from orders where source_name = 'ecommerce')
        group by all
    ) using (order_ref)
    left join (select order_id, fulfillment_method from order_outcomes) using (order_id)
),

sellable as (
    select
        location_code, category_name, available_units = 0 as is_shut, free, if(cost_cents is null, null, greatest(0, price_cents - cost_cents)) as margin,
        coalesce(asked, 0) / 4 as weekly
    from (select *, on_hand_units - damaged_units - quality_control_units - committed_units as free from availability)
    left join products using (sku)
    left join (
        select location_code, sku, sum(asked) as asked from web_asked where ordered_at > getvariable('as_of_at') - interval 28 day group by all
    ) using (location_code, sku)
    where free > 0
),

heard as (
    select source_name, location_code, known_at, max(max(occurred_at)) over (partition by source_name, location_code order by known_at) as newest_at
    from stock_movements
    group by source_name, location_code, known_at
)

select measure.of, measure.good::bigint as part, 1 as whole, ordered_at as happened_at, location_code, fulfillment_method, null::varchar as category_name
from order_outcomes
cross join unnest([
    {'of': 'promise_kept', 'good': is_promise_kept}, {'of': 'on_time', 'good': is_on_time}, {'of': 'order_fill', 'good': is_complete},
    {'of': 'undamaged', 'good': is_undamaged}, {'of': 'right_papers', 'good': has_right_papers}, {'of': 'perfect_order', 'good': is_perfect},
    {'of': 'order_accuracy', 'good': is_accurate}, {'of': 'oversold_orders', 'good': oversold_units > 0}
]) as measures (measure)
where not is_withdrawn and measure.good is not null
union all
select measure.of, measure.part, measure.whole, ordered_at, location_code, fulfillment_method, category_name
from web_asked
cross join unnest([
    {'of': 'unit_fill', 'part': served, 'whole': asked}, {'of': 'oversold_units', 'part': oversold, 'whole': asked},
    {'of': 'line_fill', 'part': (served >= asked)::bigint, 'whole': 1}
]) as measures (measure)
where is_settled and not is_withdrawn
union all
select measure.of, measure.good::bigint, 1, finished_at, location_code, fulfillment_method, category_name
from picked
cross join unnest([
    {'of': 'nil_pick', 'good': found = 0}, {'of': 'short_pick', 'good': found > 0 and found < asked}, {'of': 'phantom_pick', 'good': is_phantom}
]) as measures (measure)
union all
select measure.of, measure.good::bigint, 1, counted_at, location_code, null, category_name
from (from stock_counts where count_type = 'cycle')
left join products using (sku)
cross join unnest([
    {'of': 'record_exact', 'good': difference_units = 0},
    {'of': 'record_within_tolerance', 'good': abs(difference_units) <= greatest(1, counted_units / 20)},
    {'of': 'record_sign', 'good': (recorded_units > 0) = (counted_units > 0)}
]) as measures (measure)
union all
select measure.of, measure.part::bigint, 1, null, location_code, null, category_name
from sellable
cross join unnest([
    {'of': 'shut_by_protection', 'part': is_shut::bigint}, {'of': 'withheld_margin', 'part': if(is_shut, free * margin, null)},
    {'of': 'overprotection_cost', 'part': if(is_shut, round(least(free, weekly) * margin), null)}
]) as measures (measure)
where measure.part is not null
union all
select 'pick_time', seconds, null, finished_at, location_code, fulfillment_method, category_name from picked
union all
select
    if(ready_seconds is null, 'delivery_time', 'time_to_ready'), coalesce(ready_seconds, delivery_seconds), null, ordered_at, location_code,
    fulfillment_method, null
from order_outcomes
where coalesce(ready_seconds, delivery_seconds) is not null
union all
select
    heard.source_name || '_staleness', greatest(0, floor(epoch_us(ordered_at - newest_at) / 1e6)), null, ordered_at, asked.location_code, null, null
from (from order_outcomes cross join (select distinct source_name from heard)) as asked
asof join heard
    on heard.source_name = asked.source_name and heard.location_code = asked.location_code and asked.ordered_at >= heard.known_at;

create table fulfilment_measures as
with summed as (
    select
        of, date_trunc('week', happened_at)::date as week, min(happened_at) as first_at, location_code, fulfillment_method, category_name, sum(part)::bigint as parts, sum(whole)::bigint as wholes,
        count(*) as number, quantile_disc(part, [0.5, 0.9, 0.95]) as spread
    from cases
    group by grouping sets (
        (of), (of, location_code), (of, fulfillment_method), (of, location_code, fulfillment_method), (of, category_name), (of, week),
        (of, week, location_code), (of, week, fulfillment_method), (of, week, location_code, fulfillment_method), (of, week, category_name)
    )
    having (grouping(week) = 1 or week is not null) and (grouping(location_code) = 1 or location_code is not null)
        and (grouping(fulfillment_method) = 1 or fulfillment_method is not null) and (grouping(category_name) = 1 or category_name is not null)
)

select
    of as measure_name, statistic.of as statistic_type, case when week is not null then 'week' when first_at is null then 'now' else 'all' end as period_type,
    coalesce(week, date_trunc('week', first_at), getvariable('as_of_at'))::date as period_start, coalesce(location_code, '*') as location_code,
    coalesce(fulfillment_method, '*') as fulfillment_method, coalesce(category_name, '*') as category_name,
    statistic.numerator, coalesce(wholes, number)::bigint as denominator, statistic.value::double as value,
    case when wholes is null then 'seconds' when statistic.of = 'mean' then 'cents' else 'share' end as unit_type
from summed
cross join unnest(if(
    wholes is null,
    [
        {'of': 'mean', 'numerator': parts, 'value': parts / number}, {'of': 'p50', 'numerator': null, 'value': spread[1]},
        {'of': 'p90', 'numerator': null, 'value': spread[2]}, {'of': 'p95', 'numerator': null, 'value': spread[3]}
    ],
    [{'of': if(of in ('withheld_margin', 'overprotection_cost'), 'mean', 'share'), 'numerator': parts, 'value': parts / wholes}]
)) as statistics (statistic);
