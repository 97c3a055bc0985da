"""The record of processing activities (GDPR 30(1)), made of what really runs: one activity per purpose of the policy.

Nothing is typed in here. What flows is read from the flow that was checked last, over the uses there are now; what is declared stands
beside it, and where the two differ it is said.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path

import polars as pl

from consent.receipts import vocabulary
from consent.receipts.shopper import CONTROLLER_FILE, Controller, policy_hash
from consent.rule.policy import EVERY, Policy, read_policy
from models import registry
from models.build import BASELINES
from models.purpose_flow import kept
from models.purpose_flow.checking import Use
from models.purpose_flow.declarations import categories
from models.purpose_flow.inspecting import Reaching
from models.segments.definition import Segment
from models.segments.rules import read_rules
from models.tables import naive
from serving.hub.seams import controller_of
from serving.records import uses
from serving.records.declared import differences
from serving.records.destinations import hashed, recipients
from serving.records.safeguards import measures
from serving.records.shapes import (
    FORMAT,
    NOT_DECLARED,
    Activity,
    Basis,
    Count,
    Data,
    Implementation,
    Party,
    Recipient,
    Record,
    Subjects,
)
from troth.home import Home
from troth.ids import file_hash
from troth.published import POINTER, current

# Whom the data of a source is about (DPV 2.0, data subjects). A source that is not named is about people nothing more is known of.
SUBJECTS: Mapping[str, tuple[str, str]] = {
    "pos": ("People who buy in stores", "dpv:Customer"),
    "ecommerce": ("People who visit or order in the web shop and app", "dpv:Customer"),
    "loyalty": ("Members of the loyalty scheme", "dpv:Member"),
    "consent": ("People who were asked for consent", "dpv:DataSubject"),
    "steward": ("People whose records were looked at by hand", "dpv:Customer"),
    "wms": ("People something is sent to", "dpv:Customer"),
    "stock": ("People something is set aside for", "dpv:Customer"),
}
STANDING = "consent_standing"


def record(home: Home, at: datetime) -> Record:
    """The record of a home as it is, at an aware time. Raises: TrothError where something it rests on is damaged."""
    policy, controller, known = read_policy(), controller_of(home), kept.kept(home)
    told = recipients(home, controller)
    flow = kept.known(home)
    listed = [] if flow is None else uses.of_home(home, flow.graph)
    reached = uses.reaching(home, listed)
    segments = {each.name: each for each in uses.segments(home)}
    about_people = frozenset() if flow is None else frozenset(table for table, _ in flow.declared)
    people = _people(home, at)
    activities = [
        Activity(
            purpose_code=code,
            description=purpose.description,
            terms=list(vocabulary.PURPOSES.get(code, ())),
            operations=list(vocabulary.OPERATIONS.get(code, ())),
            bases=_bases(policy, code),
            subjects=_subjects([reached[use.title] for use in listed if use.purpose == code], about_people),
            data=_data([use for use in listed if use.purpose == code], reached),
            implementations=[_implementation(home, use, segments) for use in listed if use.purpose == code],
            recipients=[each for each in told if code in each.purposes],
            retention=controller.purposes[code].retention if code in controller.purposes else NOT_DECLARED,
            people=people.get(code, []),
        )
        for code, purpose in policy.purposes.items()
    ]
    inputs = _inputs(home, known, listed, told, segments, activities)
    size, root = _ledger(home)
    return Record(
        format=FORMAT,
        made_at=at,
        controller=_party(controller),
        activities=activities,
        measures=measures(home, at),
        differences=differences(controller, policy, activities),
        flow_checked_at=None if known is None else known.checked_at,
        flow_is_verified=None if known is None else known.is_verified,
        ledger_size=size,
        ledger_root=root,
        inputs=inputs,
        sha256=hashed(inputs),
    )


def _party(controller: Controller) -> Party:
    return Party(
        name=controller.name,
        address=controller.address,
        country=controller.country,
        contact=controller.contact,
        email=controller.email,
        phone=controller.phone,
        url=controller.url,
        privacy_notice=controller.privacy_notice,
        authority_name=controller.authority["name"],
        authority_url=controller.authority["url"],
        storage_locations=list(controller.storage_locations),
        processing_locations=list(controller.processing_locations),
        rights=list(controller.rights),
    )


def _bases(policy: Policy, code: str) -> list[Basis]:
    """Why the purpose may be pursued, by place; `*` first."""
    basis = policy.purposes[code].legal_basis
    term, article = vocabulary.LEGAL_BASES[basis]
    return [
        Basis(
            jurisdiction_code=place,
            legal_basis=basis,
            mechanism=policy.mechanism(code, place) if policy.purposes[code].rests_on_consent else "none",
            expires_after_days=policy.days(code, place),
            confirm_within_days=policy.confirm_days(code, EVERY, place),
            term=term,
            article=article,
        )
        for place in sorted(policy.jurisdictions, key=lambda each: (each != EVERY, each))
    ]


def _data(listed: Sequence[Use], reached: Mapping[str, Reaching]) -> list[Data]:
    """What reaches the uses of a purpose, by category: the columns it comes from."""
    columns: dict[str, set[str]] = defaultdict(set)
    by: dict[str, set[str]] = defaultdict(set)
    for use in listed:
        for place, personal in reached[use.title].personal.items():
            columns[personal.category].add(".".join(place))
            by[personal.category].add(use.title)
    terms = categories()
    return [
        Data(category=category, term=terms[category].term, columns=sorted(found), uses=sorted(by[category]))
        for category, found in sorted(columns.items())
    ]


def _subjects(reached: Iterable[Reaching], about_people: frozenset[str]) -> list[Subjects]:
    """Whose data it is: by the sources of the landed tables that say something of people and are reached."""
    tables = {table for each in reached for table in each.tables & about_people if table.startswith("raw_")}
    told = {source: SUBJECTS.get(source, (f"People of {source}", "dpv:DataSubject")) for source in sorted({table.removeprefix("raw_").partition("__")[0] for table in tables})}  # fmt: skip
    return [Subjects(source=source, title=title, term=term) for source, (title, term) in told.items()]


def _implementation(home: Home, use: Use, segments: Mapping[str, Segment]) -> Implementation:
    """A use with the version that is in use, and the hash of its definition."""
    segment = segments.get(use.name.partition(" by ")[0]) if use.kind in ("segment", "export") else None
    version: str | None = None
    if segment is not None:
        version = str(segment.version)
    elif use.kind == "training":
        version = registry.pointed(home, use.name)
    elif use.kind == "table" and (home.published / use.name / POINTER).exists():
        version = current(home, use.name).stem
    elif use.kind == "feature service":
        version = use.name.rpartition("_")[2]
    said = {"kind": use.kind, "name": use.name, "purpose": use.purpose, "reads": [".".join(each) for each in use.reads]}
    return Implementation(
        kind=use.kind,
        name=use.name,
        version=version,
        sha256=segment.hash if segment is not None and use.kind == "segment" else hashed(said),
        declared_in=use.declared_in,
    )


def _people(home: Home, at: datetime) -> dict[str, list[Count]]:
    """How many customers have which standing at a time, by purpose; testers are nobody. Nothing before the first run."""
    if not (home.published / STANDING / POINTER).exists():
        return {}
    standing = pl.scan_parquet(current(home, STANDING))
    if (home.published / "customers" / POINTER).exists():
        testers = pl.scan_parquet(current(home, "customers")).filter(pl.col("is_test").fill_null(True))
        standing = standing.join(testers.select("customer_id"), on="customer_id", how="anti")
    has_ended = pl.col("is_allowed") & (pl.col("expires_at") <= naive(at)).fill_null(False)
    counted = (
        standing.with_columns(
            (pl.col("is_allowed") & ~has_ended).alias("is_allowed"),
            pl.when(has_ended).then(pl.lit("expired")).otherwise("reason_code").alias("reason_code"),
        )
        .group_by("purpose_code", "channel_code", "is_allowed", "reason_code")
        .agg(pl.len().cast(pl.Int64).alias("people"))
        .sort("purpose_code", "channel_code", "is_allowed", "reason_code", descending=[False, False, True, False])
        .collect()
    )
    found: dict[str, list[Count]] = defaultdict(list)
    for purpose, channel, is_allowed, reason, people in counted.iter_rows():
        found[purpose].append(
            Count(channel_code=channel, is_allowed=is_allowed, reason_code=reason, people=people)
        )  # fmt: skip
    return found


def _inputs(
    home: Home,
    known: kept.Kept | None,
    listed: Sequence[Use],
    told: Sequence[Recipient],
    segments: Mapping[str, Segment],
    activities: Sequence[Activity],
) -> dict[str, str]:
    """SHA-256 of everything the record was made from."""
    own = home.root / CONTROLLER_FILE.name
    found = {
        "policy": policy_hash(read_policy()),
        "controller": file_hash(own if own.exists() else CONTROLLER_FILE),
        "rules of segments": read_rules().hash,
        "uses": hashed({use.title: [use.purpose, sorted(map(list, use.reads))] for use in listed}),
        "code of the record": _code_hash(),
    }
    if known is not None:
        found["flow"] = known.hash
    found |= {f"segment {name}": segment.hash for name, segment in segments.items()}
    found |= {f"{each.kind} {each.name}": each.sha256 for each in told}
    for baseline in BASELINES:
        if (version := registry.pointed(home, baseline.name)) is not None:
            found[f"model {baseline.name}"] = version
    for table in (STANDING, "customers"):
        if (home.published / table / POINTER).exists():
            found[f"table {table}"] = current(home, table).stem
    size, root = _ledger(home)
    if root is not None:
        found["ledger"] = f"{size}:{root}"
    return dict(sorted(found.items()))


def _ledger(home: Home) -> tuple[int | None, str | None]:
    """Size and root that the home remembers: those of its newest checkpoint file."""
    from consent.log.note import checkpoint_unverified, split_unverified

    mark = home.root / "ledger.checkpoint"
    if not mark.exists():
        return None, None
    found = checkpoint_unverified(split_unverified(mark.read_text(encoding="utf-8"))[0])
    return found.size, found.root.hex()


@cache
def _code_hash() -> str:
    """Of this room's own files: another way of reading the same home makes another record."""
    return hashed({path.name: file_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))})
