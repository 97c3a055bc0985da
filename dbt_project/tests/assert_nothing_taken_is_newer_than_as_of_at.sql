-- A row received after as_of_at is left out of every table, a withdrawal too: only a rebuild of the past may do that.
{{ config(enabled=not var('rebuilds_the_past')) }}
{%- set raw = [
    ('pos', 'raw_pos__transactions'), ('pos', 'raw_pos__sale_lines'), ('ecommerce', 'raw_ecommerce__orders'),
    ('ecommerce', 'raw_ecommerce__refund_lines'), ('ecommerce', 'raw_ecommerce__events'), ('wms', 'raw_wms__epcis_events'),
    ('wms', 'raw_wms__shipments'), ('wms', 'raw_wms__picks'), ('loyalty', 'raw_loyalty__members'), ('consent', 'consent_ledger'),
] %}

with newest as (
    {%- for source_name, table_name in raw %}
    select '{{ table_name }}' as table_name, max(received_at) as received_at from {{ source(source_name, table_name) }}
    {{ 'union all' if not loop.last }}
    {%- endfor %}
)

select
    'nothing taken after as_of_at in ' || table_name as expected,
    1 as found
from newest
where {{ utc('received_at') }} > {{ as_of_at() }}
