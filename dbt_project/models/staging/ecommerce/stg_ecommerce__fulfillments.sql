with fulfillments as (
    {{ kept(source('ecommerce', 'raw_ecommerce__fulfillments'), ['fulfillment_id', 'line_id', 'updated_at']) }}
),

final as (
    select
        'ecommerce/' || fulfillment_id || '/' || line_id as fulfillment_line_id,
        'ecommerce/' || order_id as order_id,
        'ecommerce/' || order_id || '/' || line_id as order_line_id,
        {{ utc('created_at') }} as created_at,
        {{ utc('updated_at') }} as updated_at,
        coalesce(status_code, 'success') in ('pending', 'open', 'success') as is_standing,
        shipment_status,
        location_id,
        carrier_name,
        tracking_number,
        sku,
        quantity_units,
        {{ utc('received_at') }} as received_at,
        row_number() over (partition by fulfillment_id, line_id order by updated_at) as version_number,
        row_number() over (partition by fulfillment_id, line_id order by updated_at desc) = 1 as is_latest
    from fulfillments
)

select * from final
