with members as (
    {{ kept(source('loyalty', 'raw_loyalty__members'), ['member_id', 'updated_at']) }}
),

final as (
    select
        member_id,
        card_ref,
        account_ref,
        email_ref,
        phone_ref,
        region_code,
        tier_code,
        enrolled_store_code,
        points_balance,
        cast(extract(year from birth_date) as {{ dbt.type_string() }}) as birth_year,
        coalesce(first_name, last_name) is not null as has_name,
        street_address is not null as has_street_address,
        birth_date is not null as has_birth_date,
        {{ utc('enrolled_at') }} as enrolled_at,
        {{ utc('updated_at') }} as updated_at,
        {{ utc('received_at') }} as received_at,
        row_number() over (partition by member_id order by updated_at desc) = 1 as is_latest
    from members
)

select * from final
