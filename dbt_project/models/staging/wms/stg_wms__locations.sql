with locations as (
    {{ kept(source('wms', 'raw_wms__locations'), ['location_code'], newest_by='updated_at') }}
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
        {{ utc('updated_at') }} as updated_at
    from locations
)

select * from final
