with levels as (
    {{ kept(source('stock', 'raw_stock__levels'), ['location_code', 'sku', 'level_type', 'occurred_at']) }}
),

final as (
    select
        location_code,
        sku,
        level_type,
        reported_units,
        {{ utc('occurred_at') }} as known_until_at,
        {{ utc('received_at') }} as received_at,
        source_name
    from levels
)

select * from final
