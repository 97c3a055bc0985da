"""A person leaves a small retailer's home, and nothing of them is left in it; everybody else's data is as it was."""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import simulator
from consent.ledger.opening import ORIGIN, open_ledger
from consent.log.audit import verify_export
from consent.log.merkle import verify_consistency, verify_inclusion
from consent.log.note import Ed25519Signer
from consent.receipts.shopper import write
from consent.rights import open_certificate, open_rights
from consent.rule.identity import joined_of
from consent.rule.policy import read_policy
from consent.rule.standing import standing
from consent.vault import open_vault
from models.decisions import replay
from models.segments.definition import written
from models.segments.rules import Rules
from orchestration import stages, taking
from orchestration.auditing import history, show
from orchestration.catalog import SOURCES
from orchestration.deciding import land
from orchestration.errors import RunError
from orchestration.identities import MEMBERS, resolve_identities
from orchestration.raw import raw_rows, read_table, write_table
from orchestration.rights.access import access, access_document, page
from orchestration.rights.correcting import rectify
from orchestration.rights.desk import seams_of
from orchestration.rights.erasing import STEPS, Erased, erase
from orchestration.rights.held import KEPT, Held, held
from orchestration.rights.traces import Traces, search
from orchestration.stages import append_consents
from serving.activation.approving import ask
from serving.activation.deliveries import Delivery
from serving.activation.dispatch import Dispatch
from serving.activation.rounds import go_round
from serving.activation.sending import send
from serving.event_log.events import NewEvent
from serving.event_log.letters import NewLetter
from serving.event_log.log import open_log
from serving.intake.landing import land as land_events
from serving.rights import desk
from serving.rights.persons import Person, RightsError, resolve
from tests.integration.taken_home import (
    EVERY_BUYER,
    TakenHome,
    keep_receipts,
    kept_receipts,
    newest_checkpoint,
    receipts_of,
    take_home,
)
from tests.unit.consent.builders import event
from troth.clock import FixedClock
from troth.home import Home
from troth.published import POINTER, current

pytestmark = pytest.mark.slow
NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
CLOCK = FixedClock(NOW)
SEED = 11


def _run(home: Home, *options: str) -> None:
    """`troth run`, in a process of its own."""
    command = [sys.executable, "-m", "orchestration.cli", "run", "--home", str(home.root), "--json", "--no-sample"]
    command += options
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 4), done.stderr[-3000:]  # a shop of 60 people may fail a check of shares
    assert (home.published / "customers" / "CURRENT").exists(), done.stderr[-3000:]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home after two runs, for the first tells the ledger of no links, with an export of it. Copied by each test, never changed."""
    home = Home(tmp_path_factory.mktemp("shop") / "home")
    (home.root / "keys").mkdir(parents=True)
    (home.root / "keys" / "token.key").write_bytes(bytes(range(32)))  # else every run of the tests has other ids
    simulator.simulate(home, simulator.TINY, SEED)
    _run(home)
    _run(home, "--force")
    with open_ledger(home, CLOCK) as ledger:
        ledger.export(home.exports / "ledger")
    return home


@pytest.fixture
def home(shop: Home, tmp_path: Path) -> Home:
    return _copied(shop, tmp_path / "home")


@pytest.fixture(scope="module")
def somebody(shop: Home) -> str:
    return _alone(shop)


@pytest.fixture(scope="module")
def entangled(shop: Home) -> str:
    return _sharing(shop)


@dataclass(frozen=True)
class Left:
    """A home that somebody has left: who it was, what was held, what was handed out before, and how the erasure ended."""

    home: Home
    person: Person
    found: Held
    traces: Traces
    taken_home: TakenHome
    package: Path
    others_package: Path
    manifest: Mapping[str, Any]  # of the segment export, as it was
    done: Erased

    @property
    def somebody(self) -> str:
        return self.person.customer_ids[0]

    def copied(self, to: Path) -> Home:
        """For who changes something."""
        return _copied(self.home, to)


@pytest.fixture(scope="module")
def left(shop: Home, somebody: str, entangled: str, tmp_path_factory: pytest.TempPathFactory) -> Left:
    """One erasure for all who look at what it left. Never changed."""
    folder = tmp_path_factory.mktemp("left")
    home = _copied(shop, folder / "home")
    person = resolve(home, [somebody])
    _decide(home, person.tokens[0], *_strangers(shop, 2, but=[somebody]))
    found = held(home, person)
    exported = _export(home)
    manifest = json.loads((exported / "manifest.json").read_text())
    packages = [
        access(home, FixedClock(NOW + timedelta(seconds=number)), [who])
        for number, who in enumerate((somebody, entangled))
    ]
    taken_home = take_home(
        home, [somebody, entangled, *_strangers(shop, 2, but=[somebody])], folder / "taken_home", CLOCK
    )
    keep_receipts(home, somebody, entangled, CLOCK)
    done = erase(home, CLOCK, [somebody])
    return Left(home, person, found, _traces(person, found), taken_home, *packages, manifest, done)


def _decide(home: Home, token: str, *strangers: str) -> None:
    """Have a steward say something of somebody, and something of others only, and look at what somebody's records say."""
    one, other = (resolve(home, [who]).tokens[0] for who in strangers)
    at = stages.known_until(home)  # a later one would move what the home knows until
    decision = {
        "decided_at": at.isoformat(),
        "decision_type": "forbid",
        "actor_id": "kim",
        "reason": "two who were here together",
    }
    for number, pair in enumerate(((token, one), (one, other))):
        refs = dict(zip(("first_ref", "second_ref"), pair, strict=True))
        land(home, at, f"decisions_{number}", {"decision_id": f"dec_{number}", **decision, **refs})
        look = {
            "reveal_id": f"look_{number}",
            "revealed_at": at.isoformat(),
            "actor_id": "kim",
            "reason": "they asked",
        }
        land(home, at, f"reveals_{number}", {**look, **refs})
    taking.take(home, taking.plan(home, "steward"), workers=1)


