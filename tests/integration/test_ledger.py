"""The ledger on a real disk: idempotent, provable, and refusing what was rolled back, forked or changed."""

import shutil
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import ConsentError, LedgerError
from consent.events import FIELDS, SCHEMA
from consent.keyring import KeyRing
from consent.ledger import ORIGIN, Ledger, ledger_size, open_ledger
from consent.merkle import EMPTY_ROOT, verify_consistency, verify_inclusion
from consent.note import Ed25519Signer, open_checkpoint
from consent.policy import read_policy
from consent.standing import standing
from tests.unit.consent import builders
from tests.unit.consent.builders import ALMA, MONDAY, SIGNER, event, events
from troth.clock import FixedClock
from troth.home import Home


def rows(count: int) -> pl.DataFrame:
    found = [tuple(getattr(one, name) for name in FIELDS) for one in events(count)]
    return pl.DataFrame(found, schema={name: SCHEMA[name] for name in FIELDS}, orient="row")


def tampered(path: Path, statement: str) -> None:
    """Change the ledger's file by hand, past its triggers."""
    connection = sqlite3.connect(path)
    for (trigger,) in connection.execute("select name from sqlite_master where type = 'trigger'").fetchall():
        connection.execute(f"drop trigger {trigger}")
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_new_ledger_is_empty_under_a_signed_checkpoint(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        assert ledger.size == 0
        assert open_checkpoint(ledger.checkpoint(), SIGNER.verifier).root == EMPTY_ROOT
        ledger.verify()


def test_an_appended_event_is_covered_by_a_signed_checkpoint_on_return(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        assert ledger.append(events(3)) == [0, 1, 2]
        assert open_checkpoint(ledger.checkpoint(), SIGNER.verifier).size == ledger.size == 3
        assert [recorded.event for recorded in ledger.events()] == events(3)
    assert ledger_size(tmp_path / "ledger.db") == 3


def test_a_repeat_gets_its_first_leaf_and_changes_nothing(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        ledger.append(events(5))
        before = ledger.checkpoint()
        again = [event(MONDAY, signal_id="sig-3", received_at=MONDAY + timedelta(days=30)), *events(2)]
        assert ledger.append(again) == [3, 0, 1]
        assert ledger.append([]) == []
        assert ledger.checkpoint() == before


def test_a_repeat_inside_one_batch_is_one_event(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        assert ledger.append([*events(2), *events(3)]) == [0, 1, 0, 1, 2]
        ledger.verify()


def test_rows_and_events_are_the_same_to_the_ledger(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        assert ledger.append_frame(rows(600)) == list(range(600))
        assert ledger.append(events(600)) == list(range(600))
        frame = ledger.frame()
        assert frame.schema == pl.Schema(SCHEMA)
        assert frame.select(FIELDS).equals(rows(600))
        assert frame["ledger_size"].unique().to_list() == [600]
        assert ledger.frame(10).height == 10


def test_a_bad_event_writes_nothing_of_its_batch(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        with pytest.raises(ConsentError, match="field subject_id"):
            ledger.append([*events(2), event(subject_id="alma@pier.example")])
        assert ledger.size == 0


@settings(max_examples=12, deadline=None)
@given(batches=st.lists(st.integers(1, 400), min_size=1, max_size=4), data=st.data())
def test_in_any_batches_every_leaf_and_every_past_is_provable(
    tmp_path_factory: pytest.TempPathFactory, batches: list[int], data: st.DataObject
) -> None:
    with builders.open_ledger(tmp_path_factory.mktemp("ledger")) as ledger:
        for count in batches:
            ledger.append(events(count, first=ledger.size))
        assert ledger.verify().root == ledger.root()
        index, old = data.draw(st.integers(0, ledger.size - 1)), data.draw(st.integers(1, ledger.size))
        size = data.draw(st.integers(index + 1, ledger.size))
        verify_inclusion(ledger.leaf_hash(index), index, size, ledger.inclusion_proof(index, size), ledger.root(size))
        proof = ledger.consistency_proof(old)
        verify_consistency(old, ledger.size, ledger.root(old), ledger.root(), proof)


def test_a_ledger_larger_than_two_levels_of_tiles_still_proves(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        frame = (
            rows(1)
            .select(pl.all().repeat_by(66_000).explode())
            .with_columns(signal_id=pl.format("sig-{}", pl.int_range(66_000)))
        )
        ledger.append_frame(frame[:65_500])
        ledger.append_frame(frame[65_500:])
        for index in (0, 255, 256, 65_535, 65_536, 65_999):
            verify_inclusion(ledger.leaf_hash(index), index, 66_000, ledger.inclusion_proof(index), ledger.root())
        verify_consistency(65_500, 66_000, ledger.root(65_500), ledger.root(), ledger.consistency_proof(65_500))


def test_a_leaf_or_a_size_the_ledger_never_had_is_refused(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger, pytest.raises(ConsentError, match="a leaf below 0, found 0"):
        ledger.inclusion_proof(0)
    with builders.open_ledger(tmp_path) as ledger, pytest.raises(ConsentError, match="a size up to 0, found 1"):
        ledger.frame(1)


def test_writers_side_by_side_make_one_tree_with_every_event_once(tmp_path: Path) -> None:
    def write(first: int) -> None:
        with builders.open_ledger(tmp_path) as ledger:
            for start in range(first, first + 30, 5):
                ledger.append(events(10, first=start))

    builders.open_ledger(tmp_path).close()
    writers = [threading.Thread(target=write, args=(10 * number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with builders.open_ledger(tmp_path) as ledger:
        said = sorted(int(recorded.event.signal_id.removeprefix("sig-")) for recorded in ledger.events())
        assert said == list(range(65))
        ledger.verify()


def test_the_ledger_answers_standing_and_stays_silent_when_closed(tmp_path: Path) -> None:
    ledger = builders.open_ledger(tmp_path)
    ledger.append([event(), event(MONDAY + timedelta(days=1), event_type="withdraw", signal_id="sig-2")])
    policy, later = read_policy(), MONDAY + timedelta(days=2)
    assert standing(ledger, ALMA, "personalization", "*", MONDAY, policy=policy).is_allowed
    assert standing(ledger, ALMA, "personalization", "*", later, policy=policy).reason_code == "withdrawn"
    ledger.close()
    assert standing(ledger, ALMA, "personalization", "*", MONDAY, policy=policy).reason_code == "ledger_unreadable"


def test_a_home_has_one_ledger_under_its_own_key(tmp_path: Path) -> None:
    home, clock = Home(tmp_path), FixedClock(MONDAY)
    with open_ledger(home, clock) as ledger:
        ledger.append(events(2))
    with open_ledger(home, clock) as ledger:
        assert ledger.size == 2


def test_a_ledger_rolled_back_to_a_backup_is_refused(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        ledger.append(events(3))
    shutil.copy(tmp_path / "ledger.db", tmp_path / "backup.db")
    with builders.open_ledger(tmp_path) as ledger:
        ledger.append(events(5))
    shutil.copy(tmp_path / "backup.db", tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match="at least 5 events, found 3"):
        builders.open_ledger(tmp_path)


def test_a_checkpoint_somebody_kept_tells_a_fork(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path / "one") as one, builders.open_ledger(tmp_path / "two") as two:
        one.append(events(4))
        two.append(events(4))
        kept = one.checkpoint()
        one.append(events(9))
        one.check_extends(kept)
        two.append(events(9))
        with pytest.raises(LedgerError, match="forked"):
            two.check_extends(kept)


def test_a_ledger_of_another_signer_is_refused(tmp_path: Path) -> None:
    builders.open_ledger(tmp_path).close()
    with pytest.raises(LedgerError, match="a signature by a known key"):
        Ledger.open(tmp_path / "ledger.db", Ed25519Signer(ORIGIN, b"x" * 32), KeyRing([builders.KEK]), FixedClock(MONDAY))


def test_the_database_itself_refuses_to_forget_or_to_rewrite(tmp_path: Path) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        ledger.append(events(300))
    connection = sqlite3.connect(tmp_path / "ledger.db")
    for statement in (
        "delete from batches",
        "update batches set payloads = x''",
        "delete from tiles",
        "delete from checkpoints",
        "update checkpoints set note = ''",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"):
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "change",
    [
        "update batches set payloads = substr(payloads, 1, 40) || x'00' || substr(payloads, 42) where first_leaf = 0",
        "update batches set entries = substr(entries, 65) || substr(entries, 1, 64) where first_leaf = 0",
        "update batches set entries = zeroblob(length(entries)) where first_leaf = 200",
        "update batches set first_leaf = first_leaf + 100 where first_leaf = 200",
        "update tiles set hashes = substr(hashes, 33) || substr(hashes, 1, 32) where level = 0 and number = 0",
        "update checkpoints set note = (select note from checkpoints where size = 0) where size = 300",
    ],
)
def test_a_ledger_changed_by_hand_does_not_verify(tmp_path: Path, change: str) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        ledger.append(events(200))
        ledger.append(events(300))
    tampered(tmp_path / "ledger.db", change)
    with pytest.raises(LedgerError, match=r"expected .* found"), builders.open_ledger(tmp_path) as ledger:
        ledger.verify()


@pytest.mark.parametrize(
    "change",
    ["delete from batches where first_leaf = 200", "delete from checkpoints where size = 300", "delete from tiles"],
)
def test_a_ledger_with_a_piece_missing_does_not_even_open(tmp_path: Path, change: str) -> None:
    with builders.open_ledger(tmp_path) as ledger:
        ledger.append(events(200))
        ledger.append(events(300))
    tampered(tmp_path / "ledger.db", change)
    with pytest.raises(LedgerError, match=r"expected .* found"):
        builders.open_ledger(tmp_path)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, and long enough to be looked at" * 10)
    with pytest.raises(LedgerError, match="expected a SQLite database"):
        builders.open_ledger(tmp_path)
    with pytest.raises(LedgerError, match="expected a readable ledger"):
        ledger_size(tmp_path / "nowhere.db")
