"""Whatever is changed in files, manifests, receipts, rows or the ledger is named with what was expected and what was found; and a bundle
says so offline, by one file, in an empty folder."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from consent.log.entry import subject_key
from consent.receipts import decisions, verifier
from consent.receipts.uses import folder_of, sealed_manifest
from consent.receipts.verifier import Key, Trust
from models.permission import LINKS, identities
from models.registry import canonical
from orchestration.rights.copies import erase_exports
from serving.audit.bundles import bundle
from serving.audit.exports import export_of, made
from serving.audit.ledgers import ledger
from serving.audit.people import subject
from serving.audit.shapes import Answer
from serving.errors import ServingError
from tests.integration.audited_shop import AuditedShop
from troth.home import Home
from troth.published import current

EXPORTED = 3  # receipt of the export


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> AuditedShop:
    """Uses of three kinds, one of them an export that holds somebody."""
    shop = AuditedShop(Home(tmp_path_factory.mktemp("kept") / "home"), seed=5, people=12)
    shop.agree("marketing", people=6)
    shop.use("segment", "segment:nightly", ("marketing", "email"))
    shop.use("training", "model:churn", ("model_training", "*"))
    shop.export()
    shop.speak(280)  # tiles are kept from 256 leaves on
    shop.use("read_bulk", "read_bulk:nightly", ("personalization", "*"))
    assert len((shop.exports[0] / "members.csv").read_text().splitlines()) > 3
    return shop


@pytest.fixture
def copy(kept: AuditedShop, tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    shutil.copytree(kept.home.root, home.root)
    return home


def failed(answer: Answer) -> list[verifier.Check]:
    found = [check for check in answer.checks if check.outcome == "failed"]
    assert answer.is_verified is not bool(found)
    assert all(check.expected and check.found is not None and check.expected in check.evidence for check in found)
    return found


def members_of(home: Home) -> Path:
    return next(made(home)).folder / "members.csv"


def test_as_it_was_kept_everything_verifies(copy: Home) -> None:
    assert failed(export_of(copy, EXPORTED)) == []
    assert failed(ledger(copy)) == []


def test_each_line_of_a_file_that_is_removed_doubled_or_changed_is_named(copy: Home) -> None:
    path = members_of(copy)
    lines = path.read_bytes().splitlines(keepends=True)
    for number in range(len(lines)):
        for changed in (
            [*lines[:number], *lines[number + 1 :]],
            [*lines[:number], lines[number], *lines[number:]],
            [*lines[:number], lines[number].replace(b",", b",x", 1), *lines[number + 1 :]],
        ):
            path.write_bytes(b"".join(changed))
            named = failed(export_of(copy, EXPORTED))
            assert "members.csv" in {check.check for check in named}
    path.unlink()
    assert failed(export_of(copy, EXPORTED))[0].found == "no file"


def test_somebody_put_into_a_file_with_its_manifest_sealed_anew_is_named_by_their_decision(copy: Home) -> None:
    """Whoever has every key of the home can seal a manifest; the receipts still say what was decided."""
    (export,) = made(copy)
    path = members_of(copy)
    rows = path.read_text().splitlines()
    kept = pl.read_parquet(folder_of(copy) / f"{export_of(copy, EXPORTED).receipts[0].decisions_root}.parquet")
    noes = kept.filter(~pl.col("is_allowed"))["subject_key"].to_list()
    customers = identities(current(copy, LINKS))["customer_id"].unique().sort()
    refused = next(one for one in customers if subject_key(one).hex() in noes)
    path.write_text(path.read_text() + f"{refused},somebody@example.com\n")
    manifest = json.loads(json.dumps(export.manifest))
    manifest["files"]["members.csv"] = {"sha256": decisions.sha256(path.read_bytes()).hexdigest(), "rows": len(rows)}
    for name, more in (("exported", 20), ("matched", 20)):
        manifest["counts"][name] += more
    (export.folder / "manifest.json").write_bytes(canonical(sealed_manifest(copy, manifest)))
    told = export_of(copy, EXPORTED)
    named = {check.check: check for check in failed(told)}
    key = subject_key(refused).hex()
    assert f"members.csv, subject {key}" in named
    assert f"manifest.json, decision {EXPORTED}, hash of members.csv" in named
    assert "manifest.json, count allowed" in named
    assert [each.subject_key for each in told.differences] == [key]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = False
    for key, each in inside:
        found = True
        yield from leaves(each, (*path, key))
    if not found:
        yield path


def changed(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return [*value, "more"] if isinstance(value, list) else {**value, "more": 1}


def test_each_value_of_a_manifest_that_is_changed_or_taken_away_is_named(copy: Home) -> None:
    (export,) = made(copy)
    path, text = export.folder / "manifest.json", export.text
    places = list(leaves(json.loads(text)))
    assert len(places) > 25
    for place in places:
        for edit in ("change", "remove"):
            manifest = json.loads(text)
            inside = manifest
            for key in place[:-1]:
                inside = inside[key]
            if edit == "change":
                inside[place[-1]] = changed(inside[place[-1]])
            else:
                del inside[place[-1]]
            path.write_bytes(canonical(manifest))
            try:
                told = export_of(copy, export.folder)
            except ServingError:
                continue  # it is no manifest of an export any more, and that is said
            if place == ("seal",) and edit == "remove":
                assert "not sealed" in " ".join(check.evidence for check in told.checks)
                continue
            assert failed(told), (place, edit)
    path.write_bytes(text + b" ")
    assert [check.found for check in failed(export_of(copy, export.folder))] == ["another"]


def test_a_value_that_a_receipt_signed_is_named_though_the_manifest_was_sealed_anew(copy: Home) -> None:
    (export,) = made(copy)
    for place in (
        ("segment", "hash"), ("segment", "purpose"), ("segment", "name"), ("exported_at",), ("channel",),
        ("counts", "exported"), ("counts", "matched"), ("counts", "test_customers"), ("consent", "ledger_size"),
        ("consent", "ledger_root"), ("decision", "number"), ("decision", "sha256"), ("tables", LINKS),
        ("files", "members.csv", "sha256"), ("files", "members.csv", "rows"),
    ):  # fmt: skip
        manifest = json.loads(export.text)
        inside = manifest
        for key in place[:-1]:
            inside = inside[key]
        inside[place[-1]] = "2026-01-01T00:00:00+00:00" if place == ("exported_at",) else changed(inside[place[-1]])
        (export.folder / "manifest.json").write_bytes(canonical(sealed_manifest(copy, manifest)))
        assert failed(export_of(copy, export.folder)), place


def test_each_kept_row_that_is_changed_removed_or_added_is_named(copy: Home) -> None:
    folder = folder_of(copy)
    receipt = next(one for one in export_of(copy, EXPORTED).receipts)
    path = folder / f"{receipt.decisions_root}.parquet"
    rows = pl.read_parquet(path)
    for number in range(rows.height):
        row = rows.row(number, named=True)
        other = {**row, "is_allowed": not row["is_allowed"]}
        key = row["subject_key"]
        for edited in (
            pl.concat([rows[:number], pl.DataFrame([other], schema=rows.schema), rows[number + 1 :]]),
            pl.concat([rows[:number], rows[number + 1 :]]),
        ):
            edited.write_parquet(path)
            named = failed(export_of(copy, EXPORTED))
            assert any(key in check.check or "kept rows" in check.check for check in named)
    rows.write_parquet(path)
    salt = folder / f"{receipt.decisions_root}.salt"
    secret = salt.read_bytes()
    salt.write_bytes(secret[:-1] + bytes([secret[-1] ^ 1]))
    assert any("kept rows" in check.check for check in failed(export_of(copy, EXPORTED)))
    salt.write_bytes(secret[:-1])
    assert any(check.found == "31" for check in failed(export_of(copy, EXPORTED)))
    path.unlink()
    assert any(check.found == "none" for check in failed(export_of(copy, EXPORTED)))


def test_each_receipt_that_is_changed_moved_or_removed_is_named(copy: Home) -> None:
    notes = sorted(folder_of(copy).glob("*.note"))
    chance = random.Random(11)
    for path in notes:
        text = path.read_bytes()
        for at in chance.sample(range(len(text)), 12):
            path.write_bytes(text[:at] + bytes([text[at] ^ (1 << chance.randrange(8))]) + text[at + 1 :])
            assert any(path.name in check.check for check in failed(ledger(copy))), at
        path.write_bytes(text)
        aside = path.with_suffix(".aside")
        path.rename(aside)
        named = "decisions, newest" if path == notes[-1] else path.name
        assert any(named in check.check for check in failed(ledger(copy)))
        aside.rename(path)
    newest = folder_of(copy) / "newest"
    text = newest.read_bytes()
    for other in (text.replace(b"1\n", b"2\n", 1), text[:-9] + b"A" + text[-8:], None):
        newest.write_bytes(other) if other else newest.unlink()
        assert any("decisions, newest" in check.check for check in failed(ledger(copy)))
    newest.write_bytes(text)
    assert not failed(ledger(copy))
    first, second = (path.read_bytes() for path in notes[:2])
    notes[0].write_bytes(second)
    notes[1].write_bytes(first)
    assert {check.check for check in failed(ledger(copy))} >= {f"decision {n}, {n:08d}.note" for n in (1, 2)}


def test_each_part_of_the_ledger_that_is_changed_is_named(copy: Home) -> None:
    chance = random.Random(12)
    file = copy.ledger.read_bytes()
    size = ledger(copy).ledger_size
    places = [("batches", name) for name in ("entries", "payloads")]
    places += [("tiles", "hashes"), ("tiles", "inner_roots"), ("checkpoints", "note"), ("subject_keys", "wrapped")]
    for table, column in places:
        for _ in range(4):
            _shake(copy, table, column, chance)
            found = failed(ledger(copy))
            assert found, (table, column)
            for side in ("", "-wal", "-shm"):
                copy.ledger.with_name(copy.ledger.name + side).unlink(missing_ok=True)
            copy.ledger.write_bytes(file)
    assert ledger(copy).ledger_size == size
    copy.ledger.with_suffix(".checkpoint").write_text("nothing of ours\n")
    assert failed(ledger(copy))


def _shake(home: Home, table: str, column: str, chance: random.Random) -> None:
    """Flip one bit of one value, past the triggers."""
    with sqlite3.connect(home.ledger) as connection:
        for (name,) in connection.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            connection.execute(f"drop trigger {name}")
        key = "(block, subject_key)" if table == "subject_keys" else "rowid"
        query = f"select {key.strip('()')}, {column} from {table} where length({column}) > 0"  # noqa: S608
        rows = connection.execute(query).fetchall()
        *where, value = chance.choice(rows)
        raw = bytearray(value.encode() if isinstance(value, str) else value)
        raw[chance.randrange(len(raw))] ^= 1
        changed = raw.decode(errors="replace") if isinstance(value, str) else bytes(raw)
        marks = ", ".join("?" * len(where))
        connection.execute(f"update {table} set {column} = ? where {key} = ({marks})", (changed, *where))  # noqa: S608
    connection.close()


def test_an_erasure_amends_an_export_so_that_it_still_verifies_and_seals_no_other_change(
    kept: AuditedShop, copy: Home
) -> None:
    (export,) = made(copy)
    path = members_of(copy)
    gone = path.read_text().splitlines()[1].split(",")
    text = export.text
    assert erase_exports(copy, kept.clock, "req_1", gone)["segment_rows"] == 1
    told = export_of(copy, EXPORTED)
    assert failed(told) == []
    assert [each["rows_removed"] for each in told.amendments] == [1]
    manifest = json.loads(text)
    manifest["counts"]["refused"] = {}
    shutil.copytree(kept.exports[0], export.folder, dirs_exist_ok=True)
    (export.folder / "manifest.json").write_bytes(canonical(manifest))
    erase_exports(copy, kept.clock, "req_1", gone)
    assert any("sha256" in (check.expected or "") for check in failed(export_of(copy, EXPORTED)))


# Bundles.


@pytest.fixture(scope="module")
def packed(kept: AuditedShop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("packed")
    inside = members_of(kept.home).read_text().splitlines()[1].split(",")[0]
    assert bundle(kept.home, "export", str(EXPORTED), out / "export", kept.at, has_files=True).is_verified
    assert bundle(kept.home, "export", str(EXPORTED), out / "bare", kept.at).is_verified
    assert bundle(kept.home, "subject", inside, out / "subject", kept.at).is_verified
    return {each.name: each for each in out.iterdir()}


def trust_of(folder: Path) -> Trust:
    return Trust(Key.parse((folder / "key").read_text(), verifier.LOG_KEY))


@pytest.mark.parametrize("name", ["export", "bare", "subject"])
def test_a_bundle_verifies_offline_in_an_empty_folder_without_troth(
    packed: dict[str, Path], name: str, tmp_path: Path
) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(packed[name], copied)
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", str(copied / "verifier.py"), str(copied), *more]
        return subprocess.run(command, cwd=empty, env={}, capture_output=True, text=True, check=False)

    alone, known = run("--json"), run("--key", (copied / "key").read_text().strip())
    assert (alone.returncode, known.returncode) == (0, 0), alone.stdout + alone.stderr
    assert any(check["check"] == "the key" for check in json.loads(alone.stdout)["reports"][0]["checks"])
    changed = copied / "decisions" / "00000001.note"
    changed.write_bytes(changed.read_bytes().replace(b"segment", b"segmenT", 1))
    done = run()
    assert done.returncode == 1
    assert "failed       decisions/00000001.note: expected sha256" in done.stdout
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("name", ["export", "subject"])
def test_each_file_of_a_bundle_that_is_changed_removed_or_added_is_named(
    packed: dict[str, Path], name: str, tmp_path: Path
) -> None:
    folder, chance = tmp_path / "bundle", random.Random(13)
    shutil.copytree(packed[name], folder)
    trust = trust_of(folder)

    def named() -> list[str]:
        return [check.check for check in verifier.verify(folder, trust).checks if check.outcome == "failed"]

    assert named() == []
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in paths:
        data, relative = path.read_bytes(), path.relative_to(folder).as_posix()
        for at in {0, len(data) - 1, chance.randrange(len(data))}:
            path.write_bytes(data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :])
            found = named()
            assert (relative in found) if relative != "bundle.json" else found, (relative, at)
        path.unlink()
        assert relative in named() if relative != "bundle.json" else named()
        path.write_bytes(data)
    (folder / "decisions" / "extra.txt").write_text("x")
    assert named() == ["decisions/extra.txt"]


def resealed(shop: AuditedShop, folder: Path, change: Callable[[Path], None]) -> list[verifier.Check]:
    """What the verifier says of a bundle that somebody with the ledger's key changed and sealed again."""
    from consent.ledger.opening import signer_of
    from consent.log.merkle import canonical as spelled
    from consent.log.note import sign_note, to_base64

    change(folder)
    contents = json.loads((folder / "bundle.json").read_bytes())
    contents["files"] = {
        path.relative_to(folder).as_posix(): decisions.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "bundle.json"
    }
    contents["seal"] = None
    seal = f"{verifier.BUNDLE_SEAL}\nsha256 {to_base64(decisions.sha256(spelled(contents)).digest())}\n"
    contents["seal"] = sign_note(seal, signer_of(shop.home))
    (folder / "bundle.json").write_bytes(spelled(contents) + b"\n")
    return [check for check in verifier.verify(folder, trust_of(folder)).checks if check.outcome == "failed"]


