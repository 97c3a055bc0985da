with members as (
    select * from {{ source('identity', 'identity_members') }}
),

final as (
    select
        identity_type,
        identity_ref,
        hub_identity_type,
        hub_identity_ref,
        customer_id,
        link_type,
        match_probability,
        source_name,
        {{ utc('linked_at') }} as linked_at,
        is_test
    from members
)

select * from final
