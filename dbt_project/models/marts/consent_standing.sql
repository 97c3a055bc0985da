-- The rule of standing (consent/README.md), for every customer at as_of_at. Numbers name its steps.
with policy as (
    select * from {{ source('consent', 'consent_policy') }}
),

notices as (
    select * from {{ source('consent', 'consent_notices') }}
),

asked as (
    select
        purpose_code,
        channel_code,
        min(legal_basis) as legal_basis
    from policy
    group by purpose_code, channel_code
),

-- 1 and 3: what an event says, and when it counts.
said as (
    select
        leaf_index,
        subject_id,
        event_type = 'grant' as is_yes,
        case
            when event_type = 'grant' then 'granted'
            when event_type = 'refuse' then 'refused'
            when event_type = 'withdraw' then 'withdrawn'
            when event_type = 'object' then 'objected'
            else 'gpc'
        end as says,
        case when event_type = 'signal_seen' then 'third_party_sharing' else purpose_code end as purpose_code,
        case when event_type = 'signal_seen' then '*' else channel_code end as channel_code,
        notice_id,
        notice_version,
        jurisdiction_code,
        case
            when event_type = 'grant' then least(occurred_at, recorded_at, received_at)
            else least(recorded_at, received_at)
        end as ranked_at
    from {{ ref('consent_events') }}
    where
        (event_type in ('grant', 'refuse', 'withdraw', 'object') or (event_type = 'signal_seen' and capture_method = 'gpc'))
        and received_at <= {{ as_of_at() }}
        and least(occurred_at, recorded_at, received_at) <= {{ as_of_at() }}
),

-- 2: a yes must cover all that is asked; a no need only touch it.
reaching as (
    select
        said.*,
        asked.purpose_code as asked_purpose_code,
        asked.channel_code as asked_channel_code,
        case when own.purpose_code is not null then own.expires_after_days else anywhere.expires_after_days end as expires_after_days,
        coalesce(said.notice_version >= notices.minimum_version, false) as is_fresh
    from said
    inner join asked
        on asked.legal_basis <> 'contract'
        and (said.purpose_code = asked.purpose_code or (said.purpose_code = '*' and asked.legal_basis = 'consent'))
        and (said.channel_code in (asked.channel_code, '*') or (not said.is_yes and asked.channel_code = '*'))
    left join policy as own
        on asked.purpose_code = own.purpose_code
        and asked.channel_code = own.channel_code
        and said.jurisdiction_code = own.jurisdiction_code
    left join policy as anywhere
        on asked.purpose_code = anywhere.purpose_code
        and asked.channel_code = anywhere.channel_code
        and anywhere.jurisdiction_code = '*'
    left join notices
        on said.notice_id = notices.notice_id
),

-- 4: whether a yes still holds.
judged as (
    select
        subject_id,
        asked_purpose_code as purpose_code,
        asked_channel_code as channel_code,
        leaf_index,
        ranked_at,
        case
            when not is_yes then says
            when not is_fresh then 'stale_notice'
            when {{ add_days('ranked_at', 'expires_after_days') }} <= {{ as_of_at() }} then 'expired'
            else 'granted'
        end as reason_code,
        case when is_yes and is_fresh then {{ add_days('ranked_at', 'expires_after_days') }} end as expires_at
    from reaching
),

-- 5: one subject; the latest wins, and at the same instant a no beats a yes.
ranked_by_subject as (
    select
        *,
        row_number() over (
            partition by subject_id, purpose_code, channel_code
            order by ranked_at desc, case when reason_code = 'granted' then 1 else 0 end, leaf_index desc
        ) as subject_rank
    from judged
),

-- 6: one customer; a contact link carries only what a person said no to.
brought as (
    select
        identities.customer_id,
        ranked_by_subject.purpose_code,
        ranked_by_subject.channel_code,
        ranked_by_subject.reason_code,
        ranked_by_subject.ranked_at,
        ranked_by_subject.leaf_index,
        min(case when ranked_by_subject.reason_code = 'granted' then ranked_by_subject.expires_at end) over (
            partition by identities.customer_id, ranked_by_subject.purpose_code, ranked_by_subject.channel_code
        ) as expires_at,
        row_number() over (
            partition by identities.customer_id, ranked_by_subject.purpose_code, ranked_by_subject.channel_code
            order by
                case when ranked_by_subject.reason_code = 'granted' then 1 else 0 end,
                ranked_by_subject.ranked_at desc,
                ranked_by_subject.leaf_index desc
        ) as customer_rank
    from ranked_by_subject
    inner join {{ ref('customer_identities') }} as identities
        on ranked_by_subject.subject_id = identities.identity_ref
        and (
            identities.link_type in ('hub', 'deterministic')
            or ranked_by_subject.reason_code in ('refused', 'withdrawn', 'objected', 'gpc')
        )
    where ranked_by_subject.subject_rank = 1
),

decided as (
    select * from brought
    where customer_rank = 1
),

ledger as (
    select coalesce(max(ledger_size), 0) as ledger_size from {{ ref('consent_events') }}
),

-- 7 and 8: an answer for everyone and everything asked, people with no event included.
final as (
    select
        customers.customer_id,
        asked.purpose_code,
        asked.channel_code,
        asked.legal_basis = 'contract' or coalesce(decided.reason_code = 'granted', false) as is_allowed,
        case when asked.legal_basis = 'contract' then 'contract' else coalesce(decided.reason_code, 'never_asked') end as reason_code,
        decided.ranked_at as since_at,
        case when decided.reason_code = 'granted' then decided.expires_at end as expires_at,
        decided.leaf_index,
        ledger.ledger_size
    from {{ ref('customers') }} as customers
    cross join asked
    cross join ledger
    left join decided
        on customers.customer_id = decided.customer_id
        and asked.purpose_code = decided.purpose_code
        and asked.channel_code = decided.channel_code
    where not customers.is_test
)

select * from final
