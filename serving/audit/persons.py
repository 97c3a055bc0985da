"""Who is meant, what they said, with its proofs, and how that stands and stood."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from consent.events import Event, decode, decode_frame
from consent.ledger.ledger import Ledger
from consent.log.audit import check_event
from consent.log.entry import prefix_of, subject_key
from consent.log.index import verify_state_proof
from consent.log.merkle import leaf_hash, verify_inclusion
from consent.log.note import open_checkpoint
from consent.receipts.verifier import Report
from consent.rule.explanations import explain
from consent.rule.identity import company
from consent.rule.policy import Policy
from consent.rule.spans import every_span
from consent.rule.standing import GRANTING_LINKS, IDENTITIES, Standing, merged_groups, standing
from models.permission import LINKS
from models.permission import identities as identities_in
from serving.audit.evidence import proving
from serving.audit.shapes import (
    Identity,
    Said,
    Span,
    Stands,
)
from serving.hub.preferences import history
from serving.rights.persons import RightsError, near, resolve
from troth.errors import TrothError
from troth.home import Home
from troth.published import current

ERASED = "(erased)"


@dataclass(frozen=True)
class Known:
    """Whom an audit is about. `links`: `IDENTITIES` of each customer, or of the identity alone where it is nobody's we know."""

    said: str
    links: pl.DataFrame
    former: tuple[str, ...] = ()  # customers whose these identities were in an earlier version

    @property
    def tokens(self) -> list[str]:
        return list(dict.fromkeys(self.links["identity_ref"].drop_nulls().to_list()))

    @property
    def is_alone(self) -> bool:
        """An identity, or an id, that belongs to no customer we know."""
        return self.links["link_type"].to_list() == ["itself"]

    @property
    def names(self) -> list[str]:
        """Whom standing is said of: customers, or the identity."""
        return list(dict.fromkeys(self.links["customer_id"].to_list()))

    @property
    def keys(self) -> dict[str, str]:
        """Customer ids and tokens by the key the log, receipts and looks know them by."""
        everything = dict.fromkeys([*self.names, *self.tokens, *self.former, self.said])
        return {subject_key(one).hex(): one for one in everything}


def known_of(home: Home, said: str) -> Known:
    """Who is meant: the customers whose proved identity it is, each with all identities; else the token, or the id, alone."""
    try:
        links = near(home, [said])
        person = resolve(home, [said], links)
        customers, tokens = person.customer_ids, person.tokens
    except RightsError:
        customers, tokens = (), (said,)
    except TrothError:  # nothing was published yet
        customers, tokens = (), (said,)
    if customers:
        theirs = links.filter(pl.col("customer_id").is_in(customers))
        found = theirs.drop_nulls("identity_ref").sort("customer_id", "identity_ref")
        name = said if said in customers else tokens[0] if tokens else customers[0]
        return Known(name, found, _former(home, found))
    one = tokens[0]
    row = {"customer_id": one, "identity_ref": one, "link_type": "itself", "group_ref": one}
    return Known(one, pl.DataFrame([row], schema=dict.fromkeys(IDENTITIES, pl.String)))


def _former(home: Home, links: pl.DataFrame) -> tuple[str, ...]:
    """Whose the proved identities were in versions that are kept: decisions were made about those customers, who are none any more."""
    is_proved = pl.col("link_type").is_in(GRANTING_LINKS)
    mine = links.filter(is_proved)["identity_ref"].to_list()
    newest, found = current(home, LINKS), set[str]()
    for path in sorted((home.published / LINKS).glob("*.parquet")):
        if path != newest:
            rows = pl.scan_parquet(path).filter(is_proved & pl.col("identity_ref").is_in(mine))
            found |= set(rows.select("customer_id").collect()["customer_id"])
    return tuple(sorted(found - set(identities_in(newest, found)["customer_id"]))) if found else ()


def standing_of(
    ledger: Ledger, known: Known, policy: Policy, at: datetime, known_at: datetime | None
) -> Iterator[tuple[str, str, str, Standing]]:
    """Name, purpose, channel and standing of everybody who is meant, for all that is asked: by the rule, identity by identity."""
    said = {one: history(ledger, one) for one in known.tokens}
    for (name,), rows in known.links.group_by("customer_id", maintain_order=True):
        for code, purpose in policy.purposes.items():
            for channel in purpose.channels:
                answers = [
                    (group, link, standing(said[one], one, code, channel, at, policy=policy, known_at=known_at))
                    for one, link, group in rows.select(IDENTITIES[1:]).iter_rows()
                ]
                if purpose.rests_on_contract:
                    found = Standing(True, "contract")
                else:
                    found = answers[0][2] if answers[0][1] == "itself" else merged_groups(answers)
                yield str(name), code, channel, found


