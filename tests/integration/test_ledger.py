"""The ledger in SQLite and in PostgreSQL: idempotent, provable, erasable, and refusing what was rolled back, forked or changed."""

import shutil
import sqlite3
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import ConsentError, LedgerError
from consent.events import FIELDS, SCHEMA
from consent.ledger.keyring import KeyRing
from consent.ledger.ledger import Ledger
from consent.ledger.opening import ORIGIN, ledger_size, open_ledger
from consent.ledger.postgres import PostgresDatabase
from consent.log.entry import prefix_of
from consent.log.index import BLOCK, RADIX, verify_state_proof
from consent.log.merkle import EMPTY_ROOT, verify_consistency, verify_inclusion
from consent.log.note import Ed25519Signer, open_checkpoint
from consent.rule.policy import read_policy
from consent.rule.standing import standing
from tests.integration.places import by_hand, change_by_hand, raw
from tests.unit.consent import builders
from tests.unit.consent.builders import ALMA, KEK, MONDAY, SIGNER, erasure, event, events, open_ledger_at, subject
from troth.clock import FixedClock
from troth.home import Home

OTHER_KEK = bytes(range(64, 96))


def rows(count: int) -> pl.DataFrame:
    found = [tuple(getattr(one, name) for name in FIELDS) for one in events(count)]
    return pl.DataFrame(found, schema={name: SCHEMA[name] for name in FIELDS}, orient="row")


def crowd(count: int, people: int, first: int = 0) -> pl.DataFrame:
    """Events number `first` and on, of so many people in turn (`subject` by number)."""
    number = pl.int_range(first, first + count)
    person = (number % people).cast(pl.String).str.zfill(22)
    letters = {"0": "a", "1": "e", "8": "i", "9": "o"}
    return (
        rows(1)
        .select(pl.all().repeat_by(count).explode())
        .with_columns(
            signal_id=pl.format("sig-{}", number),
            subject_id=pl.concat_str(pl.lit("email_"), person.str.replace_many(letters)),
        )
    )


def proved(ledger: Ledger, subject_id: str, *scope: str) -> list[int]:
    """The leaves that a proof, checked against the signed checkpoint alone, gives for a subject."""
    signed = open_checkpoint(ledger.checkpoint(), SIGNER.verifier)
    assert signed.state_root is not None
    proof = ledger.state_proof(subject_id, *scope)
    return verify_state_proof(proof, prefix_of(subject_id, *scope), signed.size, signed.state_root)


def test_a_new_ledger_is_empty_under_a_signed_checkpoint(place: str) -> None:
    with open_ledger_at(place) as ledger:
        assert ledger.size == 0
        assert open_checkpoint(ledger.checkpoint(), SIGNER.verifier).root == EMPTY_ROOT
        assert ledger.frame().is_empty()
        assert proved(ledger, ALMA) == []
        ledger.verify()


def test_an_appended_event_is_covered_by_a_signed_checkpoint_on_return(place: str) -> None:
    with open_ledger_at(place) as ledger:
        assert ledger.append(events(3)) == [0, 1, 2]
        assert open_checkpoint(ledger.checkpoint(), SIGNER.verifier).size == ledger.size == 3
    with open_ledger_at(place) as ledger:
        assert [recorded.event for recorded in ledger.events()] == events(3)
        assert ledger.append(events(4)) == [0, 1, 2, 3]


