with customers as (
    select * from {{ ref('customers') }}
    where not is_test
),

-- How sure the least sure of the joined groups is; null where all is proved.
certainty as (
    select customer_id, min(match_probability) as match_probability
    from {{ ref('int_identities__resolved') }}
    where link_type = 'probabilistic'
    group by customer_id
),

languages as (
    select customer_id, field_value as language_code
    from {{ ref('customer_fields') }}
    where field_name = 'language'
),

standing as (
    select
        customer_id,
        trim(
            {%- for channel in ['email', 'sms', 'push', 'post', 'in_app', 'onsite'] %}
            {{ '|| ' if not loop.first }}case when is_marketing_{{ channel }}_allowed then '{{ channel }} ' else '' end
            {%- endfor %}
        ) as allowed_channels
    from {{ ref('ftr_subject_standing') }}
),

purchases as (
    select * from {{ ref('ftr_customer_purchases') }}
    where feature_at = {{ as_of_at() }}
),

engagement as (
    select * from {{ ref('ftr_customer_engagement') }}
    where feature_at = {{ as_of_at() }}
),

products as (
    select sku, brand_name, category_name from {{ ref('products') }}
),

brand_units as (
    select
        lines.customer_id,
        products.brand_name,
        row_number() over (partition by lines.customer_id order by sum(lines.quantity_units) desc, products.brand_name) as brand_rank
    from {{ ref('order_lines') }} as lines
    inner join products
        on lines.sku = products.sku
    where lines.customer_id is not null and not lines.is_cancelled and products.brand_name is not null
        and {{ age_days('lines.ordered_at') }} between 0 and 89
    group by lines.customer_id, products.brand_name
),

orders as (
    select * from {{ ref('orders') }}
    where customer_id is not null and not is_cancelled
),

main_currency as (
    select currency_code
    from orders
    group by currency_code
    order by count(*) desc, currency_code
    limit 1
),

order_totals as (
    select
        orders.customer_id,
        count(*) as order_count,
        sum(case when main_currency.currency_code is not null then orders.net_cents end) as net_cents,
        count(case when orders.channel_type = 'store' then 1 end) as store_order_count,
        count(case when orders.channel_type = 'web' then 1 end) as web_order_count,
        count(case when orders.channel_type = 'app' then 1 end) as app_order_count,
        count(case when orders.channel_type = 'marketplace' then 1 end) as marketplace_order_count
    from orders
    left join main_currency
        on orders.currency_code = main_currency.currency_code
    group by orders.customer_id
),

home_stock as (
    select
        availability.location_code,
        products.category_name,
        count(*) as available_sku_count
    from {{ ref('availability') }} as availability
    inner join products
        on availability.sku = products.sku
    where availability.available_units > 0
    group by availability.location_code, products.category_name
),

category_sizes as (
    select category_name, count(*) as sku_count
    from products
    group by category_name
),

events as (
    select * from {{ ref('web_events') }}
    where customer_id is not null
),

last_events as (
    select
        customer_id,
        device_type,
        os_name,
        row_number() over (partition by customer_id order by occurred_at desc, message_id) as newest_rank
    from events
    where device_type is not null or os_name is not null
),

main_systems as (
    select
        customer_id,
        os_name,
        row_number() over (partition by customer_id order by count(*) desc, os_name) as system_rank
    from events
    where os_name is not null
    group by customer_id, os_name
),

wishes as (
    select customer_id, count(*) as wish_count_30d
    from events
    where event_name = 'Product Added to Wishlist' and {{ age_days('occurred_at') }} between 0 and 29
    group by customer_id
),

sightings as (
    select customer_id, source_name, linked_at as seen_at from {{ ref('customer_identities') }}
    union all
    select customer_id, source_name, ordered_at from orders
    union all
    select customer_id, source_name, returned_at from {{ ref('returns') }} where customer_id is not null
    union all
    select customer_id, 'ecommerce', occurred_at from events
),

