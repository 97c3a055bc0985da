"""Who of those that match may be contacted, and the first reason why another may not. One query, for preview and export alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb
import polars as pl

from consent.rule.policy import EVERY, read_policy
from models.permission import LINKS, asked_channel
from models.purpose_flow.kept import refuse_uncovered
from models.purpose_flow.uses import of_segments
from models.segments import kept
from models.segments.definition import Comparison, Segment, SegmentError, load
from models.segments.fields import Value
from models.segments.rules import Rules, read_rules
from models.segments.sql import Compiled, compiled, compiled_condition, connected
from models.tables import versions
from models.training import NEVER_ASKED
from troth.home import Home

TEST_CUSTOMER = "test_customer"
NO_CONTACT_POINT = "no_contact_point"
EXCLUDED = "excluded"
CAPPED = "capped"
IN_TEST_GROUP = "in_test_group"
HELD_OUT = "held_out"
SAME_CONTACT_POINT = "same_contact_point"
MAY_BE_CONTACTED = "may_be_contacted"
TREATED = "treated"  # the arm beside held out
# The token of `customers` that a channel reaches a person by; None where the customer id itself is the address. No source lands
# tokens of letter boxes or of an app's devices, so over the policy's other channels nobody has a contact point.
CONTACT_POINTS: dict[str, str | None] = {"email": "email_ref", "sms": "phone_ref", "in_app": None, "onsite": None}
_NOT_LANDED = ""
# Of those who match, for all channels at once. A grant that has ended by $at is told as such: the mart says how it stood when built.
_PUBLISHED_STANDING = """
create temp table published_standing as
select m.rowid as member, s.channel_code, s.is_allowed and coalesce(s.expires_at > $at, true) as is_allowed,
       case when s.is_allowed and s.expires_at <= $at then 'expired' else s.reason_code end as reason_code
