with orders as (
    {{ kept(source('ecommerce', 'raw_ecommerce__orders'), ['order_id'], newest_by='updated_at') }}
),

final as (
    select
        'ecommerce/' || order_id as order_id,
        order_name,
        marketplace_order_id,
        {{ utc('created_at') }} as created_at,
        {{ utc('updated_at') }} as updated_at,
        {{ utc('cancelled_at') }} as cancelled_at,
        account_ref,
        email_ref,
        phone_ref,
        source_name,
        fulfillment_status,
        fulfillment_method,
        location_id,
        currency_code,
        net_cents,
        coalesce(discount_cents, 0) as discount_cents,
        shipping_cents,
        tax_cents,
        gross_cents,
        is_test,
        {{ utc('received_at') }} as received_at
    from orders
)

select * from final
