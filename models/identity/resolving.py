"""From records to customers: what is proved, what is likely, who may be joined, and what a steward said; then groups and their ids.

A proved group (`proofs.py`) is one person for certain. Likely pairs join groups to customers, where both groups' people said yes to being
recognised (`profile_unification`) and the groups hold together (`clusters.py`). A customer is named after its oldest identifier, so that the
name stays while that identifier stays, whatever joins or leaves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

import numpy as np
import polars as pl

from models.identity.clusters import Pairs, clusters, undecided
from models.identity.matching import Matcher
from models.identity.model import Model
from models.identity.payments import PAID_SCHEMA, tied
from models.identity.proofs import HUB_TYPES, SCHEMA, TOGETHER_SCHEMA

WRONG_MERGE_COST = 20.0  # what joining two people costs: letters and offers to the wrong one, trust, sorting it out
MISSED_MERGE_COST = 1.0  # what one person known twice costs a year: a letter too many, a value seen by halves
BAR_BITS = float(np.log2(WRONG_MERGE_COST / MISSED_MERGE_COST))
_VETO_BITS = -3.0  # a mailbox that is this likely somebody else's of the household proves nothing
_KEPT_BITS = 8.0  # below the bar, down to which pairs are told of: the steward's queue, and why two were not joined
LINKED, FORBIDDEN = "link", "forbid"
DECISIONS = ("joined", "forced", "below_the_bar", "outweighed", "not_allowed", "forbidden")
MEMBER_SCHEMA = {**SCHEMA, "customer_id": pl.String(), "match_probability": pl.Float64()}
STEWARD = {
    "decision_id": pl.String(),
    "decided_at": pl.Datetime("us", "UTC"),
    "actor_id": pl.String(),
    "reason": pl.String(),
}
LINK_SCHEMA = {
    "first_ref": pl.String(), "second_ref": pl.String(),
    "pattern": pl.Int64(), "bits": pl.Float64(), "within_bits": pl.Float64(), "probability": pl.Float64(),
    "decision": pl.String(), "worth": pl.Float64(), **STEWARD,
}  # fmt: skip
REMEMBERED_PAIRS = {"first_ref": pl.String(), "second_ref": pl.String(), "pattern": pl.Int64()}


@dataclass(frozen=True)
class Remembered:
    """What the last run compared, under one model: fingerprints by record_id, and the pairs."""

    model: str
    records: pl.DataFrame  # as `Matcher.memory` gives them; record_id and fingerprint suffice
    pairs: pl.DataFrame  # REMEMBERED_PAIRS


@dataclass(frozen=True)
class Evidence:
    """What `resolve` decides on. `records`: normalised, with payment. `owners`: record_id, identity_type, identity_ref. `proved`: as
    `proofs.proved` gives it. `seen`: as `proofs.first_seen`. `together`: as `proofs.seen_together`, for who asks what contacts there are. `allowed`: group_ref of those who may be joined by likeness; None: all.
    `decisions`: of stewards, first_ref, second_ref, decision_type and, where links are to say so, `STEWARD`; one row per pair, the last word,
    in the order of time."""

    records: pl.DataFrame
    owners: pl.DataFrame
    proved: pl.DataFrame
    seen: pl.DataFrame
    together: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TOGETHER_SCHEMA))
    allowed: pl.DataFrame | None = None
    # Which payment cards were seen with whom, as `records.paid_with` gives it.
    paid: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=PAID_SCHEMA))
    decisions: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(
            schema={"first_ref": pl.String(), "second_ref": pl.String(), "decision_type": pl.String()}
        )
    )


@dataclass(frozen=True)
class Resolution:
    """`members`: MEMBER_SCHEMA, one row per identifier. `links`: LINK_SCHEMA, one row per pair of records that was weighed, or that a steward
    joined, however unlikely; of a group without records, its hub stands for one, and nothing is weighed."""

    members: pl.DataFrame
    links: pl.DataFrame
    remembered: Remembered
    compared: int


def resolve(
    evidence: Evidence, model: Model, key: bytes, version: str = "", before: Remembered | None = None, bar: float = BAR_BITS,
    database: Any = None,
) -> Resolution:  # fmt: skip
    """Customers of the evidence. With `before`, only pairs of records that changed are compared; the result is the same without.

    `key` makes fingerprints that nobody can search by guessing. Raises: ModelsError for records of another shape.
    """
    return decided(evidence, weighed(evidence, model, key, version, before, database), bar)


@dataclass(frozen=True)
class Weighed:
    """All of `resolve` that no steward's word and nobody's consent changes: pairs scored, and the proofs that stand."""

    matcher: Matcher
    remembered: Remembered
    fresh: int
    scored: pl.DataFrame
    proved: pl.DataFrame


def weighed(
    evidence: Evidence, model: Model, key: bytes, version: str = "", before: Remembered | None = None, database: Any = None
) -> Weighed:  # fmt: skip
    """The records of the evidence compared, as `resolve` takes its arguments."""
    matcher = Matcher(evidence.records.sort("record_id"), model, database)
    remembered, fresh, compared = _compared(matcher, key, version, before)
    return Weighed(matcher, remembered, fresh, matcher.scored(compared), _without_shared_mailboxes(evidence, matcher))


def decided(evidence: Evidence, known: Weighed, bar: float = BAR_BITS) -> Resolution:
    """Customers of evidence that differs from what was weighed in `decisions` and `allowed` at most."""
    matcher, scored, records = known.matcher, known.scored, known.matcher.records
    proved = _parted(known.proved, evidence.decisions)
    state = _State.of(records, evidence, proved)
    pairs, proofs = state.pairs(scored, bar), state.proofs()
    bans, forced = state.decided(FORBIDDEN), state.decided(LINKED)
    together = Pairs(*(np.r_[a, b] for a, b in zip(proofs.columns, forced.pairs.columns, strict=True)))
    first, second = undecided(state.count, pairs, together)
    is_said = second < records.height  # the greater of the two
    first, second = first[is_said], second[is_said]
    more = state.pairs(matcher.scored(matcher.compared_these(first, second)), bar)
    every = Pairs(*(np.r_[a, b] for a, b in zip(pairs.columns, more.columns, strict=True)))
    label = clusters(state.count, every, together, bans.pairs)
    label = _whole_groups(label, state.group)
    members = _members(proved, evidence, state, label, every, bar)
    members = members.vstack(tied(evidence, members, bans.said))
    links = state.links(_with_forced(matcher, scored, forced), label, bar, forced, bans)
    return Resolution(members, links, known.remembered, known.fresh)


@dataclass(frozen=True)
class _State:
    """Records by number, with the number of the proved group of each; after them, what `_bare` puts in place of records."""

    records: list[str]
    group: np.ndarray
    group_refs: list[str]
    may_join: np.ndarray  # by record
    decisions: pl.DataFrame
    named: Mapping[str, int]  # of the identifiers that stewards named, a record of their group

    @classmethod
    def of(cls, records: pl.DataFrame, evidence: Evidence, proved: pl.DataFrame) -> "_State":
        owned = (
            records.select("record_id")
            .join(evidence.owners, on="record_id", how="left", maintain_order="left")
            .join(proved, on=("identity_type", "identity_ref"), how="left", maintain_order="left")
        )
        owned = pl.concat([owned, _bare(proved, owned["hub_identity_ref"], evidence.decisions).select(owned.columns)])
        refs = owned["hub_identity_ref"].fill_null(owned["identity_ref"])
        names = refs.unique().sort()
        place = pl.DataFrame({"ref": names}).with_row_index("place")
        group = refs.to_frame("ref").join(place, on="ref", how="left", maintain_order="left")["place"].to_numpy()
        may = ~owned["is_test"].fill_null(False)
        if evidence.allowed is not None:
            may &= refs.is_in(evidence.allowed["group_ref"].implode())
        return cls(
            owned["record_id"].to_list(), group.astype(np.int64), names.to_list(),
            may.to_numpy(), evidence.decisions, _named(owned["record_id"], refs, proved, evidence.decisions),
        )  # fmt: skip

    @property
    def count(self) -> int:
        return len(self.records)

    def pairs(self, scored: pl.DataFrame, bar: float) -> Pairs:
        """The pairs that may join two groups, or lie within one."""
        first, second = scored["first"].to_numpy(), scored["second"].to_numpy()
        free = (self.may_join[first] & self.may_join[second]) | (self.group[first] == self.group[second])
        return Pairs(first, second, scored["bits"].to_numpy() - bar, scored["within"].to_numpy()).only(free)

    def proofs(self) -> Pairs:
        """Each record with the first one of its proved group."""
        order = np.argsort(self.group, kind="stable")
        _, starts = np.unique(self.group[order], return_index=True)
        heads = np.repeat(order[starts], np.diff(np.r_[starts, len(order)]))
        return _sure(heads[heads != order], order[heads != order])

    def decided(self, kind: str) -> "_Decided":
        """What stewards said of groups, as pairs of their records."""
        said = self.decisions.filter(pl.col("decision_type") == kind)
        first, second, word = [], [], []
        for number, (one, other) in enumerate(said.select("first_ref", "second_ref").iter_rows()):
            a, b = self.named.get(one), self.named.get(other)
            if a is not None and b is not None and self.group[a] != self.group[b]:
                if kind == LINKED and not (self.may_join[a] and self.may_join[b]):
                    continue
                mine, theirs = np.flatnonzero(self.group == self.group[a]), np.flatnonzero(self.group == self.group[b])
                rows, columns = np.meshgrid(mine, theirs, indexing="ij")
                first.append(rows.ravel())
                second.append(columns.ravel())
                word.append(np.full(rows.size, number))
        nothing = [np.zeros(0, np.int64)]
        pairs = _sure(*(np.concatenate([*nothing, *each]) for each in (first, second)))
        return _Decided(kind, said, pairs, np.concatenate([*nothing, *word]))

    def links(
        self, scored: pl.DataFrame, label: np.ndarray, bar: float, forced: "_Decided", bans: "_Decided"
    ) -> pl.DataFrame:
        """Pairs of different groups worth telling of, with what was decided and what a steward's word would be worth."""
        codes = (scored["first"] * self.count + scored["second"]).to_numpy()
        is_forced = np.isin(codes, _codes(self.count, forced.pairs))
        first, second = scored["first"].to_numpy(), scored["second"].to_numpy()
        is_told = (scored["bits"].to_numpy() >= bar - _KEPT_BITS) | (is_forced & (label[first] == label[second]))
        is_told &= self.group[first] != self.group[second]
        told, codes, is_forced = scored.filter(pl.Series(is_told)), codes[is_told], is_forced[is_told]
        first, second = first[is_told], second[is_told]
        is_joined = label[first] == label[second]
        probability = told["probability"].to_numpy()
        decision = np.select(
            [
                np.isin(codes, _codes(self.count, bans.pairs)),
                is_forced & is_joined,
                is_joined,
                ~(self.may_join[first] & self.may_join[second]),
                told["bits"].to_numpy() >= bar,
            ],
            ["forbidden", "forced", "joined", "not_allowed", "outweighed"],
            "below_the_bar",
        )
        worth = np.select(
            [np.isin(decision, ("joined",)), np.isin(decision, ("outweighed", "below_the_bar"))],
            [(1 - probability) * WRONG_MERGE_COST, probability * MISSED_MERGE_COST],
            0.0,
        )
        names = np.array(self.records, dtype=object)
        words = pl.concat([forced.words(self.count), bans.words(self.count)])
        return (
            pl.DataFrame(
                {
                    "first_ref": names[first].tolist(), "second_ref": names[second].tolist(),
                    "pattern": told["pattern"], "bits": told["bits"], "within_bits": told["within"], "probability": told["probability"],
                    "decision": decision.tolist(), "worth": worth, "code": codes,
                },
                schema={**{name: kind for name, kind in LINK_SCHEMA.items() if name not in STEWARD}, "code": pl.Int64()},
            )
            .join(words, on=("code", "decision"), how="left")
            .select(*LINK_SCHEMA)
            .sort("first_ref", "second_ref")
        )  # fmt: skip


