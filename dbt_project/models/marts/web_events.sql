with events as (
    select * from {{ ref('stg_ecommerce__events') }}
),

identities as (
    select * from {{ ref('int_identities__resolved') }}
    where identity_type in ('account', 'device')
),

-- Devices run fast or slow; what they agree on with themselves is how long a message waited before it was sent.
final as (
    select
        events.message_id,
        identities.customer_id,
        events.device_ref,
        events.event_name,
        events.sku,
        events.order_id,
        events.search_query,
        events.device_type,
        events.os_name,
        coalesce(events.has_gpc, false) as has_gpc,
        events.recorded_at - case
            when events.sent_at > events.sender_occurred_at then events.sent_at - events.sender_occurred_at
            else interval '0' second
        end as occurred_at,
        events.recorded_at
    from events
    left join identities
        on identities.identity_type = case when events.account_ref is null then 'device' else 'account' end
        and coalesce(events.account_ref, events.device_ref) = identities.identity_ref
    where not coalesce(identities.is_test, false)
)

select * from final
