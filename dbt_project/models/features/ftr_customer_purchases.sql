with feature_times as (
    {{ feature_times() }}
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

order_measures as (
    select
        orders.customer_id,
        feature_times.feature_at,
        min(orders.age_days - feature_times.age_days) as days_since_last_order,
        count(case when orders.age_days < feature_times.age_days + 30 then 1 end) as order_count_30d,
        count(case when orders.age_days < feature_times.age_days + 90 then 1 end) as order_count_90d,
        count(
            case when orders.age_days < feature_times.age_days + 90 and orders.channel_type = 'store' then 1 end
        ) as store_order_count_90d,
        sum(
            case when orders.age_days < feature_times.age_days + 90 and main_currency.currency_code is not null then orders.net_cents end
        ) as net_cents_90d,
        count(
            case when orders.age_days < feature_times.age_days + 90 and main_currency.currency_code is not null then 1 end
        ) as money_order_count_90d
    from orders
    inner join feature_times
        on orders.age_days >= feature_times.age_days
    left join main_currency
        on orders.currency_code = main_currency.currency_code
    group by orders.customer_id, feature_times.feature_at
),

category_days as (
    select
        order_lines.customer_id,
        products.category_name,
        {{ age_days('order_lines.ordered_at') }} as age_days,
        sum(order_lines.quantity_units) as units
    from {{ ref('order_lines') }} as order_lines
    left join {{ ref('products') }} as products
        on order_lines.sku = products.sku
    where order_lines.customer_id is not null and not order_lines.is_cancelled
    group by order_lines.customer_id, products.category_name, {{ age_days('order_lines.ordered_at') }}
),

category_units as (
    select
        category_days.customer_id,
        feature_times.feature_at,
        category_days.category_name,
        sum(category_days.units) as units
    from category_days
    inner join feature_times
        on category_days.age_days >= feature_times.age_days and category_days.age_days < feature_times.age_days + 90
    group by category_days.customer_id, feature_times.feature_at, category_days.category_name
),

category_measures as (
    select
        customer_id,
        feature_at,
        sum(units) over (partition by customer_id, feature_at) as unit_count_90d,
        category_name as favourite_category_name,
        row_number() over (
            partition by customer_id, feature_at
            order by case when category_name is null then 1 else 0 end, units desc, category_name
        ) as favourite_rank
    from category_units
),

returned as (
    select
        customer_id,
        {{ age_days('returned_at') }} as age_days
    from {{ ref('returns') }}
    where customer_id is not null and restock_type <> 'cancel'
),

return_measures as (
    select
        returned.customer_id,
        feature_times.feature_at,
        count(*) as return_count_90d
    from returned
    inner join feature_times
        on returned.age_days >= feature_times.age_days and returned.age_days < feature_times.age_days + 90
    group by returned.customer_id, feature_times.feature_at
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
        cast(order_measures.days_since_last_order as bigint) as days_since_last_order,
        cast(order_measures.store_order_count_90d as double) / nullif(order_measures.order_count_90d, 0) as store_order_share_90d,
        category_measures.favourite_category_name
    from customers
    inner join feature_times
        on customers.first_seen_at <= feature_times.feature_at
    left join order_measures
        on customers.customer_id = order_measures.customer_id and feature_times.feature_at = order_measures.feature_at
    left join category_measures
        on customers.customer_id = category_measures.customer_id
        and feature_times.feature_at = category_measures.feature_at
        and category_measures.favourite_rank = 1
    left join return_measures
        on customers.customer_id = return_measures.customer_id and feature_times.feature_at = return_measures.feature_at
)

select * from final