@dataclass(frozen=True)
class _Decided:
    """Pairs of records that stewards' words of one kind are about; `word`: by pair, the row of `said`."""

    kind: str
    said: pl.DataFrame
    pairs: Pairs
    word: np.ndarray

    def words(self, count: int) -> pl.DataFrame:
        """By code of a pair: its decision as links tell it, and the last word on it."""
        missing = {name: kind for name, kind in STEWARD.items() if name not in self.said.columns}
        told = self.said.with_columns(pl.lit(None, kind).alias(name) for name, kind in missing.items()).select(*STEWARD)
        rows = told[self.word].with_columns(
            code=pl.Series(_codes(count, self.pairs), dtype=pl.Int64()),
            decision=pl.lit("forced" if self.kind == LINKED else "forbidden"),
        )
        return rows.unique("code", keep="last")


def _with_forced(matcher: Matcher, scored: pl.DataFrame, forced: _Decided) -> pl.DataFrame:
    """The pairs, and those that stewards joined though no key brought them together: weighed now, where both are records."""
    said = pl.DataFrame(
        {"first": forced.pairs.first, "second": forced.pairs.second},
        schema=dict.fromkeys(("first", "second"), pl.Int64),
    )
    new = said.unique().join(scored, on=("first", "second"), how="anti").sort("first", "second")
    known = new.filter(pl.col("second") < matcher.records.height)  # the greater of the two
    weighed = matcher.scored(matcher.compared_these(known["first"].to_numpy(), known["second"].to_numpy()))
    return pl.concat([scored, weighed, new.join(known, on=("first", "second"), how="anti")], how="diagonal")


