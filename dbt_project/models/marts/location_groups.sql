with locations as (
    select location_code, location_type, country_code, region_code from {{ ref('locations') }}
),

final as (
    select 'all' as group_code, 'all' as group_type, location_code from locations
    union all
    select 'type/' || location_type, 'type', location_code from locations
    union all
    select 'region/' || country_code || '-' || region_code, 'region', location_code from locations
    where region_code is not null
)

select * from final
