{%- set report_types = ['source_not_told', 'snapshot_ignores_shipments', 'late_movement', 'unknown_movement'] -%}
with compared as (
    select * from {{ ref('int_stock__compared') }}
),

marked as (
    select
        *,
        case when difference_units <> 0 then 1 else 0 end as is_apart,
        lag(case when difference_units <> 0 then 1 else 0 end) over (partition by location_code, sku, source_name order by report_number) as was_apart
    from compared
),

-- The same break as long as report after report differs.
numbered as (
    select
        *,
        sum(case when is_apart = 1 and coalesce(was_apart, 0) = 0 then 1 else 0 end) over (
            partition by location_code, sku, source_name order by report_number rows between unbounded preceding and current row
        ) as episode_number
    from marked
),

episodes as (
    select
        location_code,
        sku,
        source_name,
        episode_number,
        min(known_until_at) as opened_at,
        min(known_at) as known_at,
        max(known_until_at) as last_seen_at,
        max(report_number) as report_number
    from numbered
    where is_apart = 1
    group by location_code, sku, source_name, episode_number
),

followed as (
    select
        episodes.*,
        last_reports.difference_units,
        last_reports.gone_units,
        last_reports.promised_units,
        closing_reports.known_until_at as closed_at
    from episodes
    inner join compared as last_reports
        on episodes.location_code = last_reports.location_code
        and episodes.sku = last_reports.sku
        and episodes.source_name = last_reports.source_name
        and episodes.report_number = last_reports.report_number
    left join compared as closing_reports
        on episodes.location_code = closing_reports.location_code
        and episodes.sku = closing_reports.sku
        and episodes.source_name = closing_reports.source_name
        and episodes.report_number + 1 = closing_reports.report_number
),

shortly_before as (
    select
        followed.location_code,
        followed.sku,
        followed.source_name,
        followed.episode_number,
        sum(told.gone_units) as gone_units,
        sum(case when told.told_at > {{ add_minutes('followed.last_seen_at', '-1 * ' ~ var('report_lag_minutes')) }} then told.units else 0 end) as late_units
    from followed
    inner join {{ ref('int_stock__told') }} as told
        on followed.location_code = told.location_code
        and followed.sku = told.sku
        and followed.source_name = told.source_name
        and told.told_at <= followed.last_seen_at
        and told.told_at > {{ add_days('followed.last_seen_at', -1) }}
    group by followed.location_code, followed.sku, followed.source_name, followed.episode_number
),

-- Each cause takes what it can explain, the likeliest first; what is left is unknown, so that the parts make up the whole.
first_cause as (
    select
        followed.*,
        coalesce(shortly_before.gone_units, 0) as gone_shortly_units,
        coalesce(shortly_before.late_units, 0) as late_units,
        case
            when followed.source_name = 'ecommerce' and followed.difference_units > 0
                then least(followed.difference_units, greatest(0, followed.promised_units, followed.gone_units))
            else 0
        end as source_not_told_units
    from followed
    left join shortly_before
        on followed.location_code = shortly_before.location_code
        and followed.sku = shortly_before.sku
        and followed.source_name = shortly_before.source_name
        and followed.episode_number = shortly_before.episode_number
),

second_cause as (
    select
        *,
        case
            when source_name = 'wms' and difference_units > 0 then least(difference_units, gone_shortly_units)
            else 0
        end as snapshot_ignores_shipments_units
    from first_cause
),

third_cause as (
    select
        *,
        case
            when difference_units - source_not_told_units - snapshot_ignores_shipments_units > 0
                then least(difference_units - source_not_told_units - snapshot_ignores_shipments_units, greatest(0, -late_units))
            else greatest(difference_units - source_not_told_units - snapshot_ignores_shipments_units, least(0, -late_units))
        end as late_movement_units
    from second_cause
),

last_cause as (
    select
        *,
        difference_units - source_not_told_units - snapshot_ignores_shipments_units - late_movement_units as unknown_movement_units
    from third_cause
),

counts as (
    select
        *,
        lead(counted_at) over (partition by location_code, sku order by counted_at, stock_count_id) as next_counted_at
    from {{ ref('stock_counts') }}
    where count_type = 'cycle'
),

