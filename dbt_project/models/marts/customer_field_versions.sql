with said as (
    select * from {{ ref('int_customer_fields__said') }}
    where field_name in ('{{ versioned_fields() | join("', '") }}')
),

-- Belief can change when something is heard, and at no other time.
moments as (
    select distinct
        customer_id,
        field_name,
        known_at as believed_from_at
    from said
),

heard as (
    select
        moments.believed_from_at,
        said.*
    from moments
    inner join said
        on moments.customer_id = said.customer_id
        and moments.field_name = said.field_name
        and moments.believed_from_at >= said.known_at
),

ranked as (
    {{ ranked_values('heard', ['customer_id', 'field_name', 'believed_from_at']) }}
),

beliefs as (
    select
        moments.customer_id,
        moments.field_name,
        moments.believed_from_at,
        ranked.field_value,
        ranked.survivorship_rule,
        ranked.source_name,
        ranked.record_type,
        ranked.identity_type,
        ranked.identity_ref,
        ranked.said_at,
        coalesce(ranked.field_value || ' ' || ranked.record_type || ' ' || ranked.identity_ref, '') as belief
    from moments
    left join ranked
        on moments.customer_id = ranked.customer_id
        and moments.field_name = ranked.field_name
        and moments.believed_from_at = ranked.believed_from_at
        and ranked.value_rank = 1
),

compared as (
    select
        *,
        lag(belief) over (partition by customer_id, field_name order by believed_from_at) as belief_before
    from beliefs
),

changes as (
    select
        *,
        lead(believed_from_at) over (partition by customer_id, field_name order by believed_from_at) as believed_to_at
    from compared
    where belief_before is null or belief <> belief_before
),

final as (
    select
        customer_id,
        field_name,
        believed_from_at,
        believed_to_at,
        case when not {{ is_clear_field('field_name') }} then field_value end as field_value,
        survivorship_rule,
        source_name,
        record_type,
        identity_type,
        identity_ref,
        said_at
    from changes
    where field_value is not null
)

select * from final
