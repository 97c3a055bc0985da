with feature_times as (
    {{ feature_times() }}
),

feature_weeks as (
    {{ feature_weeks() }}
),

feature_days as (
    {{ feature_days(90) }}
),

customers as (
    select customer_id, first_seen_at from {{ ref('customers') }}
    where not is_test
),

orders as (
    select
        *,
        {{ age_days('ordered_at') }} as age_days
    from {{ ref('orders') }}
    where customer_id is not null and not is_cancelled
),

-- Money in several currencies cannot be added: amounts are those of the currency most orders are in.
main_currency as (
    select currency_code
    from orders
    group by currency_code
    order by count(*) desc, currency_code
    limit 1
),

order_weeks as (
    select
        customer_id,
        {{ week_number('age_days') }} as week_number,
        min(age_days) as last_age_days
    from orders
    where age_days >= 0
    group by customer_id, {{ week_number('age_days') }}
),

last_orders as (
    select
        order_weeks.customer_id,
        feature_weeks.feature_at,
        min(order_weeks.last_age_days - feature_weeks.age_days) as days_since_last_order
    from order_weeks
    inner join feature_weeks
        on order_weeks.week_number = feature_weeks.week_number
    group by order_weeks.customer_id, feature_weeks.feature_at
),

order_measures as (
    select
        orders.customer_id,
        feature_days.feature_at,
        count(case when feature_days.days_before < 30 then 1 end) as order_count_30d,
        count(*) as order_count_90d,
        count(case when orders.channel_type = 'store' then 1 end) as store_order_count_90d,
        sum(case when main_currency.currency_code is not null then orders.net_cents end) as net_cents_90d,
        count(main_currency.currency_code) as money_order_count_90d
    from orders
    inner join feature_days
        on orders.age_days = feature_days.age_days
    left join main_currency
        on orders.currency_code = main_currency.currency_code
    group by orders.customer_id, feature_days.feature_at
),

-- Numbered against the alphabet, so that the greatest of (units, number) is the favourite, ties going to the first name.
categories as (
    select
        category_name,
        row_number() over (order by category_name desc) as category_number
    from (select distinct category_name from {{ ref('products') }} where category_name is not null) as named
),

category_days as (
    select
        order_lines.customer_id,
        categories.category_number,
        {{ age_days('order_lines.ordered_at') }} as age_days,
        order_lines.quantity_units as units
    from {{ ref('order_lines') }} as order_lines
    left join {{ ref('products') }} as products
        on order_lines.sku = products.sku
    left join categories
        on products.category_name = categories.category_name
    where order_lines.customer_id is not null and not order_lines.is_cancelled
),

category_units as (
    select
        category_days.customer_id,
        feature_days.feature_at,
        category_days.category_number,
        sum(category_days.units) as units
    from category_days
    inner join feature_days
        on category_days.age_days = feature_days.age_days
    group by category_days.customer_id, feature_days.feature_at, category_days.category_number
),

category_measures as (
    select
        customer_id,
        feature_at,
        sum(units) as unit_count_90d,
        max(cast(units as bigint) * 100000 + category_number) % 100000 as favourite_number
    from category_units
    group by customer_id, feature_at
),

returned as (
    select
        customer_id,
        {{ age_days('returned_at') }} as age_days
    from {{ ref('returns') }}
    where customer_id is not null
),

return_measures as (
    select
        returned.customer_id,
        feature_days.feature_at,
        count(*) as return_count_90d
    from returned
    inner join feature_days
        on returned.age_days = feature_days.age_days
    group by returned.customer_id, feature_days.feature_at
),

final as (
    select
        customers.customer_id,
        feature_times.feature_at,
        coalesce(order_measures.order_count_30d, 0) as order_count_30d,
        coalesce(order_measures.order_count_90d, 0) as order_count_90d,
        cast(coalesce(order_measures.net_cents_90d, 0) as bigint) as net_cents_90d,
        cast(round(order_measures.net_cents_90d / nullif(order_measures.money_order_count_90d, 0)) as bigint) as average_order_cents_90d,
        cast(coalesce(category_measures.unit_count_90d, 0) as bigint) as unit_count_90d,
        coalesce(return_measures.return_count_90d, 0) as return_count_90d,
        cast(last_orders.days_since_last_order as bigint) as days_since_last_order,
        cast(order_measures.store_order_count_90d as double) / nullif(order_measures.order_count_90d, 0) as store_order_share_90d,
        categories.category_name as favourite_category_name
    from customers
    inner join feature_times
        on customers.first_seen_at <= feature_times.feature_at
    left join last_orders
        on customers.customer_id = last_orders.customer_id and feature_times.feature_at = last_orders.feature_at
    left join order_measures
        on customers.customer_id = order_measures.customer_id and feature_times.feature_at = order_measures.feature_at
    left join category_measures
        on customers.customer_id = category_measures.customer_id
        and feature_times.feature_at = category_measures.feature_at
    left join categories
        on category_measures.favourite_number = categories.category_number
    left join return_measures
        on customers.customer_id = return_measures.customer_id and feature_times.feature_at = return_measures.feature_at
)

select * from final
