with feature_times as (
    {{ feature_times() }}
),

feature_weeks as (
    {{ feature_weeks() }}
),

feature_days as (
    {{ feature_days(30) }}
),

customers as (
    select customer_id, first_seen_at from {{ ref('customers') }}
    where not is_test
),

-- Numbered against the alphabet, so that the greatest of (messages, number) is the main one, ties going to the first name.
device_types as (
    select
        device_type,
        row_number() over (order by device_type desc) as device_number
    from (select distinct device_type from {{ ref('web_events') }} where device_type is not null) as named
),

-- By day first: a day falls into up to five of the weekly windows, its messages only once.
event_days as (
    select
        customer_id,
        age_days,
        device_type,
        count(*) as event_count,
        count(case when event_name = 'Product Viewed' then 1 end) as view_count,
        count(case when event_name = 'Products Searched' then 1 end) as search_count,
        count(case when event_name = 'Product Added' then 1 end) as cart_count
    from (
        select
            customer_id,
            {{ age_days('occurred_at') }} as age_days,
            device_type,
            event_name
        from {{ ref('web_events') }}
        where customer_id is not null
    ) as aged
    where age_days >= 0
    group by customer_id, age_days, device_type
),

visit_weeks as (
    select
        customer_id,
        {{ week_number('age_days') }} as week_number,
        min(age_days) as last_age_days
    from event_days
    group by customer_id, {{ week_number('age_days') }}
),

last_visits as (
    select
        visit_weeks.customer_id,
        feature_weeks.feature_at,
        min(visit_weeks.last_age_days - feature_weeks.age_days) as days_since_last_visit
    from visit_weeks
    inner join feature_weeks
        on visit_weeks.week_number = feature_weeks.week_number
    group by visit_weeks.customer_id, feature_weeks.feature_at
),

device_measures as (
    select
        event_days.customer_id,
        feature_days.feature_at,
        device_types.device_number,
        sum(event_days.event_count) as event_count,
        sum(event_days.view_count) as view_count,
        sum(event_days.search_count) as search_count,
        sum(event_days.cart_count) as cart_count
    from event_days
    inner join feature_days
        on event_days.age_days = feature_days.age_days
    left join device_types
        on event_days.device_type = device_types.device_type
    group by event_days.customer_id, feature_days.feature_at, device_types.device_number
),

measures as (
    select
        customer_id,
        feature_at,
        sum(view_count) as view_count_30d,
        sum(search_count) as search_count_30d,
        sum(cart_count) as cart_count_30d,
        max(cast(event_count as bigint) * 1000 + device_number) % 1000 as main_device_number
    from device_measures
    group by customer_id, feature_at
),

final as (
    select
        customers.customer_id,
        feature_times.feature_at,
        cast(coalesce(measures.view_count_30d, 0) as bigint) as view_count_30d,
        cast(coalesce(measures.search_count_30d, 0) as bigint) as search_count_30d,
        cast(coalesce(measures.cart_count_30d, 0) as bigint) as cart_count_30d,
        cast(last_visits.days_since_last_visit as bigint) as days_since_last_visit,
        device_types.device_type as main_device_type
    from customers
    inner join feature_times
        on customers.first_seen_at <= feature_times.feature_at
    left join last_visits
        on customers.customer_id = last_visits.customer_id and feature_times.feature_at = last_visits.feature_at
    left join measures
        on customers.customer_id = measures.customer_id
        and feature_times.feature_at = measures.feature_at
    left join device_types
        on measures.main_device_number = device_types.device_number
)

select * from final
