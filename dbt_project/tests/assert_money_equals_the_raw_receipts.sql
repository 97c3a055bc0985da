-- From the raw rows by another road: by day and currency, what was sold less what was brought back, to the cent.
with raw_lines as (
    {{ kept(
        source('pos', 'raw_pos__sale_lines'),
        ['store_code', 'workstation_code', 'sequence_number', 'business_date', 'line_number']
    ) }}
),

raw_receipts as (
    {{ kept(source('pos', 'raw_pos__transactions'), ['store_code', 'workstation_code', 'sequence_number', 'business_date']) }}
),

said as (
    select
        raw_receipts.business_date as trading_date,
        raw_receipts.currency_code,
        sum(
            case raw_lines.line_type when 'sale' then 1 else -1 end * (raw_lines.net_cents + raw_lines.tax_cents)
        ) as gross_cents
    from raw_lines
    inner join raw_receipts
        on raw_lines.store_code = raw_receipts.store_code
        and raw_lines.workstation_code = raw_receipts.workstation_code
        and raw_lines.sequence_number = raw_receipts.sequence_number
        and raw_lines.business_date = raw_receipts.business_date
    left join {{ ref('customer_identities') }} as identities
        on identities.identity_type = 'card'
        and identities.link_type <> 'contact'
        and raw_receipts.loyalty_card_ref = identities.identity_ref
    where
        raw_receipts.transaction_type = 'retail'
        and not raw_receipts.is_voided
        and not raw_receipts.is_training
        and not raw_lines.is_voided
        and not coalesce(identities.is_test, false)
    group by raw_receipts.business_date, raw_receipts.currency_code
),

believed_by_line as (
    select order_date as trading_date, currency_code, gross_cents
    from {{ ref('orders') }}
    where source_name = 'pos'
    union all
    select receipt_lines.business_date, returns.currency_code, -returns.gross_cents
    from {{ ref('returns') }} as returns
    inner join {{ ref('int_receipt_lines__timed') }} as receipt_lines
        on returns.return_line_id = receipt_lines.receipt_line_id
),

believed as (
    select
        trading_date,
        currency_code,
        sum(gross_cents) as gross_cents
    from believed_by_line
    group by trading_date, currency_code
)

select
    'every trading day to add up to what the tills said, to the cent' as expected,
    count(*) as found
from said
full outer join believed
    on said.trading_date = believed.trading_date and said.currency_code = believed.currency_code
where coalesce(said.gross_cents, 0) <> coalesce(believed.gross_cents, 0)
having count(*) > 0
