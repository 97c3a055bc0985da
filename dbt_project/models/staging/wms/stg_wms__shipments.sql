with shipments as (
    {{ kept(source('wms', 'raw_wms__shipments'), ['shipment_ref', 'line_number']) }}
),

final as (
    select
        shipment_ref,
        line_number,
        order_ref,
        {{ utc('shipped_at') }} as shipped_at,
        ship_from_gln,
        ship_to_gln,
        carrier_code,
        tracking_number,
        sku,
        ordered_units,
        shipped_units,
        {{ utc('received_at') }} as received_at
    from shipments
)

select * from final
