-- Nothing that a source reports otherwise is left without a cause, and no cause explains more than there is.
with latest as (
    select location_code, sku, source_name, difference_units
    from (
        select
            *,
            row_number() over (partition by location_code, sku, source_name order by report_number desc) as newest_rank
        from {{ ref('int_stock__compared') }}
    ) as reports
    where newest_rank = 1 and difference_units <> 0
),

typed as (
    select location_code, sku, source_name, sum(units) as units
    from {{ ref('stock_breaks') }}
    where is_open and break_type in ('source_not_told', 'snapshot_ignores_shipments', 'late_movement', 'unknown_movement')
    group by location_code, sku, source_name
)

select
    'open breaks of ' || coalesce(latest.location_code, typed.location_code) || '/' || coalesce(latest.sku, typed.sku) || ' to add up to '
    || cast(coalesce(latest.difference_units, 0) as {{ dbt.type_string() }}) || ' units' as expected,
    coalesce(typed.units, 0) as found
from latest
full outer join typed
    on latest.location_code = typed.location_code and latest.sku = typed.sku and latest.source_name = typed.source_name
where coalesce(latest.difference_units, 0) <> coalesce(typed.units, 0)
