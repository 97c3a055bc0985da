with said as (
    select * from {{ ref('int_customer_fields__said') }}
),

ranked as (
    {{ ranked_values('said') }}
),

runners_up as (
    select * from ranked
    where value_rank = 2
),

final as (
    select
        chosen.customer_id,
        chosen.field_name,
        case when not {{ is_clear_field('chosen.field_name') }} then chosen.field_value end as field_value,
        chosen.survivorship_rule,
        chosen.source_name,
        chosen.record_type,
        chosen.identity_type,
        chosen.identity_ref,
        chosen.said_at,
        cast(case when not {{ is_clear_field('chosen.field_name') }} then chosen.record_count end as bigint) as agreeing_count,
        cast(case when not {{ is_clear_field('chosen.field_name') }} then chosen.total_count - chosen.record_count end as bigint) as differing_count,
        case when not {{ is_clear_field('chosen.field_name') }} then runners_up.field_value end as runner_up_value,
        runners_up.source_name as runner_up_source_name,
        runners_up.identity_ref as runner_up_identity_ref
    from ranked as chosen
    left join runners_up
        on chosen.customer_id = runners_up.customer_id and chosen.field_name = runners_up.field_name
    where chosen.value_rank = 1
)

select * from final