from consent_standing s join matched m on m.customer_id = s.customer_id
where s.purpose_code = $purpose_code and s.channel_code in ({codes})
"""
_STANDING_THEN = "published_standing s on s.member = m.rowid and s.channel_code = $channel_code"
_STANDING_NOW = "standing_now s on s.customer_id = m.customer_id"


@dataclass(frozen=True)
class Counts:
    """Matched = may be contacted + refused, summed over reasons. Test customers match nothing and are counted apart."""

    matched: int
    may_be_contacted: int
    refused: Mapping[str, int]
    test_customers: int


def asked(segment: Segment) -> dict[str, tuple[str, str]]:
    """The purpose and channel that people are asked about, by channel of the segment.

    Raises: ModelsError when the policy has none.
    """
    what, policy = f"segment {segment.name}", read_policy()
    return {
        channel: (segment.purpose, asked_channel(policy, what, segment.purpose, channel))
        for channel in segment.channels
    }


class Audience:
    """Everybody who matches a segment, found once; channel by channel they are asked about. Open it with `open_audience`."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        home: Home,
        segment: Segment,
        at: datetime,
        rules: Rules,
        questions: Mapping[str, tuple[str, str]],
    ) -> None:
        self._connection = connection
        self._home = home
        self._segment = segment
        self._at = at
        self._rules = rules
        self.asked = questions

    @property
    def size(self) -> int:
        """How many match, customers made for tests included."""
        return int(str(self.query("select count(*) from matched")[0][0]))

    @property
    def members(self) -> pl.Series:
        """Whoever matches, in order of ids; customers made for tests left out."""
        found: pl.DataFrame = self._connection.sql(
            "select customer_id from matched where not is_test order by customer_id"
        ).pl()
        return found["customer_id"]

    def query(self, sql: str, parameters: Mapping[str, Value] | None = None) -> Sequence[tuple[object, ...]]:
        """Rows of a query that reads `matched` and the published tables of the segment."""
        rows: list[tuple[object, ...]] = self._connection.execute(sql, dict(parameters or {})).fetchall()
        return rows

    def counts(self, channel: str) -> Counts:
        """How many may be contacted over a channel, by the published standing, and the others by reason."""
        judging, parameters = self._judging(channel, _STANDING_THEN)
        grouped = (
            f"select coalesce(refusal, '{MAY_BE_CONTACTED}'), count(*), "  # noqa: S608 - ours
            f"count(distinct case when refusal is null then contact_ref end) from ({judging}) judged group by refusal"
        )
        with _readable():
            found = self._connection.execute(grouped, parameters).fetchall()
        counts = {str(reason): int(number) for reason, number, _ in found}
        self._refuse_repeated(sum(counts.values()))
        addresses = {str(reason): int(number) for reason, _, number in found}.get(MAY_BE_CONTACTED, 0)
        if counts.get(MAY_BE_CONTACTED, 0) > addresses:
            counts[SAME_CONTACT_POINT] = counts[MAY_BE_CONTACTED] - addresses
            counts[MAY_BE_CONTACTED] = addresses
        return counted(counts)

    def decided(self, channel: str, standing: pl.DataFrame) -> pl.DataFrame:
        """customer_id, contact_ref, decision of everybody, under a standing of now (customer_id, is_allowed, reason_code).

        Whoever is missing from it was never asked.
        """
        self._connection.register(
            "standing_now", standing.select("customer_id", "is_allowed", "reason_code").to_arrow()
        )
        try:
            judging, parameters = self._judging(channel, _STANDING_NOW)
            ordered = f"""
with judged as materialized ({judging}),
shared as (
    select contact_ref, min(customer_id) as first_id
    from judged where refusal is null
    group by contact_ref having count(*) > 1
)
select j.customer_id, j.contact_ref,
       case when j.refusal is null and f.first_id <> j.customer_id then '{SAME_CONTACT_POINT}'
            else coalesce(j.refusal, '{MAY_BE_CONTACTED}') end as decision
from judged j left join shared f on f.contact_ref = j.contact_ref
order by j.customer_id"""  # noqa: S608 - ours
            with _readable():
                found: pl.DataFrame = self._connection.sql(ordered, params=parameters).pl()
        finally:
            self._connection.unregister("standing_now")
        self._refuse_repeated(found.height)
        return found

    def _refuse_repeated(self, decided_count: int) -> None:
        """Nobody is decided twice: a row too many means that a table repeats a customer."""
        if decided_count != self.size:
            raise SegmentError(
                f"segment {self._segment.name}: expected one answer for each of {self.size}, found {decided_count}. "
                "A published table holds a customer twice: run `troth run`."
            )

    def _judging(self, channel: str, standing: str) -> tuple[str, dict[str, Value | list[str]]]:
        """A query of customer_id, contact_ref, refusal of everybody who matches; null where nothing but a shared address may speak against it."""
        _, asked_about = self.asked[channel]
        point = CONTACT_POINTS.get(channel, _NOT_LANDED)
        known: dict[str | None, str] = {None: "m.customer_id", _NOT_LANDED: "cast(null as varchar)"}
        contact_ref = known.get(point, f"m.{point}")
        parameters: dict[str, Value | list[str]] = {}
        if standing is _STANDING_THEN:
            parameters["channel_code"] = asked_about
        hashed = self._in_groups(parameters)
        capped = self._capped(channel, contact_ref, parameters)
        sql = f"""
select m.customer_id, {contact_ref} as contact_ref,
       case when m.is_test then '{TEST_CUSTOMER}'
            when not coalesce(s.is_allowed, false) then coalesce(s.reason_code, '{NEVER_ASKED}')
            when {contact_ref} is null then '{NO_CONTACT_POINT}'
            when x.customer_id is not null then '{EXCLUDED}'
            when k.customer_id is not null then '{CAPPED}'
            {hashed}
       end as refusal
from matched m
left join {standing}
left join excluded x on x.customer_id = m.customer_id
left join ({capped}) k on k.customer_id = m.customer_id"""  # noqa: S608 - the names are ours, every value is a parameter
        return sql, parameters

    def _in_groups(self, parameters: dict[str, Value | list[str]]) -> str:
        """A stable share by salt: the first 32 bits of an MD5 below a bound, both in hex. A new version keeps the same people out."""
        shares = [
            (group.salt, group.percent, IN_TEST_GROUP)
            for group in self._rules.test_groups
            if self._segment.purpose in group.purposes
        ]
        shares.append((self._segment.name, self._segment.holdout_percent, HELD_OUT))
        whens = []
        for number, (salt, percent, reason) in enumerate(shares):
            if percent:
                parameters[f"salt_{number}"] = f"{salt}:"
                parameters[f"bound_{number}"] = f"{percent * 2**32 // 100:08x}"
                is_in = f"substr(md5(concat($salt_{number}, m.customer_id)), 1, 8) < $bound_{number}"
                whens.append(f"when {is_in} then '{reason}'")
        return "\n                ".join(whens)

    def _capped(self, channel: str, contact_ref: str, parameters: dict[str, Value | list[str]]) -> str:
        """Members who were contacted as often as they may be: they themselves, or their address in whosever name.

        What went out after the time asked for counts too: it is no less true.
        """
        parts = ["select customer_id from matched where false"]
        for number, cap in enumerate(self._rules.caps):
            if self._segment.purpose not in cap.purposes or cap.channel not in (channel, EVERY):
                continue
            since = self._at - timedelta(days=cap.days)
            files = kept.contacts_since(self._home, since, cap.purposes, None if cap.channel == EVERY else channel)
            if len(files) < cap.at_most:  # nobody is in a file twice
                continue
            parameters |= {
                f"files_{number}": [str(path) for path in files],
                f"since_{number}": since,
                f"most_{number}": cap.at_most,
            }
            for column, own in (("customer_id", "m.customer_id"), ("contact_ref", contact_ref)):
                often = (
                    f"select {column} from read_parquet($files_{number}) where contacted_at > $since_{number} "  # noqa: S608
                    f"and {column} in (select {own} from matched m) group by {column} having count(*) >= $most_{number}"
                )
                parts.append(f"select m.customer_id from matched m join ({often}) c on c.{column} = {own}")  # noqa: S608
        return "\nunion\n".join(parts)