negatives as (
    select location_code, sku, on_hand_units from {{ ref('stock_positions') }}
    where on_hand_units < 0
),

running as (
    select
        movements.location_code,
        movements.sku,
        movements.occurred_at,
        movements.known_at,
        sum(movements.units) over (
            partition by movements.location_code, movements.sku order by movements.occurred_at, movements.movement_id
            rows between unbounded preceding and current row
        ) as on_hand_units
    from {{ ref('stock_movements') }} as movements
    inner join negatives
        on movements.location_code = negatives.location_code and movements.sku = negatives.sku
),

last_sound as (
    select location_code, sku, max(occurred_at) as occurred_at
    from running
    where on_hand_units >= 0
    group by location_code, sku
),

below_nothing as (
    select
        running.location_code,
        running.sku,
        min(running.occurred_at) as opened_at,
        min(running.known_at) as known_at,
        max(running.occurred_at) as last_seen_at
    from running
    left join last_sound
        on running.location_code = last_sound.location_code and running.sku = last_sound.sku
    where running.on_hand_units < 0 and (last_sound.occurred_at is null or running.occurred_at >= last_sound.occurred_at)
    group by running.location_code, running.sku
),

transfers as (
    select
        *,
        {{ add_minutes('sent_at', var('transfer_is_lost_after_minutes')) }} as lost_at
    from {{ ref('int_transfers__followed') }}
),

breaks as (
    {%- for type in report_types %}
    select
        '{{ type }}' as break_type,
        location_code,
        sku,
        source_name,
        source_name || '/' || cast(episode_number as {{ dbt.type_string() }}) as break_ref,
        {{ type }}_units as units,
        opened_at,
        known_at,
        last_seen_at,
        closed_at
    from last_cause
    union all
    {%- endfor %}
    select
        'count_difference', location_code, sku, 'wms', source_ref, difference_units, counted_at, known_at, counted_at,
        case when adjusted_units = difference_units then adjusted_at else next_counted_at end
    from counts
    union all
    select
        'negative_stock', negatives.location_code, negatives.sku, 'stock_movements', 'now', -negatives.on_hand_units,
        below_nothing.opened_at, below_nothing.known_at, below_nothing.last_seen_at, cast(null as timestamp)
    from negatives
    inner join below_nothing
        on negatives.location_code = below_nothing.location_code and negatives.sku = below_nothing.sku
    union all
    select
        case when arrived_units > sent_units then 'transfer_gain' else 'transfer_lost' end, to_location_code, sku, 'wms', transfer_ref,
        arrived_units - sent_units, case when arrived_units > sent_units then arrived_at else lost_at end,
        case when arrived_units > sent_units then arrived_at else lost_at end, coalesce(arrived_at, lost_at), cast(null as timestamp)
    from transfers
    where arrived_units > sent_units or (arrived_units < sent_units and lost_at <= {{ as_of_at() }})
),

final as (
    select
        breaks.break_type || '/' || breaks.location_code || '/' || breaks.sku || '/' || breaks.break_ref as stock_break_id,
        breaks.break_type,
        breaks.location_code,
        breaks.sku,
        breaks.source_name,
        cast(breaks.units as bigint) as units,
        cast(breaks.units * products.cost_cents as bigint) as value_cents,
        breaks.closed_at is null as is_open,
        breaks.opened_at,
        breaks.last_seen_at,
        breaks.closed_at,
        breaks.known_at,
        cast(floor(({{ epoch_microseconds('coalesce(breaks.closed_at, ' ~ as_of_at() ~ ')') }} - {{ epoch_microseconds('breaks.opened_at') }}) / 86400000000.0) as bigint) as age_days,
        owners.owner_role,
        {{ as_of_at() }} as as_of_at
    from breaks
    inner join {{ ref('locations') }} as locations
        on breaks.location_code = locations.location_code
    inner join ({{ break_owners() }}) as owners
        on breaks.break_type = owners.break_type and locations.location_type = owners.location_type
    left join {{ ref('products') }} as products
        on breaks.sku = products.sku
    where breaks.units <> 0
)

select * from final
