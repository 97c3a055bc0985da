with transactions as (
    select *
    from {{ ref('stg_pos__transactions') }}
    where transaction_type = 'retail' and not is_voided and not is_training
),

sale_lines as (
    select * from {{ ref('stg_pos__sale_lines') }}
),

locations as (
    select location_code, pos_store_code, timezone_name
    from {{ ref('stg_wms__locations') }}
    where pos_store_code is not null
),

-- The till's own offset where it wrote one, else the zone of its store; a till nobody knows is read as UTC.
timed as (
    select
        transactions.*,
        locations.location_code,
        case
            when transactions.utc_offset in ('Z', 'z') then transactions.ended_at_local
            when transactions.utc_offset is not null
                then {{ add_minutes('transactions.ended_at_local', offset_minutes('transactions.utc_offset') ~ ' * -1') }}
            when locations.timezone_name is not null
                then {{ wall_clock_to_utc('transactions.ended_at_local', 'locations.timezone_name') }}
            else transactions.ended_at_local
        end as occurred_at
    from transactions
    left join locations
        on transactions.store_code = locations.pos_store_code
),

final as (
    select
        timed.receipt_id || '/' || cast(sale_lines.line_number as {{ dbt.type_string() }}) as receipt_line_id,
        timed.receipt_id,
        timed.receipt_name,
        cast(sale_lines.line_number as integer) as line_number,
        sale_lines.line_type,
        timed.location_code,
        timed.business_date,
        cast(timed.occurred_at as timestamp) as occurred_at,
        timed.loyalty_card_ref,
        timed.currency_code,
        sale_lines.sku,
        sale_lines.quantity_units,
        coalesce(
            sale_lines.unit_price_cents,
            cast(round((sale_lines.net_cents + sale_lines.discount_cents) / sale_lines.quantity_units) as bigint)
        ) as unit_price_cents,
        sale_lines.discount_cents,
        sale_lines.net_cents,
        sale_lines.tax_cents,
        sale_lines.net_cents + sale_lines.tax_cents as gross_cents,
        sale_lines.original_receipt_id,
        sale_lines.original_order_name,
        sale_lines.is_restocked,
        sale_lines.received_at
    from timed
    inner join sale_lines
        on timed.receipt_id = sale_lines.receipt_id
)

select * from final
