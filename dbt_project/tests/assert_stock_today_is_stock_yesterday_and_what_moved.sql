with moved as (
    select
        location_code,
        sku,
        cast(occurred_at as date) as moved_date,
        sum(case when units > 0 then units else 0 end) as in_units,
        sum(case when units < 0 then -units else 0 end) as out_units
    from {{ ref('stock_movements') }}
    group by location_code, sku, cast(occurred_at as date)
),

before_last_day as (
    select
        location_code,
        sku,
        in_units - out_units as last_day_units,
        sum(in_units - out_units) over (
            partition by location_code, sku order by moved_date rows between unbounded preceding and 1 preceding
        ) as yesterday_units,
        row_number() over (partition by location_code, sku order by moved_date desc) as newest_rank
    from moved
)

select
    'stock today to be stock yesterday plus in less out' as expected,
    count(*) as found
from {{ ref('stock_positions') }} as positions
full outer join before_last_day
    on positions.location_code = before_last_day.location_code
    and positions.sku = before_last_day.sku
where
    coalesce(before_last_day.newest_rank, 1) = 1
    and (
        positions.on_hand_units is null
        or before_last_day.location_code is null
        or positions.on_hand_units <> coalesce(before_last_day.yesterday_units, 0) + before_last_day.last_day_units
    )
having count(*) > 0
