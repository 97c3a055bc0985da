with members as (
    select * from {{ ref('stg_loyalty__members') }}
    where is_latest
),

identities as (
    select * from {{ ref('int_identities__resolved') }}
    where identity_type = 'card'
),

balances as (
    select member_id, sum(points) as points_balance_ledger
    from {{ ref('stg_loyalty__points') }}
    group by member_id
),

final as (
    select
        members.member_id,
        identities.customer_id,
        members.card_ref,
        members.tier_code,
        members.enrolled_at,
        members.points_balance as points_balance_stated,
        cast(coalesce(balances.points_balance_ledger, 0) as bigint) as points_balance_ledger,
        members.points_balance = coalesce(balances.points_balance_ledger, 0) as is_reconciled
    from members
    left join identities
        on members.card_ref = identities.identity_ref
    left join balances
        on members.member_id = balances.member_id
    where not coalesce(identities.is_test, false)
)

select * from final
