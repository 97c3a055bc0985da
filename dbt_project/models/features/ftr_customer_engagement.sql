with feature_times as (
    {{ feature_times() }}
),

customers as (
    select customer_id, first_seen_at from {{ ref('customers') }}
    where not is_test
),

-- By day first: a day falls into up to five of the weekly windows, its messages only once.
event_days as (
    select
        customer_id,
        {{ age_days('occurred_at') }} as age_days,
        device_type,
        count(*) as event_count,
        count(case when event_name = 'Product Viewed' then 1 end) as view_count,
        count(case when event_name = 'Products Searched' then 1 end) as search_count,
        count(case when event_name = 'Product Added' then 1 end) as cart_count
    from {{ ref('web_events') }}
    where customer_id is not null
    group by customer_id, {{ age_days('occurred_at') }}, device_type
),

last_visits as (
    select
        event_days.customer_id,
        feature_times.feature_at,
        min(event_days.age_days - feature_times.age_days) as days_since_last_visit
    from event_days
    inner join feature_times
        on event_days.age_days >= feature_times.age_days
    group by event_days.customer_id, feature_times.feature_at
),

device_measures as (
    select
        event_days.customer_id,
        feature_times.feature_at,
        event_days.device_type,
        sum(event_days.event_count) as event_count,
        sum(event_days.view_count) as view_count,
        sum(event_days.search_count) as search_count,
        sum(event_days.cart_count) as cart_count
    from event_days
    inner join feature_times
        on event_days.age_days >= feature_times.age_days and event_days.age_days < feature_times.age_days + 30
    group by event_days.customer_id, feature_times.feature_at, event_days.device_type
),

measures as (
    select
        customer_id,
        feature_at,
        sum(view_count) over (partition by customer_id, feature_at) as view_count_30d,
        sum(search_count) over (partition by customer_id, feature_at) as search_count_30d,
        sum(cart_count) over (partition by customer_id, feature_at) as cart_count_30d,
        device_type as main_device_type,
        row_number() over (
            partition by customer_id, feature_at
            order by case when device_type is null then 1 else 0 end, event_count desc, device_type
        ) as device_rank
    from device_measures
),

final as (
    select
        customers.customer_id,
        feature_times.feature_at,
        cast(coalesce(measures.view_count_30d, 0) as bigint) as view_count_30d,
        cast(coalesce(measures.search_count_30d, 0) as bigint) as search_count_30d,
        cast(coalesce(measures.cart_count_30d, 0) as bigint) as cart_count_30d,
        cast(last_visits.days_since_last_visit as bigint) as days_since_last_visit,
        measures.main_device_type
    from customers
    inner join feature_times
        on customers.first_seen_at <= feature_times.feature_at
    left join last_visits
        on customers.customer_id = last_visits.customer_id and feature_times.feature_at = last_visits.feature_at
    left join measures
        on customers.customer_id = measures.customer_id
        and feature_times.feature_at = measures.feature_at
        and measures.device_rank = 1
)

select * from final
