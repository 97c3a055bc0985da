"""Eight writers at once: one consistent tree with every event once, and the same leaf for the same event in every answer."""

import threading
from itertools import pairwise

from consent.ledger.ledger import Ledger
from consent.log.merkle import EMPTY_ROOT, verify_consistency
from consent.log.note import open_checkpoint
from tests.integration.writers import forking_process
from tests.unit.consent.builders import SIGNER, event, events, open_ledger_at, subject

WRITERS = 8
BATCHES = 20


def compare_checkpoints(ledger: Ledger) -> None:
    """That each signed tree begins with the one before it."""
    signed = [open_checkpoint(note, SIGNER.verifier) for note in ledger.checkpoints()]
    assert (signed[0].size, signed[0].root) == (0, EMPTY_ROOT)
    assert signed[-1].size == ledger.size
    assert len(signed) > BATCHES
    for old, new in pairwise(signed[1:]):
        assert old.size < new.size
        verify_consistency(old.size, new.size, old.root, new.root, ledger.consistency_proof(old.size, new.size))


def test_eight_processes_make_one_tree_with_every_event_once(place: str) -> None:
    told: dict[str, int] = {}
    answers = 0
    with forking_process() as writers:
        writers.start(place, seed=3, writers=WRITERS, batches=BATCHES)
        for _, kind, *said in writers.heard():
            if kind == "told":
                answers += 1
                for signal, leaf in zip(said[::2], said[1::2], strict=True):
                    assert told.setdefault(signal, leaf) == leaf
    assert answers == WRITERS * BATCHES
    with open_ledger_at(place) as ledger:
        ledger.verify()
        assert sorted(told.values()) == list(range(ledger.size))
        for recorded in ledger.events():
            assert told[recorded.event.signal_id] == recorded.leaf_index
        compare_checkpoints(ledger)


def test_eight_threads_of_one_ledger_commit_together_and_each_hears_its_own_leaves(place: str) -> None:
    answers: list[list[tuple[str, int]]] = []
    faults: list[BaseException] = []
    started = threading.Barrier(WRITERS)

    def write(ledger: Ledger, number: int) -> None:
        try:
            started.wait()
            for at in range(BATCHES):
                batch = [*events(7, 5 * at), event(subject_id=subject(number), signal_id=f"own-{at}")]
                batch = batch[number % 3 :] + batch[: number % 3]
                leaves = ledger.append(batch)
                answers.append([(f"{e.subject_id} {e.signal_id}", leaf) for e, leaf in zip(batch, leaves, strict=True)])
                assert ledger.size > max(leaves)
                assert ledger.opened(leaves[0]) is not None
        except BaseException as fault:
            faults.append(fault)

    with open_ledger_at(place) as ledger:
        threads = [threading.Thread(target=write, args=(ledger, number)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []
        assert len(answers) == WRITERS * BATCHES
        told: dict[str, int] = {}
        for signal, leaf in (each for answer in answers for each in answer):
            assert told.setdefault(signal, leaf) == leaf
        assert sorted(told.values()) == list(range(ledger.size))
        assert len(told) == WRITERS * BATCHES + 5 * (BATCHES - 1) + 7
        ledger.verify()
        compare_checkpoints(ledger)
