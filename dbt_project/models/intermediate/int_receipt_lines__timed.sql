with receipts as (
    select * from {{ ref('int_receipts__timed') }}
),

sale_lines as (
    select * from {{ ref('stg_pos__sale_lines') }}
),

final as (
    select
        receipts.receipt_id || '/' || cast(sale_lines.line_number as {{ dbt.type_string() }}) as receipt_line_id,
        receipts.receipt_id,
        receipts.receipt_name,
        cast(sale_lines.line_number as integer) as line_number,
        sale_lines.line_type,
        receipts.location_code,
        receipts.business_date,
        receipts.occurred_at,
        receipts.loyalty_card_ref,
        receipts.payment_ref,
        receipts.currency_code,
        sale_lines.sku,
        sale_lines.quantity_units,
        coalesce(
            sale_lines.unit_price_cents,
            cast(round((sale_lines.net_cents + sale_lines.discount_cents) / sale_lines.quantity_units) as bigint)
        ) as unit_price_cents,
        sale_lines.discount_cents,
        sale_lines.net_cents,
        sale_lines.tax_cents,
        sale_lines.net_cents + sale_lines.tax_cents as gross_cents,
        sale_lines.original_receipt_id,
        sale_lines.original_order_name,
        sale_lines.is_restocked,
        sale_lines.received_at,
        greatest(sale_lines.received_at, receipts.received_at) as known_at
    from receipts
    inner join sale_lines
        on receipts.receipt_id = sale_lines.receipt_id
)

select * from final
