"""A steward's word: landed as an event with its actor, taken with the next run, taken back by another event.

What it would change can be asked first. Refused is what could not take effect, said with the reason.
"""

import json
import os
import re
import secrets
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from models.identity.payments import PAYMENT
from models.identity.proofs import HUB_TYPES
from orchestration.errors import MISUSE, RunError
from orchestration.identities import MEMBERS, RECORDS, evidence_of, last_words, remembered
from orchestration.raw import read_table
from orchestration.sources.contract import conform
from orchestration.sources.steward import DECISIONS, FORBID, LINK, SOURCE, UNDO, read_decisions
from orchestration.stages import known_until
from serving.rights.persons import tokens_of
from troth.home import Home, write_atomically

NEXT_RUN = "takes effect with the next `troth run`"
_CONTACT = re.compile(r"@|\d[\d\s().-]{5,}\d")
_ACTOR = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


def members_of(home: Home) -> pl.DataFrame:
    """Who is whose, as the last run decided. Raises: RunError before there was one."""
    members = read_table(home, MEMBERS)
    if members is None or not members.height:
        raise RunError(
            f"identities: expected customers resolved, found none in {home.root}. Run `troth run` first.", MISUSE
        )
    return members


def named(home: Home, members: pl.DataFrame, said: str) -> str:
    """The customer id or token that is meant, known to the last run. An identifier in clear becomes its token and is echoed nowhere.

    Raises: RunError for one that nobody is known by; RightsError for what is no identifier at all.
    """
    if said.startswith("cus_"):
        known = members.filter(customer_id=said).height
    else:
        tokens = [each for each in tokens_of(home, said, members) if each in members["identity_ref"]]
        if len(tokens) > 1:
            raise RunError("identifier: expected one kind, found several that fit. Write <type>:<identifier>.", MISUSE)
        known, said = len(tokens), tokens[0] if tokens else said.partition(":")[0].partition("_")[0]
    if not known:
        shown = said if said.startswith("cus_") else "one that nobody is known by"
        raise RunError(
            f"identity: expected a customer or an identifier that the last run knew, found {shown}. "
            "See `troth identity changes` for ids that were given up.", MISUSE,
        )  # fmt: skip
    return said


def landed_decisions(home: Home) -> pl.DataFrame:
    """Every decision that has landed, taken or not yet; columns of the contract."""
    names = [column.name for column in DECISIONS.columns]
    frames = [pl.DataFrame(schema=DECISIONS.schema).select(names)]
    for path in sorted((home.landing / SOURCE.name).glob("*/decisions_*.jsonl")):
        for frame in read_decisions(path).frames.values():
            frames.append(conform(frame, DECISIONS, lambda _kind, _value: None)[0].select(names))
    return pl.concat(frames).unique("decision_id", keep="first", maintain_order=True)


def decide(
    home: Home, at: datetime, kind: str, first: str, second: str, actor: str, reason: str, dry_run: bool = False
) -> dict[str, Any]:
    """Say that two identifiers are one person's (`link`) or two people's (`forbid`). A customer stands for its main group.

    Raises: RunError for what could not take effect, or was said already.
    """
    members = members_of(home)
    checked_words(actor, reason)
    one, two = named(home, members, first), named(home, members, second)
    first_ref, second_ref = sorted(_speaking(home, members, kind, *each) for each in ((one, two), (two, one)))
    decision = _decision(home, at, kind, first_ref, second_ref, actor, reason)
    _not_in_vain(home, members, decision)
    return _done(home, at, decision, dry_run)


def undo(home: Home, at: datetime, decision_id: str, actor: str, reason: str, dry_run: bool = False) -> dict[str, Any]:
    """Take back a decision: the evidence alone decides again. Raises: RunError for one that does not stand."""
    checked_words(actor, reason)
    standing = last_words(landed_decisions(home)).filter(decision_id=decision_id)
    if not standing.height:
        raise RunError(
            "decision: expected one that stands, found none of that id. It was taken back, another followed it, or it never was.",
            MISUSE,
        )
    said = standing.row(0, named=True)
    return _done(home, at, _decision(home, at, UNDO, said["first_ref"], said["second_ref"], actor, reason), dry_run)


def land(home: Home, at: datetime, name: str, record: dict[str, Any]) -> str:
    """Land one record of the steward's as a file of its own, received `at`. Gives its path below the home."""
    path = home.landing / SOURCE.name / at.date().isoformat() / f"{name}.jsonl"
    write_atomically(path, json.dumps(record, ensure_ascii=False).encode() + b"\n")
    instant = int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1_000
    os.utime(path, ns=(instant, instant))
    return path.relative_to(home.root).as_posix()


def checked_words(actor: str, reason: str) -> None:
    """Raises: RunError for an actor that is no id of staff, or a reason that is none or says who somebody is."""
    if not _ACTOR.fullmatch(actor):
        raise RunError(
            "--actor: expected an id of staff (letters, digits, . _ -), found another text. Give one.", MISUSE
        )
    if len(reason.strip()) < 3:
        raise RunError("--reason: expected words, found none. Say why: it is kept with what you do.", MISUSE)
    if _CONTACT.search(reason):
        raise RunError(
            "--reason: expected words without contact data, found some. Leave addresses and numbers out: it is kept.",
            MISUSE,
        )


def _decision(home: Home, at: datetime, kind: str, first: str, second: str, actor: str, reason: str) -> dict[str, Any]:
    """A record of the contract; later than any before it, also where a clock stands still or went back."""
    last = landed_decisions(home)["decided_at"].max()
    decided_at = max(at, last + timedelta(microseconds=1)) if isinstance(last, datetime) else at
    return {
        "decision_id": f"dec_{secrets.token_hex(8)}", "decided_at": decided_at, "decision_type": kind,
        "first_ref": first, "second_ref": second, "actor_id": actor, "reason": reason.strip(),
    }  # fmt: skip


