with adjustments as (
    {{ kept(source('ecommerce', 'raw_ecommerce__adjustments'), ['adjustment_id']) }}
),

final as (
    select
        'ecommerce/' || adjustment_id as adjustment_id,
        {{ utc('adjusted_at') }} as adjusted_at,
        adjustment_type,
        sku,
        location_id,
        quantity_units,
        net_cents,
        currency_code,
        {{ utc('received_at') }} as received_at
    from adjustments
)

select * from final