def _edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        (path,) = sorted(folder.glob(name))[:1]
        text = path.read_text()
        assert old in text, (name, old)
        path.write_text(text.replace(old, new, 1))

    return edit


def _removed(name: str) -> Callable[[Path], None]:
    return lambda folder: sorted(folder.glob(name))[0].unlink()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("export", _edit("decided/*.jsonl", '"is_allowed":false', '"is_allowed":true'), "expected root"),
        ("export", _edit("consents.jsonl", '"grant"', '"refuse"'), "consents.jsonl line"),
        ("export", _edit("consents.jsonl", '"path":["', '"path":["' + "00" * 32 + '","'), "consents.jsonl line"),
        ("export", _removed("decisions/00000002.note"), "decisions: expected decision 2"),
        ("export", _removed("policies/*.json"), "expected policy"),
        ("export", _edit("policies/*.json", '"opt_in"', '"opt_out"'), "expected a policy of hash"),
        ("export", _edit("export/manifest.json", '"version": 1', '"version": 2'), "troth manifest seal 1"),
        ("export", _edit("export/members.csv", ",", ",x"), "export/members.csv: expected sha256"),
        ("export", _edit("consistency.json", '["', '["' + "00" * 32 + '","'), "decision"),
        ("export", _edit("notices/web_banner/1.en.md", "a", "b"), "notices/web_banner/1.en.md"),
        ("subject", _edit("people/1.json", '"is_allowed":false', '"is_allowed":true'), "people/1.json, standing"),
        ("subject", _edit("shown/*.json", '"is_allowed":', '"is_allowed": '), "canonical JSON"),
    ],
)
def test_who_has_the_key_cannot_make_a_bundle_say_what_the_ledger_does_not(
    kept: AuditedShop, packed: dict[str, Path], tmp_path: Path, name: str, change: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(packed[name], folder)
    found = resealed(kept, folder, change)
    assert any(said in check.evidence for check in found), found


def test_a_bundle_is_refused_where_it_cannot_be_made(kept: AuditedShop, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="expected a new folder"):
        bundle(kept.home, "export", str(EXPORTED), tmp_path, kept.at)
    with pytest.raises(ServingError, match="expected one of subject, export, model"):
        bundle(kept.home, "gossip", "x", tmp_path / "x", kept.at)
    with pytest.raises(ServingError, match="nothing is known of"):
        bundle(kept.home, "subject", "cus_nobody", tmp_path / "x", kept.at)
    assert list(tmp_path.iterdir()) == []


def test_contact_data_is_in_a_bundle_only_where_it_was_asked_for(packed: dict[str, Path]) -> None:
    with_files, without = (
        b"".join(path.read_bytes() for path in packed[name].rglob("*") if path.is_file()) for name in ("export", "bare")
    )
    assert b"@example.com" in with_files or b"+1 503" in with_files
    assert b"@example.com" not in without
    assert b"+1 503" not in without


def test_tampering_shows_in_the_audit_of_a_person_too(kept: AuditedShop, copy: Home) -> None:
    inside = members_of(copy).read_text().splitlines()[1].split(",")[0]
    assert subject(copy, inside, kept.at).is_verified
    receipt = export_of(copy, EXPORTED).receipts[0]
    path = folder_of(copy) / f"{receipt.decisions_root}.parquet"
    rows = pl.read_parquet(path)
    mine = pl.col("subject_key") == subject_key(inside).hex()
    rows.with_columns(is_allowed=pl.col("is_allowed") & ~mine).write_parquet(path)
    told = subject(copy, inside, kept.at)
    assert not told.is_verified
    assert [use.number for use in told.uses if use.is_proved is False] == [EXPORTED]
