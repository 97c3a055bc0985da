with stock_advice as (
    {{ kept(source('wms', 'raw_wms__stock_advice'), ['advice_ref', 'gln', 'sku', 'quantity_type']) }}
),

final as (
    select
        advice_ref,
        gln,
        sku,
        quantity_type,
        quantity_units,
        {{ utc('known_until_at') }} as known_until_at,
        {{ utc('received_at') }} as received_at
    from stock_advice
)

select * from final