def _copied(home: Home, to: Path) -> Home:
    shutil.copytree(home.root, to)
    return Home(to)


def _lively(home: Home) -> pl.DataFrame:
    """Identities of customers who bought something and said something of consent; no test people."""
    with open_ledger(home, CLOCK) as ledger:
        said = ledger.frame()["subject_id"].unique()
    bought = pl.read_parquet(current(home, "ftr_customer_purchases"))["customer_id"].unique()
    identities = pl.read_parquet(current(home, "customer_identities")).filter(
        pl.col("link_type") != "contact", ~pl.col("is_test"), pl.col("customer_id").is_in(bought.implode())
    )
    heard = identities.filter(pl.col("identity_ref").is_in(said.implode()))["customer_id"].unique()
    return identities.filter(pl.col("customer_id").is_in(heard.implode())).sort("customer_id")


def _strangers(home: Home, count: int, but: Collection[str]) -> list[str]:
    """Customers nobody shares anything with."""
    customers = _lively(home)["customer_id"].unique(maintain_order=True)
    others = (each for each in customers if each not in but)
    return list(islice((each for each in others if not held(home, resolve(home, [each])).others), count))


def _alone(home: Home) -> str:
    """A customer with orders of every kind of identity, none of it shared."""
    counts = (
        _lively(home)
        .group_by("customer_id")
        .agg(pl.col("identity_type").n_unique().alias("kinds"), pl.len().alias("count"))
        .sort("kinds", "count", "customer_id", descending=True)
    )
    for customer_id in counts["customer_id"]:
        found = held(home, resolve(home, [customer_id]))
        if not found.others and {"raw_ecommerce__orders", "raw_ecommerce__customers"} <= set(found.rows):
            return str(customer_id)
    raise AssertionError("expected a customer nobody shares anything with")


def _sharing(home: Home) -> str:
    """A customer some of whose identifiers others gave as theirs, too."""
    customers = _lively(home)["customer_id"].unique(maintain_order=True)
    return next(c for c in customers if held(home, resolve(home, [c])).others)


def _traces(person: Person, found: Held) -> Traces:
    spelled = {value for values in found.spellings.values() for value in values}
    return Traces.of([*person.customer_ids, *found.spellings, *spelled], found.plain)


def _content(home: Home) -> dict[str, bytes]:
    volatile = ("-shm", "-wal")
    return {
        path.relative_to(home.root).as_posix(): path.read_bytes()
        for path in sorted(home.root.rglob("*"))
        if path.is_file() and not path.name.endswith(volatile)
    }


def _raw(home: Home) -> dict[str, pl.DataFrame]:
    tables = {path.parent.parent.name for path in home.raw.glob("raw_*/day=*/data.parquet")}
    return {t: pl.read_parquet(home.raw / t / "day=*" / "data.parquet").drop("file_hash") for t in sorted(tables)}


def test_nothing_of_an_erased_person_is_found_in_any_byte_of_the_home(shop: Home, left: Left) -> None:
    assert len({find.path.split("/", 1)[0] for find in search(shop, left.traces)}) >= 6
    assert left.done.finds == 0
    assert search(left.home, left.traces) == []
    assert search(left.home, Traces.of([left.somebody])) == []


