with accounts as (
    select * from {{ ref('stg_ecommerce__customers') }}
),

members as (
    select * from {{ ref('stg_loyalty__members') }}
),

orders as (
    select * from {{ ref('stg_ecommerce__orders') }} where not is_test
),

seen_devices as (
    select * from {{ ref('int_devices__seen') }}
),

-- An account is a hub wherever it was first seen: its master record may come later than its first order.
account_sightings as (
    select account_ref, 'ecommerce' as source_name, created_at as seen_at from accounts
    union all
    select account_ref, 'ecommerce' as source_name, created_at as seen_at from orders
    union all
    select account_ref, 'ecommerce' as source_name, created_at as seen_at from {{ ref('stg_ecommerce__refund_lines') }}
    union all
    select account_ref, 'ecommerce' as source_name, seen_at from seen_devices
    union all
    select account_ref, 'loyalty' as source_name, updated_at as seen_at from members where is_latest
),

account_hubs as (
    select
        account_ref,
        min(source_name) as source_name,
        min(seen_at) as linked_at
    from account_sightings
    where account_ref is not null
    group by account_ref
),

test_accounts as (
    select account_ref
    from accounts
    group by account_ref
    having bool_or(coalesce(is_test, false))
),

-- An e-mail proves an account only when the shop verified it, and for that account alone.
verified_emails as (
    select
        email_ref,
        min(account_ref) as account_ref,
        min(created_at) as linked_at
    from accounts
    where is_latest and is_email_verified and email_ref is not null
    group by email_ref
    having count(distinct account_ref) = 1
),

guest_emails as (
    select
        orders.email_ref,
        min(orders.created_at) as linked_at
    from orders
    left join verified_emails
        on orders.email_ref = verified_emails.email_ref
    where orders.account_ref is null and orders.email_ref is not null and verified_emails.email_ref is null
    group by orders.email_ref
),

-- A card belongs to the member who carried it last; a member keeps the id of the first card.
card_versions as (
    select
        card_ref,
        member_id,
        min(updated_at) over (partition by card_ref, member_id) as linked_at,
        row_number() over (partition by card_ref order by updated_at desc, member_id) as newest_rank
    from members
    where card_ref is not null
),

member_cards as (
    select
        card_versions.card_ref,
        card_versions.linked_at,
        members.account_ref,
        first_value(card_versions.card_ref) over (
            partition by card_versions.member_id order by card_versions.linked_at, card_versions.card_ref
        ) as first_card_ref
    from card_versions
    inner join members
        on card_versions.member_id = members.member_id and members.is_latest
    where card_versions.newest_rank = 1
),

unknown_cards as (
    select
        receipt_lines.loyalty_card_ref as card_ref,
        min(receipt_lines.occurred_at) as linked_at
    from {{ ref('int_receipt_lines__timed') }} as receipt_lines
    left join member_cards
        on receipt_lines.loyalty_card_ref = member_cards.card_ref
    where receipt_lines.loyalty_card_ref is not null and member_cards.card_ref is null
    group by receipt_lines.loyalty_card_ref
),

devices as (
    select
        device_ref,
        min(account_ref) as account_ref,
        min(seen_at) as linked_at
    from seen_devices
    where device_ref is not null
    group by device_ref
    having count(distinct account_ref) = 1
),

proved as (
    select 'account' as identity_type, account_ref as identity_ref, 'account' as hub_identity_type,
        account_ref as hub_identity_ref, source_name, linked_at
    from account_hubs
    union all
    select 'email', email_ref, 'account', account_ref, 'ecommerce', linked_at from verified_emails
    union all
    select 'email', email_ref, 'email', email_ref, 'ecommerce', linked_at from guest_emails
    union all
    select 'card', card_ref, case when account_ref is null then 'card' else 'account' end,
        coalesce(account_ref, first_card_ref), 'loyalty', linked_at
    from member_cards
    union all
    select 'card', card_ref, 'card', card_ref, 'pos', linked_at from unknown_cards
    union all
    select 'device', device_ref, 'account', account_ref, 'ecommerce', linked_at from devices
),

final as (
    select
        proved.identity_type,
        proved.identity_ref,
        proved.hub_identity_type,
        proved.hub_identity_ref,
        {{ customer_id('proved.hub_identity_type', 'proved.hub_identity_ref') }} as customer_id,
        case
            when proved.identity_type = proved.hub_identity_type and proved.identity_ref = proved.hub_identity_ref then 'hub'
            else 'deterministic'
        end as link_type,
        proved.source_name,
        proved.linked_at,
        test_accounts.account_ref is not null as is_test
    from proved
    left join test_accounts
        on proved.hub_identity_type = 'account' and proved.hub_identity_ref = test_accounts.account_ref
)

select * from final
