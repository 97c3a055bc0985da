{# A customer's id: stable for a hub identity, and opaque, for the reference is itself a keyed hash. #}
{% macro customer_id(identity_type, identity_ref) -%}
    'cus_' || substring(md5({{ identity_type }} || ':' || {{ identity_ref }}), 1, 22)
{%- endmacro %}

{# A receipt's number as people and other systems quote it: store, till, number, trading day. #}
{% macro receipt_name(prefix='') -%}
    {{ prefix }}store_code || '/' || {{ prefix }}workstation_code || '/' || cast({{ prefix }}sequence_number as {{ dbt.type_string() }})
    || '/' || cast({{ prefix }}business_date as {{ dbt.type_string() }})
{%- endmacro %}