def test_other_people_keep_every_row_as_it_was_and_the_books_keep_theirs_without_the_person(
    shop: Home, left: Left
) -> None:
    before, after, found = _raw(shop), _raw(left.home), left.found
    place = ["source_file", "record_offset"]
    for table, rows in before.items():
        theirs = found.rows.get(table, rows.clear()).select(place)
        loose = found.loose.get(table, rows.clear()).select(place)  # nobody's rows that carry an identifier of theirs
        assert rows.join(loose, on=place, how="semi").height == after[table].join(loose, on=place, how="semi").height
        others = rows.join(theirs, on=place, how="anti").join(loose, on=place, how="anti")
        kept_rows = after.get(table, rows.clear())
        # Rows lie in the order of their files' hashes, and the hashes of rewritten files are others.
        everybody = kept_rows.join(theirs, on=place, how="anti").join(loose, on=place, how="anti").sort(pl.all())
        assert everybody.equals(others.sort(pl.all())), table
        kept = kept_rows.join(theirs, on=place, how="semi")
        assert kept.height == (theirs.unique().height if table in KEPT else 0), table
    orders = after["raw_ecommerce__orders"].join(
        found.rows["raw_ecommerce__orders"].select(place), on=place, how="semi"
    )
    was = before["raw_ecommerce__orders"].join(orders.select(place), on=place, how="semi")
    assert orders["gross_cents"].to_list() == was["gross_cents"].to_list()
    assert (
        orders.select("account_id", "email", "phone", "payment_token", "postal_code")
        .null_count()
        .sum_horizontal()
        .item()
        == 5 * orders.height
    )


def test_reading_every_landed_file_again_gives_the_raw_tables_that_the_erasure_left(left: Left, tmp_path: Path) -> None:
    raw = {
        path.relative_to(left.home.raw): path.read_bytes() for path in left.home.raw.glob("raw_*/day=*/data.parquet")
    }
    again = Home(tmp_path / "again")
    shutil.copytree(left.home.landing, again.landing)
    shutil.copytree(left.home.root / "keys", again.root / "keys")
    taking.take(again, [plan for source in SOURCES for plan in taking.plan(again, source.name)], workers=1)
    assert {p.relative_to(again.raw): p.read_bytes() for p in again.raw.glob("raw_*/day=*/data.parquet")} == raw
    assert [plan for source in SOURCES for plan in taking.plan(left.home, source.name)] == []


def test_marts_after_an_erasure_are_those_of_a_run_from_what_is_left(shop: Home, left: Left, tmp_path: Path) -> None:
    names = (
        "orders",
        "order_lines",
        "returns",
        "refunds",
        "order_events",
        "order_exceptions",
        "customers",
        "customer_identities",
        "stock_movements",
        "web_events",
        "loyalty_members",
    )
    before, in_place = ({name: pl.read_parquet(current(each, name)) for name in names} for each in (shop, left.home))
    home = left.copied(tmp_path / "home")
    _run(home)
    assert search(home, Traces.of([left.somebody])) == []
    for name in names:
        built = pl.read_parquet(current(home, name))
        assert in_place[name].sort(pl.all()).equals(built.select(in_place[name].columns).sort(pl.all())), name
    assert in_place["orders"].height == before["orders"].height
    assert in_place["orders"]["gross_cents"].sum() == before["orders"]["gross_cents"].sum()
    assert in_place["stock_movements"].equals(before["stock_movements"])
    assert in_place["customers"].height == before["customers"].height - 1


def test_proofs_and_checkpoints_from_before_verify_and_the_certificate_says_what_was_done(
    shop: Home, left: Left
) -> None:
    tokens = left.person.tokens
    with open_ledger(shop, CLOCK) as ledger:
        token, leaves = next((t, found) for t in tokens if (found := ledger.leaves_of(t)))
        size, root, note = ledger.size, ledger.root(), ledger.checkpoint()
        hashes, proofs = [ledger.leaf_hash(leaf) for leaf in leaves], ledger.inclusion_proofs(leaves)
        assert ledger.events_of(token)
    with open_ledger(left.home, CLOCK) as ledger:
        ledger.verify()
        ledger.check_extends(note)
        assert ledger.root(size) == root
        assert [ledger.leaf_hash(leaf) for leaf in leaves] == hashes
        for leaf, leaf_hash, proof in zip(leaves, hashes, proofs, strict=True):
            verify_inclusion(leaf_hash, leaf, size, proof, root)
        assert [each.event.event_type for each in ledger.events_of(token)] == ["erased"]
        assert all(ledger.opened(leaf) is None for leaf in leaves)
    certificate = Path(str(left.done.certificate)).read_text()
    said = open_certificate(certificate, Ed25519Signer(ORIGIN, left.home.key("ledger")).verifier)
    assert set(said["places"]) == {name for name, _ in STEPS}
    assert said["search"]["finds"] == []
    assert {each.get("table") for each in said["kept"]} & KEPT
    assert not any(token in certificate for token in tokens)


