with sale_lines as (
    {{ kept(
        source('pos', 'raw_pos__sale_lines'),
        ['store_code', 'workstation_code', 'sequence_number', 'business_date', 'line_number']
    ) }}
),

final as (
    select
        'pos/' || {{ receipt_name() }} as receipt_id,
        line_number,
        line_type,
        sku,
        quantity_units,
        unit_price_cents,
        coalesce(discount_cents, 0) as discount_cents,
        net_cents,
        tax_cents,
        'pos/' || original_store_code || '/' || original_workstation_code || '/'
        || cast(original_sequence_number as {{ dbt.type_string() }}) || '/'
        || cast(original_business_date as {{ dbt.type_string() }}) as original_receipt_id,
        original_order_name,
        is_restocked,
        {{ utc('received_at') }} as received_at
    from sale_lines
    where not is_voided
)

select * from final
