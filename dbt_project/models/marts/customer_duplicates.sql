with identities as (
    select * from {{ ref('int_identities__resolved') }}
    where not is_test
),

links as (
    select * from {{ ref('stg_identity__links') }}
),

-- Where each record was made, and when.
records as (
    select account_ref as record_ref, 'account' as record_type, 'ecommerce' as source_name, 'web_sign_up' as capture_place, min(created_at) as captured_at
    from {{ ref('stg_ecommerce__customers') }}
    group by account_ref
    union all
    select card_ref, 'member', 'loyalty', max(case when enrolled_store_code is null then 'online_enrolment' else 'till_enrolment' end), min(enrolled_at)
    from {{ ref('stg_loyalty__members') }}
    where is_latest
    group by card_ref
    union all
    select email_ref, 'guest', 'ecommerce', min(case when source_name in ('web', 'app', 'pos') then 'guest_checkout' else 'marketplace_checkout' end),
        min(created_at)
    from {{ ref('stg_ecommerce__orders') }}
    where account_ref is null and not is_test
    group by email_ref
),

known_records as (
    select records.*, identities.customer_id, identities.hub_identity_ref as group_ref
    from records
    inner join identities
        on records.record_ref = identities.identity_ref
),

paired as (
    select
        links.probability_millionths,
        links.decision,
        one.customer_id as one_customer_id,
        other.customer_id as other_customer_id,
        one.group_ref as one_group_ref,
        other.group_ref as other_group_ref,
        least(one.record_type, other.record_type) || '-' || greatest(one.record_type, other.record_type) as duplicate_type,
        least(one.source_name, other.source_name) || '-' || greatest(one.source_name, other.source_name) as source_pair,
        one.capture_place as one_capture_place,
        other.capture_place as other_capture_place,
        one.captured_at > other.captured_at or (one.captured_at = other.captured_at and one.record_ref > other.record_ref) as is_one_younger,
        links.first_ref,
        links.second_ref
    from links
    inner join known_records as one
        on links.first_ref = one.record_ref
    inner join known_records as other
        on links.second_ref = other.record_ref
),

weighed as (
    select
        *,
        case when is_one_younger then one_capture_place else other_capture_place end as capture_place,
        case when is_one_younger then one_customer_id else other_customer_id end as younger_customer_id
    from paired
),

-- Each group that likeness added to a customer, by its surest pair with the rest.
sides as (
    select one_group_ref as group_ref, weighed.* from weighed where decision in ('joined', 'forced')
    union all
    select other_group_ref, weighed.* from weighed where decision in ('joined', 'forced')
),

joined as (
    select
        added.customer_id,
        added.identity_ref as group_ref,
        sides.duplicate_type,
        sides.source_pair,
        sides.capture_place,
        row_number() over (
            partition by added.identity_ref order by sides.probability_millionths desc, sides.first_ref, sides.second_ref
        ) as surest_rank
    from identities as added
    inner join sides
        on added.identity_ref = sides.group_ref and added.customer_id = sides.one_customer_id
    where added.link_type = 'probabilistic'
),

-- Customers that stayed two, by their surest pair.
pairs_apart as (
    select
        weighed.*,
        row_number() over (
            partition by least(one_customer_id, other_customer_id), greatest(one_customer_id, other_customer_id)
            order by probability_millionths desc, first_ref, second_ref
        ) as surest_rank
    from weighed
    where one_customer_id <> other_customer_id
),

-- Of several older ones, a customer is a duplicate of one.
apart as (
    select
        *,
        row_number() over (
            partition by younger_customer_id order by decision = 'forbidden', probability_millionths desc, first_ref, second_ref
        ) as older_rank
    from pairs_apart
    where surest_rank = 1
),

orders as (
    select placed.group_ref, orders.*
    from {{ ref('orders') }} as orders
    inner join {{ ref('int_orders__placed') }} as placed
        on orders.order_id = placed.order_id
    where orders.customer_id is not null and not orders.is_cancelled
),

main_currency as (
    select currency_code
    from orders
    group by currency_code
    order by count(*) desc, currency_code
    limit 1
),

group_values as (
    select orders.customer_id, orders.group_ref, sum(orders.net_cents) as net_cents
    from orders
    inner join main_currency
        on orders.currency_code = main_currency.currency_code
    group by orders.customer_id, orders.group_ref
),

customer_values as (
    select customer_id, sum(net_cents) as net_cents
    from group_values
    group by customer_id
),

mailable as (
    select customers.customer_id, customers.email_ref
    from {{ ref('customers') }} as customers
    inner join {{ ref('consent_standing') }} as standing
        on customers.customer_id = standing.customer_id
    where standing.purpose_code = 'marketing' and standing.channel_code = 'email' and standing.is_allowed and customers.email_ref is not null
),

