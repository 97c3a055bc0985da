"""What a steward asks: who a customer is made of, why two are one or two, what is worth a look, what changed, what the model is and would be.

Tokens and levels, no clear text; a look at clear text is asked for, given with a reason, and landed as an event like a decision.
"""

import secrets
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl

from models.identity.adopting import adopted
from models.identity.comparisons import Comparisons
from models.identity.explaining import Explainer
from models.identity.explanations import CustomerExplanation, Explanation
from models.identity.model import ARTIFACT, Model
from models.identity.preparing import AMONG_ALL
from models.identity.proofs import proved, seen_together
from models.identity.reasons import percent
from models.identity.records import normal_records, said_records
from models.identity.resolving import LINK_SCHEMA, MISSED_MERGE_COST, STEWARD, WRONG_MERGE_COST
from orchestration.deciding import becoming, checked_words, land, landed_decisions, members_of, named, summed
from orchestration.errors import MISUSE, RunError
from orchestration.identities import (
    CHANGES,
    COUNTRY,
    LINKS,
    RECORDS,
    comparing_on,
    evidence_of,
    joining_standing,
    last_words,
    sources_of,
)
from orchestration.raw import read_table
from orchestration.stages import known_until
from troth.home import Home
from troth.settings import given_matching


def show(home: Home, said: str) -> dict[str, Any]:
    """What a customer is made of and what joins it, what it was called, what stewards said of it. Raises: RunError for one that nobody knows."""
    members = members_of(home)
    moved = _changes(home)
    if said.startswith("cus_") and not members.filter(customer_id=said).height:
        return _followed(moved, said)
    subject = named(home, members, said)
    customer_id = subject if subject.startswith("cus_") else members.filter(identity_ref=subject)["customer_id"][0]
    mine = members.filter(customer_id=customer_id)
    rows = mine.sort("hub_identity_ref", pl.col("identity_ref") != pl.col("hub_identity_ref"), "identity_ref").select(
        "identity_type", "identity_ref", "link_type", "match_probability", "source_name", "linked_at", "is_test", group="hub_identity_ref",
    )  # fmt: skip
    told = moved.filter((pl.col("customer_id") == customer_id) | (pl.col("from_customer_id") == customer_id))
    links = _links_of(home, mine)
    hub_of = dict(mine.select("identity_ref", "hub_identity_ref").iter_rows())
    forced, likely = (
        {hub_of[link[side]] for link in links if link["link_type"] == how for side in ("first_ref", "second_ref")}
        for how in ("forced", "likely")
    )
    by_word = (pl.col("link_type") == "probabilistic") & pl.col("group").is_in(sorted(forced - likely))
    rows = rows.with_columns(
        link_type=pl.when(by_word).then(pl.lit("forced")).otherwise("link_type"), match_probability=pl.col("match_probability").round(4)
    )  # fmt: skip
    return {
        "customer_id": customer_id,
        "identifiers": rows.to_dicts(),
        "groups": rows["group"].n_unique(),
        "links": links,
        "changes": _told_of(told),
        "decisions": _words(home).filter(_names(mine)).to_dicts(),
    }


def _links_of(home: Home, mine: pl.DataFrame) -> list[dict[str, Any]]:
    """The links that join a customer's groups, a steward's first: with who said so, when and why; then the surest."""
    links = read_table(home, LINKS)
    if links is None:
        return []
    links = pl.concat([pl.DataFrame(schema=LINK_SCHEMA), links], how="diagonal")  # a run before there were such words
    refs = mine["identity_ref"].implode()
    kept = links.filter(
        pl.col("first_ref").is_in(refs),
        pl.col("second_ref").is_in(refs),
        pl.col("decision").is_in(["joined", "forced"]),
    )
    kept = kept.sort(
        pl.col("decision") != "forced",
        pl.col("bits"),
        "first_ref",
        "second_ref",
        descending=[False, True, False, False],
        nulls_last=True,
    )
    told = kept.select(
        "first_ref", "second_ref", *STEWARD, link_type=pl.col("decision").replace("joined", "likely"), probability=pl.col("probability").round(4),
    )  # fmt: skip
    return [{name: value for name, value in row.items() if value is not None} for row in told.to_dicts()]