def test_a_repeat_gets_its_first_leaf_and_changes_nothing(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append(events(5))
        before = ledger.checkpoint()
        again = [event(MONDAY, signal_id="sig-3", received_at=MONDAY + timedelta(days=30)), *events(2)]
        assert ledger.append(again) == [3, 0, 1]
        assert ledger.append([]) == []
        assert ledger.checkpoint() == before


def test_a_repeat_inside_one_batch_is_one_event(place: str) -> None:
    with open_ledger_at(place) as ledger:
        assert ledger.append([*events(2), *events(3)]) == [0, 1, 0, 1, 2]
        ledger.verify()


def test_rows_and_events_are_the_same_to_the_ledger(place: str) -> None:
    with open_ledger_at(place) as ledger:
        assert ledger.append_frame(rows(600)) == list(range(600))
        assert ledger.append(events(600)) == list(range(600))
        frame = ledger.frame()
        assert frame.schema == pl.Schema(SCHEMA)
        assert frame.select(FIELDS).equals(rows(600))
        assert frame["ledger_size"].unique().to_list() == [600]
        assert ledger.frame(10).height == 10


def test_a_bad_event_writes_nothing_of_its_batch(place: str) -> None:
    with open_ledger_at(place) as ledger:
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
        frame = crowd(66_000, people=1)
        ledger.append_frame(frame[:65_500])
        ledger.append_frame(frame[65_500:])
        for index in (0, 255, 256, 65_535, 65_536, 65_999):
            verify_inclusion(ledger.leaf_hash(index), index, 66_000, ledger.inclusion_proof(index), ledger.root())
        verify_consistency(65_500, 66_000, ledger.root(65_500), ledger.root(), ledger.consistency_proof(65_500))


def test_all_events_of_a_subject_are_found_and_proved_in_merged_runs_stored_runs_and_young_rows(place: str) -> None:
    people, size = 997, RADIX * BLOCK + BLOCK + 500
    with open_ledger_at(place) as ledger:
        ledger.append_frame(crowd(size, people))
        assert ledger.append_frame(crowd(300, people, first=200)) == list(range(200, 500))
        ledger.verify()
    with open_ledger_at(place) as ledger:
        assert ledger.size == size
        for number in (0, 1, 500, people - 1):
            leaves = list(range(number, size, people))
            assert ledger.leaves_of(subject(number)) == leaves
            assert [recorded.leaf_index for recorded in ledger.events_of(subject(number))] == leaves
            assert proved(ledger, subject(number)) == leaves
            assert proved(ledger, subject(number), "personalization", "*") == leaves
            assert proved(ledger, subject(number), "personalization", "email") == []
        assert ledger.leaves_of(subject(people)) == proved(ledger, subject(people)) == []
        ledger.append([event(subject_id=subject(3), signal_id="young")])
        assert ledger.erase(erasure(MONDAY, subject(3))) == size + 1
        assert [recorded.leaf_index for recorded in ledger.events_of(subject(3))] == [size + 1]
        ledger.verify()


def test_a_leaf_or_a_size_the_ledger_never_had_is_refused(place: str) -> None:
    with open_ledger_at(place) as ledger:
        with pytest.raises(ConsentError, match="a leaf below 0, found 0"):
            ledger.inclusion_proof(0)
        with pytest.raises(ConsentError, match="a size up to 0, found 1"):
            ledger.frame(1)


def test_what_was_erased_cannot_be_read_and_everything_about_it_still_proves(place: str) -> None:
    bea = event(subject_id=subject(1), signal_id="bea")
    with open_ledger_at(place) as ledger, open_ledger_at(place) as other:
        ledger.append([*events(3), bea])
        root, proofs = ledger.root(), ledger.inclusion_proofs(range(4))
        assert ledger.erase(erasure(MONDAY + timedelta(days=1))) == 4
        for each in (ledger, other):
            assert [each.opened(leaf) is None for leaf in range(5)] == [True, True, True, False, False]
            assert [recorded.event.event_type for recorded in each.events_of(ALMA)] == ["erased"]
            assert each.frame()["leaf_index"].to_list() == [3, 4]
            assert each.frame(4)["leaf_index"].to_list() == [3]
            assert each.root(4) == root
            assert each.inclusion_proofs(range(4), 4) == proofs
            assert proved(each, ALMA) == [0, 1, 2, 4]
            each.verify()


def test_erased_again_nothing_said_since_is_lost(place: str) -> None:
    erased, back = erasure(MONDAY), event(MONDAY + timedelta(days=1), signal_id="back")
    with open_ledger_at(place) as ledger:
        ledger.append(events(1))
        ledger.erase(erased)
        ledger.append([back])
        assert ledger.erase(erased) == 1
        assert [recorded.event for recorded in ledger.events_of(ALMA)] == [erased, back]
        ledger.verify()


def test_erased_for_a_second_time_the_first_erasure_is_unreadable_too_and_explained(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append(events(1))
        ledger.erase(erasure(MONDAY))
        assert ledger.erase(erasure(MONDAY, signal_id="erased-2")) == 2
        assert [recorded.leaf_index for recorded in ledger.events_of(ALMA)] == [2]
        assert ledger.frame(1).is_empty()
        ledger.verify()


def test_a_subject_who_was_never_known_can_be_erased(place: str) -> None:
    with open_ledger_at(place) as ledger:
        assert ledger.erase(erasure(MONDAY)) == 0
        assert len(ledger.events_of(ALMA)) == 1


def test_only_an_erasure_erases(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append(events(1))
        with pytest.raises(ConsentError, match="expected an event erased, found grant"):
            ledger.erase(event(signal_id="sig-2"))
        assert len(ledger.events_of(ALMA)) == ledger.size == 1


def test_an_erasure_that_was_only_appended_is_not_taken_for_one_that_destroyed(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append([*events(1), erasure(MONDAY)])
        with pytest.raises(LedgerError, match="destroyed nothing"):
            ledger.erase(erasure(MONDAY))
        ledger.erase(erasure(MONDAY, signal_id="erased-2"))
        assert len(ledger.events_of(ALMA)) == 1


@pytest.mark.parametrize("is_reopened", [False, True], ids=["at once", "by a later process"])
def test_a_subject_first_heard_in_a_batch_that_crosses_blocks_is_erased_like_any_other(
    place: str, is_reopened: bool
) -> None:
    ledger = open_ledger_at(place)
    ledger.append_frame(crowd(BLOCK - 100, people=50))
    ledger.append([*events(150, first=BLOCK), event(subject_id=subject(77), signal_id="late")])
    if is_reopened:
        ledger.close()
        ledger = open_ledger_at(place)
    with ledger:
        ledger.append([event(subject_id=subject(77), signal_id="later")])
        ledger.erase(erasure(MONDAY, subject(77)))
        assert [recorded.event.event_type for recorded in ledger.events_of(subject(77))] == ["erased"]
        ledger.verify()


@pytest.mark.parametrize("look", [Ledger.root, Ledger.frame, lambda ledger: ledger.size], ids=["root", "frame", "size"])
def test_who_looked_at_an_erasure_by_another_process_seals_under_a_key_that_exists(
    place: str, look: Callable[[Ledger], Any]
) -> None:
    withdrawal = event(MONDAY + timedelta(days=1), event_type="withdraw", signal_id="back")
    with open_ledger_at(place) as one, open_ledger_at(place) as two:
        two.append(events(1))
        one.erase(erasure(MONDAY))
        look(two)
        two.append([withdrawal])
        assert one.events_of(ALMA)[-1].event == withdrawal
        one.verify()


def test_a_destroyed_key_is_nowhere_in_the_files(tmp_path: Path) -> None:
    people = [subject(number) for number in range(400)]
    with builders.open_ledger(tmp_path) as ledger, raw(str(tmp_path)) as run:
        wrapped: dict[str, bytes] = {}
        for round_ in range(3):
            said = [event(subject_id=person, signal_id=f"sig-{round_}") for person in people]
            ledger.append(said)
            for person in people[round_::40]:
                ((wrapped[person],),) = run(
                    "select wrapped from subject_keys where subject_key = ?", (prefix_of(person),)
                )
                ledger.erase(erasure(MONDAY, person, f"erased-{round_}"))
        held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        ((present,),) = run("select wrapped from subject_keys where subject_key = ?", (prefix_of(people[-1]),))
    assert present in held
    # nonce 12 bytes, key 32, tag 16: half a key would be too much
    assert [person for person, key in wrapped.items() if key[12:28] in held or key[28:44] in held] == []


def test_keys_wrapped_anew_open_everything_and_need_the_old_one_no_more(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append_frame(crowd(2_500, people=1_200))
    with (
        pytest.raises(LedgerError, match="Give the key this ledger was written under"),
        open_ledger_at(place, [OTHER_KEK]) as ledger,
    ):
        ledger.frame()
    with open_ledger_at(place, [OTHER_KEK, KEK]) as ledger:
        ledger.append([event(subject_id=subject(5_000), signal_id="new")])
        assert ledger.rewrap_keys() == 1_200
        assert ledger.rewrap_keys() == 0
    with open_ledger_at(place, [OTHER_KEK]) as ledger:
        assert ledger.frame().height == 2_501
        ledger.append_frame(crowd(10, people=10, first=2_500))
        ledger.erase(erasure(MONDAY, subject(3)))
        ledger.verify()


def test_keys_half_wrapped_anew_are_read_with_both_and_the_rest_follows(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append_frame(crowd(50, people=40))
    with open_ledger_at(place, [OTHER_KEK, KEK]) as ledger:
        ledger.append_frame(crowd(30, people=30, first=10_000))
        ledger.rewrap_keys()
    with open_ledger_at(place, [KEK, OTHER_KEK]) as ledger:
        ledger.append([event(subject_id=subject(600 + number), signal_id="old") for number in range(20)])
    with open_ledger_at(place, [OTHER_KEK, KEK]) as ledger:
        assert ledger.frame().height == 100
        assert ledger.rewrap_keys() == 20
        ledger.verify()


def test_threads_that_make_the_ledger_at_once_make_one(place: str) -> None:
    faults: list[BaseException] = []

    def make(first: int) -> None:
        try:
            with open_ledger_at(place) as ledger:
                ledger.append(events(10, first))
        except BaseException as fault:
            faults.append(fault)

    makers = [threading.Thread(target=make, args=(5 * number,)) for number in range(6)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert faults == []
    with open_ledger_at(place) as ledger:
        assert sorted(recorded.event.signal_id for recorded in ledger.events()) == sorted(
            each.signal_id for each in events(35)
        )
        ledger.verify()


def test_readers_see_whole_states_while_runs_are_merged_under_them(place: str) -> None:
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        try:
            with open_ledger_at(place) as ledger:
                while not done.is_set():
                    size, leaves = ledger.size, ledger.leaves_of(subject(0))
                    assert leaves[: -(-size // 10)] == list(range(0, size, 10))
                    assert ledger.frame(min(size, 50)).height == min(size, 50)
                    ledger.state_proof(subject(0))
                    ledger.verify()
        except BaseException as fault:
            faults.append(fault)

    with open_ledger_at(place) as ledger:
        reader = threading.Thread(target=read)
        reader.start()
        for first in range(0, RADIX * BLOCK + 1_000, 1_000):
            ledger.append_frame(crowd(1_000, people=10, first=first))
        done.set()
        reader.join()
    assert faults == []


def test_a_schema_of_another_version_is_refused(place: str) -> None:
    open_ledger_at(place).close()
    with raw(place) as run:
        run("update alembic_version set version_num = '9999'")
    with pytest.raises(LedgerError, match=r"schema: expected version 0001, found 9999\. Use the release"):
        open_ledger_at(place)


def test_a_schema_whose_making_was_broken_off_is_made(place: str) -> None:
    open_ledger_at(place).close()
    with by_hand(place) as run:
        for table in ("batches", "tiles", "checkpoints", "runs", "run_chunks", "subject_keys"):
            run(f"drop table {table}")
        if place.startswith("postgresql://"):
            run("drop function refuse_change")
        run("delete from alembic_version")
    with open_ledger_at(place) as ledger:
        assert ledger.append(events(2)) == [0, 1]


def test_the_ledger_answers_standing_and_stays_silent_when_closed(place: str) -> None:
    ledger = open_ledger_at(place)
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
    assert ledger_size(home) == 2


def test_a_home_may_have_any_name(tmp_path: Path) -> None:
    home = Home(tmp_path / "Zoë's 100% home? #1 & more")
    with open_ledger(home, FixedClock(MONDAY)) as ledger:
        ledger.append(events(2))
    assert home.ledger.exists()
    assert ledger_size(home) == 2


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
        Ledger.open(tmp_path / "ledger.db", Ed25519Signer(ORIGIN, b"x" * 32), KeyRing([KEK]), FixedClock(MONDAY))


@pytest.mark.parametrize(
    "statement",
    [
        "delete from batches",
        "update batches set first_leaf = first_leaf + 1",
        "delete from tiles",
        "update tiles set level = level + 1",
        "delete from checkpoints",
        "update checkpoints set note = ''",
    ],
)
def test_the_database_itself_refuses_to_forget_or_to_rewrite(place: str, statement: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append(events(300))
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.RaiseException), match="only grows"), raw(place) as run:
        run(statement)


CHANGES: dict[str, tuple[str, str, str, Callable[[Any], object]]] = {
    "a byte of a payload": ("batches", "payloads", "first_leaf = 0", lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]),
    "a payload's key": ("batches", "payloads", "first_leaf = 0", lambda b: bytes([b[0] ^ 1]) + b[1:]),
    "two entries swapped": ("batches", "entries", "first_leaf = 0", lambda b: b[64:128] + b[:64] + b[128:]),
    "entries of zeros": ("batches", "entries", "first_leaf = 200", lambda b: bytes(len(b))),
    "a batch moved": ("batches", "first_leaf", "first_leaf = 200", lambda leaf: leaf + 100),
    "a tile": ("tiles", "hashes", "level = 0 and number = 0", lambda b: b[32:] + b[:32]),
    "a tile's inner roots": ("tiles", "inner_roots", "level = 0 and number = 0", lambda b: bytes([b[0] ^ 1]) + b[1:]),
    "a checkpoint": ("checkpoints", "note", "size = 5000", lambda note: note.replace("troth", "truth")),
    "rows of the index": ("run_chunks", "chunk_rows", "number = 1", lambda b: b[40:80] + b[:40] + b[80:]),
    "the filter of the index": ("runs", "filter", "start_leaf = 0", lambda b: bytes(len(b))),
    "first rows of the index": ("runs", "first_rows", "start_leaf = 0", lambda b: b[40:80] + b[:40] + b[80:]),
    "hashes of the index": ("runs", "chunk_roots", "start_leaf = 0", lambda b: b[32:64] + b[:32] + b[64:]),
    "a wrapped key": ("subject_keys", "wrapped", "block = 0", lambda b: b[:-1] + bytes([b[-1] ^ 1])),
    "the id of a key": ("subject_keys", "key_id", "block = 0", lambda b: b[:-1] + bytes([b[-1] ^ 1])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_ledger_changed_by_hand_does_not_verify(place: str, change: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append(events(200))
        ledger.append_frame(rows(5_000))
    change_by_hand(place, *CHANGES[change])
    with pytest.raises(LedgerError, match=r"expected .* found"), open_ledger_at(place) as ledger:
        ledger.verify()


OTHER = "card_" + "b" * 22


def test_rows_are_given_out_only_under_entries_that_were_signed(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append([event()])
        ledger.append([event(subject_id=OTHER, signal_id=f"other-{number}") for number in range(300)])
        ledger.erase(event(MONDAY + timedelta(days=1), event_type="erased", signal_id="erasure"))
        assert ledger.frame()["leaf_index"].to_list() == ledger.frame(start=1)["leaf_index"].to_list()
    change_by_hand(place, "batches", "entries", "first_leaf = 0", lambda b: b[:-1] + bytes([b[-1] ^ 1]))
    with open_ledger_at(place) as ledger:  # no key is left for the payload that is bound to it
        with pytest.raises(LedgerError, match="ledger at size 302: expected root"):
            ledger.frame()
        assert ledger.frame(start=256)["leaf_index"].to_list() == list(range(256, 302))


def test_a_key_taken_away_by_hand_is_no_erasure(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append([event(), event(MONDAY + timedelta(days=1), event_type="withdraw", signal_id="sig-2")])
    with by_hand(place) as run:
        run("delete from subject_keys")
    with open_ledger_at(place) as ledger:
        for read in (ledger.verify, ledger.frame, lambda: ledger.events_of(ALMA)):
            with pytest.raises(LedgerError, match="destroyed by hand"):
                read()
        asked = standing(ledger, ALMA, "personalization", "*", MONDAY, policy=read_policy())
        assert asked.reason_code == "ledger_unreadable"


def test_a_withdrawal_cannot_be_silenced_by_changing_which_key_its_payload_names(place: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append([event()])
        ledger.append([event(MONDAY + timedelta(days=1), event_type="withdraw", signal_id="sig-2")])
    change_by_hand(place, "batches", "payloads", "first_leaf = 1", lambda b: b[:7] + bytes([b[7] ^ 1]) + b[8:])
    with open_ledger_at(place) as ledger:
        later = MONDAY + timedelta(days=2)
        asked = standing(ledger, ALMA, "personalization", "*", later, policy=read_policy())
        assert asked.reason_code == "ledger_unreadable"
        with pytest.raises(LedgerError, match="leaf 1: expected an event, or the erasure"):
            ledger.frame()


@pytest.mark.parametrize(
    "statement",
    ["delete from batches where first_leaf = 200", "delete from checkpoints where size = 300", "delete from tiles"],
)
def test_a_ledger_with_a_piece_missing_does_not_even_open(place: str, statement: str) -> None:
    with open_ledger_at(place) as ledger:
        ledger.append(events(200))
        ledger.append(events(300))
    with by_hand(place) as run:
        run(statement)
    with pytest.raises(LedgerError, match=r"expected .* found"):
        open_ledger_at(place)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, and long enough to be looked at" * 10)
    with pytest.raises(LedgerError, match="expected a SQLite database"):
        builders.open_ledger(tmp_path)
    with pytest.raises(LedgerError, match="expected a readable ledger"):
        ledger_size(Home(tmp_path / "nowhere"))


def test_an_address_without_a_database_is_refused_without_repeating_it(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="expected a PostgreSQL database, found OperationalError") as refusal:
        PostgresDatabase(f"postgresql://alma:secret@/ledger?host={tmp_path}")
    assert "secret" not in str(refusal.value)
    assert refusal.value.__suppress_context__


def test_a_server_set_to_repeatable_reads_keeps_one_tree_too(postgres_place: str) -> None:
    set_up = postgres_place.replace("options=", "options=-cdefault_transaction_isolation%3Dserializable%20")
    with open_ledger_at(set_up) as one, open_ledger_at(set_up) as two:
        for first in range(0, 60, 20):
            one.append(events(15, first))
            assert two.append(events(20, first)) == list(range(first, first + 20))
        two.verify()
