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
        {{ utc('enrolled_at') }} as enrolled_at,
        {{ utc('updated_at') }} as updated_at,
        row_number() over (partition by member_id order by updated_at desc) = 1 as is_latest
    from members
)

select * from final
