with transfers as (
    select
        *,
        {{ add_minutes('sent_at', var('transfer_minutes')) }} as expected_at,
        {{ add_minutes('sent_at', var('transfer_is_lost_after_minutes')) }} as lost_at
    from {{ ref('int_transfers__followed') }}
    where sent_units > arrived_units
),

-- What systems tell of supply by themselves; a transfer that its own documents follow is told by them.
told as (
    select told.*
    from {{ ref('stg_stock__supplies') }} as told
    left join (select distinct transfer_ref from {{ ref('int_transfers__followed') }}) as documents
        on told.supply_id = documents.transfer_ref
    where documents.transfer_ref is null and told.open_units > 0
),

final as (
    select
        'transfer/' || transfer_ref || '/' || to_location_code || '/' || sku as stock_supply_id,
        'transfer' as supply_type,
        to_location_code as location_code,
        sku,
        sent_units - arrived_units as units,
        from_location_code,
        sent_at,
        expected_at,
        expected_at <= {{ as_of_at() }} as is_overdue,
        transfer_ref as source_ref
    from transfers
    where lost_at > {{ as_of_at() }}
    union all
    select
        supply_type || '/' || supply_id || '/' || location_code || '/' || sku,
        supply_type,
        location_code,
        sku,
        open_units,
        null,
        occurred_at,
        expected_at,
        expected_at <= {{ as_of_at() }},
        supply_id
    from told
)

select * from final
