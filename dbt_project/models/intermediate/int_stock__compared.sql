with reports as (
    select * from {{ ref('int_stock__reported') }}
    where superseded_at is null
),

reported as (
    select distinct location_code, sku, source_name from reports
),

told as (
    select told.*
    from {{ ref('int_stock__told') }} as told
    inner join reported
        on told.location_code = reported.location_code
        and told.sku = reported.sku
        and told.source_name = reported.source_name
),

-- One line of time for each place and source: what it was told, and its reports after all that was told by their marks.
timeline as (
    select location_code, sku, source_name, told_at as dated_at, 0 as is_report, units, gone_units, promised_units from told
    union all
    select location_code, sku, source_name, known_until_at, 1, 0, 0, 0 from reports
),

summed as (
    select
        location_code,
        sku,
        source_name,
        dated_at,
        is_report,
        sum(units) over (
            partition by location_code, sku, source_name order by dated_at, is_report rows between unbounded preceding and current row
        ) as told_units,
        sum(gone_units) over (
            partition by location_code, sku, source_name order by dated_at, is_report rows between unbounded preceding and current row
        ) as gone_units,
        sum(promised_units) over (
            partition by location_code, sku, source_name order by dated_at, is_report rows between unbounded preceding and current row
        ) as promised_units
    from timeline
),

-- What left and no order of the source promised it was never told: had it been, its figure would be lower.
final as (
    select
        reports.location_code,
        reports.sku,
        reports.source_name,
        reports.known_until_at,
        reports.known_at,
        reports.reported_units,
        cast(summed.told_units as bigint) as told_units,
        cast(summed.gone_units as bigint) as gone_units,
        cast(summed.promised_units as bigint) as promised_units,
        cast(
            reports.reported_units - summed.told_units
            + case when reports.source_name = 'ecommerce' then greatest(0, summed.gone_units - summed.promised_units) else 0 end
            as bigint
        ) as difference_units,
        row_number() over (
            partition by reports.location_code, reports.sku, reports.source_name order by reports.known_until_at
        ) as report_number
    from reports
    inner join summed
        on reports.location_code = summed.location_code
        and reports.sku = summed.sku
        and reports.source_name = summed.source_name
        and reports.known_until_at = summed.dated_at
        and summed.is_report = 1
)

select * from final
