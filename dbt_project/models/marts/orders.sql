with placed as (
    select * from {{ ref('int_orders__placed') }}
),

followed as (
    select * from {{ ref('int_orders__followed') }}
),

refunded as (
    select
        order_id,
        currency_code,
        sum(gross_cents) as refunded_cents
    from {{ ref('refunds') }}
    where order_id is not null
    group by order_id, currency_code
),

returned as (
    select
        order_id,
        sum(quantity_units) as returned_units
    from {{ ref('returns') }}
    where order_id is not null
    group by order_id
),

exceptions as (
    select
        order_id,
        count(*) as exception_count
    from {{ ref('order_exceptions') }}
    where order_id is not null
    group by order_id
),

final as (
    select
        placed.order_id,
        placed.order_name,
        placed.marketplace_order_id,
        placed.source_name,
        placed.channel_type,
        placed.fulfillment_method,
        placed.customer_id,
        placed.location_code,
        placed.ordered_at,
        placed.order_date,
        placed.currency_code,
        placed.net_cents,
        placed.discount_cents,
        placed.shipping_cents,
        placed.tax_cents,
        placed.gross_cents,
        followed.order_status,
        followed.is_cancelled,
        followed.order_stage,
        followed.promised_at,
        followed.promise_type,
        followed.fulfilled_at,
        followed.is_late,
        followed.late_minutes,
        cast(coalesce(refunded.refunded_cents, 0) as bigint) as refunded_cents,
        cast(coalesce(returned.returned_units, 0) as bigint) as returned_units,
        cast(coalesce(exceptions.exception_count, 0) as bigint) as exception_count,
        followed.last_event_at,
        followed.known_at
    from placed
    inner join followed
        on placed.order_id = followed.order_id
    left join refunded
        on placed.order_id = refunded.order_id and placed.currency_code = refunded.currency_code
    left join returned
        on placed.order_id = returned.order_id
    left join exceptions
        on placed.order_id = exceptions.order_id
)

select * from final
