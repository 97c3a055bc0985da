"""A person leaves a small retailer's home, and nothing of them is left in it; everybody else's data is as it was."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

import simulator
from consent.ledger.opening import ORIGIN, open_ledger
from consent.log.merkle import verify_inclusion
from consent.log.note import Ed25519Signer
from consent.rights import open_certificate, open_rights
from consent.rule.policy import read_policy
from consent.rule.standing import standing
from consent.vault import open_vault
from orchestration import taking
from orchestration.catalog import SOURCES
from orchestration.rights import desk
from orchestration.rights.access import access, access_document, page
from orchestration.rights.correcting import rectify
from orchestration.rights.erasing import STEPS, erase
from orchestration.rights.held import KEPT, Held, held
from orchestration.rights.persons import Person, RightsError, resolve
from orchestration.rights.traces import Traces, search
from troth.clock import FixedClock
from troth.home import Home
from troth.published import current

pytestmark = pytest.mark.slow
NOW = datetime(2026, 4, 1, 12, tzinfo=UTC)
CLOCK = FixedClock(NOW)
SEED = 11


def _run(home: Home) -> None:
    """`troth run`, in a process of its own."""
    command = [sys.executable, "-m", "orchestration.cli", "run", "--home", str(home.root), "--json", "--no-sample"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 4), done.stderr[-3000:]  # a shop of 60 people may fail a check of shares
    assert (home.published / "customers" / "CURRENT").exists(), done.stderr[-3000:]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home after a run, with an export of the ledger. Copied by each test, never changed."""
    home = Home(tmp_path_factory.mktemp("shop") / "home")
    simulator.simulate(home, simulator.TINY, SEED)
    _run(home)
    with open_ledger(home, CLOCK) as ledger:
        ledger.export(home.exports / "ledger")
    return home


@pytest.fixture
def home(shop: Home, tmp_path: Path) -> Home:
    copy = Home(tmp_path / "home")
    shutil.copytree(shop.root, copy.root)
    return copy


class _Shared:
    """Chosen once: every home here is a copy of one."""

    somebody = ""
    entangled = ""


def _somebody(home: Home) -> str:
    _Shared.somebody = _Shared.somebody or _alone(home)
    return _Shared.somebody


def _entangled(home: Home) -> str:
    _Shared.entangled = _Shared.entangled or _sharing(home)
    return _Shared.entangled


