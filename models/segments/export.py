"""The file that goes out: standing asked again from the ledger itself, contact data from the vault at the last step.

Written whole or not at all, with a manifest that says what was decided under which consent, and why the others are
not in it. Whoever says something while the file is written is asked again before it is there, and a receipt of their own
kept, for while the last of them are asked and the files written once more nobody may say anything: who withdraws then waits.
"""

import csv
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import polars as pl

from consent.ledger.ledger import Ledger
from consent.ledger.opening import has_ledger, ledger_place, open_ledger
from consent.log.note import open_checkpoint
from consent.receipts.uses import sealed_manifest
from consent.rule.identity import LINK_EVENTS
from consent.rule.policy import EVERY, Policy, read_policy
from consent.vault import open_vault
from models.decisions import Basis, record
from models.permission import LINKS, FrameStanding, policy_hash
from models.registry import canonical
from models.segments import kept
from models.segments.decision import (
    CONTACT_POINTS,
    MAY_BE_CONTACTED,
    NO_CONTACT_POINT,
    Audience,
    Counts,
    asked,
    assigned,
    counted,
    open_audience,
)
from models.segments.definition import Segment, SegmentError, load
from models.segments.rules import Rules, read_rules
from models.tables import naive, versions
from models.training import NEVER_ASKED
from troth.clock import FixedClock
from troth.home import Home, write_atomically
from troth.ids import file_hash

FORMAT = "troth segment export 2"
MEMBERS = "members.csv"
MANIFEST = "manifest.json"
_NUMBER = re.compile(r"[+-]?[0-9][0-9 ().-]*")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_ROUNDS = 3  # the first hears what was said while the file was written, the next what was said during the first


Question = tuple[str, str]  # purpose and channel


class File(NamedTuple):
    """A file as it goes out, and about how many people it is."""

    data: bytes
    rows: int


# Files by name, of a channel and of those who may be contacted: customer_id, contact_ref, contact (in the clear), in order of ids.
Files = Callable[[str, pl.DataFrame], Mapping[str, File]]


def csv_files(channel: str, people: pl.DataFrame) -> dict[str, File]:
    """`members.csv`: RFC 4180 with line feeds, UTF-8, sorted by customer."""
    by_id = CONTACT_POINTS.get(channel, channel) is None
    header = ("customer_id",) if by_id else ("customer_id", channel)
    columns = ("customer_id",) if by_id else ("customer_id", "contact")
    return {MEMBERS: File(csv_bytes(header, people.select(columns)), people.height)}


def csv_bytes(header: Sequence[str], rows: pl.DataFrame) -> bytes:
    """A table as CSV that no spreadsheet runs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([protected(cell) for cell in row] for row in rows.iter_rows())
    return text.getvalue().encode()


@dataclass(frozen=True)
class ExportReport:
    """What was written, or would be: `folder` is None after a dry run."""

    name: str
    version: int
    channel: str
    folder: Path | None
    matched: int
    exported: int
    refused: Mapping[str, int]
    test_customers: int
    ledger_size: int
    ledger_root: str
    manifest: Mapping[str, Any]


def export(
    home: Home,
    segment: Segment,
    folder: Path,
    at: datetime,
    dry_run: bool = False,
    *,
    channel: str | None = None,
    rules: Rules | None = None,
    loaded: Callable[[str], Segment] = load,
    files: Files = csv_files,
    also: str | None = None,
    told: Mapping[str, Any] | None = None,
    mark: str | None = None,
) -> ExportReport:
    """Write `members.csv` and `manifest.json` into a new folder; a dry run decides everything and writes nothing.

    `channel` is one of the segment's, and may be left out where it has one. `files` writes others than `members.csv`; `also` is a
    purpose that has to be allowed besides the segment's; `told` stands in the manifest; `mark` names what is counted as contacted.
    Raises: ModelsError for a definition that does not fit, a version under which another went out, or a folder that exists;
    LedgerError when the ledger cannot be read or does not verify. Then nobody is exported.
    """
    moment, rules, channel = naive(at), rules or read_rules(), _channel(segment, channel)
    questions = [asked(segment)[channel]]
    if also and also != segment.purpose:
        asked_one_by_one = channel in read_policy().purposes[also].channels
        questions.append((also, channel if asked_one_by_one else EVERY))
    kept.check_version(home, segment.name, segment.version, segment.hash)
    if folder.exists():
        raise SegmentError(
            f"export folder: expected a new one, found {folder.name} already there. Name another; exports are kept."
        )
    for is_there, what, place in (
        (has_ledger(home), "ledger", ledger_place(home)),
        (home.vault.exists(), "vault", str(home.vault)),
    ):
        if not is_there:
            raise SegmentError(f"{what}: expected one in {place}, found none. Run `troth run` first.")
    with (
        open_audience(home, replace(segment, channels=(channel,)), moment, rules=rules, loaded=loaded) as (
            audience,
            tables,
        ),
        open_ledger(home, FixedClock(at)) as ledger,
    ):
        decision = _Decision.of(home, ledger, questions, moment)
        draft = _Draft(
            folder,
            home,
            segment,
            channel,
            at,
            audience,
            tables,
            rules,
            files,
            told or {},
            mark,
            is_recorded=not dry_run,
        )
        try:
            written = draft.write(decision)
            newest = decision
            for _ in range(_ROUNDS):
                newest = newest.caught_up(ledger)
            with ledger.still():  # nobody says anything more between what was heard last and the file's being there
                newest = newest.caught_up(ledger)
                if newest is not decision:
                    written = draft.write(newest)
                if not dry_run:
                    draft.publish()
        finally:
            draft.discard()
    return _report(segment, channel, written, None if dry_run else folder)


def _channel(segment: Segment, channel: str | None) -> str:
    if channel is None and len(segment.channels) == 1:
        return segment.channels[0]
    if channel not in segment.channels:
        raise SegmentError(
            f"segment {segment.name}, channel: expected one of {', '.join(segment.channels)}, found "
            f"{'none' if channel is None else channel[:40]}. Choose one of them: a file is for one channel."
        )
    return channel


def protected(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula: `=`, `+`, `-`, `@`, tab and line ends in front get an apostrophe.

    Plain numbers and phone numbers stay as they are: a spreadsheet can do nothing with them but read them.
    """
    return f"'{cell}" if cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell) else cell


