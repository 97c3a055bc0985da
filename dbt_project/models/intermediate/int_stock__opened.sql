-- What opens a stock, and what was held to open it before: the count that came first, or else the first figure a source gave.
with booked as (
    select * from {{ ref('int_movements__booked') }}
),

counts as (
    select * from booked where movement_type = 'opening'
),

reports as (
    select
        *,
        10 * {{ epoch_microseconds('known_until_at') }} + case source_name when 'wms' then 0 else 1 end as mark
    from {{ ref('int_stock__reported') }}
),

count_sums as (
    select location_code, sku, count(*) as count_count, max(known_at) as known_at, max(superseded_at) as superseded_at
    from counts
    group by location_code, sku
),

first_heard as (
    select location_code, sku, min(known_at) as known_at
    from reports
    group by location_code, sku
),

-- One count that stands and was known before any report: nearly all of them.
plain as (
    select count_sums.location_code, count_sums.sku
    from count_sums
    left join first_heard
        on count_sums.location_code = first_heard.location_code and count_sums.sku = first_heard.sku
    where
        count_sums.count_count = 1
        and count_sums.superseded_at is null
        and (first_heard.known_at is null or first_heard.known_at >= count_sums.known_at)
),

other_counts as (
    select counts.*
    from counts
    left join plain
        on counts.location_code = plain.location_code and counts.sku = plain.sku
    where plain.sku is null
),

-- Of reports only those that were the earliest known when they came can have opened anything.
candidates as (
    select
        *,
        row_number() over (partition by location_code, sku order by known_at, mark desc) as report_number
    from (
        select
            reports.*,
            min(reports.mark) over (
                partition by reports.location_code, reports.sku
                order by reports.known_at, reports.mark desc rows between unbounded preceding and 1 preceding
            ) as mark_before
        from reports
        left join plain
            on reports.location_code = plain.location_code and reports.sku = plain.sku
        where plain.sku is null
    ) as heard
    where mark_before is null or mark <= mark_before
),

moments as (
    select location_code, sku, known_at from other_counts
    union
    select location_code, sku, superseded_at from other_counts where superseded_at is not null
    union
    select location_code, sku, known_at from candidates
),

standing_counts as (
    select
        moments.location_code,
        moments.sku,
        moments.known_at,
        other_counts.source_ref,
        row_number() over (
            partition by moments.location_code, moments.sku, moments.known_at
            order by other_counts.occurred_at, other_counts.source_ref
        ) as count_rank
    from moments
    inner join other_counts
        on moments.location_code = other_counts.location_code
        and moments.sku = other_counts.sku
        and other_counts.known_at <= moments.known_at
        and (other_counts.superseded_at is null or other_counts.superseded_at > moments.known_at)
),

standing_reports as (
    select
        moments.location_code,
        moments.sku,
        moments.known_at,
        max(candidates.report_number) as report_number
    from moments
    inner join candidates
        on moments.location_code = candidates.location_code
        and moments.sku = candidates.sku
        and candidates.known_at <= moments.known_at
    group by moments.location_code, moments.sku, moments.known_at
),

openers as (
    select
        moments.location_code,
        moments.sku,
        moments.known_at,
        standing_counts.source_ref as count_ref,
        case when standing_counts.source_ref is null then standing_reports.report_number end as report_number,
        coalesce(
            standing_counts.source_ref, cast(standing_reports.report_number as {{ dbt.type_string() }}), 'nothing'
        ) as opener_ref
    from moments
    left join standing_counts
        on moments.location_code = standing_counts.location_code
        and moments.sku = standing_counts.sku
        and moments.known_at = standing_counts.known_at
        and standing_counts.count_rank = 1
    left join standing_reports
        on moments.location_code = standing_reports.location_code
        and moments.sku = standing_reports.sku
        and moments.known_at = standing_reports.known_at
),

changes as (
    select
        *,
        lag(opener_ref) over (partition by location_code, sku order by known_at) as opener_before
    from openers
),

reigns as (
    select
        *,
        lead(known_at) over (partition by location_code, sku order by known_at) as superseded_at
    from changes
    where opener_before is null or opener_before <> opener_ref
),

