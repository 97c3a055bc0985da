with told as (
    select * from {{ ref('int_refund_lines__told_once') }}
),

final as (
    select
        order_id,
        refund_line_id as return_line_id,
        order_line_id,
        source_name,
        customer_id,
        sku,
        quantity_units,
        refunded_at as returned_at,
        restock_type,
        location_code,
        has_reference,
        received_at
    from told
    where refund_type = 'returned'
)

select * from final
