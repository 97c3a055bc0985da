with feature_times as (
    {{ feature_times() }}
),

feature_days as (
    {{ feature_days(28) }}
),

products as (
    select sku from {{ ref('products') }}
),

sales as (
    select
        sku,
        order_id,
        quantity_units,
        {{ age_days('ordered_at') }} as age_days
    from {{ ref('order_lines') }}
    where not is_cancelled
),

sold as (
    select
        sales.sku,
        feature_days.feature_at,
        sum(case when feature_days.days_before < 7 then sales.quantity_units else 0 end) as sold_units_7d,
        sum(sales.quantity_units) as sold_units_28d,
        count(distinct sales.order_id) as order_count_28d
    from sales
    inner join feature_days
        on sales.age_days = feature_days.age_days
    group by sales.sku, feature_days.feature_at
),

return_days as (
    select
        sku,
        {{ age_days('returned_at') }} as age_days,
        sum(quantity_units) as units
    from {{ ref('returns') }}
    group by sku, {{ age_days('returned_at') }}
),

returned as (
    select
        return_days.sku,
        feature_days.feature_at,
        sum(return_days.units) as returned_units_28d
    from return_days
    inner join feature_days
        on return_days.age_days = feature_days.age_days
    group by return_days.sku, feature_days.feature_at
),

view_days as (
    select
        sku,
        {{ age_days('occurred_at') }} as age_days,
        count(*) as views
    from {{ ref('web_events') }}
    where event_name = 'Product Viewed' and sku is not null
    group by sku, {{ age_days('occurred_at') }}
),

viewed as (
    select
        view_days.sku,
        feature_days.feature_at,
        sum(view_days.views) as view_count_28d
    from view_days
    inner join feature_days
        on view_days.age_days = feature_days.age_days
    group by view_days.sku, feature_days.feature_at
),

final as (
    select
        products.sku,
        feature_times.feature_at,
        cast(coalesce(sold.sold_units_7d, 0) as bigint) as sold_units_7d,
        cast(coalesce(sold.sold_units_28d, 0) as bigint) as sold_units_28d,
        coalesce(sold.order_count_28d, 0) as order_count_28d,
        cast(returned.returned_units_28d as double) / nullif(sold.sold_units_28d, 0) as return_rate_28d,
        cast(coalesce(viewed.view_count_28d, 0) as bigint) as view_count_28d
    from products
    cross join feature_times
    left join sold
        on products.sku = sold.sku and feature_times.feature_at = sold.feature_at
    left join returned
        on products.sku = returned.sku and feature_times.feature_at = returned.feature_at
    left join viewed
        on products.sku = viewed.sku and feature_times.feature_at = viewed.feature_at
)

select * from final
