with refunded as (
    select
        refunds.order_id,
        sum(refunds.gross_cents) as gross_cents
    from {{ ref('refunds') }} as refunds
    inner join {{ ref('orders') }} as orders
        on refunds.order_id = orders.order_id and refunds.currency_code = orders.currency_code
    group by refunds.order_id
),

returned as (
    select
        order_id,
        sum(quantity_units) as units
    from {{ ref('returns') }}
    group by order_id
)

select
    'every order to be refunded what its refunds sum to, and its returns to be as many as came back' as expected,
    count(*) as found
from {{ ref('orders') }} as orders
left join refunded
    on orders.order_id = refunded.order_id
left join returned
    on orders.order_id = returned.order_id
where
    orders.refunded_cents <> coalesce(refunded.gross_cents, 0)
    or orders.returned_units <> coalesce(returned.units, 0)
having count(*) > 0