def _speaking(home: Home, members: pl.DataFrame, kind: str, said: str, other: str) -> str:
    """The identifier for which the decision is kept, so that resolving finds it.

    Of a customer, its main hub; of what has no record of its own, the hub of its group, which may be a card that only tills have seen; of a
    contact or a payment card that is to be parted from its hub, itself.
    """
    if said.startswith("cus_"):
        hubs = members.filter(pl.col("customer_id") == said, pl.col("identity_ref") == pl.col("hub_identity_ref"))
        said = str(hubs.sort(pl.col("link_type") != "hub", "linked_at", "identity_ref")["identity_ref"][0])
    row = members.filter(identity_ref=said).row(0, named=True)
    if row["identity_type"] == PAYMENT:
        if kind == FORBID:
            return said
        raise RunError(
            f"{kind}: expected an account, a card or an e-mail, found a payment card: it says whose receipts are, not who somebody is. "
            "Name what the person is known by.", MISUSE,
        )  # fmt: skip
    records = read_table(home, RECORDS)
    if records is not None and said in records["record_id"]:
        return said
    group = members.filter(hub_identity_ref=row["hub_identity_ref"])["identity_ref"]
    if kind == FORBID and other in group and row["identity_type"] in HUB_TYPES:
        return said
    return str(row["hub_identity_ref"])


def _not_in_vain(home: Home, members: pl.DataFrame, decision: dict[str, Any]) -> None:
    refs, kind = (decision["first_ref"], decision["second_ref"]), decision["decision_type"]
    if refs[0] == refs[1]:
        raise RunError(
            f"{kind}: expected two identifiers, found one, or a device and its account. Name two accounts, cards or e-mails.",
            MISUSE,
        )
    hubs = members.filter(pl.col("identity_ref").is_in(refs))["hub_identity_ref"].n_unique()
    if kind == LINK and hubs == 1:
        raise RunError(
            "link: expected two that are not proved to be one person, found two that are. Nothing is left to decide.",
            MISUSE,
        )
    same = pl.concat_list("first_ref", "second_ref").list.sort() == sorted(refs)
    said = last_words(landed_decisions(home)).filter(same, pl.col("decision_type") == kind)
    if said.height:
        raise RunError(
            f"{kind}: expected something new, found that {said['decision_id'][0]} said it already. Nothing was added.",
            MISUSE,
        )


def _done(home: Home, at: datetime, decision: dict[str, Any], dry_run: bool) -> dict[str, Any]:
    told = {name: decision[name] for name in ("decision_type", "first_ref", "second_ref")}
    if dry_run:
        return {"is_dry_run": True, **told, **foreseen(home, decision)}
    decided_at = decision["decided_at"]
    file = land(
        home,
        max(at, decided_at),
        f"decisions_{decision['decision_id']}",
        {**decision, "decided_at": decided_at.isoformat()},
    )
    return {
        "decision_id": decision["decision_id"],
        **told,
        "actor_id": decision["actor_id"],
        "file": file,
        "when": NEXT_RUN,
    }


def foreseen(home: Home, decision: dict[str, Any]) -> dict[str, Any]:
    """What would become of which customers: everyone resolved again, without the decision and with it; those that wait count in both."""
    from models.identity.adopting import adopted
    from models.identity.changes import changes
    from models.identity.resolving import decided, weighed

    until = known_until(home)
    evidence = evidence_of(home, until)
    version, model = adopted(home)
    key, before = home.key("token"), remembered(home)
    landed = landed_decisions(home)
    known = weighed(evidence, model, key, version, before)
    base = decided(replace(evidence, decisions=last_words(landed)), known).members
    added = pl.concat([landed, pl.DataFrame([decision], schema=landed.schema)])
    after = decided(replace(evidence, decisions=last_words(added)), known)
    told = changes(base, after.members, until.replace(tzinfo=None))
    old, new = (
        dict(frame.filter(identity_type=PAYMENT).select("identity_ref", "customer_id").iter_rows())
        for frame in (base, after.members)
    )
    cards = sum(old.get(card) != new.get(card) for card in old | new)
    answer = {**summed(told), "becomes": becoming(told), "payment_cards_tied_otherwise": cards}
    if decision["decision_type"] == LINK and not told.height:
        answer["why_nothing"] = (
            "They are together already, or one of them did not say yes to being recognised, or a forbid stands between them."
        )
    if decision["decision_type"] == FORBID and not told.height and not cards:
        answer["why_nothing"] = "They are apart already; from now on they stay so."
    return answer


def summed(told: pl.DataFrame) -> dict[str, Any]:
    """How many customers come of each kind of change, and how many identifiers move."""
    kinds = Counter(
        dict(told.group_by("change_type").agg(pl.coalesce("customer_id", "from_customer_id").n_unique()).iter_rows())
    )
    moved = told.filter(pl.col("customer_id").is_not_null() & pl.col("from_customer_id").is_not_null())
    return {"customers": dict(sorted(kinds.items())), "identifiers_moved": moved["identity_ref"].n_unique()}


def becoming(told: pl.DataFrame, most: int = 50) -> list[dict[str, Any]]:
    """Customers before and after, with how many identifiers went that way."""
    ways = told.group_by("change_type", "from_customer_id", "customer_id").agg(identifiers=pl.len())
    return ways.sort("change_type", "from_customer_id", "customer_id").head(most).to_dicts()