def _bare(proved: pl.DataFrame, hubs: pl.Series, decisions: pl.DataFrame) -> pl.DataFrame:
    """The hubs of groups that a steward links though no record speaks for them, each in place of a record."""
    links = decisions.filter(pl.col("decision_type") == LINKED)
    wanted = pl.concat([links["first_ref"], links["second_ref"]]).unique().implode()
    linked = proved.filter(pl.col("identity_ref").is_in(wanted))["hub_identity_ref"].unique().implode()
    is_bare = pl.col("identity_ref").is_in(linked) & ~pl.col("identity_ref").is_in(hubs.drop_nulls().unique().implode())
    own = (pl.col("identity_ref") == pl.col("hub_identity_ref")) & is_bare
    return proved.filter(own).with_columns(record_id="identity_ref").sort("identity_ref")


def _named(records: pl.Series, hubs: pl.Series, proved: pl.DataFrame, decisions: pl.DataFrame) -> dict[str, int]:
    """By identifier or record that a decision names, a record of its group; `hubs`: of the records."""
    wanted = pl.concat([decisions["first_ref"], decisions["second_ref"]]).unique().implode()
    rows = pl.DataFrame({"hub_identity_ref": hubs, "record": records}).with_row_index("row")
    heads = rows.unique("hub_identity_ref", keep="first", maintain_order=True)
    refs = proved.filter(pl.col("identity_ref").is_in(wanted)).join(heads, on="hub_identity_ref")
    own = rows.filter(pl.col("record").is_in(wanted))
    return {**dict(refs.select("identity_ref", "row").iter_rows()), **dict(own.select("record", "row").iter_rows())}


