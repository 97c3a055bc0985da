{%- set unfit = "('damaged', 'expired', 'recalled', 'non_conformant', 'non_sellable_other', 'needs_replacement')" -%}
{%- set fit = "('sellable_accessible', 'sellable_not_accessible', 'conformant')" -%}
-- Goods go into a state under a document and leave it under the same one, so that what was destroyed without ever having been set
-- aside takes nothing from what was.
with events as (
    select
        location_code,
        sku,
        coalesce(transaction_ref, event_id) as document_ref,
        case
            when biz_step = 'holding' and action <> 'DELETE' then quantity_units
            when biz_step = 'inspecting' and action = 'OBSERVE' then -quantity_units
        end as quality_control_units,
        case
            when biz_step in ('inspecting', 'storing', 'stocking') and action = 'OBSERVE' and disposition in {{ unfit }} then quantity_units
            when biz_step in ('storing', 'stocking') and action = 'OBSERVE' and disposition in {{ fit }} then -quantity_units
            when biz_step = 'destroying' and action = 'DELETE' then -quantity_units
        end as damaged_units
    from {{ ref('int_stock_events__placed') }}
    where superseded_at is null and biz_step in ('holding', 'inspecting', 'storing', 'stocking', 'destroying')
),

documents as (
    select
        location_code,
        sku,
        document_ref,
        greatest(0, coalesce(sum(quality_control_units), 0)) as quality_control_units,
        greatest(0, coalesce(sum(damaged_units), 0)) as damaged_units
    from events
    group by location_code, sku, document_ref
),

final as (
    select
        location_code,
        sku,
        cast(sum(damaged_units) as bigint) as damaged_units,
        cast(sum(quality_control_units) as bigint) as quality_control_units
    from documents
    where damaged_units > 0 or quality_control_units > 0
    group by location_code, sku
)

select * from final
