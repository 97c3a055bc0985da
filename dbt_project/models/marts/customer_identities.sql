-- No payment cards: what they tie to a customer is receipts, no person, so nothing of consent may travel over them.
with resolved as (
    select * from {{ ref('int_identities__resolved') }}
),

-- Two identifiers in one record, however old: not proof of one person, but enough to carry a refusal.
contacts as (
    select * from {{ source('identity', 'identity_contacts') }}
),

final as (
    select identity_type, identity_ref, customer_id, link_type, hub_identity_ref as group_ref, source_name, linked_at, is_test
    from resolved
    where identity_type <> 'payment'
    union all
    select identity_type, identity_ref, customer_id, 'contact', group_ref, source_name, {{ utc('linked_at') }} as linked_at, is_test
    from contacts
)

select * from final