def _compared(
    matcher: Matcher, key: bytes, version: str, before: Remembered | None
) -> tuple[Remembered, int, pl.DataFrame]:
    """All pairs, those of unchanged records from memory; and how many were compared now."""
    names = matcher.records["record_id"]
    now = matcher.memory(key)
    if before is None or before.model != version:
        found = matcher.compared()
        fresh = found.height
    else:
        known = before.records.select("record_id", "fingerprint", is_known=pl.lit(True))
        same = now.join(known, on=("record_id", "fingerprint"), how="left", maintain_order="left")[
            "is_known"
        ].fill_null(False)
        changed = ~same
        new = matcher.compared(changed)
        rows = pl.DataFrame({"record_id": names, "is_same": same}).with_row_index("row").filter("is_same")
        rows = rows.select("record_id", pl.col("row").cast(pl.Int64))
        old = (
            before.pairs.join(rows.rename({"record_id": "first_ref", "row": "one"}), on="first_ref")
            .join(rows.rename({"record_id": "second_ref", "row": "other"}), on="second_ref")
            .select(
                first=pl.min_horizontal("one", "other"), second=pl.max_horizontal("one", "other"), pattern="pattern"
            )
        )
        found, fresh = pl.concat([old, new]), new.height
    found = found.sort("first", "second")
    pairs = found.select(
        first_ref=names.gather(found["first"]), second_ref=names.gather(found["second"]), pattern=found["pattern"]
    )
    return Remembered(version, now, pairs), fresh, found


