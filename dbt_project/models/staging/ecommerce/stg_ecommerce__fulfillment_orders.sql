with fulfillment_orders as (
    {{ kept(source('ecommerce', 'raw_ecommerce__fulfillment_orders'), ['fulfillment_order_id', 'updated_at']) }}
),

final as (
    select
        fulfillment_order_id,
        'ecommerce/' || order_id as order_id,
        {{ utc('created_at') }} as created_at,
        {{ utc('updated_at') }} as updated_at,
        status_code,
        location_id,
        {{ utc('coalesce(promised_at, fulfill_by_at)') }} as promised_at,
        {{ utc('received_at') }} as received_at
    from fulfillment_orders
)

select * from final
