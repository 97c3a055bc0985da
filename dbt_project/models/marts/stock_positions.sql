with movements as (
    select * from {{ ref('stock_movements') }}
),

products as (
    select sku, cost_cents from {{ ref('products') }}
),

reports as (
    select * from {{ ref('int_stock__reported') }}
    where is_latest
),

told as (
    select * from {{ ref('int_stock__told') }}
),

told_by_report as (
    select
        reports.location_code,
        reports.sku,
        coalesce(sum(told.units), 0) as told_units
    from reports
    left join told
        on reports.location_code = told.location_code
        and reports.sku = told.sku
        and reports.source_name = told.source_name
        and told.told_at <= reports.known_until_at
    group by reports.location_code, reports.sku
),

on_hand as (
    select
        location_code,
        sku,
        sum(units) as on_hand_units,
        count(*) as movement_count,
        max(occurred_at) as last_movement_at
    from movements
    group by location_code, sku
),

final as (
    select
        on_hand.location_code,
        on_hand.sku,
        cast(on_hand.on_hand_units as bigint) as on_hand_units,
        on_hand.movement_count,
        on_hand.last_movement_at,
        reports.reported_units,
        reports.source_name as reported_source_name,
        reports.known_until_at as reported_until_at,
        cast(told_by_report.told_units as bigint) as told_units,
        cast(on_hand.on_hand_units - told_by_report.told_units as bigint) as in_flight_units,
        cast(reports.reported_units - told_by_report.told_units as bigint) as unexplained_units,
        cast(on_hand.on_hand_units * products.cost_cents as bigint) as value_cents
    from on_hand
    left join reports
        on on_hand.location_code = reports.location_code and on_hand.sku = reports.sku
    left join told_by_report
        on on_hand.location_code = told_by_report.location_code and on_hand.sku = told_by_report.sku
    left join products
        on on_hand.sku = products.sku
)

select * from final
