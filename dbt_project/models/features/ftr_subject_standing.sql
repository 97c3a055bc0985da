{# Every purpose and channel that the policy asks; an agreement test compares this list with the policy file. #}
{%- set asked = [
    ('service', '*'), ('personalization', '*'), ('analytics', '*'), ('model_training', '*'), ('profile_unification', '*'),
    ('third_party_sharing', '*'), ('marketing', 'email'), ('marketing', 'sms'), ('marketing', 'push'), ('marketing', 'post'),
    ('marketing', 'in_app'), ('marketing', 'onsite'),
] -%}
with standing as (
    select * from {{ ref('consent_standing') }}
),

final as (
    select
        customer_id,
        {{ as_of_at() }} as feature_at,
        max(ledger_size) as ledger_size,
        {%- for purpose, channel in asked %}
        {%- set name = purpose if channel == '*' else purpose ~ '_' ~ channel %}
        coalesce(bool_or(case when purpose_code = '{{ purpose }}' and channel_code = '{{ channel }}' then is_allowed end), false) as is_{{ name }}_allowed,
        coalesce(max(case when purpose_code = '{{ purpose }}' and channel_code = '{{ channel }}' then reason_code end), 'unknown_purpose') as reason_{{ name }}
        {{- ',' if not loop.last }}
        {%- endfor %}
    from standing
    group by customer_id
)

select * from final