@dataclass(frozen=True)
class _Decision:
    """Everybody's standing under one state of the ledger: an answer to each question, all of which have to allow it."""

    size: int
    root: str
    checkpoint: str
    events: pl.DataFrame
    links: pl.DataFrame
    policy: Policy
    questions: tuple[Question, ...]
    latest: datetime
    answers: tuple[pl.DataFrame, ...]
    links_version: str
    asked_again: frozenset[str] = frozenset()  # customers, since everybody was asked

    @classmethod
    def of(cls, home: Home, ledger: Ledger, questions: Sequence[Question], moment: datetime) -> Self:
        """Standing from every event there is: one received after `moment` counts too, so that no late no is overlooked."""
        note = ledger.checkpoint()  # asked for once: it grows meanwhile
        known = open_checkpoint(note, ledger.verifier)
        published = FrameStanding.published(home, ledger.frame(known.size))
        newest = published.events["received_at"].max()
        latest = max(moment, naive(newest)) if isinstance(newest, datetime) else moment
        answers = tuple(published.known_at(*question, latest) for question in questions)
        return cls(
            known.size, known.root.hex(), note, published.events, published.links, published.policy,
            tuple(questions), latest, answers, versions(home, [LINKS])[LINKS],
        )  # fmt: skip

    @property
    def standing(self) -> pl.DataFrame:
        """customer_id, is_allowed, reason_code: the first no, which names its purpose where that is not the segment's own."""
        first, *others = self.answers
        both = first.select("customer_id", "is_allowed", "reason_code")
        for (purpose, _), answer in zip(self.questions[1:], others, strict=True):
            said = answer.select("customer_id", other_allowed="is_allowed", other_reason="reason_code")
            is_other, reason = pl.col("other_allowed").fill_null(False), pl.col("other_reason").fill_null(NEVER_ASKED)
            both = both.join(said, on="customer_id", how="left").select(
                "customer_id",
                is_allowed=pl.col("is_allowed") & is_other,
                reason_code=pl.when(pl.col("is_allowed") & ~is_other)
                .then(pl.concat_str(pl.lit(f"{purpose}_"), reason))
                .otherwise("reason_code"),
            )
        return both

    def caught_up(self, ledger: Ledger) -> Self:
        """With what the ledger heard since: only those are asked again whom it touches. The same one when it heard nothing."""
        note = ledger.checkpoint()  # asked for once: it grows meanwhile
        if note == self.checkpoint:
            return self
        known = open_checkpoint(note, ledger.verifier)
        tail = ledger.frame(known.size, start=self.size)
        latest = max(self.latest, *(naive(each) for each in tail["received_at"]))
        events = pl.concat([self.events, tail])
        near = _companies(events, {*tail["subject_id"], *tail["linked_subject_id"].drop_nulls()})
        has_ended = pl.col("expires_at") <= latest.replace(tzinfo=UTC)
        ended = {who for each in self.answers for who in each.filter(pl.col("is_allowed") & has_ended)["customer_id"]}
        touched = {*self.links.filter(pl.col("identity_ref").is_in(near))["customer_id"], *ended}
        links = self.links.filter(pl.col("customer_id").is_in(touched))
        near |= _companies(events, {*links["identity_ref"]} - near)
        about = FrameStanding(events.filter(pl.col("subject_id").is_in(near)), links, self.policy)
        answers = []
        for question, before in zip(self.questions, self.answers, strict=True):
            again = about.known_at(*question, latest)
            others = before.filter(~pl.col("customer_id").is_in(touched))
            answers.append(pl.concat([others, again.select(others.columns)]))
        return replace(
            self, size=known.size, root=known.root.hex(), checkpoint=note, events=events, latest=latest,
            answers=tuple(answers), asked_again=self.asked_again | touched,
        )  # fmt: skip


