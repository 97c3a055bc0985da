with transactions as (
    {{ kept(source('pos', 'raw_pos__transactions'), ['store_code', 'workstation_code', 'sequence_number', 'business_date']) }}
),

final as (
    select
        'pos/' || {{ receipt_name() }} as receipt_id,
        {{ receipt_name() }} as receipt_name,
        store_code,
        business_date,
        transaction_type,
        is_voided,
        is_training,
        ended_at_local,
        utc_offset,
        currency_code,
        net_cents,
        tax_cents,
        gross_cents,
        tendered_cents,
        loyalty_card_ref,
        payment_ref,
        order_name,
        {{ utc('received_at') }} as received_at
    from transactions
)

select * from final
