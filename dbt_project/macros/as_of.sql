{# What we know until: the newest received_at of what has been taken, given by the run. Never the clock. #}
{% macro as_of_at() %}
    {%- if execute and not var('as_of_at', none) -%}
        {{ exceptions.raise_compiler_error(
            "dbt variable as_of_at: expected the UTC time until which we know, such as 2025-03-01T02:00:00Z, found none. "
            ~ "Pass it: dbt build --vars '{as_of_at: \"2025-03-01T02:00:00Z\"}'."
        ) }}
    {%- endif -%}
    cast('{{ var("as_of_at", "1970-01-01T00:00:00Z") }}' as timestamp)
{%- endmacro %}

{# Whole days from a moment back from as_of_at: 0 for the last 24 hours, negative for what comes after it.
   Windows and weekly history count back from as_of_at by whole days, so this number places an event in all of them. #}
{% macro age_days(moment) -%}
    cast(floor(({{ epoch_microseconds(as_of_at()) }} - {{ epoch_microseconds(moment) }}) / 86400000000.0) as integer)
{%- endmacro %}

{# The time that standing is asked about: as_of_at, unless the run asks what held at another time, as far as we know. #}
{% macro held_at() %}
    {%- if var('held_at', none) -%} cast('{{ var("held_at") }}' as timestamp) {%- else -%} {{ as_of_at() }} {%- endif -%}
{%- endmacro %}