def _companies(events: pl.DataFrame, subjects: set[str]) -> set[str]:
    """The subjects, and every identity that a chain of link events leads to from any of them."""
    said = events.filter(pl.col("event_type").is_in(LINK_EVENTS))
    found, new = set(subjects), subjects
    while new:
        new = {*said.filter(pl.col("subject_id").is_in(new))["linked_subject_id"].drop_nulls()} - found
        found |= new
    return found


class _Draft:
    """Both files beside the folder they will be, for their owner only."""

    def __init__(
        self,
        folder: Path,
        home: Home,
        segment: Segment,
        channel: str,
        at: datetime,
        audience: Audience,
        tables: Mapping[str, str],
        rules: Rules,
        files: Files,
        told: Mapping[str, Any],
        mark: str | None,
        *,
        is_recorded: bool,
    ) -> None:
        self._folder = folder
        self._draft = folder.with_name(f".{folder.name}.{os.getpid()}.draft")
        self._home = home
        self._segment = segment
        self._channel = channel
        self._at = at
        self._audience = audience
        self._tables = tables
        self._rules = rules
        self._files = files
        self._told = told
        self._mark = mark
        self._chosen = pl.DataFrame()  # whom the newest draft is for
        self._assigned = pl.DataFrame()  # the same, and who was held out, to be compared with later
        self._is_recorded = is_recorded
        self._receipts: dict[str, Any] = {}
        self._clear: dict[str, str | None] = {}  # contact data by its token, of those who might have been contacted

    def write(self, decision: _Decision) -> dict[str, Any]:
        """Write them under a decision; gives the manifest, which names its receipts where they are kept.

        A draft that was overtaken leaves the receipt of everybody, which holds for all who were not asked again.
        """
        rows = self._with_contacts(self._audience.decided(self._channel, decision.standing))
        self._chosen = rows.filter(pl.col("decision") == MAY_BE_CONTACTED).sort("customer_id")
        self._assigned = assigned(rows)
        files = self._files(self._channel, self._chosen.select("customer_id", "contact_ref", "contact"))
        counts = counted(dict(rows["decision"].value_counts(sort=False).iter_rows()))
        manifest = _manifest(self._segment, self._channel, self._at, counts, decision, files)
        manifest["tables"] = {**self._tables, LINKS: decision.links_version}
        manifest["rules"] = {
            "sha256": self._rules.hash,
            "exclusion_lists": {name: file_hash(path) for name, path in kept.exclusion_lists(self._home).items()},
        }
        if self._is_recorded:
            self._record(
                rows["customer_id"], decision, {name: each["sha256"] for name, each in manifest["files"].items()}
            )
        manifest |= {**self._receipts, **self._told}
        if self._is_recorded:
            manifest = sealed_manifest(self._home, manifest)
        self.discard()
        self._draft.mkdir(parents=True)
        self._draft.chmod(0o700)
        for name, file in files.items():
            write_atomically(self._draft / name, file.data)
        write_atomically(self._draft / MANIFEST, canonical(manifest))
        return manifest

    def _record(self, people: pl.Series, decision: _Decision, outputs: Mapping[str, str]) -> None:
        """Keep a receipt of everybody the first time, then of those who were asked again; both name the files they led to.

        Of each question one: those of a purpose asked besides the segment's stand under `also_asked`.
        """
        is_first = "decision" not in self._receipts
        about = people if is_first else people.filter(people.is_in(decision.asked_again))
        if not is_first and not about.len():
            return
        name = "decision" if is_first else "decided_again"
        for number, (purpose, _) in enumerate(decision.questions):
            receipt = _recorded(self._home, self._segment, self._at, about, decision, number, outputs)
            of_purpose = (
                self._receipts.setdefault("also_asked", {}).setdefault(purpose, {}) if number else self._receipts
            )
            of_purpose[name] = receipt

    def publish(self) -> None:
        """Put the files where they belong. Contacts are counted first: whoever was about to be in a file counts as contacted."""
        segment = self._segment
        contacts = kept.record_contacts(
            self._home, self._chosen, segment.name, segment.purpose, self._channel, naive(self._at), self._mark
        )
        arms: Path | None = None
        try:
            arms = kept.record_assigned(self._home, self._assigned, segment, self._channel, naive(self._at), self._mark)
            kept.keep_version(self._home, segment.name, segment.version, segment.hash)
            self._draft.replace(self._folder)
        except BaseException:
            for written in filter(None, (contacts, arms)):
                written.unlink(missing_ok=True)
            raise

    def discard(self) -> None:
        shutil.rmtree(self._draft, ignore_errors=True)

    def _with_contacts(self, decisions: pl.DataFrame) -> pl.DataFrame:
        """customer_id, decision and contact: in the clear for those who may be contacted, and for nobody else."""
        if CONTACT_POINTS.get(self._channel, self._channel) is None:
            return decisions.with_columns(pl.col("contact_ref").alias("contact"))
        is_allowed = pl.col("decision") == MAY_BE_CONTACTED
        clear = self._contacts(decisions.filter(is_allowed)["contact_ref"])
        contact = pl.col("contact_ref").replace_strict(clear, default=None, return_dtype=pl.String)
        return decisions.with_columns(pl.when(is_allowed).then(contact).alias("contact")).with_columns(
            pl.when(is_allowed & pl.col("contact").is_null())
            .then(pl.lit(NO_CONTACT_POINT))
            .otherwise("decision")
            .alias("decision")
        )

    def _contacts(self, tokens: Iterable[str]) -> dict[str, str | None]:
        """Contact data from the vault, which is opened for those alone who were not looked up before."""
        missing = [token for token in tokens if token not in self._clear]
        if missing:
            with open_vault(self._home) as vault:
                self._clear |= dict.fromkeys(missing) | vault.get(missing)
        return self._clear