def explain(
    home: Home, first: str, second: str | None, at: datetime, reveal: tuple[str, str] | None = None
) -> Explanation | CustomerExplanation:
    """Why two identifiers or customers are one or two; of a customer alone, all that holds it together.

    `reveal`: actor and reason of a look at clear text, landed before anything is shown; there is nothing to show where the two have no
    two records. Raises: RunError for what cannot be meant.
    """
    members = members_of(home)
    if reveal is not None:
        checked_words(*reveal)
    one = named(home, members, first)
    other = None if second is None else named(home, members, second)
    if other is None and not one.startswith("cus_"):
        raise RunError(
            "explain: expected a customer id or two identifiers, found one identifier. Name another.", MISUSE
        )
    if reveal is not None and other is None:
        raise RunError("--reveal: expected two identifiers, found one customer. Name two.", MISUSE)
    until = known_until(home)
    sources = sources_of(home, until)
    version, model = adopted(home)
    both = [
        each if each.startswith("cus_") else members.filter(identity_ref=each)["customer_id"][0]
        for each in (one, other)
        if each
    ]
    mine = members.filter(pl.col("customer_id").is_in(both))
    said = said_records(sources)
    groups = proved(sources).filter(pl.col("hub_identity_ref").is_in(mine["hub_identity_ref"].implode()))
    standing = joining_standing(home, groups, until, seen_together(sources))
    explainer = Explainer(_comparisons(home, said, mine, version, model), version, mine, standing, _words(home))
    if other is None:
        return explainer.customer(one)
    told = explainer.pair(one, other)
    if reveal is None or told.comparison is None:
        return told
    _look(home, at, told.comparison.first_record, told.comparison.second_record, *reveal)
    return replace(explainer, compared=replace(explainer.compared, said=said)).pair(one, other)


def _comparisons(home: Home, said: pl.DataFrame, members: pl.DataFrame, version: str, model: Model) -> Comparisons:
    """Of the records of these members, prepared as the last run prepared them among all; where something about them, or the model, has
    changed since, of all records, prepared anew."""
    few = normal_records(said.filter(pl.col("record_id").is_in(members["identity_ref"].implode())), COUNTRY)
    kept = read_table(home, RECORDS)
    if kept is not None and {*AMONG_ALL} <= {*kept.columns}:
        among = kept.filter(pl.col("record_id").is_in(few["record_id"].implode()), model=version)
        told = Comparisons(few, model, among=among)
        if told.are_as_remembered(home.key("token")):
            return told
    return Comparisons(normal_records(said, COUNTRY), model)


def _look(home: Home, at: datetime, first: str, second: str, actor: str, reason: str) -> None:
    reveal_id = f"look_{secrets.token_hex(8)}"
    record = {"reveal_id": reveal_id, "revealed_at": at.isoformat(), "first_ref": first, "second_ref": second,
              "actor_id": actor, "reason": reason.strip()}  # fmt: skip
    land(home, at, f"reveals_{reveal_id}", record)


def queue(home: Home, limit: int) -> dict[str, Any]:
    """Pairs of groups that a steward's word is worth most on, each by its surest records; those already decided left out.

    What a word is worth: the cost that the run expects to be wrong by, joined (it may be two) or apart (it may be one).
    """
    links, members = read_table(home, LINKS), members_of(home)
    if links is None:
        raise RunError(f"identities: expected pairs weighed, found none in {home.root}. Run `troth run` first.", MISUSE)
    hubs = members.select(ref="identity_ref", hub="hub_identity_ref", customer_id="customer_id").unique("ref")
    pairs = (
        links.join(hubs, left_on="first_ref", right_on="ref").join(hubs, left_on="second_ref", right_on="ref", suffix="_too")
        .with_columns(sides=pl.concat_list("hub", "hub_too").list.sort())
        .sort("bits", "first_ref", "second_ref", descending=[True, False, False]).unique("sides", keep="first", maintain_order=True)
    )  # fmt: skip
    words = (
        _words(home)
        .join(hubs, left_on="first_ref", right_on="ref")
        .join(hubs, left_on="second_ref", right_on="ref", suffix="_too")
    )
    decided = words.select(sides=pl.concat_list("hub", "hub_too").list.sort()).unique()
    open_ = pairs.filter(pl.col("worth") > 0).join(decided, on="sides", how="anti")
    open_ = open_.sort("worth", "first_ref", "second_ref", descending=[True, False, False])
    rows = [
        {"worth": round(row["worth"], 3), "first_ref": row["first_ref"], "second_ref": row["second_ref"], "now": row["decision"],
         "probability": round(row["probability"], 4), "first_customer_id": row["customer_id"], "second_customer_id": row["customer_id_too"],
         "words": _worth(row)}
        for row in open_.head(limit).iter_rows(named=True)
    ]  # fmt: skip
    return {"open": open_.height, "worth_in_all": round(float(open_["worth"].sum()), 1), "queue": rows}


