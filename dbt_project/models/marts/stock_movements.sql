with booked as (
    select * from {{ ref('int_movements__booked') }}
),

first_reports as (
    select * from {{ ref('int_stock__reported') }}
    where is_first
),

opened as (
    select distinct location_code, sku
    from booked
    where movement_type = 'opening'
),

-- No count opened this stock, but a source once said how much there was: what moved by then is in its figure.
openings_from_reports as (
    select
        first_reports.location_code,
        first_reports.sku,
        first_reports.source_name,
        min(first_reports.reported_units) - coalesce(sum(booked.units), 0) as units,
        least(min(first_reports.known_until_at), min(booked.occurred_at)) as occurred_at,
        min(first_reports.received_at) as received_at
    from first_reports
    left join opened
        on first_reports.location_code = opened.location_code and first_reports.sku = opened.sku
    left join booked
        on first_reports.location_code = booked.location_code
        and first_reports.sku = booked.sku
        and booked.occurred_at <= first_reports.known_until_at
    where opened.sku is null
    group by first_reports.location_code, first_reports.sku, first_reports.source_name
),

final as (
    select
        movement_id,
        location_code,
        sku,
        movement_type,
        cast(units as bigint) as units,
        occurred_at,
        told_at,
        received_at,
        source_name,
        source_ref
    from booked
    union all
    select
        'opening/' || location_code || '/' || sku,
        location_code,
        sku,
        'opening',
        cast(units as bigint),
        occurred_at,
        occurred_at,
        received_at,
        source_name,
        'first report'
    from openings_from_reports
)

select * from final
