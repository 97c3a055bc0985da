with locations as (
    select * from {{ ref('stg_wms__locations') }}
)

select * from locations
