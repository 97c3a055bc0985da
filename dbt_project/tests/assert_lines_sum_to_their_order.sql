-- Warns up to one order in a thousand, blocks beyond. A line set aside by its contract leaves its order short, and one bad row
-- may not stop the good ones. Seen on 2026-11-22: none of 66,000 simulated orders. The data engineer looks into quarantine.
{{ config(fail_calc='coalesce(max(per_thousand), 0)', warn_if='> 0', error_if='> 1') }}

with lines as (
    select
        order_id,
        sum(net_cents) as net_cents
    from {{ ref('order_lines') }}
    group by order_id
),

compared as (
    select
        count(case when orders.net_cents <> coalesce(lines.net_cents, 0) then 1 end) as found,
        count(*) as order_count
    from {{ ref('orders') }} as orders
    left join lines
        on orders.order_id = lines.order_id
)

select
    'every order to be the sum of its lines' as expected,
    found,
    cast(ceil(1000.0 * found / order_count) as integer) as per_thousand
from compared
where found > 0