sources as (
    select
        customer_id,
        source_name,
        row_number() over (partition by customer_id order by min(seen_at), source_name) as first_rank,
        row_number() over (partition by customer_id order by max(seen_at) desc, source_name) as last_rank
    from sightings
    group by customer_id, source_name
),

final as (
    select
        customers.customer_id,
        customers.hub_identity_type,
        customers.identity_count,
        customers.group_count,
        customers.account_count,
        customers.card_count,
        certainty.match_probability,
        languages.language_code,
        standing.allowed_channels,
        brand_units.brand_name as favourite_brand_name,
        purchases.favourite_category_name,
        purchases.days_since_last_order,
        coalesce(purchases.order_count_30d, 0) as order_count_30d,
        coalesce(purchases.order_count_90d, 0) as order_count_90d,
        cast(coalesce(order_totals.order_count, 0) as bigint) as order_count,
        coalesce(purchases.net_cents_90d, 0) as net_cents_90d,
        cast(coalesce(order_totals.net_cents, 0) as bigint) as net_cents,
        purchases.average_order_cents_90d,
        cast(purchases.unit_count_90d as double) / nullif(purchases.order_count_90d, 0) as units_per_order_90d,
        coalesce(purchases.return_count_90d, 0) as return_count_90d,
        engagement.days_since_last_visit,
        coalesce(engagement.view_count_30d, 0) as view_count_30d,
        coalesce(engagement.search_count_30d, 0) as search_count_30d,
        coalesce(engagement.cart_count_30d, 0) as cart_count_30d,
        cast(coalesce(wishes.wish_count_30d, 0) as bigint) as wish_count_30d,
        customers.home_location_code,
        category_sizes.sku_count as favourite_sku_count,
        cast(case when customers.home_location_code is not null and purchases.favourite_category_name is not null
            then coalesce(home_stock.available_sku_count, 0) end as bigint) as favourite_sku_count_at_home,
        last_events.device_type as last_device_type,
        last_events.os_name as last_os_name,
        engagement.main_device_type,
        main_systems.os_name as main_os_name,
        cast(order_totals.store_order_count as double) / order_totals.order_count as store_order_share,
        cast(order_totals.web_order_count as double) / order_totals.order_count as web_order_share,
        cast(order_totals.app_order_count as double) / order_totals.order_count as app_order_share,
        cast(order_totals.marketplace_order_count as double) / order_totals.order_count as marketplace_order_share,
        first_sources.source_name as first_source_name,
        last_sources.source_name as last_source_name,
        customers.first_seen_at,
        customers.last_seen_at,
        {{ as_of_at() }} as as_of_at
    from customers
    left join certainty
        on customers.customer_id = certainty.customer_id
    left join languages
        on customers.customer_id = languages.customer_id
    left join standing
        on customers.customer_id = standing.customer_id
    left join purchases
        on customers.customer_id = purchases.customer_id
    left join engagement
        on customers.customer_id = engagement.customer_id
    left join brand_units
        on customers.customer_id = brand_units.customer_id and brand_units.brand_rank = 1
    left join order_totals
        on customers.customer_id = order_totals.customer_id
    left join category_sizes
        on purchases.favourite_category_name = category_sizes.category_name
    left join home_stock
        on customers.home_location_code = home_stock.location_code and purchases.favourite_category_name = home_stock.category_name
    left join last_events
        on customers.customer_id = last_events.customer_id and last_events.newest_rank = 1
    left join main_systems
        on customers.customer_id = main_systems.customer_id and main_systems.system_rank = 1
    left join wishes
        on customers.customer_id = wishes.customer_id
    left join sources as first_sources
        on customers.customer_id = first_sources.customer_id and first_sources.first_rank = 1
    left join sources as last_sources
        on customers.customer_id = last_sources.customer_id and last_sources.last_rank = 1
)

select * from final
