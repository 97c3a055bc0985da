{%- set of_orders = {
    'promise_kept': 'is_promise_kept', 'on_time': 'is_on_time', 'order_fill': 'is_complete', 'undamaged': 'is_undamaged',
    'right_papers': 'has_right_papers', 'perfect_order': 'is_perfect', 'order_accuracy': 'is_accurate', 'oversold_orders': 'oversold_units > 0',
} %}
{%- set of_lines = {
    'unit_fill': ('served_units', 'asked_units'), 'oversold_units': ('oversold_units', 'asked_units'),
    'line_fill': ('case when served_units >= asked_units then 1 else 0 end', '1'),
} %}
{%- set of_picks = {'nil_pick': 'picked_units = 0', 'short_pick': 'picked_units > 0 and picked_units < requested_units', 'phantom_pick': 'is_phantom'} %}
{%- set of_counts = {
    'record_exact': 'difference_units = 0',
    'record_within_tolerance': 'abs(difference_units) <= ' ~ var('record_tolerance_units')
        ~ ' or 100 * abs(difference_units) <= ' ~ var('record_tolerance_percent') ~ ' * counted_units',
    'record_sign': '(recorded_units > 0) = (counted_units > 0)',
} %}
{%- set of_money = ['withheld_margin', 'overprotection_cost'] %}
{%- set percentiles = {'p50': 0.5, 'p90': 0.9, 'p95': 0.95} %}
with orders as (
    select * from {{ ref('order_outcomes') }}
),

lines as (
    select * from {{ ref('int_order_lines__served') }}
    where is_settled and not is_withdrawn
),

products as (
    select sku, category_name, price_cents, cost_cents from {{ ref('products') }}
),

movements as (
    select * from {{ ref('stock_movements') }}
),

picked_for as (
    select distinct events.source_ref as pick_id, orders.fulfillment_method
    from {{ ref('order_events') }} as events
    inner join orders
        on events.order_id = orders.order_id
    where events.source_table = 'raw_wms__picks'
),

picks as (
    select
        told.pick_id,
        told.location_code,
        told.sku,
        picked_for.fulfillment_method,
        products.category_name,
        told.requested_units,
        told.picked_units,
        told.started_at,
        told.finished_at
    from {{ ref('stg_wms__picks') }} as told
    left join picked_for
        on told.pick_id = picked_for.pick_id
    left join products
        on told.sku = products.sku
),

-- Where too little was found although the books, as they are known now, had enough.
phantoms as (
    select picks.pick_id
    from picks
    inner join movements
        on picks.location_code = movements.location_code and picks.sku = movements.sku and movements.occurred_at < picks.finished_at
    where picks.picked_units < picks.requested_units
    group by picks.pick_id, picks.requested_units
    having sum(movements.units) >= picks.requested_units
),

searched as (
    select picks.*, phantoms.pick_id is not null as is_phantom
    from picks
    left join phantoms
        on picks.pick_id = phantoms.pick_id
),

counts as (
    select counts.*, products.category_name
    from {{ ref('stock_counts') }} as counts
    left join products
        on counts.sku = products.sku
    where counts.count_type = 'cycle'
),

asked_of_late as (
    select location_code, sku, sum(asked_units) as units
    from {{ ref('int_order_lines__served') }}
    where ordered_at > {{ add_days(as_of_at(), -28) }}
    group by location_code, sku
),

-- Free to promise but for what is kept back; shut where keeping back leaves nothing of it.
sellable as (
    select
        availability.location_code,
        products.category_name,
        availability.available_units = 0 as is_shut,
        availability.on_hand_units - availability.damaged_units - availability.quality_control_units - availability.committed_units as units,
        coalesce(asked_of_late.units, 0) / 4.0 as weekly_units,
        case when products.cost_cents is not null then greatest(0, products.price_cents - products.cost_cents) end as margin_cents
    from {{ ref('availability') }} as availability
    left join products
        on availability.sku = products.sku
    left join asked_of_late
        on availability.location_code = asked_of_late.location_code and availability.sku = asked_of_late.sku
    where availability.on_hand_units - availability.damaged_units - availability.quality_control_units - availability.committed_units > 0
),

shares as (
    {%- for name, flag in of_orders.items() %}
    select
        '{{ name }}' as measure_name, {{ week_of('ordered_at') }} as week_start, location_code, fulfillment_method,
        cast(null as {{ dbt.type_string() }}) as category_name, count(case when {{ flag }} then 1 end) as numerator, count({{ flag }}) as denominator
    from orders
    where not is_withdrawn
    group by {{ week_of('ordered_at') }}, location_code, fulfillment_method
    union all
    {%- endfor %}
    {%- for name, parts in of_lines.items() %}
    select
        '{{ name }}', {{ week_of('ordered_at') }}, location_code, fulfillment_method, category_name,
        sum({{ parts[0] }}), sum({{ parts[1] }})
    from lines
    group by {{ week_of('ordered_at') }}, location_code, fulfillment_method, category_name
    union all
    {%- endfor %}
    {%- for name, flag in of_picks.items() %}
    select
        '{{ name }}', {{ week_of('finished_at') }}, location_code, fulfillment_method, category_name,
        count(case when {{ flag }} then 1 end), count(*)
    from searched
    group by {{ week_of('finished_at') }}, location_code, fulfillment_method, category_name
    union all
    {%- endfor %}
    {%- for name, flag in of_counts.items() %}
    select
        '{{ name }}', {{ week_of('counted_at') }}, location_code, null, category_name,
        count(case when {{ flag }} then 1 end), count(*)
    from counts
    group by {{ week_of('counted_at') }}, location_code, category_name
    union all
    {%- endfor %}
    select 'shut_by_protection', null, location_code, null, category_name, count(case when is_shut then 1 end), count(*)
    from sellable
    group by location_code, category_name
    union all
    select 'withheld_margin', null, location_code, null, category_name, sum(units * margin_cents), count(*)
    from sellable
    where is_shut and margin_cents is not null
    group by location_code, category_name
    union all
    select
        'overprotection_cost', null, location_code, null, category_name,
        sum(cast(round(least(units, weekly_units) * margin_cents) as bigint)), count(*)
    from sellable
    where is_shut and margin_cents is not null
    group by location_code, category_name
),

