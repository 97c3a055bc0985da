{# Which value of a field stands, the one home of the rule. Of the values that records say:
   most_trusted   the one said by the kind of record named first, of those the one said last;
   most_recent    the one said last;
   most_frequent  the one most records say, of equals the more trusted, then the one said last.
   Kinds of record: account (a shop account; verified_account where the shop verified its e-mail), member (loyalty form), guest (order without
   an account), visit (order or collection in a store), notice (consent notice answered), identifier (an identifier alone, no form behind it). #}
{% macro field_rules() %}
    {{ return([
        ('email', 'most_trusted', ['verified_account', 'member', 'account', 'guest']),
        ('phone', 'most_trusted', ['verified_account', 'account', 'member', 'guest']),
        ('account', 'most_trusted', ['verified_account', 'account', 'identifier']),
        ('card', 'most_trusted', ['member', 'identifier']),
        ('region', 'most_trusted', ['verified_account', 'account', 'member', 'guest']),
        ('country', 'most_trusted', ['verified_account', 'account', 'guest']),
        ('jurisdiction', 'most_trusted', ['verified_account', 'account', 'member', 'guest', 'visit']),
        ('birth_year', 'most_frequent', ['member']),
        ('tier', 'most_recent', ['member']),
        ('home_location', 'most_frequent', ['visit', 'member']),
        ('language', 'most_recent', ['notice']),
        ('name', 'most_trusted', ['member', 'verified_account', 'account', 'guest']),
        ('street_address', 'most_trusted', ['verified_account', 'account', 'member', 'guest']),
        ('birth_date', 'most_trusted', ['member']),
    ]) }}
{% endmacro %}

{# Fields whose value is in the clear in raw alone: a row names the record that holds it, by its token. #}
{% macro clear_fields() %}{{ return(['name', 'street_address', 'birth_date']) }}{% endmacro %}

{% macro is_clear_field(field_name) -%}
    {{ field_name }} in ('{{ clear_fields() | join("', '") }}')
{%- endmacro %}

{# Fields that forms alone speak of, each kept in all its versions: what was believed of them on a day can be told again. #}
{% macro versioned_fields() -%}
    {%- set found = [] -%}
    {%- for field, rule, kinds in field_rules() -%}
        {%- if not (kinds | select('in', ['visit', 'notice', 'identifier']) | list) %}{% do found.append(field) %}{% endif -%}
    {%- endfor -%}
    {{ return(found) }}
{%- endmacro %}

{# The rules as rows: field, rule, kind of record, and how far down it is trusted, from 1. #}
{% macro trusted_records() -%}
    select * from (values
        {%- for field, rule, kinds in field_rules() -%}
        {%- set last_field = loop.last -%}
        {%- for kind in kinds %}
        ('{{ field }}', '{{ rule }}', '{{ kind }}', {{ loop.index }}){{ ',' if not (last_field and loop.last) }}
        {%- endfor -%}
        {%- endfor %}
    ) as trusted_values (trusted_field_name, survivorship_rule, trusted_record_type, trust_rank)
{%- endmacro %}

{# The values that records say of a field, best first (value_rank 1), by a CTE of statements. A record says what it said last, a null being
   nothing; the record named is the most trusted of those that say the value. An identifier alone is no record, and is not counted. #}
{% macro ranked_values(said, by=['customer_id', 'field_name']) -%}
    {%- set group = by | join(', ') -%}
    select
        ranked.*,
        row_number() over (
            partition by {{ group }}
            order by
                case when survivorship_rule = 'most_frequent' then record_count end desc,
                case when survivorship_rule = 'most_recent' then said_at end desc,
                trust_rank, said_at desc, record_count desc, field_value
        ) as value_rank,
        sum(record_count) over (partition by {{ group }}) as total_count
    from (
        select
            newest.*,
            trusted.survivorship_rule,
            trusted.trust_rank,
            row_number() over (
                partition by {{ group }}, newest.field_value order by trusted.trust_rank, newest.said_at desc, newest.record_ref
            ) as holder_rank,
            sum(case when newest.record_type = 'identifier' then 0 else 1 end) over (partition by {{ group }}, newest.field_value) as record_count
        from (
            select
                *,
                row_number() over (
                    partition by {{ group }}, record_ref, record_type = 'identifier' order by said_at desc, known_at desc, field_value
                ) as newest_rank
            from {{ said }}
        ) as newest
        inner join ({{ trusted_records() }}) as trusted
            on newest.field_name = trusted.trusted_field_name and newest.record_type = trusted.trusted_record_type
        where newest.newest_rank = 1 and newest.field_value is not null
    ) as ranked
    where holder_rank = 1
{%- endmacro %}
