with dated as (
    select * from {{ ref('int_stock__dated') }}
),

availability as (
    select * from {{ ref('availability') }}
),

-- Before the floor of nothing, and without what scheduled demand takes from it: that is dated here.
free as (
    select
        location_code,
        sku,
        on_hand_units{% for part in available_parts()[1:] %} - {{ part }}{% endfor %} as units
    from availability
),

uncovered as (
    select location_code, sku, greatest(0, -min(least_units)) as units
    from dated
    group by location_code, sku
),

promised as (
    select
        dated.location_code,
        dated.sku,
        dated.dated_at,
        greatest(0, coalesce(free.units, 0) + case when free.units is null then 0 else uncovered.units end + dated.least_units) as available_units
    from dated
    inner join uncovered
        on dated.location_code = uncovered.location_code and dated.sku = uncovered.sku
    left join free
        on dated.location_code = free.location_code and dated.sku = free.sku
),

compared as (
    select
        *,
        lag(available_units) over (partition by location_code, sku order by dated_at) as units_before
    from promised
),

final as (
    select
        location_code,
        sku,
        dated_at as available_from_at,
        cast(available_units as bigint) as available_units,
        {{ as_of_at() }} as as_of_at
    from compared
    where units_before is null or units_before <> available_units
)

select * from final