def test_every_receipt_taken_home_before_still_verifies_alone_under_the_checkpoint_of_then(left: Left) -> None:
    """Three forms of a receipt and the decisions of an export and a training, for four people, the erased one included."""
    files = left.taken_home.receipts
    assert len(files) == 4 * 5
    told = left.taken_home.verified(files)
    assert [report["name"] for report in told["reports"] if not report["is_verified"]] == []
    assert told["is_verified"]
    # Whoever kept a receipt kept its checkpoint: the newest ledger goes on from it.
    old, newest = left.taken_home.checkpoint, newest_checkpoint(left.home, CLOCK)
    assert newest.size > old.size
    with open_ledger(left.home, CLOCK) as ledger:
        verify_consistency(old.size, newest.size, old.root, newest.root, ledger.consistency_proof(old.size))
    told = left.taken_home.verified([left.home.exports / "ledger", left.home.root / "decisions"])
    assert told["is_verified"], told
    assert verify_export(left.home.exports / "ledger", left.taken_home.key, left.taken_home.since.read_text()).size == (
        newest.size
    )


def test_what_the_platform_gives_out_now_shows_the_erasure(left: Left, tmp_path: Path) -> None:
    token = left.taken_home.tokens[left.somebody]
    for number, receipt in enumerate(receipts_of(left.home, token, CLOCK)):
        assert {row["reason_code"] for row in receipt["standing"]} <= {"erased", "contract"}
        assert [row["reason_code"] for row in receipt["standing"] if row["is_allowed"]] == ["contract"] * (not number)
        assert [one["event"] and one["event"]["event_type"] for one in receipt["events"][-2:]] == [None, "erased"]
        assert not any(one["event"] for one in receipt["events"][:-1])
        write(receipt, tmp_path / f"{number}.json")
    assert left.taken_home.verified(sorted(tmp_path.iterdir()))["is_verified"]
    kinds = [row["event"] for row in history(left.home, token)["events"]]
    assert kinds == ["(erased)"] * (len(kinds) - 1) + ["erased"]
    assert {row["reason"] for row in show(left.home, token, NOW, None)["standing"]} == {"erased", "contract"}
    with pytest.raises(RightsError):
        resolve(left.home, [left.somebody])
    with pytest.raises(RunError):
        history(left.home, left.somebody)


def test_a_decision_from_before_is_made_again_for_all_others_and_stands_on_its_hash_for_the_erased(left: Left) -> None:
    """The identities it was decided over were the person's, too: they went with the person, and who that touched is written down."""
    with open_ledger(left.home, CLOCK) as ledger:
        for number in (1, 2):
            found = replay(left.home, number, ledger)
            assert 0 < found.destroyed_count < found.subject_count


def test_receipts_kept_in_the_home_go_with_the_person_and_those_of_others_stay(left: Left) -> None:
    assert left.done.places["exports and other copies"]["receipts"] == 3
    kept = [path.relative_to(left.home.root).as_posix() for path in kept_receipts(left.home)]
    assert kept == ["handed_out/other.json"]
    assert left.taken_home.verified(kept_receipts(left.home))["is_verified"]


def test_a_dry_run_counts_what_would_go_and_changes_nothing(home: Home, somebody: str) -> None:
    before = _content(home)
    foreseen = erase(home, CLOCK, [somebody], dry_run=True)
    assert foreseen.is_dry_run
    assert foreseen.places["raw"]["raw_ecommerce__customers"] >= 1
    assert foreseen.places["published"]["customers"] == 1
    assert _content(home) == before


def test_an_erasure_killed_after_every_step_goes_on_where_it_was(home: Home, left: Left) -> None:
    script = Path(__file__).with_name("dying_eraser.py")
    command = [sys.executable, "-m", "tests.integration.dying_eraser", str(home.root), left.somebody, NOW.isoformat()]
    killed = subprocess.run(command, cwd=script.parents[2], capture_output=True, text=True, check=False)
    assert (killed.returncode, killed.stdout.split()) == (0, ["-SIGKILL"] * (len(STEPS) + 1)), killed.stderr[-3000:]
    with open_rights(home) as log:
        (request,) = log.requests()
        assert request.state == "in_progress"
    done = erase(home, CLOCK, [], request_id=request.request_id)
    assert (done.request_id, done.finds) == (request.request_id, 0)
    assert search(home, left.traces) == []
    assert erase(home, CLOCK, [], request_id=request.request_id) == done


def test_an_identifier_that_others_gave_too_stays_with_them_and_is_said_to(home: Home, entangled: str) -> None:
    found = held(home, resolve(home, [entangled]))
    done = erase(home, CLOCK, [entangled])
    assert done.finds == 0
    assert any("others gave" in str(each.get("what")) for each in done.kept)
    left = {
        str(row)
        for rows in _raw(home).values()
        for row in rows.select(pl.col(pl.String)).iter_rows()
        if set(row) & found.others
    }
    assert left
    with open_vault(home) as vault:
        contacts = [token for token in found.others if token.startswith(("email", "phone"))]
        assert vault.held(contacts) == sorted(contacts)


