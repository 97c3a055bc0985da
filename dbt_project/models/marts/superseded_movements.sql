with moved as (
    select * from {{ ref('int_movements__booked') }}
    where movement_type <> 'opening'
),

movements as (
    select * from moved
    union all
    select * from {{ ref('int_stock__opened') }}
),

final as (
    select
        movement_id,
        location_code,
        sku,
        movement_type,
        cast(units as bigint) as units,
        occurred_at,
        told_at,
        received_at,
        known_at,
        superseded_at,
        reason_code,
        source_name,
        source_ref
    from movements
    where superseded_at is not null
)

select * from final
