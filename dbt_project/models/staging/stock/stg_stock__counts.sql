with counts as (
    {{ kept(source('stock', 'raw_stock__counts'), ['count_id']) }}
),

final as (
    select
        count_id,
        location_code,
        sku,
        counted_units,
        {{ utc('occurred_at') }} as occurred_at,
        {{ utc('received_at') }} as received_at,
        source_name
    from counts
)

select * from final
