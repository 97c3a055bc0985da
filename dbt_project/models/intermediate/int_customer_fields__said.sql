{#- Field of a record, and the column that says it. Accounts and members say all of it at each change, a null taking back what was said. -#}
{%- set of_account = [('email', 'email_ref'), ('phone', 'phone_ref'), ('account', 'account_ref'), ('region', 'region_code'), ('country', 'country_code'),
    ('jurisdiction', "country_code || '-' || region_code"), ('name', 'case when has_name then account_ref end'),
    ('street_address', 'case when has_street_address then account_ref end')] -%}
{%- set of_member = [('email', 'email_ref'), ('phone', 'phone_ref'), ('card', 'card_ref'), ('region', 'region_code'),
    ('jurisdiction', "country_code || '-' || region_code"), ('tier', 'tier_code'), ('birth_year', 'birth_year'),
    ('home_location', 'location_code'), ('name', 'case when has_name then card_ref end'),
    ('street_address', 'case when has_street_address then card_ref end'), ('birth_date', 'case when has_birth_date then card_ref end')] -%}
{%- set of_guest = [('email', 'email_ref'), ('phone', 'phone_ref'), ('region', 'region_code'), ('country', 'country_code'),
    ('jurisdiction', "country_code || '-' || region_code"), ('name', 'case when has_name then email_ref end'),
    ('street_address', 'case when has_street_address then email_ref end')] -%}
with identities as (
    select * from {{ ref('int_identities__resolved') }}
    where not coalesce(is_test, false)
),

-- Loyalty forms ask for a state and not for a country: it is the one most locations stand in.
main_country as (
    select country_code
    from {{ ref('locations') }}
    group by country_code
    order by count(*) desc, country_code
    limit 1
),

stores as (
    select * from {{ ref('locations') }}
),

accounts as (
    select
        *,
        case when is_email_verified then 'verified_account' else 'account' end as record_type
    from {{ ref('stg_ecommerce__customers') }}
    where not coalesce(is_test, false)
),

members as (
    select members.*, stores.location_code, main_country.country_code
    from {{ ref('stg_loyalty__members') }} as members
    left join stores
        on members.enrolled_store_code = stores.pos_store_code
    left join main_country
        on true
),

guests as (
    select * from {{ ref('stg_ecommerce__order_versions') }}
    where account_ref is null and email_ref is not null and not coalesce(is_test, false)
),

visits as (
    select orders.*, stores.country_code || '-' || stores.region_code as jurisdiction_code
    from {{ ref('int_orders__placed') }} as orders
    inner join stores
        on orders.location_code = stores.location_code
    where orders.customer_id is not null and orders.fulfillment_method in ('in_store', 'click_and_collect', 'curbside')
),

notices as (
    select
        *,
        row_number() over (partition by subject_id order by recorded_at desc, leaf_index desc) as newest_rank
    from {{ ref('consent_events') }}
    where language_code is not null and received_at <= {{ as_of_at() }}
),

said as (
    {%- for field, column in of_account %}
    select '{{ field }}' as field_name, {{ column }} as field_value, record_type, account_ref as record_ref, 'account' as identity_type,
        account_ref as identity_ref, 'ecommerce' as source_name, updated_at as said_at, received_at as known_at
    from accounts
    union all
    {%- endfor %}
    {%- for field, column in of_member %}
    select '{{ field }}', {{ column }}, 'member', card_ref, 'card', card_ref, 'loyalty', updated_at, received_at
    from members
    union all
    {%- endfor %}
    {%- for field, column in of_guest %}
    select '{{ field }}', {{ column }}, 'guest', email_ref, 'email', email_ref, 'ecommerce', updated_at, received_at
    from guests
    where {{ column }} is not null
    union all
    {%- endfor %}
    select 'home_location', location_code, 'visit', order_id, identity_type, identity_ref, source_name, ordered_at, received_at from visits
    union all
    select 'jurisdiction', jurisdiction_code, 'visit', order_id, identity_type, identity_ref, source_name, ordered_at, received_at from visits
    union all
    select 'language', notices.language_code, 'notice', notices.subject_id, identities.identity_type, notices.subject_id, 'consent',
        notices.recorded_at, notices.received_at
    from notices
    inner join identities
        on notices.subject_id = identities.identity_ref
    where notices.newest_rank = 1
    union all
    select identity_type, identity_ref, 'identifier', identity_ref, identity_type, identity_ref, source_name, linked_at, linked_at
    from identities
    where identity_type in ('account', 'card')
),

final as (
    select distinct
        identities.customer_id,
        said.field_name,
        said.field_value,
        said.record_type,
        said.record_ref,
        said.identity_type,
        said.identity_ref,
        said.source_name,
        said.said_at,
        said.known_at
    from said
    inner join identities
        on said.identity_type = identities.identity_type
        and said.identity_ref = identities.identity_ref
)

select * from final
