with named as (
    select customer_id, 'orders' as table_name from {{ ref('orders') }}
    union all
    select customer_id, 'order_lines' from {{ ref('order_lines') }}
    union all
    select customer_id, 'returns' from {{ ref('returns') }}
    union all
    select customer_id, 'refunds' from {{ ref('refunds') }}
    union all
    select customer_id, 'loyalty_members' from {{ ref('loyalty_members') }}
    union all
    select customer_id, 'web_events' from {{ ref('web_events') }}
    union all
    select customer_id, 'customer_identities' from {{ ref('customer_identities') }}
),

names as (
    select distinct table_name, customer_id
    from named
    where customer_id is not null
)

select
    'every customer named in ' || names.table_name || ' to be in customers, and a test account only in customer_identities' as expected,
    count(*) as found
from names
left join {{ ref('customers') }} as customers
    on names.customer_id = customers.customer_id
where customers.customer_id is null or (customers.is_test and names.table_name <> 'customer_identities')
group by names.table_name
