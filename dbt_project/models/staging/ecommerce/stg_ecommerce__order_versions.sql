with versions as (
    {{ kept(source('ecommerce', 'raw_ecommerce__orders'), ['order_id', 'updated_at']) }}
),

final as (
    select
        'ecommerce/' || order_id as order_id,
        {{ utc('updated_at') }} as updated_at,
        {{ utc('cancelled_at') }} as cancelled_at,
        cancel_reason,
        financial_status,
        fulfillment_status,
        is_test,
        {{ utc('received_at') }} as received_at
    from versions
)

select * from final
