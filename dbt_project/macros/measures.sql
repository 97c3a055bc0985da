{# What measures are made with. The week is the one that a UTC time falls into, by its Monday. #}

{% macro week_of(moment) -%} cast(date_trunc('week', {{ moment }}) as date) {%- endmacro %}

{# Whole seconds from one UTC timestamp to a later one. #}
{% macro seconds_between(earlier, later) -%}
    cast(floor(({{ epoch_microseconds(later) }} - {{ epoch_microseconds(earlier) }}) / 1000000.0) as bigint)
{%- endmacro %}

{# Which sums are made of cases: of all time and by week, each over everything, by location, by method, by both, by category. #}
{% macro measured_grains() -%}
    select by_week.is_on as by_week, grain.by_location, grain.by_method, grain.by_category
    from (values (false), (true)) as by_week (is_on)
    cross join (values
        (false, false, false), (true, false, false), (false, true, false), (true, true, false), (false, false, true)
    ) as grain (by_location, by_method, by_category)
{%- endmacro %}

{# The columns of a grain, * where it sums over all. A case without a place is in no sum by place; `week_start` is null of what stands now. #}
{% macro grain_of(cases) -%}
        {{ cases }}.week_start,
        case when grains.by_week then {{ cases }}.week_start end as period_start,
        case when grains.by_location then {{ cases }}.location_code else '*' end as location_code,
        case when grains.by_method then {{ cases }}.fulfillment_method else '*' end as fulfillment_method,
        case when grains.by_category then {{ cases }}.category_name else '*' end as category_name
{%- endmacro %}

{% macro is_of_grain(cases) -%}
        (not grains.by_week or {{ cases }}.week_start is not null)
        and (not grains.by_location or {{ cases }}.location_code is not null)
        and (not grains.by_method or {{ cases }}.fulfillment_method is not null)
        and (not grains.by_category or {{ cases }}.category_name is not null)
{%- endmacro %}
