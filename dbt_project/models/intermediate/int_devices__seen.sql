with events as (
    select * from {{ ref('stg_ecommerce__events') }}
    where account_ref is not null
),

final as (
    select
        device_ref,
        account_ref,
        min(recorded_at) as seen_at
    from events
    group by device_ref, account_ref
)

select * from final
