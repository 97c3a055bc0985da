{#- Every published table that carries customer_id, besides customers itself; an agreement test compares this list with the models. -#}
{%- set tables = [
    'orders', 'order_lines', 'returns', 'refunds', 'loyalty_members', 'web_events', 'customer_identities', 'customer_fields',
    'customer_field_versions', 'customer_profiles', 'consent_standing', 'ftr_customer_engagement', 'ftr_customer_purchases', 'ftr_subject_standing',
] -%}
with names as (
    {%- for table in tables %}
    select distinct '{{ table }}' as table_name, customer_id from {{ ref(table) }} where customer_id is not null
    {{ 'union all' if not loop.last }}
    {%- endfor %}
)

select
    'every customer named in ' || names.table_name || ' to be in customers, and a test account only in customer_identities' as expected,
    count(*) as found
from names
left join {{ ref('customers') }} as customers
    on names.customer_id = customers.customer_id
where customers.customer_id is null or (customers.is_test and names.table_name <> 'customer_identities')
group by names.table_name