def _worth(row: dict[str, Any]) -> str:
    if row["decision"] == "joined":
        return f"joined, {percent(1 - row['probability'])} likely two people at {WRONG_MERGE_COST:g} for a wrong merge: forbid if they are"
    return f"apart, {percent(row['probability'])} likely one person at {MISSED_MERGE_COST:g} for a missed one: link if they are"


def changes(home: Home, since: datetime | None = None, customer: str | None = None) -> dict[str, Any]:
    """Who was merged, split, renamed, and why; of one customer, by its id of now or of then."""
    found = _changes(home)
    if since is not None:
        found = found.filter(pl.col("changed_at") >= since.astimezone(UTC).replace(tzinfo=None))
    if customer is not None:
        found = found.filter((pl.col("customer_id") == customer) | (pl.col("from_customer_id") == customer))
    return {**summed(found), "changes": _told_of(found)}


def _told_of(found: pl.DataFrame) -> list[dict[str, Any]]:
    told = found.group_by("changed_at", "change_type", "from_customer_id", "customer_id", "reason", maintain_order=True)
    rows = told.agg(identifiers="identity_ref").sort("changed_at", "change_type", "customer_id", maintain_order=True)
    return rows.to_dicts()


def _followed(moved: pl.DataFrame, customer_id: str) -> dict[str, Any]:
    """What became of a customer that is no more."""
    left = moved.filter(from_customer_id=customer_id)
    if not left.height:
        raise RunError(
            f"customer: expected one that some run knew, found {customer_id[:40]}. See `troth identity changes`.",
            MISUSE,
        )
    now = sorted(left["customer_id"].drop_nulls().unique())
    return {"customer_id": customer_id, "is_current": False, "became": now, "changes": _told_of(left)}


def model(home: Home) -> dict[str, Any]:
    """The model in use: weights per level, keys, how learning settled, expected errors by bar."""
    from models import registry

    version, used = adopted(home)
    if used.records:
        content = registry.manifest(home, ARTIFACT, version)
        return {"version": version, **{name: value for name, value in content.items() if name != "files"}}
    weights = used.bits().with_columns(pl.col(pl.Float64).round(9)).to_dicts()
    return {
        "version": version, "model": ARTIFACT, "records": 0, "keys": [each.key.name for each in used.keys],
        "steps": "none: expectations, until there are records enough to learn from", "weights": weights,
    }  # fmt: skip


def train(home: Home, *, adopt: bool, dry_run: bool) -> dict[str, Any]:
    """Learn anew from what is there, and tell what would become of customers. Kept unless `dry_run`; used from the next run if `adopt`."""
    from models import registry
    from models.identity.adopting import diagnostics, learn
    from models.identity.changes import changes as between
    from models.identity.matching import Matcher
    from models.identity.resolving import resolve

    members, until = members_of(home), known_until(home)
    evidence = evidence_of(home, until)
    with comparing_on(given_matching()) as database:
        if dry_run:
            matcher = Matcher(evidence.records.sort("record_id"), database=database)
            seen = diagnostics(matcher, matcher.learn())
            version, learned = None, matcher.model
        else:
            version, learned = learn(home, evidence.records, adopt=adopt, database=database)
            seen = registry.manifest(home, ARTIFACT, version)
        after = resolve(evidence, learned, home.key("token"), database=database)
    told = between(members, after.members, until.replace(tzinfo=None))
    kinds = dict(after.links["decision"].value_counts().sort("decision").iter_rows())
    return {
        "version": version, "in_use": adopted(home)[0], "records": seen["records"], "pairs_compared": seen["pairs_compared"],
        "pairs_of_one_person": seen["pairs_of_one_person"], "keys": seen["keys"], "steps": seen["steps"], "last_change": seen["last_change"],
        "decisions": kinds, **summed(told), "becomes": becoming(told), "bars": seen["bars"],
    }  # fmt: skip


def _changes(home: Home) -> pl.DataFrame:
    from models.identity.changes import CHANGE_SCHEMA

    found = read_table(home, CHANGES)
    return pl.DataFrame(schema=CHANGE_SCHEMA) if found is None else found


def _words(home: Home) -> pl.DataFrame:
    """What stewards said last, those words too that wait for the next run."""
    return last_words(landed_decisions(home))


def _names(mine: pl.DataFrame) -> pl.Expr:
    return pl.any_horizontal(pl.col(name).is_in(mine["identity_ref"].implode()) for name in ("first_ref", "second_ref"))
