with proved as (
    select * from {{ ref('int_identities__resolved') }}
),

accounts as (
    select * from {{ ref('stg_ecommerce__customers') }}
),

members as (
    select * from {{ ref('stg_loyalty__members') }}
),

orders as (
    select
        *,
        case when account_ref is null then 'email' else 'account' end as by_type,
        coalesce(account_ref, email_ref) as by_ref
    from {{ ref('stg_ecommerce__orders') }}
    where not is_test
),

seen_devices as (
    select * from {{ ref('int_devices__seen') }}
),

-- Two identifiers in one record, however old: not proof of one person, but enough to carry a refusal.
seen_together as (
    select 'email' as identity_type, email_ref as identity_ref, 'account' as by_type, account_ref as by_ref,
        'ecommerce' as source_name, updated_at as seen_at
    from accounts
    union all
    select 'phone', phone_ref, 'account', account_ref, 'ecommerce', updated_at from accounts
    union all
    select 'email', email_ref, 'card', card_ref, 'loyalty', updated_at from members
    union all
    select 'phone', phone_ref, 'card', card_ref, 'loyalty', updated_at from members
    union all
    select 'card', card_ref, 'account', account_ref, 'loyalty', updated_at from members
    union all
    select 'account', account_ref, 'card', card_ref, 'loyalty', updated_at from members
    union all
    select 'email', email_ref, by_type, by_ref, 'ecommerce', created_at from orders
    union all
    select 'phone', phone_ref, by_type, by_ref, 'ecommerce', created_at from orders
    union all
    select 'device', device_ref, 'account', account_ref, 'ecommerce', seen_at from seen_devices
),

contacts as (
    select
        seen_together.identity_type,
        seen_together.identity_ref,
        proved.customer_id,
        min(proved.hub_identity_ref) as group_ref,
        min(seen_together.source_name) as source_name,
        min(seen_together.seen_at) as linked_at,
        bool_or(proved.is_test) as is_test
    from seen_together
    inner join proved
        on seen_together.by_type = proved.identity_type
        and seen_together.by_ref = proved.identity_ref
    where seen_together.identity_ref is not null
    group by seen_together.identity_type, seen_together.identity_ref, proved.customer_id
),

final as (
    select identity_type, identity_ref, customer_id, link_type, hub_identity_ref as group_ref, source_name, linked_at, is_test
    from proved
    union all
    select contacts.identity_type, contacts.identity_ref, contacts.customer_id, 'contact', contacts.group_ref, contacts.source_name,
        contacts.linked_at, contacts.is_test
    from contacts
    left join proved
        on contacts.identity_type = proved.identity_type
        and contacts.identity_ref = proved.identity_ref
        and contacts.customer_id = proved.customer_id
    where proved.customer_id is null
)

select * from final
