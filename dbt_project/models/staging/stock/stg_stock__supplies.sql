with supplies as (
    {{ kept(source('stock', 'raw_stock__supplies'), ['supply_id', 'location_code', 'sku'], newest_by='occurred_at') }}
),

final as (
    select
        supply_id,
        supply_type,
        location_code,
        sku,
        open_units,
        {{ utc('expected_at') }} as expected_at,
        {{ utc('occurred_at') }} as occurred_at,
        {{ utc('received_at') }} as received_at,
        source_name
    from supplies
)

select * from final
