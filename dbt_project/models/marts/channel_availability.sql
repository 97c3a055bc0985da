with availability as (
    select * from {{ ref('availability') }}
),

own as (
    select location_code, sku, channel_type, units from {{ ref('stock_states') }}
    where state_type = 'protected'
),

channels as (
    select * from (values {% for channel in var('channels') %}('{{ channel }}'){{ ', ' if not loop.last }}{% endfor %}) as named (channel_type)
),

-- What is protected for a channel is kept from all others.
asked as (
    select
        availability.location_code,
        availability.sku,
        channels.channel_type,
        {%- for part in available_parts() %}
        {{ 'availability.protected_units - coalesce(own.units, 0) as protected_units' if part == 'protected_units' else 'availability.' ~ part }},
        {%- endfor %}
        availability.as_of_at
    from availability
    cross join channels
    left join own
        on availability.location_code = own.location_code
        and availability.sku = own.sku
        and channels.channel_type = own.channel_type
),

final as (
    select
        location_code,
        sku,
        channel_type,
        cast(protected_units as bigint) as protected_units,
        cast({{ available_units() }} as bigint) as available_units,
        as_of_at
    from asked
)

select * from final
