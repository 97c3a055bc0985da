with events as (
    {{ kept(source('ecommerce', 'raw_ecommerce__events'), ['message_id']) }}
),

final as (
    select
        message_id,
        event_name,
        device_ref,
        account_ref,
        {{ utc('occurred_at') }} as sender_occurred_at,
        {{ utc('sent_at') }} as sent_at,
        {{ utc('recorded_at') }} as recorded_at,
        sku,
        'ecommerce/' || order_id as order_id,
        search_query,
        device_type,
        os_name,
        has_gpc
    from events
)

select * from final
