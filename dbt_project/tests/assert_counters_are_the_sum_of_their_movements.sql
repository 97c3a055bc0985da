-- Every counter of recorded stock beside the movements it counts, by name: a counter that drifts never mends itself.
with counted as (
    select location_code, sku, sum(units) as units
    from {{ ref('stock_movements') }}
    group by location_code, sku
),

counters as (
    select 'stock_positions' as counter_name, location_code, sku, on_hand_units from {{ ref('stock_positions') }}
    union all
    select 'availability', location_code, sku, on_hand_units from {{ ref('availability') }}
),

beside as (
    select
        tables.counter_name,
        counted.location_code,
        counted.sku,
        counted.units
    from counted
    cross join (select distinct counter_name from counters) as tables
)

select
    coalesce(beside.counter_name, counters.counter_name) || ' of ' || coalesce(beside.location_code, counters.location_code) || '/'
    || coalesce(beside.sku, counters.sku) || ' to be ' || cast(coalesce(beside.units, 0) as {{ dbt.type_string() }})
    || ', the sum of its movements' as expected,
    counters.on_hand_units as found
from beside
full outer join counters
    on beside.counter_name = counters.counter_name
    and beside.location_code = counters.location_code
    and beside.sku = counters.sku
where beside.units is null or counters.on_hand_units is null or beside.units <> counters.on_hand_units
