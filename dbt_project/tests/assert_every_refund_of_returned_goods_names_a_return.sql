select
    'every return that money was given for to be in returns' as expected,
    count(*) as found
from {{ ref('refunds') }} as refunds
left join {{ ref('returns') }} as returns
    on refunds.return_line_id = returns.return_line_id
where refunds.return_line_id is not null and returns.return_line_id is null
having count(*) > 0
