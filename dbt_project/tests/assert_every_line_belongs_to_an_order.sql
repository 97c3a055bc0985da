with named as (
    select order_id, 'order_lines' as table_name from {{ ref('order_lines') }}
    union all
    select order_id, 'order_events' from {{ ref('order_events') }}
    union all
    select order_id, 'order_exceptions' from {{ ref('order_exceptions') }} where order_id is not null
    union all
    select order_id, 'refunds' from {{ ref('refunds') }} where order_id is not null
    union all
    select order_id, 'returns' from {{ ref('returns') }} where order_id is not null
),

named_lines as (
    select order_line_id, 'order_events' as table_name from {{ ref('order_events') }} where order_line_id is not null
    union all
    select order_line_id, 'refunds' from {{ ref('refunds') }} where order_line_id is not null
    union all
    select order_line_id, 'returns' from {{ ref('returns') }} where order_line_id is not null
),

missing as (
    select 'order' as what, named.table_name
    from named
    left join {{ ref('orders') }} as orders
        on named.order_id = orders.order_id
    where orders.order_id is null
    union all
    select 'line', named_lines.table_name
    from named_lines
    left join {{ ref('order_lines') }} as order_lines
        on named_lines.order_line_id = order_lines.order_line_id
    where order_lines.order_line_id is null
)

select
    'every ' || what || ' named in ' || table_name || ' to be known' as expected,
    count(*) as found
from missing
group by what, table_name