def test_of_an_erased_persons_links_a_token_stays_in_events_of_others_and_silences_until_a_new_grant(
    home: Home, entangled: str
) -> None:
    """The other's contact goes on saying whose no it heard; nothing else of the link can be read, and it is over."""
    person, shared = resolve(home, [entangled]), held(home, resolve(home, [entangled])).others
    stays, gone = sorted(shared & {*person.unproved}), sorted({*person.unproved} - shared)
    with open_ledger(home, CLOCK) as ledger:
        hubs = [[row.other_subject_id for row in joined_of(ledger, contact) if row.holds(NOW)] for contact in stays]
        assert hubs
        assert all({*person.tokens} & {*each} for each in hubs)
    erase(home, CLOCK, [entangled])
    with open_ledger(home, CLOCK) as ledger:
        for token in (*person.tokens, *gone):
            assert {each.event.event_type for each in ledger.events_of(token)} <= {"erased"}
        naming = ledger.frame().filter(pl.col("linked_subject_id").is_in(person.tokens))
        assert {*naming["subject_id"]} == {*stays}
        policy, later = read_policy(), NOW + timedelta(days=1)
        for contact in stays:
            assert not [
                row for row in joined_of(ledger, contact) if row.holds(NOW) and row.other_subject_id in person.tokens
            ]
            assert standing(ledger, contact, "analytics", "*", later, policy=policy).reason_code == "erased"
        (notice,) = [each for each in policy.notices.values() if each.notice_id == "preference_centre"]
        ledger.append([event(later, subject_id=contact, purpose_code="analytics", notice_id=notice.notice_id,
                             notice_version=notice.current_version)])  # fmt: skip
        assert standing(ledger, contact, "analytics", "*", later, policy=policy).is_allowed


def test_an_old_version_of_the_identities_does_not_link_the_erased_again(home: Home, somebody: str) -> None:
    identities = current(home, "customer_identities")
    old, tokens = identities.read_bytes(), resolve(home, [somebody]).tokens
    erase(home, CLOCK, [somebody])
    (identities.parent / "old.parquet").write_bytes(old)
    (identities.parent / POINTER).write_text("old.parquet")
    done = append_consents(home, CLOCK, lambda *_: None)
    assert (done.appended, done.links) == (0, 0)
    with open_ledger(home, CLOCK) as ledger:
        assert all({each.event.event_type for each in ledger.events_of(token)} <= {"erased"} for token in tokens)


def _export(home: Home) -> Path:
    """A segment export as it is written, of everybody."""
    folder = home.exports / "segments" / "spring"
    folder.mkdir(parents=True)
    rows = [
        "customer_id,email",
        *(f"{c},{n}@x" for n, c in enumerate(pl.read_parquet(current(home, "customers"))["customer_id"].sort())),
    ]
    data = ("\n".join(rows) + "\n").encode()
    (folder / "members.csv").write_bytes(data)
    files = {"members.csv": {"sha256": hashlib.sha256(data).hexdigest(), "rows": len(rows) - 1}}
    (folder / "manifest.json").write_text(json.dumps({"format": "troth segment export 1", "files": files}))
    return folder


def test_an_export_is_amended_a_package_goes_and_recipients_are_waited_for(left: Left, tmp_path: Path) -> None:
    assert (left.package.exists(), left.others_package.exists()) == (False, True)
    folder, done, was = left.home.exports / "segments" / "spring", left.done, left.manifest["files"]["members.csv"]
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "members.csv").read_bytes()
    assert left.somebody.encode() not in data
    assert manifest["files"]["members.csv"] == {"sha256": hashlib.sha256(data).hexdigest(), "rows": was["rows"] - 1}
    (amendment,) = manifest["amendments"]
    assert (amendment["sha256_before"], amendment["rows_removed"]) == (was["sha256"], 1)
    assert done.recipients == ["export:spring"]
    assert done.request_id is not None
    home, late = left.copied(tmp_path / "home"), FixedClock(NOW + timedelta(days=31))
    assert desk.requests(home, late)["overdue_recipients"] == 1
    assert desk.acknowledge(home, CLOCK, done.request_id, "export:spring")["recipients"] == {
        "export:spring": "acknowledged"
    }
    assert desk.requests(home, late)["overdue_recipients"] == 0


SENT_TO = """\
destinations:
  crm: {kind: folder, where: exports/crm, format: csv, purposes: [marketing], channels: [email], recipient: {legal_name: Us, role: own, country: US}}
  lake: {kind: folder, where: exports/lake, format: parquet, purposes: [marketing], channels: [email], recipient: {legal_name: Us, role: own, country: US}}
  letters: {kind: folder, where: %s, purposes: [marketing], channels: [email], recipient: {legal_name: Letterbird GmbH, role: processor, country: DE}}
"""


