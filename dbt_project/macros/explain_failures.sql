{# After a build: what each failed test expected and found, for every test answers with these two columns. #}
{% macro explain_failures(results) %}
    {%- if execute -%}
        {%- for result in results if result.node.resource_type == 'test' and result.status in ('fail', 'warn') -%}
            {%- for row in run_query('select expected, found from (' ~ result.node.compiled_code ~ ') as failures limit 10') -%}
                {%- do log(result.node.name ~ ": expected " ~ row[0] ~ ", found " ~ row[1] ~ " that break it. "
                    ~ "Look at " ~ result.node.original_file_path ~ ".", info=true) -%}
            {%- endfor -%}
        {%- endfor -%}
    {%- endif -%}
{% endmacro %}
