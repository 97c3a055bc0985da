with ledger as (
    select * from {{ source('consent', 'consent_ledger') }}
),

final as (
    select
        cast(leaf_index as bigint) as leaf_index,
        subject_id,
        event_type,
        purpose_code,
        channel_code,
        {{ utc('occurred_at') }} as occurred_at,
        {{ utc('recorded_at') }} as recorded_at,
        {{ utc('received_at') }} as received_at,
        notice_id,
        cast(notice_version as bigint) as notice_version,
        language_code,
        capture_method,
        capture_place,
        actor_type,
        jurisdiction_code,
        signal_id,
        actor_id,
        linked_subject_id,
        link_type,
        cast(ledger_size as bigint) as ledger_size
    from ledger
)

select * from final
