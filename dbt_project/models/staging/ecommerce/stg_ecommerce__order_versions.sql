with versions as (
    {{ kept(source('ecommerce', 'raw_ecommerce__orders'), ['order_id', 'updated_at']) }}
),

final as (
    select
        'ecommerce/' || order_id as order_id,
        {{ utc('updated_at') }} as updated_at,
        {{ utc('cancelled_at') }} as cancelled_at,
        cancel_reason,
        financial_status,
        fulfillment_status,
        account_ref,
        email_ref,
        phone_ref,
        source_name,
        region_code,
        case when length(country_code) = 2 then country_code end as country_code,
        coalesce(first_name, last_name) is not null as has_name,
        street_address is not null as has_street_address,
        is_test,
        {{ utc('received_at') }} as received_at
    from versions
)

select * from final
