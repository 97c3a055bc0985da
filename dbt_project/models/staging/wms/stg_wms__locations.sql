with locations as (
    {{ kept(source('wms', 'raw_wms__locations'), ['location_code'], newest_by='updated_at') }}
),

first_heard as (
    select location_code as heard_code, min(received_at) as received_at
    from {{ source('wms', 'raw_wms__locations') }}
    group by location_code
),

final as (
    select
        location_code,
        location_type,
        location_name,
        gln,
        pos_store_code,
        ecommerce_location_id,
        timezone_name,
        latitude,
        longitude,
        city,
        region_code,
        postal_code,
        country_code,
        opens_at,
        closes_at,
        opened_date,
        {{ utc('updated_at') }} as updated_at,
        {{ utc('first_heard.received_at') }} as known_at
    from locations
    inner join first_heard
        on locations.location_code = first_heard.heard_code
)

select * from final
