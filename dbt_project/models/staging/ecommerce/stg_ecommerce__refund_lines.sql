with refund_lines as (
    {{ kept(source('ecommerce', 'raw_ecommerce__refund_lines'), ['refund_id', 'refund_line_id']) }}
),

final as (
    select
        'ecommerce/' || refund_id || '/' || refund_line_id as refund_line_id,
        'ecommerce/' || refund_id as refund_id,
        'ecommerce/' || order_id as order_id,
        'ecommerce/' || order_id || '/' || line_id as order_line_id,
        account_ref,
        {{ utc('created_at') }} as created_at,
        sku,
        quantity_units,
        restock_type,
        location_id,
        net_cents,
        tax_cents,
        currency_code,
        {{ utc('received_at') }} as received_at
    from refund_lines
)

select * from final