@contextmanager
def open_audience(
    home: Home,
    segment: Segment,
    at: datetime,
    *,
    rules: Rules | None = None,
    shown: Mapping[str, Comparison] | None = None,
    loaded: Callable[[str], Segment] = load,
    has_standing: bool = False,
) -> Iterator[tuple[Audience, dict[str, str]]]:
    """Everybody who matches as of a naive UTC time, and the versions of the tables read. `shown`: fields carried in `matched`.

    `has_standing`: whether the published standing is read, which `counts` asks and `decided` does not.
    Raises: SegmentError for what the published tables do not have; FlowError where it reads what its purpose does not cover.
    """
    rules = rules or read_rules()
    questions = asked(segment)
    refuse_uncovered(home, of_segments([segment], loaded))
    points = sorted({point for channel in segment.channels if (point := CONTACT_POINTS.get(channel))})
    query = compiled(home, segment, at, carried=points, shown=shown, loaded=loaded)
    exclusions = [
        compiled_condition(home, f"segment rules, exclusion {each.name}", each.where, at) for each in rules.exclusions
    ]
    lists = kept.exclusion_lists(home)
    tables = {*query.tables, *(table for each in exclusions for table in each.tables), *([LINKS] if lists else [])}
    tables |= {"consent_standing"} if has_standing else set()
    with connected(home, tables) as connection:
        connection.execute(f"create temp table matched as {query.sql}", dict(query.parameters))
        with _readable():
            _exclude(connection, exclusions, [str(path) for path in lists.values()])
        if has_standing:
            codes = {f"code_{number}": code for number, code in enumerate(sorted({c for _, c in questions.values()}))}
            sql = _PUBLISHED_STANDING.format(codes=", ".join(f"${name}" for name in codes))
            connection.execute(sql, {"at": at, "purpose_code": segment.purpose, **codes})
        yield Audience(connection, home, segment, at, rules, questions), versions(home, tables)


@contextmanager
def _readable() -> Iterator[None]:
    """What a home keeps of people is read whole, or nobody is decided about."""
    try:
        yield
    except (duckdb.IOException, duckdb.InvalidInputException) as fault:
        raise SegmentError(
            f"exclusion lists and contacts: expected Parquet files, found {str(fault).splitlines()[0][:120]}. Restore them."
        ) from None


def counted(decisions: Mapping[str, int]) -> Counts:
    """How many by decision."""
    counts = dict(decisions)
    test_customers = counts.pop(TEST_CUSTOMER, 0)
    allowed = counts.pop(MAY_BE_CONTACTED, 0)
    return Counts(allowed + sum(counts.values()), allowed, dict(sorted(counts.items())), test_customers)


def assigned(decisions: pl.DataFrame) -> pl.DataFrame:
    """customer_id and arm of whoever only their share decided about: held out, or not, whatever then kept a message from them.

    Somebody whose message goes to another of the same address, or whose address the vault has lost, was not held out.
    """
    is_treated = pl.col("decision").is_in([MAY_BE_CONTACTED, SAME_CONTACT_POINT]) | (
        (pl.col("decision") == NO_CONTACT_POINT) & pl.col("contact_ref").is_not_null()
    )
    is_held_out = pl.col("decision") == HELD_OUT
    return decisions.filter(is_treated | is_held_out).select(
        "customer_id", arm=pl.when(is_held_out).then(pl.lit(HELD_OUT)).otherwise(pl.lit(TREATED))
    )


def _exclude(connection: duckdb.DuckDBPyConnection, rules: Sequence[Compiled], lists: Sequence[str]) -> None:
    """The table `excluded`: members whom a rule excludes, or who are on a list, under whichever identity."""
    connection.execute("create temp table everybody_excluded (customer_id varchar)")
    for query in rules:
        connection.execute(
            f"insert into everybody_excluded select customer_id from ({query.sql}) found",  # noqa: S608 - compiled
            dict(query.parameters),
        )
    if lists:
        connection.execute(
            f"""insert into everybody_excluded
            select i.customer_id from {LINKS} i
            where i.identity_ref in (select identity_ref from read_parquet($lists))
            union all
            select identity_ref from read_parquet($lists)""",  # noqa: S608 - a name of ours
            {"lists": list(lists)},
        )
    connection.execute(
        "create temp table excluded as select distinct customer_id from everybody_excluded "
        "where customer_id in (select customer_id from matched)"
    )
