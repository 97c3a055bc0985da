with identities as (
    select * from {{ ref('customer_identities') }}
),

hubs as (
    select * from {{ ref('int_identities__resolved') }}
    where link_type = 'hub'
),

accounts as (
    select * from {{ ref('stg_ecommerce__customers') }}
    where is_latest
),

-- A customer may carry several cards; the newest record speaks.
members as (
    select
        proved.customer_id,
        members.card_ref,
        members.email_ref,
        members.phone_ref,
        members.region_code,
        members.tier_code,
        row_number() over (partition by proved.customer_id order by members.updated_at desc, members.card_ref) as newest_rank
    from {{ ref('stg_loyalty__members') }} as members
    inner join {{ ref('int_identities__resolved') }} as proved
        on proved.identity_type = 'card' and members.card_ref = proved.identity_ref
    where members.is_latest
),

orders as (
    select * from {{ ref('orders') }}
    where customer_id is not null
),

store_visits as (
    select
        customer_id,
        location_code,
        row_number() over (partition by customer_id order by count(*) desc, location_code) as visit_rank
    from orders
    where fulfillment_method in ('in_store', 'click_and_collect', 'curbside') and location_code is not null
    group by customer_id, location_code
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
        min(case when identity_type = 'card' and link_type <> 'contact' then identity_ref end) as any_card_ref
    from identities
    group by customer_id
),

-- Loyalty forms ask for a state and not for a country: it is the one most locations stand in.
main_country as (
    select country_code
    from {{ ref('locations') }}
    group by country_code
    order by count(*) desc, country_code
    limit 1
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
        case when hubs.hub_identity_type = 'account' then hubs.hub_identity_ref end as account_ref,
        coalesce(members.card_ref, identity_counts.any_card_ref) as card_ref,
        case hubs.hub_identity_type
            when 'email' then hubs.hub_identity_ref
            else coalesce(accounts.email_ref, members.email_ref)
        end as email_ref,
        coalesce(accounts.phone_ref, members.phone_ref) as phone_ref,
        store_visits.location_code as home_location_code,
        coalesce(accounts.region_code, members.region_code, locations.region_code) as region_code,
        coalesce(accounts.country_code, locations.country_code, main_country.country_code)
        || '-' || coalesce(accounts.region_code, members.region_code, locations.region_code) as jurisdiction_code,
        members.tier_code,
        hubs.hub_identity_type = 'account' as has_account,
        coalesce(members.card_ref, identity_counts.any_card_ref) is not null as has_card
    from hubs
    inner join seen
        on hubs.customer_id = seen.customer_id
    inner join identity_counts
        on hubs.customer_id = identity_counts.customer_id
    left join accounts
        on hubs.hub_identity_type = 'account' and hubs.hub_identity_ref = accounts.account_ref
    left join members
        on hubs.customer_id = members.customer_id and members.newest_rank = 1
    left join store_visits
        on hubs.customer_id = store_visits.customer_id and store_visits.visit_rank = 1
    left join {{ ref('locations') }} as locations
        on store_visits.location_code = locations.location_code
    left join main_country
        on true
)

select * from final
