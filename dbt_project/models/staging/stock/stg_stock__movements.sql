with movements as (
    {{ kept(source('stock', 'raw_stock__movements'), ['movement_id']) }}
),

final as (
    select
        movement_id,
        location_code,
        sku,
        movement_type,
        units,
        {{ utc('occurred_at') }} as occurred_at,
        {{ utc('occurred_at') }} as told_at,
        {{ utc('received_at') }} as received_at,
        source_name,
        source_ref
    from movements
)

select * from final
