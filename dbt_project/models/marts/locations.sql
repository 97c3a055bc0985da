with locations as (
    select * from {{ ref('stg_wms__locations') }}
)

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
    updated_at
from locations
