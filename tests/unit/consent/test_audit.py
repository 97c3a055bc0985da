"""An export verifies as it was written, and with any change it does not. The auditor stands alone."""

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from consent.__main__ import main
from consent.errors import LedgerError
from consent.ledger import verification
from consent.ledger.databases import SQLiteDatabase
from consent.ledger.ledger import Ledger
from consent.ledger.opening import ORIGIN
from consent.ledger.store import Store
from consent.log import audit
from consent.log.audit import CHECKPOINT, CHECKPOINTS, ENTRIES, KEY, MANIFEST, Opened, verify_export
from consent.log.merkle import VerificationError, canonical
from consent.log.note import Checkpoint, Ed25519Signer, open_checkpoint, sign_note
from tests.unit.consent.builders import MONDAY, SIGNER, erasure, event, events, open_ledger, subject
from troth.ids import file_hash

ROOT = Path(__file__).parents[3]
AUDITING = ("audit", "entry", "index", "merkle", "note")
FILES = (ENTRIES, CHECKPOINTS, CHECKPOINT, KEY, MANIFEST)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 events under three checkpoints and the empty one."""
    folder = tmp_path_factory.mktemp("exported")
    with open_ledger(folder) as ledger:
        for first in (0, 100, 257):
            ledger.append(events(300 - first if first == 257 else 157, first=first))
        assert ledger.size == 300
        return ledger.export(folder / "export")


@pytest.fixture
def export(exported: Path, tmp_path: Path) -> Path:
    """A copy to be spoiled."""
    return Path(shutil.copytree(exported, tmp_path / "export"))


def reseal(folder: Path) -> None:
    """What a forger without the key can do: write the manifest that follows from the other files."""
    newest = open_checkpoint((folder / CHECKPOINT).read_text(), SIGNER.verifier)
    count = len((folder / CHECKPOINTS).read_bytes().splitlines())
    hashes = {name: file_hash(folder / name) for name in FILES if name != MANIFEST}
    (folder / MANIFEST).write_bytes(audit.manifest(newest, count, hashes))


def lines(folder: Path, name: str, change: Callable[[list[bytes]], object]) -> None:
    """Change the lines of a file, and reseal."""
    found = (folder / name).read_bytes().splitlines(keepends=True)
    change(found)
    (folder / name).write_bytes(b"".join(found))
    reseal(folder)


def renumbered(line: bytes, leaf: int) -> bytes:
    """A line of the entries file as that of another leaf."""
    values = json.loads(line)
    opened = Opened(canonical(values["event"]), bytes.fromhex(values["salt"]))
    return audit.entry_line(leaf, bytes.fromhex(values["entry"]), opened)


def test_an_export_verifies_as_it_was_written(exported: Path) -> None:
    verified = verify_export(exported, key=SIGNER.verifier.text, since=(exported / CHECKPOINT).read_text())
    assert (verified.origin, verified.size, verified.checkpoint_count) == (ORIGIN, 300, 4)
    assert verified.root == json.loads((exported / MANIFEST).read_text())["root"]


def test_an_empty_ledger_exports_and_verifies(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        assert verify_export(ledger.export(tmp_path / "export")).size == 0


def test_exporting_again_replaces_the_export_by_the_same_bytes(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.append(events(3))
        first = {path.name: path.read_bytes() for path in ledger.export(tmp_path / "export").iterdir()}
        assert first == {path.name: path.read_bytes() for path in ledger.export(tmp_path / "export").iterdir()}


@pytest.mark.parametrize("name", FILES)
def test_one_bit_changed_anywhere_is_caught(export: Path, name: str) -> None:
    chance, path = random.Random(name), export / name
    raw = path.read_bytes()
    places = range(len(raw)) if len(raw) < 150 else sorted(chance.sample(range(len(raw)), 60))
    for place in places:
        broken = bytearray(raw)
        broken[place] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(VerificationError, match=r"expected .*, found"):
            verify_export(export)


def test_every_bit_of_an_entry_reaches_its_leaf(exported: Path) -> None:
    line = (exported / ENTRIES).read_bytes().splitlines(keepends=True)[7]
    entry, _ = audit.read_line(7, line)
    for place in range(len(line) * 8):
        broken = bytearray(line)
        broken[place // 8] ^= 1 << place % 8
        try:
            assert audit.read_line(7, bytes(broken))[0] != entry
        except VerificationError:
            continue


@pytest.mark.parametrize("kept", [0, 1, 150, 299])
def test_a_truncated_tail_is_caught(export: Path, kept: int) -> None:
    lines(export, ENTRIES, lambda found: found.__delitem__(slice(kept, None)))
    with pytest.raises(VerificationError, match="The tail is missing"):
        verify_export(export)


def test_a_last_line_cut_short_is_caught(export: Path) -> None:
    lines(export, ENTRIES, lambda found: found.__setitem__(-1, found[-1][:-1]))
    with pytest.raises(VerificationError, match="line 300"):
        verify_export(export)


def test_swapped_events_are_caught_with_and_without_their_numbers(export: Path) -> None:
    def swap(found: list[bytes]) -> None:
        found[10], found[11] = found[11], found[10]

    lines(export, ENTRIES, swap)
    with pytest.raises(VerificationError, match="line 11: expected leaf 10"):
        verify_export(export)

    def renumber(found: list[bytes]) -> None:
        for index in (10, 11):
            found[index] = renumbered(found[index], index)

    lines(export, ENTRIES, renumber)
    with pytest.raises(VerificationError, match="changed, moved or replaced"):
        verify_export(export)


def test_an_event_added_at_the_end_is_caught(export: Path) -> None:
    def add(found: list[bytes]) -> None:
        found.append(renumbered(found[-1], 300))

    lines(export, ENTRIES, add)
    with pytest.raises(VerificationError, match="no checkpoint covers"):
        verify_export(export)


def test_an_empty_signature_list_is_caught(export: Path) -> None:
    newest = (export / CHECKPOINT).read_text()
    bare = newest[: newest.rindex("—")]
    (export / CHECKPOINT).write_text(bare)
    checkpoints = (export / CHECKPOINTS).read_bytes().splitlines(keepends=True)
    checkpoints[-1] = canonical(bare) + b"\n"
    (export / CHECKPOINTS).write_bytes(b"".join(checkpoints))
    with pytest.raises(VerificationError, match="signature lines"):
        verify_export(export)


def test_a_rolled_back_newest_checkpoint_is_caught(export: Path) -> None:
    older = json.loads((export / CHECKPOINTS).read_bytes().splitlines()[-2])
    (export / CHECKPOINT).write_text(older)
    reseal(export)
    with pytest.raises(VerificationError, match="rolled back or replaced"):
        verify_export(export)
    lines(export, CHECKPOINTS, lambda found: found.append(canonical(older) + b"\n"))
    with pytest.raises(VerificationError, match="A checkpoint was rolled back"):
        verify_export(export)


def test_a_checkpoint_left_out_of_the_history_is_caught_by_its_manifest(export: Path) -> None:
    found = (export / CHECKPOINTS).read_bytes().splitlines(keepends=True)
    (export / CHECKPOINTS).write_bytes(b"".join([found[0], *found[2:]]))
    with pytest.raises(VerificationError, match=r"manifest.json"):
        verify_export(export)


def test_two_different_trees_of_one_size_under_one_key_are_told_apart(export: Path) -> None:
    newest = open_checkpoint((export / CHECKPOINT).read_text(), SIGNER.verifier)
    fork = sign_note(Checkpoint(newest.origin, newest.size, b"f" * 32).text, SIGNER)
    with pytest.raises(VerificationError, match="checkpoint of size 300: expected root 6666"):
        verify_export(export, since=fork)


def test_an_earlier_export_does_not_pass_for_who_kept_a_later_checkpoint(exported: Path, tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.append(events(5))
        early = ledger.export(tmp_path / "early")
        ledger.append(events(9))
        kept = ledger.checkpoint()
    assert verify_export(early).size == 5
    with pytest.raises(VerificationError, match="at least 9 events, found 5"):
        verify_export(early, since=kept)


def test_an_export_of_somebody_else_does_not_pass_for_who_knows_the_key(exported: Path) -> None:
    other = Ed25519Signer(ORIGIN, b"x" * 32).verifier.text
    with pytest.raises(VerificationError, match="Somebody else signed"):
        verify_export(exported, key=other)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_an_extra_file_is_caught(export: Path, name: str) -> None:
    (export / name).rename(export / "aside")
    with pytest.raises(VerificationError, match=f"expected files .*{name}"):
        verify_export(export)
    shutil.copy(export / "aside", export / name)
    with pytest.raises(VerificationError, match="found aside"):
        verify_export(export)


def close(*leaves: int) -> Callable[[list[bytes]], None]:
    """Withhold events: what somebody does who holds the ledger and would rather not show a withdrawal."""

    def change(found: list[bytes]) -> None:
        for leaf in leaves:
            found[leaf] = audit.entry_line(leaf, bytes.fromhex(json.loads(found[leaf])["entry"]), None)

    return change


@pytest.fixture
def with_erasures(tmp_path: Path) -> Path:
    """Alma says 3 things and is erased at leaf 4, then comes back at leaf 5. Bruno speaks at leaf 1, and is erased last."""
    bruno = subject(2)
    with open_ledger(tmp_path) as ledger:
        ledger.append([*events(1), event(subject_id=bruno, signal_id="b"), *events(2, first=1)])
        ledger.erase(erasure(MONDAY + timedelta(days=1)))
        ledger.append([event(MONDAY + timedelta(days=2), signal_id="back")])
        ledger.erase(erasure(MONDAY + timedelta(days=3), bruno))
        return ledger.export(tmp_path / "export")


def test_what_an_erasure_destroyed_is_no_fault(with_erasures: Path) -> None:
    said = [json.loads(line)["event"] for line in (with_erasures / ENTRIES).read_bytes().splitlines()]
    assert [one and one["event_type"] for one in said] == [None, None, None, None, "erased", "grant", "erased"]
    assert verify_export(with_erasures).size == 7


def test_erased_twice_the_second_erasure_explains_the_first(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.append(events(2))
        for day in (1, 2):
            ledger.erase(erasure(MONDAY + timedelta(days=day), signal_id=f"erased-{day}"))
        assert verify_export(ledger.export(tmp_path / "export")).size == 4


@pytest.mark.parametrize("leaf", [0, 157, 299])
def test_a_withheld_event_is_caught(export: Path, leaf: int) -> None:
    lines(export, ENTRIES, close(leaf))
    expected = rf"line {leaf + 1}: expected an event, or the erasure of its subject after it, found neither\."
    with pytest.raises(VerificationError, match=expected):
        verify_export(export)


@pytest.mark.parametrize(
    ("closed", "told"),
    [
        pytest.param(5, "line 6: .*, found neither", id="what was said after the erasure"),
        pytest.param(4, "line 5: .*, found neither", id="the erasure itself, whoever else was erased later"),
        pytest.param(6, "line 7: .*, found neither", id="the newest erasure"),
    ],
)
def test_an_erasure_explains_only_what_its_own_subject_said_before(with_erasures: Path, closed: int, told: str) -> None:
    lines(with_erasures, ENTRIES, close(closed))
    with pytest.raises(VerificationError, match=told):
        verify_export(with_erasures)


def test_the_evidence_names_the_first_line_and_counts_the_subjects(with_erasures: Path) -> None:
    lines(with_erasures, ENTRIES, close(5, 6))
    with pytest.raises(VerificationError, match=re.escape("line 6: ")) as evidence:
        verify_export(with_erasures)
    assert evidence.value.found == "neither, for 2 subjects"


def opener(ledger: Ledger, meanwhile: list[Callable[[], int]]) -> verification.Opener:
    """Reads the ledger leaf by leaf; before each reading something else happens."""

    def opened(start: int, stop: int) -> Iterator[tuple[int, bytes, Opened | None]]:
        if meanwhile:
            meanwhile.pop(0)()
        for leaf in range(start, stop):
            yield leaf, ledger.entry(leaf), ledger.opened(leaf)

    return opened


def test_an_erasure_during_an_export_is_in_the_export(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.append(events(3))
        ledger.append([event(subject_id=subject(2), signal_id="b")])
        meanwhile = [
            lambda: ledger.erase(erasure(MONDAY + timedelta(days=1))),
            lambda: ledger.erase(erasure(MONDAY + timedelta(days=2), signal_id="again")),
        ]
        store = Store(SQLiteDatabase(tmp_path / "ledger.db"))
        folder = verification.export(store, SIGNER.verifier, opener(ledger, meanwhile), tmp_path / "export")
        store.close()
    assert verify_export(folder).size == 6


def test_a_ledger_whose_key_was_destroyed_by_hand_is_not_exported(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.append(events(3))
        store = Store(SQLiteDatabase(tmp_path / "ledger.db"))

        def opened(start: int, stop: int) -> Iterator[tuple[int, bytes, Opened | None]]:
            yield from ((leaf, ledger.entry(leaf), None) for leaf in range(start, stop))

        with pytest.raises(LedgerError, match=r"leaf 2: expected an event, or the erasure .* found neither"):
            verification.export(store, SIGNER.verifier, opened, tmp_path / "export")
        store.close()
    assert not (tmp_path / "export").exists()


def test_the_auditor_says_yes_with_code_0(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(exported), "--json", "--key", SIGNER.verifier.text]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["size"], told["key_given"]) == (True, 300, True)
    assert main(["verify", str(exported)]) == 0
    assert "verified: 300 events under 4 checkpoints" in capsys.readouterr().out


def test_the_auditor_says_no_with_code_1_and_the_evidence(export: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines(export, ENTRIES, lambda found: found.pop())
    assert main(["verify", str(export)]) == 1
    assert "expected 300 events, found 299. The tail is missing." in capsys.readouterr().err
    assert main(["verify", str(export), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["expected"], told["found"]) == (False, "300 events", "299")


@pytest.mark.parametrize("arguments", [[], ["verify"], ["verify", "{}", "--loud"]])
def test_misuse_ends_with_code_2(exported: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([argument.format(exported) for argument in arguments])
    assert ended.value.code == 2


def test_a_path_that_is_not_there_ends_with_code_2(exported: Path, tmp_path: Path) -> None:
    assert main(["verify", str(tmp_path / "nowhere")]) == 2
    assert main(["verify", str(exported), "--since", str(tmp_path / "nowhere")]) == 2


def test_the_auditor_runs_alone_with_five_modules_of_ours_and_no_settings(exported: Path, tmp_path: Path) -> None:
    package = tmp_path / "consent"
    (package / "log").mkdir(parents=True)
    for name in ("__init__", "__main__", "log/__init__", *(f"log/{each}" for each in AUDITING)):
        shutil.copy(ROOT / "consent" / f"{name}.py", package / f"{name}.py")
    script = "import sys; from consent.__main__ import main; print(main(sys.argv[1:]), OURS)"
    ours = "sorted(name for name in sys.modules if name.split('.')[0] in ('consent', 'troth') and '.' in name)"
    told_ours = str(["consent.__main__", "consent.log", *(f"consent.log.{each}" for each in AUDITING)])
    for start, told in (["-c", script.replace("OURS", ours)], f"0 {told_ours}\n"), (["-m", "consent"], ""):
        command = [sys.executable, *start, "verify", str(exported)]
        done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(told)
