{# One scan for everything a table promises of its rows: one row per key, and rules by name, each a condition that no row
   may break (a condition that is unknown breaks nothing; contracts see to missing values). #}
{% test keeps_its_rules(model, key, rules={}) %}
with repeated as (
    select count(*) as row_count
    from (select {{ key | join(', ') }} from {{ model }} group by {{ key | join(', ') }} having count(*) > 1) as repeated_keys
),

{% if rules -%}
counted as (
    select
        {%- for name, condition in rules.items() %}
        count(case when not ({{ condition }}) then 1 end) as {{ name }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ model }}
),

{% endif -%}
found as (
    select 'one row per {{ key | join(", ") }}' as expected, row_count as found from repeated
    {%- for name in rules %}
    union all
    select '{{ name | replace("_", " ") }}', {{ name }} from counted
    {%- endfor %}
)

select expected, found from found where found > 0
{% endtest %}
