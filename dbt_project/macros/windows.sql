{# The times for which feature tables hold a row: now, and weekly back for training. One row per feature_at. #}
{% macro feature_times() -%}
    select
        weeks.week_number,
        7 * weeks.week_number as age_days,
        {{ add_days(as_of_at(), '-7 * weeks.week_number') }} as feature_at
    from (values (0), (1), (2), (3), (4), (5), (6), (7), (8)) as weeks (week_number)
{%- endmacro %}

{# Which days lie in the window before each feature_at: one row per day and feature_at. Joined by equality on age_days, for a
   join by range took four times as long. `days_before` counts back from feature_at. At most 100 days. #}
{% macro feature_days(window_days) -%}
    {%- set digits = '(values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9))' -%}
    select
        feature_times.feature_at,
        10 * tens.digit + ones.digit as days_before,
        feature_times.age_days + 10 * tens.digit + ones.digit as age_days
    from feature_times
    cross join {{ digits }} as tens (digit)
    cross join {{ digits }} as ones (digit)
    where 10 * tens.digit + ones.digit < {{ window_days }}
{%- endmacro %}

{# Which weeks lie before each feature_at, week 8 standing for all that is older: one row per week and feature_at. #}
{% macro feature_weeks() -%}
    select
        weeks.week_number,
        feature_times.age_days,
        feature_times.feature_at
    from feature_times
    inner join feature_times as weeks
        on weeks.week_number >= feature_times.week_number
{%- endmacro %}

{# The week a day of some age falls into. #}
{% macro week_number(age_days) -%}
    least(8, cast(floor({{ age_days }} / 7) as integer))
{%- endmacro %}
