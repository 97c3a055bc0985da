{# The raw rows that count: received by as_of_at, one per key. Sources repeat themselves, in a file and across files.
   Of versions the newest by `newest_by`; of plain repeats the first received, in an order that does not depend on which was read first. #}
{% macro kept(raw, key, newest_by=none) -%}
    select ranked.*
    from (
        select
            raw_rows.*,
            row_number() over (
                partition by {{ key | join(', ') }}
                order by {% if newest_by %}{{ newest_by }} desc, {% endif %}received_at, file_hash, record_offset
            ) as kept_rank
        from {{ raw }} as raw_rows
        where {{ utc('raw_rows.received_at') }} <= {{ as_of_at() }}
    ) as ranked
    where ranked.kept_rank = 1
{%- endmacro %}
