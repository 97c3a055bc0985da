with lines as (
    select order_id, 'order_lines' as table_name from {{ ref('order_lines') }}
    union all
    select order_id, 'returns' from {{ ref('returns') }} where order_id is not null
)

select
    'every order named in ' || lines.table_name || ' to be in orders' as expected,
    count(*) as found
from lines
left join {{ ref('orders') }} as orders
    on lines.order_id = orders.order_id
where orders.order_id is null
group by lines.table_name
