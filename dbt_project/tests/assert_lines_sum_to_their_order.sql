with lines as (
    select
        order_id,
        sum(net_cents) as net_cents
    from {{ ref('order_lines') }}
    group by order_id
)

select
    'every order to be the sum of its lines' as expected,
    count(*) as found
from {{ ref('orders') }} as orders
left join lines
    on orders.order_id = lines.order_id
where orders.net_cents <> coalesce(lines.net_cents, 0)
having count(*) > 0
