-- From the raw rows by another road, to the cent: what was sold (orders and lines) and what was given back (by tills, by the shop), by
-- channel, day and currency. Shipping and tax stand apart. Tests are left out by what is proved to be a test account.
{%- set money = ['net_cents', 'tax_cents', 'shipping_cents'] %}

with receipts as (
    {{ kept(source('pos', 'raw_pos__transactions'), ['store_code', 'workstation_code', 'sequence_number', 'business_date']) }}
),

receipt_lines as (
    {{ kept(
        source('pos', 'raw_pos__sale_lines'),
        ['store_code', 'workstation_code', 'sequence_number', 'business_date', 'line_number']
    ) }}
),

versions as (
    {{ kept(source('ecommerce', 'raw_ecommerce__orders'), ['order_id', 'updated_at']) }}
),

shop_lines as (
    {{ kept(source('ecommerce', 'raw_ecommerce__order_lines'), ['order_id', 'line_id', 'updated_at']) }}
),

shop_refunds as (
    {{ kept(source('ecommerce', 'raw_ecommerce__refunds'), ['refund_id']) }}
),

shop_refund_lines as (
    {{ kept(source('ecommerce', 'raw_ecommerce__refund_lines'), ['refund_id', 'refund_line_id']) }}
),

test_identities as (
    select distinct identity_type, identity_ref
    from {{ ref('customer_identities') }}
    where is_test and link_type <> 'contact'
),

till_lines as (
    select
        case receipt_lines.line_type when 'sale' then 'sold' else 'given back at tills' end as what,
        receipts.business_date as money_date,
        receipts.currency_code,
        receipt_lines.net_cents,
        receipt_lines.tax_cents
    from receipt_lines
    inner join receipts
        on receipt_lines.store_code = receipts.store_code
        and receipt_lines.workstation_code = receipts.workstation_code
        and receipt_lines.sequence_number = receipts.sequence_number
        and receipt_lines.business_date = receipts.business_date
    left join test_identities
        on test_identities.identity_type = 'card'
        and receipts.loyalty_card_ref = test_identities.identity_ref
    where
        receipts.transaction_type = 'retail'
        and not receipts.is_voided
        and not receipts.is_training
        and not receipt_lines.is_voided
        and test_identities.identity_ref is null
),

newest as (
    select order_id, max(updated_at) as updated_at from versions group by order_id
),

shop_orders as (
    select
        versions.*,
        case versions.source_name when 'web' then 'web' when 'app' then 'app' when 'pos' then 'store' else 'marketplace' end as channel_type,
        cast({{ utc('versions.created_at') }} as date) as money_date,
        versions.is_test or test_identities.identity_ref is not null as is_of_tests
    from versions
    inner join newest
        on versions.order_id = newest.order_id and versions.updated_at = newest.updated_at
    left join test_identities
        on test_identities.identity_type = case when versions.account_ref is null then 'email' else 'account' end
        and coalesce(versions.account_ref, versions.email_ref) = test_identities.identity_ref
),

given_by_shop as (
    select order_id, account_ref, created_at, currency_code, net_cents, tax_cents, 0 as shipping_cents
    from shop_refund_lines
    union all
    select order_id, null, created_at, currency_code, adjustment_cents, shipping_tax_cents + adjustment_tax_cents, shipping_cents
    from shop_refunds
),

said_by_row as (
    select 'orders' as what, 'store' as channel_type, money_date, currency_code, net_cents, tax_cents, 0 as shipping_cents
    from till_lines where what = 'sold'
    union all
    select 'lines', 'store', money_date, currency_code, net_cents, tax_cents, 0 from till_lines where what = 'sold'
    union all
    select what, 'store', money_date, currency_code, net_cents, tax_cents, 0 from till_lines where what <> 'sold'
    union all
    select 'orders', channel_type, money_date, currency_code, net_cents, tax_cents, shipping_cents
    from shop_orders where not is_of_tests
    union all
    select
        'lines', shop_orders.channel_type, shop_orders.money_date, shop_orders.currency_code, shop_lines.net_cents, shop_lines.tax_cents, 0
    from shop_lines
    inner join shop_orders
        on shop_lines.order_id = shop_orders.order_id and shop_lines.updated_at = shop_orders.updated_at
    where not shop_orders.is_of_tests
    union all
    select
        'given back by the shop', coalesce(shop_orders.channel_type, 'unknown'), cast({{ utc('given_by_shop.created_at') }} as date),
        given_by_shop.currency_code, given_by_shop.net_cents, given_by_shop.tax_cents, given_by_shop.shipping_cents
    from given_by_shop
    left join shop_orders
        on given_by_shop.order_id = shop_orders.order_id
    left join test_identities
        on test_identities.identity_type = 'account'
        and given_by_shop.account_ref = test_identities.identity_ref
    where not coalesce(shop_orders.is_of_tests, test_identities.identity_ref is not null)
),

believed_by_row as (
    select 'orders' as what, channel_type, order_date as money_date, currency_code, net_cents, tax_cents, shipping_cents
    from {{ ref('orders') }}
    union all
    select 'lines', orders.channel_type, orders.order_date, lines.currency_code, lines.net_cents, lines.tax_cents, 0
    from {{ ref('order_lines') }} as lines
    inner join {{ ref('orders') }} as orders
        on lines.order_id = orders.order_id
    union all
    select 'given back at tills', 'store', refund_date, currency_code, net_cents, tax_cents, 0
    from {{ ref('refunds') }} where source_name = 'pos'
    union all
    select
        'given back by the shop', coalesce(orders.channel_type, 'unknown'), refunds.refund_date, refunds.currency_code,
        case when refunds.refund_type = 'shipping' then 0 else refunds.net_cents end, refunds.tax_cents,
        case when refunds.refund_type = 'shipping' then refunds.net_cents else 0 end
    from {{ ref('refunds') }} as refunds
    left join {{ ref('orders') }} as orders
        on refunds.order_id = orders.order_id
    where refunds.source_name = 'ecommerce'
    union all
    select
        'given back by the shop', coalesce(orders.channel_type, 'unknown'), cast(refunds.also_told_at as date), refunds.currency_code,
        refunds.also_told_cents - refunds.also_told_tax_cents, refunds.also_told_tax_cents, 0
    from {{ ref('refunds') }} as refunds
    left join {{ ref('orders') }} as orders
        on refunds.order_id = orders.order_id
    where refunds.also_told_ref is not null
),

compared as (
    select
        what,
        channel_type,
        money_date,
        currency_code
        {%- for name in money %},
        sum(said_{{ name }}) - sum(believed_{{ name }}) as {{ name }}
        {%- endfor %}
    from (
        select what, channel_type, money_date, currency_code
            {%- for name in money %}, {{ name }} as said_{{ name }}, 0 as believed_{{ name }}{% endfor %}
        from said_by_row
        union all
        select what, channel_type, money_date, currency_code
            {%- for name in money %}, 0, {{ name }}{% endfor %}
        from believed_by_row
    ) as both_sides
    group by what, channel_type, money_date, currency_code
)

select
    what || ' to be what tills and shop said, to the cent, by channel, day and currency (first: ' || min(
        channel_type || ', ' || cast(money_date as {{ dbt.type_string() }}) || ', ' || currency_code || ', '
        || cast(abs(net_cents) + abs(tax_cents) + abs(shipping_cents) as {{ dbt.type_string() }}) || ' cents off'
    ) || ')' as expected,
    count(*) as found
from compared
where net_cents <> 0 or tax_cents <> 0 or shipping_cents <> 0
group by what
