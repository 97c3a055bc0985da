{# What makes up what is available: the first is there, the others are not to be had. The names and their meaning have their home in
   models/stock/atp.py; a test holds both equal. #}
{% macro available_parts() %}
    {{ return([
        'on_hand_units', 'damaged_units', 'quality_control_units', 'committed_units', 'held_units', 'safety_units', 'protected_units',
    ]) }}
{% endmacro %}

{# Pieces that may be promised now, over columns named as the parts, none of them null. `prefix` is a table's name and a dot. #}
{% macro available_units(prefix='') -%}
    {%- set parts = available_parts() -%}
    greatest(0, {{ prefix }}{{ parts[0] }}{% for part in parts[1:] %} - {{ prefix }}{{ part }}{% endfor %})
{%- endmacro %}

{# What is protected for single channels, by rule: `channel_protection` of dbt_project.yml as rows. `place` is a location, a type of
   location or *, `category` a category of products or *. #}
{% macro protection_rules() -%}
    {%- set rules = var('channel_protection') or [] -%}
    {%- for rule in rules %}
    select
        '{{ rule.place }}' as place, '{{ rule.category | replace("'", "''") }}' as category_name, '{{ rule.channel }}' as channel_type,
        {{ rule.units }} as protected_units
    {{ 'union all' if not loop.last }}
    {%- else %}
    select '' as place, '' as category_name, '' as channel_type, 0 as protected_units where false
    {%- endfor %}
{%- endmacro %}
