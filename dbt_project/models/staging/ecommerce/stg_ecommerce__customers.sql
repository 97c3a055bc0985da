with customers as (
    {{ kept(source('ecommerce', 'raw_ecommerce__customers'), ['account_id', 'updated_at']) }}
),

final as (
    select
        account_ref,
        email_ref,
        is_email_verified,
        phone_ref,
        region_code,
        country_code,
        is_test,
        coalesce(first_name, last_name) is not null as has_name,
        street_address is not null as has_street_address,
        {{ utc('created_at') }} as created_at,
        {{ utc('updated_at') }} as updated_at,
        {{ utc('received_at') }} as received_at,
        row_number() over (partition by account_id order by updated_at desc) = 1 as is_latest
    from customers
)

select * from final
