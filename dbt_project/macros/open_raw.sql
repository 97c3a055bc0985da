{# Before a build: every raw table as a view over its Parquet files, so that models, unit tests and column lineage see plain
   tables. Day folders are places, not columns; the empty schema file of each table lets the pattern match before a day has landed.
   Schemas do not vary between files: one that does is an error here, not a null column later. #}
{% macro open_raw() %}{{ return(adapter.dispatch('open_raw', 'troth')()) }}{% endmacro %}

{% macro duckdb__open_raw() -%}
    {%- if execute -%}
        create schema if not exists raw;
        {%- for table in graph.sources.values() %}
        create or replace view raw.{{ table.identifier }} as
        select * from read_parquet(
            '{{ env_var("TROTH_RAW") | replace("'", "''") }}/{{ table.identifier }}/**/*.parquet', hive_partitioning = false, union_by_name = false
        );
        {%- endfor %}
    {%- endif -%}
{%- endmacro %}