def _sent(home: Home, outside: Path) -> list[Delivery]:
    """Everybody who bought and may be written to, sent to two folders of the home and to one that is somebody else's."""
    (home.root / "destinations.yml").write_text(SENT_TO % outside)
    definition = home.root / "segments" / "definitions" / "every_buyer.yml"
    definition.parent.mkdir(parents=True, exist_ok=True)
    definition.write_text(written(EVERY_BUYER))
    dispatch = Dispatch(home, CLOCK, CLOCK, rules=Rules())
    asked = [ask(dispatch, "every_buyer", to, by="kim", why="letter") for to in ("crm", "lake", "letters")]
    return [send(dispatch, each.delivery_id) for each in asked]


def test_who_was_sent_out_is_called_back_from_there_and_no_trace_of_them_is_kept(
    home: Home, somebody: str, tmp_path: Path
) -> None:
    person = resolve(home, [somebody])
    with open_ledger(home, CLOCK) as ledger:
        emails = [token for token in person.tokens if token.startswith("email_")]
        yes = {"purpose_code": "marketing", "channel_code": "email"}
        ledger.append([event(NOW, subject_id=each, signal_id=f"yes-{each}", **yes) for each in emails])
    crm, lake, letters = _sent(home, tmp_path / "letterbird")
    traces = _traces(person, held(home, person))
    theirs = tmp_path / "letterbird" / letters.delivery_id
    (row,) = [
        each
        for each in csv.DictReader((theirs / "members.csv").read_text().splitlines())
        if each["customer_id"] == somebody
    ]
    told = [f"activation:{each.delivery_id}" for each in (crm, lake, letters)]
    given = access_document(home, NOW, [somebody])["recipients"]
    assert f"Letterbird GmbH (DE), marketing, {NOW:%Y-%m-%d}" in given
    assert sorted(erase(home, CLOCK, [somebody], dry_run=True).recipients) == sorted(told)
    done = erase(home, CLOCK, [somebody])
    assert done.finds == 0
    assert search(home, traces) == []
    assert sorted(done.recipients) == sorted(told)
    assert done.places["exports and other copies"]["recalled"] == 3
    for name, of in (("members.csv", crm), ("members.parquet", lake)):
        folder = home.root / of.to.where / of.delivery_id
        manifest = json.loads((folder / "manifest.json").read_text())
        data = (folder / name).read_bytes()
        assert manifest["files"][name] == {"sha256": hashlib.sha256(data).hexdigest(), "rows": (of.exported or 0) - 1}
        assert len(manifest["amendments"]) == 1
    go_round(Dispatch(home, CLOCK, CLOCK, rules=Rules()))
    recall = json.loads((theirs / "recalls" / "00001.json").read_text())
    assert {"member_ref": row["member_ref"], "reason": "erased"} in recall["members"]
    assert search(home, traces) == []
    for of in (crm, lake, letters):
        folder = home.root / of.to.where / of.delivery_id
        (folder / "recalls" / "00001.ack").write_text("done")
    go_round(Dispatch(home, CLOCK, CLOCK, rules=Rules()))
    (request,) = desk.requests(home, CLOCK)["requests"]
    assert request["recipients"] == dict.fromkeys(told, "acknowledged")


def test_a_package_holds_everything_of_the_person_and_nothing_of_others(
    home: Home, somebody: str, entangled: str
) -> None:
    for who in (somebody, entangled):
        person = resolve(home, [who])
        found = held(home, person)
        document = access_document(home, NOW, [who])
        assert {name: len(told["rows"]) for name, told in document["given"].items()} == {
            n: rows.height for n, rows in found.rows.items()
        }
        assert {"consent_standing", "customers"} <= set(document["derived"])
        assert all(each["receipt"]["format"] for each in document["consent"]["identities"])
        customers = pl.read_parquet(current(home, "customer_identities"))
        strangers = customers.filter(~pl.col("customer_id").is_in(person.customer_ids), pl.col("link_type") == "hub")
        text = json.dumps(document)
        assert not [
            each
            for each in (*strangers["customer_id"], *strangers["identity_ref"])
            if each in text and each not in {*person.tokens, *found.others}
        ]
        assert "<script" not in page(document)


def test_what_the_person_gave_is_handed_out_without_what_was_made_of_it(home: Home, somebody: str) -> None:
    folder = access(home, CLOCK, [somebody], portable=True)
    tables = {path.stem for path in (folder / "tables").iterdir()}
    assert tables
    assert all(name.startswith("raw_") for name in tables)
    assert "derived" not in json.loads((folder / "data.json").read_text())