def _alone(home: Home) -> str:
    """A customer with orders of every kind of identity, none of it shared."""
    identities = pl.read_parquet(current(home, "customer_identities"))
    counts = (
        identities.filter(pl.col("link_type") != "contact", ~pl.col("is_test"))
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
    customers = pl.read_parquet(current(home, "customers"))["customer_id"].sort()
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


def test_nothing_of_an_erased_person_is_found_in_any_byte_of_the_home(home: Home) -> None:
    somebody = _somebody(home)
    person = resolve(home, [somebody])
    traces = _traces(person, held(home, person))
    assert len({find.path.split("/", 1)[0] for find in search(home, traces)}) >= 6
    done = erase(home, CLOCK, [somebody])
    assert done.finds == 0
    assert search(home, traces) == []
    assert search(home, Traces.of([somebody])) == []


def test_other_people_keep_every_row_as_it_was_and_the_books_keep_theirs_without_the_person(home: Home) -> None:
    somebody = _somebody(home)
    found = held(home, resolve(home, [somebody]))
    before = _raw(home)
    erase(home, CLOCK, [somebody])
    after = _raw(home)
    place = ["source_file", "record_offset"]
    for table, rows in before.items():
        theirs = found.rows.get(table, rows.clear()).select(place)
        others = rows.join(theirs, on=place, how="anti")
        left = after.get(table, rows.clear())
        # Rows lie in the order of their files' hashes, and the hashes of rewritten files are others.
        everybody = left.join(theirs, on=place, how="anti").sort(pl.all())
        assert everybody.equals(others.sort(pl.all())), table
        kept = left.join(theirs, on=place, how="semi")
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


def test_reading_every_landed_file_again_gives_the_raw_tables_that_the_erasure_left(home: Home) -> None:
    erase(home, CLOCK, [_somebody(home)])
    left = {path.relative_to(home.raw): path.read_bytes() for path in home.raw.glob("raw_*/day=*/data.parquet")}
    again = Home(home.root.parent / "again")
    shutil.copytree(home.landing, again.landing)
    shutil.copytree(home.root / "keys", again.root / "keys")
    taking.take(again, [plan for source in SOURCES for plan in taking.plan(again, source.name)], workers=1)
    assert {p.relative_to(again.raw): p.read_bytes() for p in again.raw.glob("raw_*/day=*/data.parquet")} == left
    assert [plan for source in SOURCES for plan in taking.plan(home, source.name)] == []


def test_marts_after_an_erasure_are_those_of_a_run_from_what_is_left(home: Home) -> None:
    somebody = _somebody(home)
    before = {
        t.name: pl.read_parquet(current(home, t.name)) for t in home.published.iterdir() if (t / "CURRENT").exists()
    }
    erase(home, CLOCK, [somebody])
    in_place = {name: pl.read_parquet(current(home, name)) for name in before}
    traces = Traces.of([somebody])
    _run(home)
    assert search(home, traces) == []
    for name in (
        "orders",
        "order_lines",
        "returns",
        "customers",
        "customer_identities",
        "stock_movements",
        "web_events",
        "loyalty_members",
    ):
        built = pl.read_parquet(current(home, name))
        assert in_place[name].sort(pl.all()).equals(built.select(in_place[name].columns).sort(pl.all())), name
    assert in_place["orders"].height == before["orders"].height
    assert in_place["orders"]["gross_cents"].sum() == before["orders"]["gross_cents"].sum()
    assert in_place["stock_movements"].equals(before["stock_movements"])
    assert in_place["customers"].height == before["customers"].height - 1


def test_proofs_and_checkpoints_from_before_verify_and_the_certificate_says_what_was_done(home: Home) -> None:
    somebody = _somebody(home)
    person = resolve(home, [somebody])
    with open_ledger(home, CLOCK) as ledger:
        token, leaves = next((t, found) for t in person.tokens if (found := ledger.leaves_of(t)))
        size, root, note = ledger.size, ledger.root(), ledger.checkpoint()
        hashes, proofs = [ledger.leaf_hash(leaf) for leaf in leaves], ledger.inclusion_proofs(leaves)
        assert ledger.events_of(token)
    done = erase(home, CLOCK, [somebody])
    with open_ledger(home, CLOCK) as ledger:
        ledger.verify()
        ledger.check_extends(note)
        assert ledger.root(size) == root
        assert [ledger.leaf_hash(leaf) for leaf in leaves] == hashes
        for leaf, leaf_hash, proof in zip(leaves, hashes, proofs, strict=True):
            verify_inclusion(leaf_hash, leaf, size, proof, root)
        assert [each.event.event_type for each in ledger.events_of(token)] == ["erased"]
        assert all(ledger.opened(leaf) is None for leaf in leaves)
    assert done.certificate is not None
    said = open_certificate(Path(done.certificate).read_text(), Ed25519Signer(ORIGIN, home.key("ledger")).verifier)
    assert set(said["places"]) == {name for name, _ in STEPS}
    assert said["search"]["finds"] == []
    assert {each.get("table") for each in said["kept"]} & KEPT
    assert not any(token in Path(done.certificate).read_text() for token in person.tokens)


def test_a_dry_run_counts_what_would_go_and_changes_nothing(home: Home) -> None:
    somebody, before = _somebody(home), _content(home)
    foreseen = erase(home, CLOCK, [somebody], dry_run=True)
    assert foreseen.is_dry_run
    assert foreseen.places["raw"]["raw_ecommerce__customers"] >= 1
    assert foreseen.places["published"]["customers"] == 1
    assert _content(home) == before


@pytest.mark.parametrize("step", [1, 3, 6, len(STEPS)])
def test_an_erasure_killed_between_steps_goes_on_where_it_was(home: Home, step: int) -> None:
    somebody = _somebody(home)
    traces = _traces(person := resolve(home, [somebody]), held(home, person))
    script = (
        "import os, signal, sys\n"
        "from orchestration.rights import erasing\n"
        "from tests.integration.test_erasure import CLOCK, Home, Path\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "number = int(sys.argv[3])\n"
        "if number < len(erasing.STEPS):\n"
        "    name, step = erasing.STEPS[number]\n"
        "    steps = list(erasing.STEPS)\n"
        "    steps[number] = (name, lambda *given: (step(*given), die()))\n"  # after the work, before it is written down
        "    erasing.STEPS = tuple(steps)\n"
        "else:\n"
        "    erasing.sign_certificate = die\n"
        "erasing.erase(Home(Path(sys.argv[1])), CLOCK, [sys.argv[2]])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(home.root), somebody, str(step)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with open_rights(home) as log:
        (request,) = log.requests()
        assert request.state == "in_progress"
    done = erase(home, CLOCK, [], request_id=request.request_id)
    assert (done.request_id, done.finds) == (request.request_id, 0)
    assert search(home, traces) == []
    assert erase(home, CLOCK, [], request_id=request.request_id) == done


def test_an_identifier_that_others_gave_too_stays_with_them_and_is_said_to(home: Home) -> None:
    somebody = _entangled(home)
    person = resolve(home, [somebody])
    found = held(home, person)
    done = erase(home, CLOCK, [somebody])
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


def test_an_export_is_amended_a_package_goes_and_recipients_are_waited_for(home: Home) -> None:
    somebody = _somebody(home)
    folder = _export(home)
    was = json.loads((folder / "manifest.json").read_text())["files"]["members.csv"]
    package = access(home, CLOCK, [somebody])
    kept = access(home, FixedClock(NOW + timedelta(seconds=1)), [_entangled(home)])
    done = erase(home, CLOCK, [somebody])
    assert (package.exists(), kept.exists()) == (False, True)
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "members.csv").read_bytes()
    assert somebody.encode() not in data
    assert manifest["files"]["members.csv"] == {"sha256": hashlib.sha256(data).hexdigest(), "rows": was["rows"] - 1}
    (amendment,) = manifest["amendments"]
    assert (amendment["sha256_before"], amendment["rows_removed"]) == (was["sha256"], 1)
    assert done.recipients == ["export:spring"]
    assert done.request_id is not None
    late = FixedClock(NOW + timedelta(days=31))
    assert desk.requests(home, late)["overdue_recipients"] == 1
    assert desk.acknowledge(home, CLOCK, done.request_id, "export:spring")["recipients"] == {
        "export:spring": "acknowledged"
    }
    assert desk.requests(home, late)["overdue_recipients"] == 0


def test_a_package_holds_everything_of_the_person_and_nothing_of_others(home: Home) -> None:
    for somebody in (_somebody(home), _entangled(home)):
        person = resolve(home, [somebody])
        found = held(home, person)
        document = access_document(home, NOW, [somebody])
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


def test_what_the_person_gave_is_handed_out_without_what_was_made_of_it(home: Home) -> None:
    folder = access(home, CLOCK, [_somebody(home)], portable=True)
    tables = {path.stem for path in (folder / "tables").iterdir()}
    assert tables
    assert all(name.startswith("raw_") for name in tables)
    assert "derived" not in json.loads((folder / "data.json").read_text())


def test_a_corrected_value_replaces_the_wrong_one_and_the_books_stay_as_issued(home: Home) -> None:
    somebody = _somebody(home)
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


def test_an_objection_is_recorded_under_every_identity_and_one_against_a_contract_is_routed(home: Home) -> None:
    somebody = _somebody(home)
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


def test_the_hub_hands_out_a_package_and_takes_a_request_for_erasure_in(home: Home) -> None:
    token = resolve(home, [_somebody(home)]).tokens[0]
    offered = desk.seams_of(home)
    assert offered.export is not None
    assert offered.erase is not None
    assert offered.export(token, NOW)["given"]
    number = offered.erase(token, NOW)
    assert offered.erase(token, NOW) == number
    with open_rights(home) as log:
        request = log.request(number)
        assert (request.kind, request.state, request.received_through) == ("erasure", "received", "preference_centre")
        assert token in log.subjects(number)


def test_an_old_file_that_lands_again_does_not_bring_the_person_back(home: Home, shop: Home) -> None:
    somebody = _somebody(home)
    person = resolve(home, [somebody])
    found = held(home, person)
    traces = _traces(person, found)
    file = found.rows["raw_ecommerce__customers"]["source_file"][0]
    original = (shop.landing / "ecommerce" / file).read_bytes()
    erase(home, CLOCK, [somebody])
    first = (home.landing / "ecommerce" / file).with_name("customers_again.jsonl")
    second = first.with_name("customers_once_more.jsonl")  # the same bytes: a copy that is not read
    first.write_bytes(original)
    second.write_bytes(original)
    taking.take(home, taking.plan(home, "ecommerce"), workers=1)
    assert search(home, traces, [home.landing, home.raw]) == []
    assert taking.plan(home, "ecommerce") == []


def test_who_comes_back_after_an_erasure_is_taken_as_somebody_new(home: Home, shop: Home) -> None:
    somebody = _somebody(home)
    found = held(home, resolve(home, [somebody]))
    row = found.rows["raw_ecommerce__customers"].row(0, named=True)
    line = next(
        line
        for line in (shop.landing / "ecommerce" / row["source_file"]).read_bytes().split(b"\n")
        if row["account_id"].encode() in line and line.endswith(b"}")
    )
    erase(home, CLOCK, [somebody])
    record = json.loads(line)
    record["created_at"] = record["updated_at"] = (NOW + timedelta(days=1)).isoformat()
    folder = home.landing / "ecommerce" / "2026-04-02"
    folder.mkdir()
    (folder / "customers_2026-04-02.jsonl").write_text(json.dumps(record) + "\n")
    taking.take(home, taking.plan(home, "ecommerce"), workers=1)
    back = pl.read_parquet(home.raw / "raw_ecommerce__customers" / "day=2026-04-02" / "data.parquet")
    assert back["account_id"].to_list() == [row["account_id"]]


def test_the_online_store_takes_back_nothing_of_before_from_a_late_publication(home: Home, shop: Home) -> None:
    from feature_repo.catalogue import CUSTOMER_PURCHASES
    from feature_repo.store import online_store

    somebody = _somebody(home)
    erase(home, CLOCK, [somebody])
    store = online_store(home.features)
    values = {each.name: None for each in CUSTOMER_PURCHASES.online_fields}
    before, after = (int((NOW + timedelta(days=days)).timestamp() * 1e6) for days in (-1, 1))
    assert store.write_rows(CUSTOMER_PURCHASES, [((somebody,), before, values)]).skipped == 1
    assert store.write_rows(CUSTOMER_PURCHASES, [((somebody,), after, values)]).written == 1
    store.close()
