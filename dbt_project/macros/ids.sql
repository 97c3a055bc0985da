{% macro receipt_name(prefix='') -%}
    {{ prefix }}store_code || '/' || {{ prefix }}workstation_code || '/' || cast({{ prefix }}sequence_number as {{ dbt.type_string() }})
    || '/' || cast({{ prefix }}business_date as {{ dbt.type_string() }})
{%- endmacro %}
