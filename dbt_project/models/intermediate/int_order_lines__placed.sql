with lines as (
    select
        receipt_line_id as order_line_id,
        receipt_id as order_id,
        line_number,
        sku,
        quantity_units,
        unit_price_cents,
        discount_cents,
        net_cents,
        tax_cents
    from {{ ref('int_receipt_lines__timed') }}
    where line_type = 'sale'
    union all
    select
        order_id || '/' || line_id as order_line_id,
        order_id,
        cast(row_number() over (partition by order_id order by length(line_id), line_id) as integer) as line_number,
        sku,
        quantity_units,
        unit_price_cents,
        discount_cents,
        net_cents,
        tax_cents
    from {{ ref('stg_ecommerce__order_lines') }}
),

final as (
    select
        *,
        count(*) over (partition by order_id, sku) = 1 as is_only_of_its_sku
    from lines
)

select * from final