def heard_of(ledger: Ledger, tokens: Sequence[str]) -> pl.DataFrame:
    """The events of these identities and of all they were ever joined to, in the ledger's own shape; erased ones are left out."""
    near = {other for one in tokens for other in company(ledger, one)}
    leaves = sorted({leaf for one in near for leaf in ledger.leaves_of(one)})
    found = [(leaf, each.event) for leaf in leaves if (each := ledger.opened(leaf)) is not None]
    return decode_frame([event for _, event in found], [leaf for leaf, _ in found], ledger.size)


def standing_over(
    ledger: Ledger, known: Known, policy: Policy, at: datetime, known_at: datetime | None
) -> tuple[list[Stands], list[Span]]:
    stands = [
        Stands(
            of=name,
            purpose=code,
            channel=channel,
            is_allowed=found.is_allowed,
            reason=found.reason_code,
            since_at=found.since_at,
            expires_at=found.expires_at,
            leaf=found.leaf_index,
            in_words=explain(found, "marketer", policy, code, channel),
        )
        for name, code, channel, found in standing_of(ledger, known, policy, at, known_at)
    ]
    frame = every_span(heard_of(ledger, known.tokens), known.links, policy)
    is_said = (pl.col("reason_code") != "never_asked").cum_max().over("customer_id", "purpose_code", "channel_code")
    names = (
        "customer_id",
        "purpose_code",
        "channel_code",
        "from_at",
        "until_at",
        "is_allowed",
        "reason_code",
        "leaf_index",
    )
    spans = [
        Span(of=of, purpose=code, channel=channel, from_at=since, until_at=until, is_allowed=yes, reason=why, leaf=leaf)
        for of, code, channel, since, until, yes, why, leaf in frame.filter(is_said).select(names).iter_rows()
    ]  # fmt: skip
    return stands, spans


def events_of(ledger: Ledger, known: Known, report: Report) -> tuple[list[Said], list[Identity]]:
    """Every event of every identity with its proofs checked, and what each identity is."""
    found, identities = list[Said](), list[Identity]()
    rows = known.links.unique("identity_ref", maintain_order=True).select(IDENTITIES)
    for number, (customer, token, link, _) in enumerate(rows.iter_rows(), start=1):
        said: list[Said] = []
        with proving(report, f"identity {number}: nothing was left out, and every event is in the log"):
            said = _proved(ledger, number, token)
            told = ", ".join(str(one.leaf) for one in said[:20]) + (" ..." if len(said) > 20 else "")
            report.proved(f"identity {number}: nothing was left out, and every event is in the log",
                          f"leaves {told}" if said else "no leaf speaks of it")  # fmt: skip
        identities.append(
            Identity(
                number=number,
                token=token,
                customer_id=None if link == "itself" else customer,
                link=link,
                is_proved=link == "itself" or link in GRANTING_LINKS,
                leaf_count=len(said),
                erased_count=sum(one.event == ERASED for one in said),
            )
        )
        found += said
    return sorted(found, key=lambda one: one.leaf), identities


def _proved(ledger: Ledger, number: int, token: str) -> list[Said]:
    """What one identity said, once state proof and inclusion proofs hold. Raises: VerificationError."""
    note, proof = ledger.checkpoint(), ledger.state_proof(token)
    while note != (newer := ledger.checkpoint()):  # somebody wrote in between
        note, proof = newer, ledger.state_proof(token)
    checkpoint = open_checkpoint(note, ledger.verifier)
    leaves = verify_state_proof(proof, prefix_of(token), checkpoint.size, checkpoint.state_root or b"")
    said = []
    for leaf, path in zip(leaves, ledger.inclusion_proofs(list(leaves), checkpoint.size), strict=True):
        entry, inside = ledger.entry(leaf), ledger.opened(leaf)
        verify_inclusion(leaf_hash(entry), leaf, checkpoint.size, path, checkpoint.root)
        if inside is None:
            said.append(Said(leaf=leaf, identity=number, event=ERASED, is_proved=True))
            continue
        check_event(f"leaf {leaf}", entry, inside)
        said.append(_said(leaf, number, decode(inside.event)))
    return said


def _said(leaf: int, number: int, event: Event) -> Said:
    return Said(
        leaf=leaf,
        identity=number,
        event=event.event_type,
        is_proved=True,
        purpose=event.purpose_code,
        channel=event.channel_code,
        occurred_at=event.occurred_at,
        recorded_at=event.recorded_at,
        received_at=event.received_at,
        notice=f"{event.notice_id} v{event.notice_version}" if event.notice_id else None,
        method=event.capture_method,
        place=event.capture_place,
        by=event.actor_id or event.actor_type,
        jurisdiction=event.jurisdiction_code,
    )
