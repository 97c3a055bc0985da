with locations as (
    select location_code, gln, ecommerce_location_id, known_at from {{ ref('stg_wms__locations') }}
),

items as (
    select distinct
        inventory_item_id,
        first_value(sku) over (partition by inventory_item_id order by updated_at desc, sku) as sku,
        min(received_at) over (partition by inventory_item_id) as known_at
    from {{ ref('stg_ecommerce__products') }}
),

shop_levels as (
    select
        locations.location_code,
        items.sku,
        'ecommerce' as source_name,
        inventory_levels.known_until_at,
        inventory_levels.received_at,
        greatest(inventory_levels.received_at, locations.known_at, items.known_at) as known_at,
        inventory_levels.available_units as reported_units,
        1 as preference
    from {{ ref('stg_ecommerce__inventory_levels') }} as inventory_levels
    inner join locations
        on inventory_levels.location_id = locations.ecommerce_location_id
    inner join items
        on inventory_levels.inventory_item_id = items.inventory_item_id
),

warehouse_advice as (
    select
        locations.location_code,
        stock_advice.sku,
        'wms' as source_name,
        stock_advice.known_until_at,
        stock_advice.received_at,
        greatest(stock_advice.received_at, locations.known_at) as known_at,
        stock_advice.quantity_units as reported_units,
        case stock_advice.quantity_type when 'on_hand' then 1 else 2 end as preference
    from {{ ref('stg_wms__stock_advice') }} as stock_advice
    inner join locations
        on stock_advice.gln = locations.gln
    where stock_advice.quantity_type in ('on_hand', 'available')
),

-- A shop has taken off what is ordered, a warehouse system has not: so the kind of figure says whose books it stands for.
told_levels as (
    select
        locations.location_code,
        levels.sku,
        case levels.level_type when 'on_hand' then 'wms' else 'ecommerce' end as source_name,
        levels.known_until_at,
        levels.received_at,
        greatest(levels.received_at, locations.known_at) as known_at,
        levels.reported_units,
        1 as preference
    from {{ ref('stg_stock__levels') }} as levels
    inner join locations
        on levels.location_code = locations.location_code
),

snapshots as (
    select * from shop_levels
    union all
    select * from told_levels
    union all
    select * from warehouse_advice
),

-- Of one high-water mark a figure of what is held goes before one of what can be sold, then what was received last.
ranked as (
    select
        *,
        min(preference) over (
            partition by location_code, sku, source_name, known_until_at
            order by known_at, received_at, preference desc, reported_units desc rows between unbounded preceding and 1 preceding
        ) as preference_before
    from snapshots
),

versions as (
    select
        *,
        lead(known_at) over (
            partition by location_code, sku, source_name, known_until_at
            order by known_at, received_at, preference desc, reported_units desc
        ) as superseded_at
    from ranked
    where preference_before is null or preference <= preference_before
),

final as (
    select
        location_code,
        sku,
        source_name,
        known_until_at,
        received_at,
        known_at,
        superseded_at,
        reported_units,
        superseded_at is null
        and row_number() over (
            partition by location_code, sku
            order by case when superseded_at is null then 0 else 1 end, known_until_at desc, source_name desc
        ) = 1 as is_latest
    from versions
    where superseded_at is null or superseded_at > known_at
)

select * from final
