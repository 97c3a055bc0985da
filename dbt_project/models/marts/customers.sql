with identities as (
    select * from {{ ref('customer_identities') }}
),

hubs as (
    select * from {{ ref('int_identities__resolved') }}
    where link_type = 'hub'
),

-- The golden record side by side.
fields as (
    select
        customer_id,
        max(case when field_name = 'account' then field_value end) as account_ref,
        max(case when field_name = 'card' then field_value end) as card_ref,
        max(case when field_name = 'email' then field_value end) as email_ref,
        max(case when field_name = 'phone' then field_value end) as phone_ref,
        max(case when field_name = 'home_location' then field_value end) as home_location_code,
        max(case when field_name = 'region' then field_value end) as region_code,
        max(case when field_name = 'jurisdiction' then field_value end) as jurisdiction_code,
        max(case when field_name = 'tier' then field_value end) as tier_code
    from {{ ref('customer_fields') }}
    group by customer_id
),

orders as (
    select * from {{ ref('orders') }}
    where customer_id is not null
),

sightings as (
    select customer_id, linked_at as seen_at from identities
    union all
    select customer_id, ordered_at as seen_at from orders
    union all
    select customer_id, occurred_at as seen_at from {{ ref('web_events') }} where customer_id is not null
    union all
    select customer_id, returned_at as seen_at from {{ ref('returns') }} where customer_id is not null
),

seen as (
    select
        customer_id,
        min(seen_at) as first_seen_at,
        max(seen_at) as last_seen_at
    from sightings
    group by customer_id
),

identity_counts as (
    select
        customer_id,
        count(*) as identity_count,
        count(case when identity_type = 'account' and link_type <> 'contact' then 1 end) as account_count,
        count(case when identity_type = 'card' and link_type <> 'contact' then 1 end) as card_count,
        count(case when link_type in ('hub', 'probabilistic') then 1 end) as group_count
    from identities
    group by customer_id
),

final as (
    select
        hubs.customer_id,
        hubs.hub_identity_type,
        hubs.hub_identity_ref,
        seen.first_seen_at,
        seen.last_seen_at,
        hubs.is_test,
        identity_counts.identity_count,
        identity_counts.account_count,
        identity_counts.card_count,
        identity_counts.group_count,
        fields.account_ref,
        fields.card_ref,
        fields.email_ref,
        fields.phone_ref,
        fields.home_location_code,
        fields.region_code,
        fields.jurisdiction_code,
        fields.tier_code,
        identity_counts.account_count > 0 as has_account,
        identity_counts.card_count > 0 as has_card
    from hubs
    inner join seen
        on hubs.customer_id = seen.customer_id
    inner join identity_counts
        on hubs.customer_id = identity_counts.customer_id
    left join fields
        on hubs.customer_id = fields.customer_id
)

select * from final
