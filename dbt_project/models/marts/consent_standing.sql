-- The rule of standing (consent/README.md), for every customer: held_at is the time asked about, as_of_at until when we know.
-- Numbers name its steps.
{%- set persons_nos = "('refused', 'withdrawn', 'objected', 'gpc', 'restricted', 'erased')" %}
{%- set yeses = "('granted', 'not_opted_out', 'notice_given')" %}
with policy as (
    select * from {{ source('consent', 'consent_policy') }}
),

notices as (
    select * from {{ source('consent', 'consent_notices') }}
),

links as (
    select
        subject_id,
        other_subject_id,
        {{ utc('split_at') }} as split_at,
        {{ utc('unlinked_at') }} as unlinked_at,
        is_proved
    from {{ source('consent', 'consent_links') }}
    where {{ utc('linked_at') }} <= {{ held_at() }}
),

asked as (
    select
        purpose_code,
        channel_code,
        min(legal_basis) as legal_basis,
        bool_or(is_refused_by_gpc) as is_refused_by_gpc
    from policy
    group by purpose_code, channel_code
),

-- 1 and 3: what an event is about, and when it counts.
said as (
    select
        leaf_index,
        subject_id,
        event_type,
        event_type in ('grant', 'renew', 'confirm') as is_agreeing,
        event_type in ('grant', 'renew', 'confirm', 'unrestrict', 'notice_shown') as is_helping,
        case when event_type in ('restrict', 'erased', 'signal_seen') then '*' else purpose_code end as purpose_code,
        case when event_type in ('restrict', 'erased', 'signal_seen') then '*' else channel_code end as channel_code,
        notice_id,
        notice_version,
        jurisdiction_code,
        least(occurred_at, recorded_at, received_at) as happened_at,
        least(recorded_at, received_at) as bounded_at
    from {{ ref('consent_events') }}
    where
        event_type not in ('identity_linked', 'identity_unlinked')
        and (event_type <> 'signal_seen' or capture_method = 'gpc')
        and received_at <= {{ as_of_at() }}
        and least(occurred_at, recorded_at, received_at) <= {{ held_at() }}
),