def _without_shared_mailboxes(evidence: Evidence, matcher: Matcher) -> pl.DataFrame:
    """The proofs, without those of an e-mail that orders of somebody else in the house were placed with: it is its own hub then."""
    names = matcher.records.select("record_id").with_row_index("row")
    owned = names.join(evidence.owners, on="record_id", maintain_order="left").join(
        evidence.proved, on=("identity_type", "identity_ref"), maintain_order="left"
    )
    mail = owned.filter(identity_type="email", hub_identity_type="account")
    both = mail.join(
        owned.filter(identity_type="account").select("identity_ref", account_row="row"),
        left_on="hub_identity_ref", right_on="identity_ref",
    )  # fmt: skip
    first, second = (both.select(pl.col(name).cast(pl.Int64)).to_series().to_numpy() for name in ("row", "account_row"))
    scored = matcher.scored(matcher.compared_these(np.minimum(first, second), np.maximum(first, second)))
    told = pl.DataFrame(
        {"first": np.minimum(first, second), "second": np.maximum(first, second), "ref": both["identity_ref"]}
    )
    other = told.join(scored, on=("first", "second")).filter(pl.col("within") < _VETO_BITS)["ref"]
    return _own_hub(
        evidence.proved, (pl.col("identity_type") == "email") & pl.col("identity_ref").is_in(other.implode())
    )


def _parted(proved: pl.DataFrame, decisions: pl.DataFrame) -> pl.DataFrame:
    """A steward parts what a source proved: the identifier that is not the hub stands for itself from then on."""
    banned = decisions.filter(pl.col("decision_type") == FORBIDDEN).select("first_ref", "second_ref")
    hubs = proved.select(ref="identity_ref", hub="hub_identity_ref", hub_type="hub_identity_type").unique("ref")
    both = banned.join(hubs, left_on="first_ref", right_on="ref").join(
        hubs, left_on="second_ref", right_on="ref", suffix="_too"
    )
    same = both.filter(pl.col("hub") == pl.col("hub_too"))
    leaving = same.select(
        pl.when(pl.col("first_ref") == pl.col("hub")).then("second_ref").otherwise("first_ref")
    ).to_series()
    return _own_hub(proved, pl.col("identity_type").is_in(HUB_TYPES) & pl.col("identity_ref").is_in(leaving.implode()))


def _own_hub(proved: pl.DataFrame, who: pl.Expr) -> pl.DataFrame:
    return proved.with_columns(
        hub_identity_type=pl.when(who).then("identity_type").otherwise("hub_identity_type"),
        hub_identity_ref=pl.when(who).then("identity_ref").otherwise("hub_identity_ref"),
        link_type=pl.when(who).then(pl.lit("hub")).otherwise("link_type"),
    )


def _whole_groups(label: np.ndarray, group: np.ndarray) -> np.ndarray:
    """One label per proved group, the smallest of its records', should the evidence have torn one apart."""
    if not len(label):
        return label
    least = np.full(group.max() + 1, len(label))
    np.minimum.at(least, group, label)
    return np.asarray(least[group])


