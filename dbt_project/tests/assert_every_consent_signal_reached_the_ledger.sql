select
    'every consent signal taken to be a leaf of the ledger' as expected,
    count(*) as found
from {{ source('consent', 'raw_consent__signals') }} as signals
left join {{ source('consent', 'consent_ledger') }} as ledger
    on signals.signal_id = ledger.signal_id
    and signals.event_type = ledger.event_type
    and signals.purpose_code = ledger.purpose_code
    and signals.channel_code = ledger.channel_code
where
    ledger.signal_id is null
    and signals.subject_id is not null
    and {{ utc('signals.received_at') }} <= {{ as_of_at() }}
having count(*) > 0