-- 2: a yes must cover all that is asked; a no need only touch it.
reaching as (
    select
        said.leaf_index,
        said.subject_id,
        said.event_type,
        said.is_helping,
        said.happened_at,
        said.bounded_at,
        asked.purpose_code,
        asked.channel_code,
        {%- for term in ('mechanism', 'expires_after_days', 'confirm_within_days') %}
        case when own.purpose_code is not null then own.{{ term }} else anywhere.{{ term }} end as {{ term }},
        {%- endfor %}
        coalesce(
            said.notice_version >= case
                when said.event_type = 'notice_shown' then notices.silence_version else notices.minimum_version
            end,
            false
        ) as is_current
    from said
    inner join asked
        on asked.legal_basis <> 'contract'
        and (
            said.purpose_code = asked.purpose_code
            or (said.purpose_code = '*' and (asked.legal_basis = 'consent' or not said.is_agreeing))
        )
        and (said.channel_code in (asked.channel_code, '*') or (not said.is_helping and asked.channel_code = '*'))
        and (said.event_type <> 'signal_seen' or asked.is_refused_by_gpc)
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

-- 4: each renewal must come before the grant, as renewed so far, has ended.
renewing as (
    select
        grants.leaf_index,
        grants.purpose_code,
        grants.channel_code,
        renewals.happened_at as renewed_at,
        renewals.is_current,
        case when {{ add_days('coalesce(lag(renewals.happened_at) over renewals_by_time, grants.happened_at)', 'grants.expires_after_days') }}
            <= renewals.happened_at then 1 else 0 end as is_late
    from reaching as grants
    inner join reaching as renewals
        on grants.subject_id = renewals.subject_id
        and grants.purpose_code = renewals.purpose_code
        and grants.channel_code = renewals.channel_code
        and grants.happened_at <= renewals.happened_at
    where grants.event_type = 'grant' and renewals.event_type = 'renew'
    window renewals_by_time as (
        partition by grants.leaf_index, grants.purpose_code, grants.channel_code order by renewals.happened_at
    )
),

in_time as (
    select
        *,
        max(is_late) over (partition by leaf_index, purpose_code, channel_code order by renewed_at) as is_broken
    from renewing
),

renewed as (
    select
        *,
        row_number() over (
            partition by leaf_index, purpose_code, channel_code order by renewed_at desc, case when is_current then 1 else 0 end
        ) as renewal_rank
    from in_time
    where is_broken = 0
),

confirmed as (
    select distinct
        grants.leaf_index,
        grants.purpose_code,
        grants.channel_code
    from reaching as grants
    inner join reaching as confirms
        on grants.subject_id = confirms.subject_id
        and grants.purpose_code = confirms.purpose_code
        and grants.channel_code = confirms.channel_code
        and grants.happened_at <= confirms.happened_at
        and {{ add_days('grants.happened_at', 'grants.confirm_within_days') }} >= confirms.happened_at
    where grants.event_type = 'grant' and confirms.event_type = 'confirm'
),

timed as (
    select
        reaching.*,
        coalesce(renewed.is_current, reaching.is_current) as is_current_now,
        reaching.confirm_within_days is null or confirmed.leaf_index is not null as is_complete,
        {{ add_days('coalesce(renewed.renewed_at, reaching.happened_at)', 'reaching.expires_after_days') }} as ends_at
    from reaching
    left join renewed
        on reaching.leaf_index = renewed.leaf_index
        and reaching.purpose_code = renewed.purpose_code
        and reaching.channel_code = renewed.channel_code
        and renewed.renewal_rank = 1
    left join confirmed
        on reaching.leaf_index = confirmed.leaf_index
        and reaching.purpose_code = confirmed.purpose_code
        and reaching.channel_code = confirmed.channel_code
    where reaching.event_type not in ('renew', 'confirm')
),

judged as (
    select
        *,
        case when is_helping then happened_at else bounded_at end as ranked_at,
        case
            when event_type = 'withdraw' then 'withdrawn'
            when event_type = 'object' then 'objected'
            when event_type = 'signal_seen' then 'gpc'
            when event_type = 'restrict' then 'restricted'
            when event_type = 'unrestrict' then 'unrestricted'
            when event_type = 'erased' then 'erased'
            when event_type = 'expire' then 'expired'
            when event_type not in ('grant', 'notice_shown') then 'refused'
            when event_type = 'notice_shown' and not (is_current_now and coalesce(mechanism, 'opt_in') in ('opt_out', 'notice_only'))
                then 'never_asked'
            when not is_current_now then 'stale_notice'
            when event_type = 'grant' and not is_complete then 'unconfirmed'
            when ends_at <= {{ held_at() }} then 'expired'
            when event_type = 'grant' then 'granted'
            when mechanism = 'opt_out' then 'not_opted_out'
            else 'notice_given'
        end as reason_code
    from timed
),

-- 5: what was erased says nothing any more.
weighed as (
    select
        *,
        case
            when reason_code in {{ persons_nos }} then 4
            when reason_code in {{ yeses }} then 1
            when reason_code = 'never_asked' then 2
            else 3
        end as strength,
        event_type = 'grant' and reason_code in ('granted', 'expired') as was_yes,
        event_type = 'expire' or (event_type = 'grant' and reason_code in ('stale_notice', 'unconfirmed')) as takes_nothing,
        max(case when event_type = 'erased' then ranked_at end) over (
            partition by subject_id, purpose_code, channel_code
        ) as erased_at
    from judged
),

spoken as (
    select * from weighed
    where event_type = 'erased' or erased_at is null or ranked_at > erased_at
),

-- 5 for an identity by itself, and (6) for what another heard of it until they were parted.
heard as (
    select
        spoken.*,
        spoken.subject_id as hearer_id,
        cast(null as timestamp) as split_at,
        cast(null as timestamp) as unlinked_at,
        true as is_proved
    from spoken
    union all
    select
        spoken.*,
        links.subject_id as hearer_id,
        links.split_at,
        links.unlinked_at,
        links.is_proved
    from spoken
    inner join links
        on spoken.subject_id = links.other_subject_id
    where
        links.unlinked_at <= {{ held_at() }}
        and (
            spoken.event_type = 'erased'
            or spoken.ranked_at < links.split_at
            or (spoken.ranked_at = links.split_at and not spoken.is_helping)
        )
),

compared as (
    select
        *,
        max(case when strength = 4 and event_type <> 'restrict' then ranked_at end) over of_one as no_at,
        max(case when was_yes then ranked_at end) over of_one as yes_at,
        max(case when event_type = 'restrict' then ranked_at end) over of_one as restricted_at,
        max(case when event_type = 'unrestrict' then ranked_at end) over of_one as freed_at
    from heard
    window of_one as (partition by hearer_id, subject_id, split_at, unlinked_at, is_proved, purpose_code, channel_code)
),

ranked as (
    select
        *,
        row_number() over (
            partition by hearer_id, subject_id, split_at, unlinked_at, is_proved, purpose_code, channel_code
            order by
                case when event_type = 'restrict' then 0 when event_type = 'notice_shown' then 2 else 1 end,
                ranked_at desc,
                strength desc,
                leaf_index desc
        ) as word_rank
    from compared
    where
        event_type <> 'unrestrict'
        and (event_type <> 'restrict' or coalesce(restricted_at >= freed_at, true))
        and not (takes_nothing and no_at is not null and coalesce(no_at >= yes_at, true))
),

last_words as (
    select * from ranked
    where word_rank = 1 and reason_code <> 'never_asked'
),

own as (
    select * from last_words
    where unlinked_at is null
),

-- 6: the nos of persons that nothing said under an identity has lifted, and those of everyone it is joined to. is_proved: no
-- contact is between the identity and who said it; a no passes one.
firm as (
    select
        last_words.hearer_id as subject_id,
        last_words.purpose_code,
        last_words.channel_code,
        last_words.reason_code,
        last_words.ranked_at,
        last_words.leaf_index,
        last_words.is_proved
    from last_words
    left join own
        on last_words.hearer_id = own.hearer_id
        and last_words.purpose_code = own.purpose_code
        and last_words.channel_code = own.channel_code
    where
        last_words.reason_code in {{ persons_nos }}
        and (
            last_words.unlinked_at is null
            or own.yes_at is null
            or own.yes_at <= greatest(last_words.unlinked_at, last_words.ranked_at)
        )
),

standing_words as (
    select subject_id, purpose_code, channel_code, reason_code, ranked_at, leaf_index, is_proved, cast(null as timestamp) as ends_at
    from firm
    union all
    select
        links.subject_id,
        firm.purpose_code,
        firm.channel_code,
        firm.reason_code,
        firm.ranked_at,
        firm.leaf_index,
        firm.is_proved and links.is_proved as is_proved,
        cast(null as timestamp) as ends_at
    from firm
    inner join links
        on firm.subject_id = links.other_subject_id
    where
        (links.unlinked_at is null or (links.unlinked_at > {{ held_at() }} and links.split_at = links.unlinked_at))
        and (firm.is_proved or links.is_proved)
    union all
    select subject_id, purpose_code, channel_code, reason_code, ranked_at, leaf_index, is_proved, ends_at
    from own
    where reason_code not in {{ persons_nos }}
),

by_subject as (
    select
        *,
        row_number() over (
            partition by subject_id, purpose_code, channel_code
            order by case when reason_code in {{ persons_nos }} then 0 else 1 end, ranked_at desc, leaf_index desc
        ) as subject_rank
    from standing_words
),

identities as (
    select * from {{ ref('customer_identities') }}
),

group_counts as (
    select
        customer_id,
        count(distinct group_ref) as group_count
    from identities
    group by customer_id
),

-- 6: one proved group; a contact link carries only what a person said no to, and nothing that came over another.
brought as (
    select
        identities.customer_id,
        by_subject.purpose_code,
        by_subject.channel_code,
        by_subject.reason_code,
        by_subject.ranked_at,
        by_subject.leaf_index,
        min(case when by_subject.reason_code in {{ yeses }} then by_subject.ends_at end) over (
            partition by identities.customer_id, identities.group_ref, by_subject.purpose_code, by_subject.channel_code
        ) as expires_at,
        row_number() over (
            partition by identities.customer_id, identities.group_ref, by_subject.purpose_code, by_subject.channel_code
            order by
                case when by_subject.reason_code in {{ yeses }} then 1 else 0 end,
                by_subject.ranked_at desc,
                by_subject.leaf_index desc
        ) as group_rank
    from by_subject
    inner join identities
        on by_subject.subject_id = identities.identity_ref
    where
        (identities.link_type in ('hub', 'deterministic', 'probabilistic') and by_subject.subject_rank = 1)
        or (
            identities.link_type not in ('hub', 'deterministic', 'probabilistic')
            and by_subject.is_proved
            and by_subject.reason_code in {{ persons_nos }}
        )
),

-- 6: one customer; only what every group may.
answered as (
    select
        customer_id,
        purpose_code,
        channel_code,
        reason_code,
        ranked_at,
        leaf_index,
        count(*) over (partition by customer_id, purpose_code, channel_code) as answer_count,
        min(expires_at) over (partition by customer_id, purpose_code, channel_code) as expires_at,
        row_number() over (
            partition by customer_id, purpose_code, channel_code
            order by
                case when reason_code in {{ persons_nos }} then 0 when reason_code in {{ yeses }} then 2 else 1 end,
                ranked_at desc,
                leaf_index desc
        ) as customer_rank
    from brought
    where group_rank = 1
),

decided as (
    select answered.*
    from answered
    inner join group_counts
        on answered.customer_id = group_counts.customer_id
    where
        answered.customer_rank = 1
        and (answered.answer_count = group_counts.group_count or answered.reason_code not in {{ yeses }})
),

-- How much was heard, from the first leaf on: up to an event that was not known, or had not happened, by then.
ledger as (
    select
        coalesce(
            min(leaf_index) filter (
                where received_at > {{ as_of_at() }} or least(occurred_at, recorded_at, received_at) > {{ held_at() }}
            ),
            max(ledger_size),
            0
        ) as ledger_size
    from {{ ref('consent_events') }}
),

-- 7 and 8: an answer for everyone and everything asked, people with no event included.
final as (
    select
        customers.customer_id,
        asked.purpose_code,
        asked.channel_code,
        asked.legal_basis = 'contract' or coalesce(decided.reason_code in {{ yeses }}, false) as is_allowed,
        case when asked.legal_basis = 'contract' then 'contract' else coalesce(decided.reason_code, 'never_asked') end as reason_code,
        decided.ranked_at as since_at,
        case when decided.reason_code in {{ yeses }} then decided.expires_at end as expires_at,
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
