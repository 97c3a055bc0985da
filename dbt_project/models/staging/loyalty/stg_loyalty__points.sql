with points as (
    {{ kept(source('loyalty', 'raw_loyalty__points'), ['entry_id']) }}
),

final as (
    select
        entry_id,
        member_id,
        {{ utc('occurred_at') }} as occurred_at,
        entry_type,
        points,
        order_ref
    from points
)

select * from final