-- What was newest of each source at a location when an order came to it.
heard as (
    select source_name, location_code, known_at, max(occurred_at) as newest_at
    from movements
    group by source_name, location_code, known_at
),

listened as (
    select
        source_name,
        location_code,
        known_at,
        is_order,
        max(newest_at) over (partition by source_name, location_code order by known_at, is_order rows between unbounded preceding and current row) as newest_at
    from (
        select source_name, location_code, known_at, 0 as is_order, newest_at
        from heard
        union all
        select places.source_name, orders.location_code, orders.ordered_at, 1, null
        from orders
        inner join (select distinct source_name, location_code from heard) as places
            on orders.location_code = places.location_code
    ) as both_sides
),

times as (
    select
        'pick_time' as measure_name, {{ week_of('finished_at') }} as week_start, location_code, fulfillment_method, category_name,
        {{ seconds_between('started_at', 'finished_at') }} as seconds
    from picks
    union all
    select 'time_to_ready', {{ week_of('ordered_at') }}, location_code, fulfillment_method, null, ready_seconds from orders
    union all
    select 'delivery_time', {{ week_of('ordered_at') }}, location_code, fulfillment_method, null, delivery_seconds from orders
    union all
    select
        source_name || '_staleness', {{ week_of('known_at') }}, location_code, null, null,
        greatest(0, {{ seconds_between('newest_at', 'known_at') }})
    from listened
    where is_order = 1 and newest_at is not null
),

grains as (
    {{ measured_grains() }}
),

share_cases as (
    select
        shares.measure_name,
        {{ grain_of('shares') | trim }},
        shares.numerator,
        shares.denominator
    from shares
    inner join grains
        on {{ is_of_grain('shares') | trim }}
),

time_cases as (
    select
        times.measure_name,
        {{ grain_of('times') | trim }},
        times.seconds
    from times
    inner join grains
        on {{ is_of_grain('times') | trim }}
    where times.seconds is not null
),

summed_shares as (
    select
        measure_name, period_start, location_code, fulfillment_method, category_name,
        min(week_start) as first_week_start, sum(numerator) as numerator, sum(denominator) as denominator
    from share_cases
    group by measure_name, period_start, location_code, fulfillment_method, category_name
    having sum(denominator) > 0
),

-- Ranked, for what is ranked can wait on disk: percentiles as aggregates ran out of 2 GB at 5 million cases, where this took 16 s.
ranked_times as (
    select
        *,
        row_number() over (partition by measure_name, period_start, location_code, fulfillment_method, category_name order by seconds) as place,
        count(*) over (partition by measure_name, period_start, location_code, fulfillment_method, category_name) as case_count
    from time_cases
),

summed_times as (
    select
        measure_name, period_start, location_code, fulfillment_method, category_name,
        min(week_start) as first_week_start, sum(seconds) as seconds, count(*) as case_count
        {%- for name, part in percentiles.items() %},
        min(case when place >= {{ part }} * case_count then seconds end) as {{ name }}
        {%- endfor %}
    from ranked_times
    group by measure_name, period_start, location_code, fulfillment_method, category_name
),

measured as (
    select
        measure_name,
        case when measure_name in ('{{ of_money | join("', '") }}') then 'mean' else 'share' end as statistic_type,
        first_week_start, period_start, location_code, fulfillment_method, category_name, numerator, denominator,
        cast(numerator as double) / denominator as value,
        case when measure_name in ('{{ of_money | join("', '") }}') then 'cents' else 'share' end as unit_type
    from summed_shares
    union all
    select
        measure_name, 'mean', first_week_start, period_start, location_code, fulfillment_method, category_name, seconds, case_count,
        cast(seconds as double) / case_count, 'seconds'
    from summed_times
    {%- for name in percentiles %}
    union all
    select
        measure_name, '{{ name }}', first_week_start, period_start, location_code, fulfillment_method, category_name, null, case_count,
        {{ name }}, 'seconds'
    from summed_times
    {%- endfor %}
),

final as (
    select
        measure_name,
        statistic_type,
        case when period_start is not null then 'week' when first_week_start is null then 'now' else 'all' end as period_type,
        coalesce(period_start, first_week_start, cast({{ as_of_at() }} as date)) as period_start,
        location_code,
        fulfillment_method,
        category_name,
        cast(numerator as bigint) as numerator,
        cast(denominator as bigint) as denominator,
        cast(value as double) as value,
        unit_type
    from measured
)

select * from final
