with picks as (
    {{ kept(source('wms', 'raw_wms__picks'), ['pick_id']) }}
),

final as (
    select
        pick_id,
        order_ref,
        location_code,
        sku,
        requested_units,
        picked_units,
        pick_status,
        reason_code,
        {{ utc('started_at') }} as started_at,
        {{ utc('finished_at') }} as finished_at,
        {{ utc('packed_at') }} as packed_at,
        {{ utc('received_at') }} as received_at
    from picks
)

select * from final
