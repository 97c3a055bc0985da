with positions as (
    select * from {{ ref('stock_positions') }}
),

locations as (
    select location_code, location_type from {{ ref('locations') }}
),

products as (
    select sku, category_name from {{ ref('products') }}
),

set_aside as (
    select * from {{ ref('int_stock__set_aside') }}
),

-- Scheduled demand that no supply covers takes from what is here: it may not be promised to anybody else.
uncovered as (
    select location_code, sku, -min(least_units) as units
    from {{ ref('int_stock__dated') }}
    group by location_code, sku
    having min(least_units) < 0
),

committed as (
    select location_code, sku, sum(units) as units
    from (
        select location_code, sku, units from {{ ref('stock_demands') }} where demand_type = 'committed'
        union all
        select * from uncovered
    ) as promised
    group by location_code, sku
),

incoming as (
    select location_code, sku, sum(units) as units
    from {{ ref('stock_supplies') }}
    group by location_code, sku
),

-- Of decisions of belief, the last that was made before the time this is computed for: computed again, it is the same.
decided as (
    select location_code, sku, safety_units
    from (
        select
            location_code,
            sku,
            safety_units,
            row_number() over (partition by location_code, sku order by decided_at desc) as newest_rank
        from {{ source('belief', 'stock_belief') }}
        where decided_at < {{ as_of_at() }}
    ) as ranked
    where newest_rank = 1
),

safety as (
    select
        positions.location_code,
        positions.sku,
        coalesce(
            decided.safety_units,
            case locations.location_type
                when 'store' then {{ var('safety_units_store') }}
                else {{ var('safety_units_distribution_center') }}
            end
        ) as units
    from positions
    left join decided
        on positions.location_code = decided.location_code and positions.sku = decided.sku
    left join locations
        on positions.location_code = locations.location_code
),

-- Of rules that fit, the one that keeps most back counts.
protected as (
    select
        positions.location_code,
        positions.sku,
        rules.channel_type,
        max(rules.protected_units) as units
    from positions
    left join locations
        on positions.location_code = locations.location_code
    left join products
        on positions.sku = products.sku
    inner join ({{ protection_rules() }}) as rules
        on rules.place in ('*', positions.location_code, locations.location_type)
        and rules.category_name in ('*', products.category_name)
    group by positions.location_code, positions.sku, rules.channel_type
),

states as (
    select location_code, sku, 'on_hand' as state_type, '*' as channel_type, on_hand_units as units from positions
    union all
    select location_code, sku, 'damaged', '*', damaged_units from set_aside
    union all
    select location_code, sku, 'quality_control', '*', quality_control_units from set_aside
    union all
    select location_code, sku, 'committed', '*', units from committed
    union all
    select location_code, sku, 'safety', '*', units from safety
    union all
    select location_code, sku, 'protected', channel_type, units from protected
    union all
    select location_code, sku, 'incoming', '*', units from incoming
),

final as (
    select
        location_code,
        sku,
        state_type,
        channel_type,
        cast(units as bigint) as units
    from states
    where units <> 0 or state_type = 'on_hand'
)

select * from final
