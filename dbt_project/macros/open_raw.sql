{# Before a build: every raw table as a view over its Parquet files, so that models, unit tests and column lineage see plain
   tables. Day folders are places, not columns; the empty schema file of each table lets the pattern match before a day has landed.
   Schemas do not vary between files: one that does is an error here, not a null column later. A source marked `is_optional` is
   empty while nobody has written it. #}
{% macro open_raw() %}{{ return(adapter.dispatch('open_raw', 'troth')()) }}{% endmacro %}

{% macro duckdb__open_raw() -%}
    {%- if execute -%}
        create schema if not exists raw;
        {%- for table in graph.sources.values() %}
        {%- set files = (env_var("TROTH_RAW") | replace("'", "''")) ~ '/' ~ table.identifier ~ '/**/*.parquet' %}
        create or replace view raw.{{ table.identifier }} as
        {%- if table.config.meta.get('is_optional') and not run_query("select 1 from glob('" ~ files ~ "') limit 1").rows %}
        select {% for column in table.columns.values() %}cast(null as {{ column.data_type }}) as {{ column.name }}{{ ', ' if not loop.last }}{% endfor %} where false;
        {%- else %}
        select * from read_parquet('{{ files }}', hive_partitioning = false, union_by_name = false);
        {%- endif %}
        {%- endfor %}
    {%- endif -%}
{%- endmacro %}
