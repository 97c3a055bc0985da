-- What `segments` asks about: the published tables that previews read, for $people customers, in the proportions of the
-- simulated retailer after 60 days. One statement per table, named by the comment before it; people stands for range($people).

-- customers
select
    customer_id,
    case when mailbox_share < 0.85 then email_ref end as email_ref,
    case when share(n, 'phone') < 0.5 then token('phone', n) end as phone_ref,
    account_ref,
    n % 200 = 199 as is_test,
    timestamp '2026-05-01 02:00:00' - to_days(cast(share(n, 'first') * 700 as int)) as first_seen_at,
    timestamp '2026-05-01 02:00:00' - to_days(cast(share(n, 'last') * 60 as int)) as last_seen_at,
    'S' || lpad(cast(hash(n, 'store') % 40 as varchar), 3, '0') as home_location_code,
    one_of(['CA', 'OR', 'WA', 'NY', 'TX'], hash(n, 'region')) as region_code,
    case when share(n, 'member') < 0.45 then one_of(['basic', 'silver', 'gold'], hash(n, 'tier')) end as tier_code,
    share(n, 'member') < 0.45 as has_card
from people;

-- customer_identities
select customer_id, account_ref as identity_ref, 'hub' as link_type, account_ref as group_ref from people
union all
select customer_id, token('card', n), 'deterministic', account_ref from people where share(n, 'member') < 0.45;

-- consent_standing
select
    customer_id,
    purpose_code,
    channel_code,
    purpose_code = 'service' or said = 'grant' as is_allowed,
    case
        when purpose_code = 'service' then 'contract'
        when said = 'grant' then 'granted'
        when said = 'refuse' then 'refused'
        when said = 'withdraw' then 'withdrawn'
        when said = 'old grant' then 'expired'
        else 'never_asked'
    end as reason_code,
    case when purpose_code <> 'service' and said = 'grant' then timestamp '2028-04-30 02:00:00' end as expires_at,
    $ledger_size::bigint as ledger_size
from people, (values
    ('analytics', '*'), ('marketing', 'email'), ('marketing', 'sms'), ('marketing', 'push'), ('marketing', 'post'),
    ('marketing', 'in_app'), ('marketing', 'onsite'), ('model_training', '*'), ('personalization', '*'),
    ('profile_unification', '*'), ('service', '*'), ('third_party_sharing', '*')
) as asked (purpose_code, channel_code);

-- ftr_customer_purchases
select
    customer_id,
    timestamp '2026-05-01 02:00:00' - to_days(7 * cast(week as int)) as feature_at,
    cast(8 * share(n, 'orders') * share(n, 'orders again') as bigint) as order_count_90d,
    cast(90000 * share(n, 'orders') * share(n, 'money') as bigint) as net_cents_90d,
    case when share(n, 'when') < 0.8 then cast(90 * share(n, 'when') as bigint) end as days_since_last_order,
    'Category ' || (hash(n, 'favourite') % 20) as favourite_category_name
from people, range(9) as weeks (week);

-- ftr_customer_engagement
select
    customer_id,
    timestamp '2026-05-01 02:00:00' - to_days(7 * cast(week as int)) as feature_at,
    cast(5 * share(n, 'views') as bigint) as view_count_30d,
    cast(3 * share(n, 'carts') as bigint) as cart_count_30d
from people, range(9) as weeks (week);

-- pred_churn
select customer_id, timestamp '2026-05-01 02:00:00' as feature_at, share(n, 'churn') as churn_probability from people where said = 'grant';

-- products
select
    'SKU-' || lpad(cast(number as varchar), 5, '0') as sku,
    'Category ' || (number % 20) as category_name,
    'Brand ' || (number % 50) as brand_name
from range(2000) as numbers (number);

-- orders
select
    'order' || (n * 2 + k) as order_id,
    id_of(hash(n, 'buyer') % $people) as customer_id,
    timestamp '2026-05-01 02:00:00' - to_minutes(cast(hash(n, k, 'ordered') % 129600 as int)) as ordered_at,
    hash(n, k, 'cancelled') % 50 = 0 as is_cancelled,
    one_of(['placed', 'shipped', 'delivered', 'sold'], hash(n, k, 'stage')) as order_stage,
    hash(n, k, 'late') % 20 = 0 as is_late
from people, range(2) as copies (k);

-- order_lines
select
    'order' || (n * 2 + k // 3) as order_id,
    id_of(hash(n, 'buyer') % $people) as customer_id,
    'SKU-' || lpad(cast(hash(n, k, 'sku') % 2000 as varchar), 5, '0') as sku,
    cast(1 + hash(n, k, 'units') % 3 as bigint) as quantity_units,
    timestamp '2026-05-01 02:00:00' - to_minutes(cast(hash(n, k // 3, 'ordered') % 129600 as int)) as ordered_at,
    hash(n, k // 3, 'cancelled') % 50 = 0 as is_cancelled
from people, range(5) as copies (k);

-- web_events
select
    'message' || (n * 5 + k) as message_id,
    case when hash(n, 'known') % 10 < 8 then id_of(hash(n, 'viewer') % $people) end as customer_id,
    one_of(
        ['Product Viewed', 'Product Added', 'Products Searched', 'Checkout Started', 'Order Completed'], hash(n, k, 'event')
    ) as event_name,
    'SKU-' || lpad(cast(hash(n, k, 'sku') % 2000 as varchar), 5, '0') as sku,
    timestamp '2026-05-01 02:00:00' - to_minutes(cast(hash(n, k, 'viewed') % 86400 as int)) as occurred_at
from people, range(5) as copies (k);