said_emails as (
    select
        identities.hub_identity_ref as group_ref,
        said.field_value as email_ref,
        row_number() over (partition by said.record_ref order by said.said_at desc, said.known_at desc, said.field_value) as newest_rank
    from {{ ref('int_customer_fields__said') }} as said
    inner join identities
        on said.identity_type = identities.identity_type and said.identity_ref = identities.identity_ref
    where said.field_name = 'email'
),

-- Groups with another address than the customer's, that may be written to as well.
written_twice as (
    select distinct joined.group_ref
    from joined
    inner join mailable
        on joined.customer_id = mailable.customer_id
    inner join said_emails
        on joined.group_ref = said_emails.group_ref
        and said_emails.newest_rank = 1
        and mailable.email_ref <> said_emails.email_ref
),

counted as (
    select
        joined.duplicate_type, joined.source_pair, joined.capture_place, 'joined' as decision, joined.customer_id,
        1000000 as expected_millionths,
        coalesce(group_values.net_cents, 0) * 1000000 as value_millionths,
        case when written_twice.group_ref is not null then 1000000 else 0 end as mailing_millionths
    from joined
    left join group_values
        on joined.customer_id = group_values.customer_id and joined.group_ref = group_values.group_ref
    left join written_twice
        on joined.group_ref = written_twice.group_ref
    where joined.surest_rank = 1
    union all
    select
        apart.duplicate_type, apart.source_pair, apart.capture_place, apart.decision, null,
        case when apart.older_rank = 1 then apart.probability_millionths else 0 end,
        case when apart.older_rank = 1
            then least(coalesce(one_value.net_cents, 0), coalesce(other_value.net_cents, 0)) * apart.probability_millionths else 0 end,
        case when apart.older_rank = 1 and one_mail.email_ref <> other_mail.email_ref then apart.probability_millionths else 0 end
    from apart
    left join customer_values as one_value
        on apart.one_customer_id = one_value.customer_id
    left join customer_values as other_value
        on apart.other_customer_id = other_value.customer_id
    left join mailable as one_mail
        on apart.one_customer_id = one_mail.customer_id
    left join mailable as other_mail
        on apart.other_customer_id = other_mail.customer_id
),

summed as (
    select
        duplicate_type,
        source_pair,
        capture_place,
        count(distinct customer_id) as joined_customer_count,
        count(customer_id) as joined_profile_count,
        count(case when decision = 'below_the_bar' then 1 end) as below_the_bar_count,
        count(case when decision = 'outweighed' then 1 end) as outweighed_count,
        count(case when decision = 'not_allowed' then 1 end) as not_allowed_count,
        count(case when decision = 'forbidden' then 1 end) as forbidden_count,
        count(case when decision = 'joined' and value_millionths > 0 then 1 end) as joined_understated_count,
        coalesce(sum(case when decision = 'joined' then value_millionths end), 0) as joined_value_millionths,
        coalesce(sum(case when decision = 'joined' then mailing_millionths end), 0) as joined_mailing_millionths,
        coalesce(sum(case when decision not in ('joined', 'forbidden') then expected_millionths end), 0) as expected_millionths,
        coalesce(sum(case when decision not in ('joined', 'forbidden') then value_millionths end), 0) as expected_value_millionths,
        coalesce(sum(case when decision not in ('joined', 'forbidden') then mailing_millionths end), 0) as expected_mailing_millionths
    from counted
    group by duplicate_type, source_pair, capture_place
),

final as (
    select
        duplicate_type,
        source_pair,
        capture_place,
        joined_customer_count,
        joined_profile_count,
        below_the_bar_count,
        outweighed_count,
        not_allowed_count,
        forbidden_count,
        cast(expected_millionths as double) / 1000000 as expected_duplicates,
        joined_understated_count,
        {%- for side in ['joined', 'expected'] %}
        cast(round(cast({{ side }}_value_millionths as double) / 1000000) as bigint) as {{ side }}_split_cents,
        cast({{ side }}_mailing_millionths as double) / 1000000 as {{ side }}_double_mailings,
        cast(round(
            cast({{ side }}_mailing_millionths as double) / 1000000 * {{ var('mailings_per_year') }} * {{ var('mailing_cents_per_thousand') }} / 1000
            + cast({{ side }}_value_millionths as double) / 1000000 * {{ var('unseen_value_cents_per_thousand') }} / 1000
        ) as bigint) as {{ side }}_cost_cents
        {{- ',' if not loop.last }}
        {%- endfor %}
    from summed
)

select * from final
