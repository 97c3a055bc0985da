-- What will change at a place, and when: cumulative supply less scheduled demand, and the least it comes to from then on.
with supplies as (
    select location_code, sku, expected_at as dated_at, units
    from {{ ref('stock_supplies') }}
    where not is_overdue
),

scheduled as (
    select location_code, sku, greatest(due_at, {{ as_of_at() }}) as dated_at, -units as units
    from {{ ref('stock_demands') }}
    where demand_type = 'scheduled'
),

changes as (
    select * from supplies
    union all
    select * from scheduled
),

-- Something is said for now, too, wherever something changes later.
moments as (
    select * from changes
    union all
    select location_code, sku, {{ as_of_at() }}, 0 from changes
),

summed as (
    select location_code, sku, dated_at, sum(units) as units
    from moments
    group by location_code, sku, dated_at
),

running as (
    select
        location_code,
        sku,
        dated_at,
        sum(units) over (
            partition by location_code, sku order by dated_at rows between unbounded preceding and current row
        ) as so_far_units
    from summed
),

final as (
    select
        location_code,
        sku,
        dated_at,
        cast(so_far_units as bigint) as so_far_units,
        cast(min(so_far_units) over (
            partition by location_code, sku order by dated_at rows between current row and unbounded following
        ) as bigint) as least_units
    from running
)

select * from final
