with refunds as (
    {{ kept(source('ecommerce', 'raw_ecommerce__refunds'), ['refund_id']) }}
),

final as (
    select
        'ecommerce/' || refund_id as refund_id,
        'ecommerce/' || order_id as order_id,
        {{ utc('created_at') }} as created_at,
        paid_cents,
        shipping_cents,
        shipping_tax_cents,
        adjustment_cents,
        adjustment_tax_cents,
        currency_code,
        {{ utc('received_at') }} as received_at
    from refunds
)

select * from final