def test_a_corrected_value_replaces_the_wrong_one_and_the_books_stay_as_issued(home: Home, somebody: str) -> None:
    before = held(home, resolve(home, [somebody]))
    wrong = before.rows["raw_ecommerce__customers"]["last_name"][0]
    done = rectify(home, CLOCK, [somebody], "last_name", "Corrected-Name")
    after = held(home, resolve(home, [somebody]))
    assert (done["state"], done["kind"]) == ("done", "rectification")
    assert set(after.rows["raw_ecommerce__customers"]["last_name"]) == {"Corrected-Name"}
    assert wrong != "Corrected-Name"
    assert (
        after.rows["raw_ecommerce__orders"]
        .drop("file_hash")
        .equals(before.rows["raw_ecommerce__orders"].drop("file_hash"))
    )
    with pytest.raises(RightsError, match="found none of theirs"):
        rectify(home, CLOCK, [somebody], "account_id", "1")


def test_an_objection_is_recorded_under_every_identity_and_one_against_a_contract_is_routed(
    home: Home, somebody: str
) -> None:
    tokens = resolve(home, [somebody]).tokens
    done = desk.say_no(home, CLOCK, [somebody], "object", "marketing")
    assert (done["state"], len(done["leaves"])) == ("done", len(tokens))
    restricted = desk.say_no(home, CLOCK, [somebody], "restrict")
    with open_ledger(home, CLOCK) as ledger:
        for token in tokens:
            assert standing(ledger, token, "marketing", "email", NOW, policy=read_policy()).reason_code == "restricted"
    assert restricted["kind"] == "restriction"
    routed = desk.say_no(home, CLOCK, [somebody], "object", "service")
    assert (routed["state"], routed["is_overdue"]) == ("routed", False)
    assert "contract" in routed["instead"]


def test_the_hub_hands_out_a_package_and_takes_a_request_for_erasure_in(home: Home, somebody: str) -> None:
    token = resolve(home, [somebody]).tokens[0]
    offered = seams_of(home)
    assert offered.export is not None
    assert offered.erase is not None
    assert offered.export(token, NOW)["given"]
    number = offered.erase(token, NOW)
    assert offered.erase(token, NOW) == number
    with open_rights(home) as log:
        request = log.request(number)
        assert (request.kind, request.state, request.received_through) == ("erasure", "received", "preference_centre")
        assert token in log.subjects(number)


def test_an_old_file_that_lands_again_does_not_bring_the_person_back(shop: Home, left: Left, tmp_path: Path) -> None:
    home = left.copied(tmp_path / "home")
    file = left.found.rows["raw_ecommerce__customers"]["source_file"][0]
    original = (shop.landing / "ecommerce" / file).read_bytes()
    first = (home.landing / "ecommerce" / file).with_name("customers_again.jsonl")
    second = first.with_name("customers_once_more.jsonl")  # the same bytes: a copy that is not read
    first.write_bytes(original)
    second.write_bytes(original)
    taking.take(home, taking.plan(home, "ecommerce"), workers=1)
    assert search(home, left.traces, [home.landing, home.raw]) == []
    assert taking.plan(home, "ecommerce") == []


def test_who_comes_back_after_an_erasure_is_taken_as_somebody_new(shop: Home, left: Left, tmp_path: Path) -> None:
    home = left.copied(tmp_path / "home")
    row = left.found.rows["raw_ecommerce__customers"].row(0, named=True)
    line = next(
        line
        for line in (shop.landing / "ecommerce" / row["source_file"]).read_bytes().split(b"\n")
        if row["account_id"].encode() in line and line.endswith(b"}")
    )
    record = json.loads(line)
    record["created_at"] = record["updated_at"] = (NOW + timedelta(days=1)).isoformat()
    folder = home.landing / "ecommerce" / "2026-04-02"
    folder.mkdir()
    (folder / "customers_2026-04-02.jsonl").write_text(json.dumps(record) + "\n")
    taking.take(home, taking.plan(home, "ecommerce"), workers=1)
    back = pl.read_parquet(home.raw / "raw_ecommerce__customers" / "day=2026-04-02" / "data.parquet")
    assert back["account_id"].to_list() == [row["account_id"]]


def test_the_online_store_takes_back_nothing_of_before_from_a_late_publication(left: Left, tmp_path: Path) -> None:
    from feature_repo.catalogue import CUSTOMER_PURCHASES
    from feature_repo.store import online_store

    store = online_store(shutil.copytree(left.home.features, tmp_path / "features"))
    values = {each.name: None for each in CUSTOMER_PURCHASES.online_fields}
    before, after = (int((NOW + timedelta(days=days)).timestamp() * 1e6) for days in (-1, 1))
    assert store.write_rows(CUSTOMER_PURCHASES, [((left.somebody,), before, values)]).skipped == 1
    assert store.write_rows(CUSTOMER_PURCHASES, [((left.somebody,), after, values)]).written == 1
    store.close()