def _members(
    proved: pl.DataFrame, evidence: Evidence, state: _State, label: np.ndarray, pairs: Pairs, bar: float
) -> pl.DataFrame:
    """Identifiers with their customer; link types and hubs as `customer_identities` wants them."""
    hubs = pl.Series("hub_identity_ref", [state.group_refs[g] for g in state.group], pl.String())
    of_group = pl.DataFrame({"hub_identity_ref": hubs, "label": label}).unique("hub_identity_ref")
    people = proved.join(of_group, on="hub_identity_ref", how="left", maintain_order="left").with_columns(
        person=pl.when(pl.col("label").is_null()).then("hub_identity_ref").otherwise(pl.col("label").cast(pl.String))
    )
    rank = pl.col("identity_type").replace_strict(
        {name: at for at, name in enumerate(HUB_TYPES)}, default=9, return_dtype=pl.Int64
    )
    dated = people.join(
        evidence.seen, on=("identity_type", "identity_ref"), how="left", maintain_order="left"
    ).with_columns(rank=rank, first_seen_at=pl.coalesce("first_seen_at", "linked_at"))
    named = dated.filter(pl.col("identity_type").is_in(HUB_TYPES)).sort("first_seen_at", "rank", "identity_ref")
    oldest = named.unique("person", keep="first", maintain_order=True).select(
        "person",
        pl.struct("identity_type", "identity_ref")
        .map_elements(lambda row: customer_id(row["identity_type"], row["identity_ref"]), pl.String())
        .alias("customer_id"),
    )
    mains = named.filter(pl.col("link_type") == "hub").sort("rank", "first_seen_at", "identity_ref")
    mains = mains.unique("person", keep="first", maintain_order=True).select("person", main="identity_ref")
    probable = _probabilities(state, label, pairs, bar)
    return (
        people.join(oldest, on="person", how="left", maintain_order="left")
        .join(mains, on="person", how="left", maintain_order="left")
        .join(probable, on="hub_identity_ref", how="left", maintain_order="left")
        .with_columns(
            link_type=pl.when((pl.col("link_type") == "hub") & (pl.col("identity_ref") != pl.col("main")))
            .then(pl.lit("probabilistic")).otherwise("link_type"),
        )
        .with_columns(match_probability=pl.when(pl.col("link_type") == "probabilistic").then("match_probability"))
        .select(pl.col(name).cast(kind) for name, kind in MEMBER_SCHEMA.items())
        .sort(*list(SCHEMA)[:4])
    )  # fmt: skip


def customer_id(identity_type: str, identity_ref: str) -> str:
    """The id of the customer whose oldest identifier this is: opaque, the same in every run."""
    return "cus_" + md5(f"{identity_type}:{identity_ref}".encode(), usedforsecurity=False).hexdigest()[:22]


def _probabilities(state: _State, label: np.ndarray, pairs: Pairs, bar: float) -> pl.DataFrame:
    """hub_identity_ref of a group, match_probability: how sure the surest pair with another group of its customer is."""
    first, second = pairs.first, pairs.second
    across = (label[first] == label[second]) & (state.group[first] != state.group[second])
    probability = 1 / (1 + np.exp2(-(pairs.bits[across] + bar)))
    sides = pl.DataFrame(
        {
            "group": np.r_[state.group[first[across]], state.group[second[across]]],
            "match_probability": np.r_[probability, probability],
        }
    )
    best = sides.group_by("group").agg(pl.col("match_probability").max())
    return best.select(
        hub_identity_ref=pl.col("group").map_elements(lambda g: state.group_refs[g], pl.String()),
        match_probability="match_probability",
    )


def _sure(first: np.ndarray, second: np.ndarray) -> Pairs:
    ones = np.full(len(first), 99.0)
    return Pairs(np.minimum(first, second), np.maximum(first, second), ones, ones)


def _codes(count: int, pairs: Pairs) -> np.ndarray:
    return np.asarray(pairs.first * count + pairs.second)