def _manifest(
    segment: Segment, channel: str, at: datetime, counts: Counts, basis: _Decision, files: Mapping[str, File]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "segment": {**segment.content, "hash": segment.hash},
        "channel": channel,
        "exported_at": at.astimezone(UTC).isoformat(),
        "counts": {
            "matched": counts.matched,
            "exported": counts.may_be_contacted,
            "refused": dict(counts.refused),
            "test_customers": counts.test_customers,
        },
        "consent": {
            "ledger_size": basis.size,
            "ledger_root": basis.root,
            "checkpoint": basis.checkpoint,
            "policy_hash": policy_hash(),
        },
        "files": {
            name: {"sha256": hashlib.sha256(file.data).hexdigest(), "rows": file.rows} for name, file in files.items()
        },
    }


def _recorded(
    home: Home,
    segment: Segment,
    at: datetime,
    customers: pl.Series,
    basis: _Decision,
    number: int,
    outputs: Mapping[str, str],
) -> dict[str, Any]:
    """Keep the receipt of a question about these customers; number and hash of it."""
    receipt = record(
        home,
        "export",
        f"segment:{segment.name}",
        (*basis.questions[number], basis.latest),
        customers,
        basis.answers[number],
        Basis(basis.checkpoint, basis.links_version),
        FixedClock(at),
        definition=segment.hash,
        outputs=outputs,
    )
    return {"number": receipt.number, "sha256": receipt.hash}


def _report(segment: Segment, channel: str, manifest: Mapping[str, Any], folder: Path | None) -> ExportReport:
    counts, consent = manifest["counts"], manifest["consent"]
    return ExportReport(
        name=segment.name,
        version=segment.version,
        channel=channel,
        folder=folder,
        matched=counts["matched"],
        exported=counts["exported"],
        refused=counts["refused"],
        test_customers=counts["test_customers"],
        ledger_size=consent["ledger_size"],
        ledger_root=consent["ledger_root"],
        manifest=manifest,
    )
