with links as (
    select * from {{ source('identity', 'identity_links') }}
),

final as (
    select
        first_ref,
        second_ref,
        cast(round(probability * 1000000) as bigint) as probability_millionths,
        decision,
        decision_id,
        {{ utc('decided_at') }} as decided_at,
        actor_id,
        reason
    from links
)

select * from final
