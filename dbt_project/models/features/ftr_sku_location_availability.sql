with availability as (
    select * from {{ ref('availability') }}
),

sold as (
    select
        location_code,
        sku,
        sum(quantity_units) as sold_units_28d
    from {{ ref('order_lines') }}
    where
        not is_cancelled
        and location_code is not null
        and {{ age_days('ordered_at') }} >= 0
        and {{ age_days('ordered_at') }} < 28
    group by location_code, sku
),

final as (
    select
        availability.sku,
        availability.location_code,
        availability.as_of_at as feature_at,
        availability.on_hand_units,
        availability.available_units,
        cast(coalesce(sold.sold_units_28d, 0) as bigint) as sold_units_28d,
        cast(greatest(0, {{ age_days('availability.last_movement_at') }}) as bigint) as days_since_last_movement,
        availability.available_units > 0 as has_stock
    from availability
    left join sold
        on availability.location_code = sold.location_code and availability.sku = sold.sku
)

select * from final