def test_events_of_the_person_go_from_the_log_landed_or_not_and_a_search_finds_nothing(
    home: Home, somebody: str
) -> None:
    person = resolve(home, [somebody])
    found = held(home, person)
    account, email = found.rows["raw_ecommerce__customers"].select("account_id", "email").drop_nulls().row(-1)
    at = NOW - timedelta(days=3)
    log = open_log(home)
    order = {"name": "#99001", "source_name": "web", "currency": "USD", "email": email, "customer": {"id": account}}
    money = dict.fromkeys(("subtotal_price", "total_discounts", "total_tax", "total_price"), "10.00")
    shipped = {"shipping_address": {"first_name": "Somebody", "address1": "9 Unlisted Row", "country_code": "US"}}
    goods = {"line_items": [{"id": 1, "sku": "SKU-00001", "quantity": 3, "price": "10.00"}]}
    price = {"total_shipping_price_set": {"shop_money": {"amount": "0.00", "currency_code": "USD"}}}
    for number in (1, 2):
        times = dict.fromkeys(("created_at", "updated_at"), (at + timedelta(minutes=number)).isoformat())
        body = json.dumps({**order, **money, **shipped, **goods, **price, **times, "id": f"99{number}77"}).encode()
        log.append([NewEvent(source_name="ecommerce", event_id=f"o{number}", event_type="order", key=f"order/99{number}77",
                             topic="orders/create", occurred_at=at, recorded_at=at, received_at=at, payload=body)])  # fmt: skip
        if number == 1:
            land_events(log, home)
    aside = NewLetter(
        route="segment",
        source_name="ecommerce",
        reason_code="not_as_described",
        detail="type",
        received_at=at,
        payload=email.encode(),
    )
    log.letters.add([aside])
    log.close()
    done = erase(home, CLOCK, [somebody])
    assert (done.finds, done.places["event log"]) == (0, {"events": 2, "dead_letters": 1})
    log = open_log(home)
    kept = [json.loads(event.payload) for event in log.read(0, 10)]
    log.close()
    assert [each["line_items"][0]["quantity"] for each in kept] == [3, 3]
    everything = b"".join(
        path.read_bytes() for top in (home.log, home.landing) for path in top.rglob("*") if path.is_file()
    )
    assert b"9 Unlisted Row" not in everything
    orders = raw_rows(home, "raw_ecommerce__orders", ["order_id", "email", "account_id"])
    assert sorted(orders.filter(pl.col("order_id").is_in(["99177", "99277"])).iter_rows()) == [
        ("99177", None, None),
        ("99277", None, None),
    ]
    texts = [email, *(spelled for each in found.spellings.values() for spelled in each)]
    assert search(home, Traces.of(texts)) == []


def test_what_stewards_said_of_them_and_saw_of_them_is_gone_and_what_they_said_of_others_stays(left: Left) -> None:
    for table, key in (("raw_steward__decisions", "dec_"), ("raw_steward__reveals", "look_")):
        assert left.found.rows[table].height == 1
        rows = pl.read_parquet(left.home.raw / table / "**/*.parquet")
        assert rows[rows.columns[0]].to_list() == [f"{key}1"]
    assert sorted(path.read_text() == "\n" for path in left.home.landing.glob("steward/*/*.jsonl")) == [
        False,
        False,
        True,
        True,
    ]


def test_no_payment_card_of_theirs_stays_tied_to_anybody(home: Home, somebody: str) -> None:
    members, person = read_table(home, MEMBERS), resolve(home, [somebody])
    assert members is not None
    card = next(token for token in sorted(held(home, person).spellings) if token.startswith("payment_"))
    tie = members.filter(identity_ref=person.tokens[0]).with_columns(identity_type=pl.lit("payment"), identity_ref=pl.lit(card), link_type=pl.lit("payment"))  # fmt: skip
    write_table(home, MEMBERS, pl.concat([members, tie]))
    erase(home, CLOCK, [somebody])
    left = read_table(home, MEMBERS)
    assert left is not None
    assert not left.filter(pl.any_horizontal(pl.col(pl.String).is_in([card, somebody, *person.tokens]))).height
    assert left.height
    resolve_identities(home, stages.known_until(home), lambda *_: None)
    again = read_table(home, MEMBERS)
    assert again is not None
    assert not again.filter(pl.col("identity_ref") == card).height
    receipts = raw_rows(home, "raw_pos__transactions", ["payment_ref", "loyalty_card_ref"])
    assert not receipts.filter(pl.any_horizontal(pl.all().is_in([card, *person.tokens]))).height
