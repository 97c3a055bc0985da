with inventory_levels as (
    {{ kept(
        source('ecommerce', 'raw_ecommerce__inventory_levels'),
        ['inventory_item_id', 'location_id', 'updated_at']
    ) }}
),

final as (
    select
        inventory_item_id,
        location_id,
        available_units,
        {{ utc('updated_at') }} as known_until_at,
        {{ utc('received_at') }} as received_at
    from inventory_levels
    where available_units is not null
)

select * from final
