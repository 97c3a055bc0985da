with states as (
    select * from {{ ref('stock_states') }}
),

positions as (
    select location_code, sku, last_movement_at from {{ ref('stock_positions') }}
),

parts as (
    select
        location_code,
        sku,
        {%- for state in ['on_hand', 'damaged', 'quality_control', 'committed', 'safety', 'protected'] %}
        sum(case when state_type = '{{ state }}' then units else 0 end) as {{ state }}_units{{ ',' if not loop.last }}
        {%- endfor %}
    from states
    group by location_code, sku
),

counted as (
    select
        positions.location_code,
        positions.sku,
        {%- for part in available_parts() %}
        cast({{ 0 if part == 'held_units' else 'parts.' ~ part }} as bigint) as {{ part }},
        {%- endfor %}
        positions.last_movement_at
    from positions
    inner join parts
        on positions.location_code = parts.location_code and positions.sku = parts.sku
),

final as (
    select
        location_code,
        sku,
        {{ available_parts() | join(', ') }},
        {{ available_units() }} as available_units,
        last_movement_at,
        {{ as_of_at() }} as as_of_at
    from counted
)

select * from final
