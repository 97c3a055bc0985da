{# Where DuckDB and Spark spell one thing in two ways. Everything else in the models is written as both understand it.
   On Spark the session time zone is UTC, and `timestamp` is a point in time shown in it. #}

{# A point in time as a timestamp that holds UTC. #}
{% macro utc(moment) %}{{ return(adapter.dispatch('utc', 'troth')(moment)) }}{% endmacro %}
{% macro duckdb__utc(moment) %}({{ moment }} at time zone 'UTC'){% endmacro %}
{% macro spark__utc(moment) %}cast({{ moment }} as timestamp){% endmacro %}

{# A wall clock and an IANA zone to UTC. #}
{% macro wall_clock_to_utc(wall_clock, zone) %}{{ return(adapter.dispatch('wall_clock_to_utc', 'troth')(wall_clock, zone)) }}{% endmacro %}
{% macro duckdb__wall_clock_to_utc(wall_clock, zone) %}(({{ wall_clock }} at time zone {{ zone }}) at time zone 'UTC'){% endmacro %}
{% macro spark__wall_clock_to_utc(wall_clock, zone) %}to_utc_timestamp({{ wall_clock }}, {{ zone }}){% endmacro %}

{# A UTC timestamp moved by whole days (of 24 hours) or minutes, either way. #}
{% macro add_days(moment, days) %}{{ return(adapter.dispatch('add_days', 'troth')(moment, days)) }}{% endmacro %}
{% macro duckdb__add_days(moment, days) %}({{ moment }} + to_hours(cast(24 * ({{ days }}) as bigint))){% endmacro %}
{% macro spark__add_days(moment, days) %}({{ moment }} + make_dt_interval(cast({{ days }} as int))){% endmacro %}

{% macro add_minutes(moment, minutes) %}{{ return(adapter.dispatch('add_minutes', 'troth')(moment, minutes)) }}{% endmacro %}
{% macro duckdb__add_minutes(moment, minutes) %}({{ moment }} + to_minutes(cast({{ minutes }} as bigint))){% endmacro %}
{% macro spark__add_minutes(moment, minutes) %}({{ moment }} + make_dt_interval(0, 0, cast({{ minutes }} as int))){% endmacro %}

{# Microseconds since 1970 of a UTC timestamp. #}
{% macro epoch_microseconds(moment) %}{{ return(adapter.dispatch('epoch_microseconds', 'troth')(moment)) }}{% endmacro %}
{% macro duckdb__epoch_microseconds(moment) %}epoch_us({{ moment }}){% endmacro %}
{% macro spark__epoch_microseconds(moment) %}unix_micros({{ moment }}){% endmacro %}

{# Minutes east of UTC of an offset such as -05:00 or +0530. #}
{% macro offset_minutes(utc_offset) -%}
    (case when substring({{ utc_offset }}, 1, 1) = '-' then -1 else 1 end
    * (cast(substring({{ utc_offset }}, 2, 2) as integer) * 60 + cast(right({{ utc_offset }}, 2) as integer)))
{%- endmacro %}
