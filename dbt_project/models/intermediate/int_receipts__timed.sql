with transactions as (
    select *
    from {{ ref('stg_pos__transactions') }}
    where transaction_type = 'retail' and not is_voided and not is_training
),

locations as (
    select location_code, pos_store_code, timezone_name
    from {{ ref('stg_wms__locations') }}
    where pos_store_code is not null
),

-- The till's own offset where it wrote one, else the zone of its store; a till nobody knows is read as UTC.
final as (
    select
        transactions.receipt_id,
        transactions.receipt_name,
        locations.location_code,
        transactions.business_date,
        cast(
            case
                when transactions.utc_offset in ('Z', 'z') then transactions.ended_at_local
                when transactions.utc_offset is not null
                    then {{ add_minutes('transactions.ended_at_local', offset_minutes('transactions.utc_offset') ~ ' * -1') }}
                when locations.timezone_name is not null
                    then {{ wall_clock_to_utc('transactions.ended_at_local', 'locations.timezone_name') }}
                else transactions.ended_at_local
            end as timestamp
        ) as occurred_at,
        transactions.loyalty_card_ref,
        transactions.payment_ref,
        transactions.currency_code,
        transactions.gross_cents,
        transactions.tendered_cents,
        transactions.order_name,
        transactions.received_at
    from transactions
    left join locations
        on transactions.store_code = locations.pos_store_code
)

select * from final