report_reigns as (
    select
        reigns.location_code,
        reigns.sku,
        reigns.known_at,
        reigns.superseded_at,
        candidates.source_name,
        candidates.known_until_at,
        candidates.received_at,
        candidates.reported_units
    from reigns
    inner join candidates
        on reigns.location_code = candidates.location_code
        and reigns.sku = candidates.sku
        and reigns.report_number = candidates.report_number
),

-- What moved by a report's high-water mark is in its figure: each such movement, once known, changes what the stock opened with.
moved_before as (
    select
        report_reigns.location_code,
        report_reigns.sku,
        report_reigns.known_at as reign_at,
        report_reigns.superseded_at as reign_until_at,
        greatest(booked.known_at, report_reigns.known_at) as known_at,
        booked.superseded_at,
        booked.units,
        booked.occurred_at
    from report_reigns
    inner join booked
        on report_reigns.location_code = booked.location_code
        and report_reigns.sku = booked.sku
        and booked.movement_type <> 'opening'
        and booked.occurred_at <= report_reigns.known_until_at
    where report_reigns.superseded_at is null or booked.known_at < report_reigns.superseded_at
),

steps as (
    select location_code, sku, reign_at, known_at, units, occurred_at from moved_before
    union all
    select location_code, sku, reign_at, greatest(superseded_at, reign_at), -units, occurred_at
    from moved_before
    where superseded_at is not null and (reign_until_at is null or superseded_at < reign_until_at)
    union all
    select location_code, sku, known_at, known_at, 0, null from report_reigns
),

step_sums as (
    select location_code, sku, reign_at, known_at, sum(units) as units, min(occurred_at) as occurred_at
    from steps
    group by location_code, sku, reign_at, known_at
),

running as (
    select
        location_code,
        sku,
        reign_at,
        known_at,
        sum(units) over (partition by location_code, sku, reign_at order by known_at rows between unbounded preceding and current row) as moved_units,
        min(occurred_at) over (
            partition by location_code, sku, reign_at order by known_at rows between unbounded preceding and current row
        ) as first_moved_at
    from step_sums
),

opened_by_reports as (
    select
        running.location_code,
        running.sku,
        report_reigns.reported_units - running.moved_units as units,
        least(report_reigns.known_until_at, coalesce(running.first_moved_at, report_reigns.known_until_at)) as occurred_at,
        report_reigns.received_at,
        report_reigns.source_name,
        running.known_at,
        running.reign_at,
        report_reigns.superseded_at as reign_until_at
    from running
    inner join report_reigns
        on running.location_code = report_reigns.location_code
        and running.sku = report_reigns.sku
        and running.reign_at = report_reigns.known_at
),

told_apart as (
    select
        *,
        lag(units) over (partition by location_code, sku, reign_at order by known_at) as units_before,
        lag(occurred_at) over (partition by location_code, sku, reign_at order by known_at) as occurred_before_at
    from opened_by_reports
),

report_versions as (
    select
        *,
        coalesce(lead(known_at) over (partition by location_code, sku, reign_at order by known_at), reign_until_at) as superseded_at
    from told_apart
    where units_before is null or units <> units_before or occurred_at <> occurred_before_at
),

final as (
    select counts.*
    from counts
    inner join plain
        on counts.location_code = plain.location_code and counts.sku = plain.sku
    union all
    select
        other_counts.movement_id,
        other_counts.location_code,
        other_counts.sku,
        other_counts.movement_type,
        other_counts.units,
        other_counts.occurred_at,
        other_counts.told_at,
        other_counts.received_at,
        other_counts.source_name,
        other_counts.source_ref,
        reigns.known_at,
        reigns.superseded_at,
        case
            when reigns.superseded_at is null then null
            when reigns.superseded_at = other_counts.superseded_at then other_counts.reason_code
            else 'opened_otherwise'
        end as reason_code
    from other_counts
    inner join reigns
        on other_counts.location_code = reigns.location_code
        and other_counts.sku = reigns.sku
        and other_counts.source_ref = reigns.count_ref
    union all
    select
        'opening/' || location_code || '/' || sku,
        location_code,
        sku,
        'opening',
        units,
        occurred_at,
        occurred_at,
        received_at,
        source_name,
        'first report',
        known_at,
        superseded_at,
        case when superseded_at is not null then 'opened_otherwise' end
    from report_versions
)

select * from final
