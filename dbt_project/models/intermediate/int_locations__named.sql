-- How orders and refunds name a location: by the shop's id of it, or by its own code where no shop knows it.
with locations as (
    select * from {{ ref('stg_wms__locations') }}
),

final as (
    select
        ecommerce_location_id as location_ref,
        location_code,
        known_at
    from locations
    where ecommerce_location_id is not null
    union all
    select
        'code/' || location_code,
        location_code,
        known_at
    from locations
)

select * from final
