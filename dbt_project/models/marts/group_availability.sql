with location_groups as (
    select * from {{ ref('location_groups') }}
),

availability as (
    select * from {{ ref('availability') }}
),

final as (
    select
        location_groups.group_code,
        availability.sku,
        count(*) as location_count,
        count(case when availability.available_units > 0 then 1 end) as stocked_location_count,
        cast(sum(availability.on_hand_units) as bigint) as on_hand_units,
        cast(sum(availability.available_units) as bigint) as available_units,
        max(availability.last_movement_at) as last_movement_at,
        {{ as_of_at() }} as as_of_at
    from location_groups
    inner join availability
        on location_groups.location_code = availability.location_code
    group by location_groups.group_code, availability.sku
)

select * from final
