with orders as (
    select order_id, customer_id from {{ ref('int_orders__placed') }}
),

identities as (
    select * from {{ ref('int_identities__resolved') }}
),

locations as (
    select location_code, location_ref from {{ ref('int_locations__named') }}
),

-- Every order the shop ever named, those of test accounts too: what they gave back is no return.
web_orders as (
    select
        shop_orders.order_id,
        shop_orders.order_name,
        orders.order_id is null as is_test
    from {{ ref('stg_ecommerce__orders') }} as shop_orders
    left join orders
        on shop_orders.order_id = orders.order_id
),

lines_by_sku as (
    select order_id, sku, order_line_id
    from {{ ref('int_order_lines__placed') }}
    where is_only_of_its_sku
),

-- Brought to a till: the original is a receipt or, for a web order, its name.
till_returns as (
    select
        receipt_lines.*,
        coalesce(web_orders.order_id, receipt_lines.original_receipt_id) as original_order_id,
        row_number() over (
            partition by web_orders.order_id, receipt_lines.sku, receipt_lines.gross_cents
            order by receipt_lines.occurred_at, receipt_lines.receipt_line_id
        ) as amount_rank
    from {{ ref('int_receipt_lines__timed') }} as receipt_lines
    left join web_orders
        on receipt_lines.original_order_name = web_orders.order_name
    where receipt_lines.line_type = 'return'
),

web_refunds as (
    select
        *,
        net_cents + tax_cents as gross_cents
    from {{ ref('stg_ecommerce__refund_lines') }}
),

-- A web order taken back at a till is told twice, by till and shop; the till saw the goods, so its line is the one kept. What the shop
-- gave back without goods is the same refund if the amount is the same, else if it is next in time.
mirrors as (
    select
        *,
        row_number() over (partition by order_id, sku, gross_cents order by created_at, refund_line_id) as amount_rank
    from web_refunds
    where restock_type = 'no_restock' and location_id is null
),

same_amount as (
    select
        till_returns.receipt_line_id,
        mirrors.refund_line_id
    from mirrors
    inner join till_returns
        on mirrors.order_id = till_returns.original_order_id
        and mirrors.sku = till_returns.sku
        and mirrors.gross_cents = till_returns.gross_cents
        and mirrors.amount_rank = till_returns.amount_rank
    where till_returns.original_order_name is not null
),

other_amount as (
    select
        till_rest.receipt_line_id,
        mirror_rest.refund_line_id
    from (
        select
            till_returns.*,
            row_number() over (
                partition by till_returns.original_order_id, till_returns.sku
                order by till_returns.occurred_at, till_returns.receipt_line_id
            ) as time_rank
        from till_returns
        left join same_amount
            on till_returns.receipt_line_id = same_amount.receipt_line_id
        where same_amount.receipt_line_id is null and till_returns.original_order_name is not null
    ) as till_rest
    inner join (
        select
            mirrors.*,
            row_number() over (
                partition by mirrors.order_id, mirrors.sku order by mirrors.created_at, mirrors.refund_line_id
            ) as time_rank
        from mirrors
        left join same_amount
            on mirrors.refund_line_id = same_amount.refund_line_id
        where same_amount.refund_line_id is null
    ) as mirror_rest
        on till_rest.original_order_id = mirror_rest.order_id
        and till_rest.sku = mirror_rest.sku
        and till_rest.time_rank = mirror_rest.time_rank
),

told_twice as (
    select
        pairs.receipt_line_id,
        web_refunds.refund_line_id,
        web_refunds.created_at,
        web_refunds.gross_cents,
        web_refunds.tax_cents
    from (
        select * from same_amount
        union all
        select * from other_amount
    ) as pairs
    inner join web_refunds
        on pairs.refund_line_id = web_refunds.refund_line_id
),

given_back as (
    select
        till_returns.receipt_line_id as refund_line_id,
        till_returns.original_order_id,
        cast(null as {{ dbt.type_string() }}) as original_line_id,
        'pos' as source_name,
        identities.customer_id,
        coalesce(identities.is_test, false) as is_test,
        till_returns.sku,
        till_returns.quantity_units,
        till_returns.net_cents,
        till_returns.tax_cents,
        till_returns.currency_code,
        till_returns.occurred_at as refunded_at,
        till_returns.business_date as refund_date,
        'returned' as refund_type,
        case
            when till_returns.is_restocked then 'restocked'
            when not till_returns.is_restocked then 'damaged'
            else 'not_said'
        end as restock_type,
        till_returns.location_code,
        till_returns.original_receipt_id is not null or till_returns.original_order_name is not null as has_reference,
        told_twice.refund_line_id as also_told_ref,
        told_twice.created_at as also_told_at,
        told_twice.gross_cents as also_told_cents,
        told_twice.tax_cents as also_told_tax_cents,
        till_returns.received_at
    from till_returns
    left join told_twice
        on till_returns.receipt_line_id = told_twice.receipt_line_id
    left join identities
        on identities.identity_type = 'card'
        and till_returns.loyalty_card_ref = identities.identity_ref
    union all
    select
        web_refunds.refund_line_id,
        web_refunds.order_id,
        web_refunds.order_line_id,
        'ecommerce',
        identities.customer_id,
        coalesce(web_orders.is_test, identities.is_test, false),
        web_refunds.sku,
        web_refunds.quantity_units,
        web_refunds.net_cents,
        web_refunds.tax_cents,
        web_refunds.currency_code,
        web_refunds.created_at,
        cast(web_refunds.created_at as date),
        case web_refunds.restock_type
            when 'cancel' then 'cancelled'
            when 'no_restock' then 'kept'
            else 'returned'
        end,
        case when locations.location_code is null then 'not_said' else 'restocked' end,
        locations.location_code,
        web_refunds.order_id is not null,
        null,
        null,
        null,
        null,
        web_refunds.received_at
    from web_refunds
    left join told_twice
        on web_refunds.refund_line_id = told_twice.refund_line_id
    left join web_orders
        on web_refunds.order_id = web_orders.order_id
    left join identities
        on identities.identity_type = 'account'
        and web_refunds.account_ref = identities.identity_ref
    left join locations
        on web_refunds.location_id = locations.location_ref
    where told_twice.refund_line_id is null
),

final as (
    select
        given_back.refund_line_id,
        orders.order_id,
        coalesce(lines_by_id.order_line_id, lines_by_sku.order_line_id) as order_line_id,
        given_back.source_name,
        coalesce(given_back.customer_id, orders.customer_id) as customer_id,
        given_back.refund_type,
        given_back.restock_type,
        given_back.sku,
        given_back.quantity_units,
        given_back.net_cents,
        given_back.tax_cents,
        given_back.currency_code,
        given_back.refunded_at,
        given_back.refund_date,
        given_back.location_code,
        given_back.has_reference,
        given_back.also_told_ref,
        given_back.also_told_at,
        given_back.also_told_cents,
        given_back.also_told_tax_cents,
        given_back.received_at
    from given_back
    left join orders
        on given_back.original_order_id = orders.order_id
    left join {{ ref('int_order_lines__placed') }} as lines_by_id
        on given_back.original_line_id = lines_by_id.order_line_id
    left join lines_by_sku
        on orders.order_id = lines_by_sku.order_id and given_back.sku = lines_by_sku.sku
    where not given_back.is_test
)

select * from final
