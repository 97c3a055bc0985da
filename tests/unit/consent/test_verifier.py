"""What the stand-alone verifier accepts, and everything it must not. Receipts come from a ledger in plain lists."""

import ast
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.events import EVENT_TYPES, TIMES, Recorded, decode, encode
from consent.log.merkle import canonical
from consent.log.note import MLDSA44Signer, signature_line, with_signatures
from consent.receipts import verifier, vocabulary
from consent.receipts.shopper import (
    Receipt,
    policy_document,
    read_controller,
    sealed,
    shopper_receipt,
    standing_receipt,
    standing_row,
    write,
    write_folder,
)
from consent.receipts.verifier import Key, Report, Trust
from consent.rule.policy import Jurisdiction, Notice, Policy, Purpose, read_policy
from consent.rule.standing import standing
from tests.unit.consent.builders import ALMA, MONDAY, SIGNER, event, open_ledger
from tests.unit.consent.receipts_ledger import SIGNER as PLAIN
from tests.unit.consent.receipts_ledger import PlainLedger, PlainSigner
from tests.unit.consent.receipts_ledger import root as tree_root

DAY = timedelta(days=1)
AT = MONDAY + 90 * DAY
BRUNO = "card_" + "bruno" * 4 + "zz"
FILE = Path(verifier.__file__)
POLICY = read_policy()
TRUST = Trust(Key.parse(PLAIN.text, 1))


def others(count: int, first: int = 0) -> list[Any]:
    """Events of as many other people."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = (f"email_{letters[n % 26]}{letters[n // 26 % 26]}{'o' * 20}" for n in range(first, first + count))
    return [event(MONDAY, subject_id=name, signal_id=f"other-{first + n}") for n, name in enumerate(names)]


def told() -> list[Any]:
    """What Alma said, in order: yes to three, then no to one."""
    said = [
        ("grant", "personalization", "*"),
        ("grant", "marketing", "email"),
        ("grant", "model_training", "*"),
        ("withdraw", "marketing", "email"),
    ]
    return [
        event(MONDAY + n * DAY, event_type=kind, purpose_code=purpose, channel_code=channel, signal_id=f"alma-{n}")
        for n, (kind, purpose, channel) in enumerate(said)
    ]


@pytest.fixture(scope="module")
def ledger() -> PlainLedger:
    """153 leaves in three runs; Alma's four are 10, 80, 81 and 152."""
    first, second, third, last = told()
    return PlainLedger([*others(10), first, *others(69, 10), second, third, *others(70, 79), last])


@pytest.fixture(scope="module")
def made(ledger: PlainLedger) -> Receipt:
    return shopper_receipt(ledger, POLICY, ALMA, AT, read_controller())


def copied(receipt: Receipt) -> Any:
    return json.loads(canonical(receipt))


def report_of(receipt: Receipt, folder: Path, trust: Trust = TRUST) -> Report:
    return verifier.verify(write(receipt, folder / "receipt.json"), trust)


def evidence(report: Report) -> str:
    assert not report.is_verified
    failed = [check for check in report.checks if check.outcome == "failed"]
    assert len(failed) == 1
    assert "unreadable" not in failed[0].evidence
    assert failed[0].expected
    assert failed[0].found
    return failed[0].evidence


# What it accepts.


def test_a_receipt_verifies_and_says_what_was_proved_and_what_was_not(made: Receipt, tmp_path: Path) -> None:
    report = report_of(made, tmp_path)
    assert report.is_verified
    assert [check.check for check in report.checks if check.outcome == "verified"] == [
        "the checkpoint is signed by troth/consent-ledger",
        "nothing was left out",
        "every event is in the log, as it was recorded",
        "the standing follows from the events, at 2025-06-01T10:00:00.000000Z",
        "the record (ISO/IEC TS 27560) tells of the same events",
    ]
    assert [check.check for check in report.checks if check.outcome == "not covered"] == ["not sealed"]
    assert (report.facts["size"], report.facts["event_count"]) == (151 + 2, 4)
    answers = {(row["purpose_code"], row["channel_code"]): row["reason_code"] for row in report.facts["standing"]}
    assert answers["marketing", "email"] == "withdrawn"
    assert answers["personalization", "*"] == "granted"
    assert answers["analytics", "*"] == "never_asked"


def test_a_sealed_receipt_of_the_real_ledger_verifies(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.append([*others(20), *told(), *others(30, 20)])
        receipt = shopper_receipt(ledger, POLICY, ALMA, AT, read_controller(), signer=SIGNER)
    report = report_of(receipt, tmp_path, Trust(Key.parse(SIGNER.verifier.text, 1)))
    assert report.is_verified
    assert "the whole receipt is sealed by troth/consent-ledger" in [check.check for check in report.checks]


def test_a_folder_with_its_proofs_verifies_and_one_file_less_or_more_does_not(made: Receipt, tmp_path: Path) -> None:
    folder = write_folder(made, tmp_path / "receipt")
    assert {path.name for path in folder.iterdir()} == {
        "receipt.json", "10.tlog-proof", "80.tlog-proof", "81.tlog-proof", "152.tlog-proof",
    }  # fmt: skip
    assert verifier.verify(folder, TRUST).is_verified
    shutil.copy(folder / "10.tlog-proof", folder / "11.tlog-proof")
    assert "expected files" in evidence(verifier.verify(folder, TRUST))
    (folder / "11.tlog-proof").rename(folder / "10.tlog-proof")
    shutil.copy(folder / "80.tlog-proof", folder / "81.tlog-proof")
    assert "proof of leaf 81" in evidence(verifier.verify(folder, TRUST))


def test_granted_and_nothing_later_left_out_is_one_small_receipt(ledger: PlainLedger, tmp_path: Path) -> None:
    receipt = standing_receipt(ledger, POLICY, ALMA, "personalization", "*", AT)
    report = report_of(receipt, tmp_path)
    assert report.is_verified
    assert report.facts["standing"][0]["reason_code"] == "granted"


def test_what_was_known_then_is_decided_from_what_had_been_received(ledger: PlainLedger, tmp_path: Path) -> None:
    receipt = standing_receipt(ledger, POLICY, ALMA, "marketing", "email", AT, known_at=MONDAY + 2 * DAY)
    report = report_of(receipt, tmp_path)
    assert report.is_verified
    assert report.facts["standing"][0]["reason_code"] == "granted"
    assert any("as known at 2025-03-05T10:00:00.000000Z" in check.check for check in report.checks)


def test_never_asked_is_proved_for_who_has_no_event(ledger: PlainLedger, tmp_path: Path) -> None:
    receipt = standing_receipt(ledger, POLICY, BRUNO, "marketing", "email", AT)
    report = report_of(receipt, tmp_path)
    assert report.is_verified
    assert (report.facts["event_count"], report.facts["standing"][0]["reason_code"]) == (0, "never_asked")


def test_never_asked_is_proved_by_an_empty_ledger(tmp_path: Path) -> None:
    assert report_of(standing_receipt(PlainLedger(), POLICY, ALMA, "marketing", "email", AT), tmp_path).is_verified


def test_the_standing_at_another_time_is_told_from_the_same_events(made: Receipt, tmp_path: Path) -> None:
    path = write(made, tmp_path / "receipt.json")
    report = verifier.verify(path, TRUST, MONDAY + 2 * DAY)
    rows = {(row["purpose_code"], row["channel_code"]): row for row in report.facts["standing_at"]["standing"]}
    assert rows["marketing", "email"]["reason_code"] == "granted"


def test_old_receipts_verify_after_an_erasure_and_new_ones_say_what_was_destroyed(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.append([*others(5), *told()])
        before = shopper_receipt(ledger, POLICY, ALMA, AT, read_controller(), signer=SIGNER)
        ledger.erase(event(AT, event_type="erased", purpose_code="*", signal_id="gone"))
        trust = Trust(Key.parse(SIGNER.verifier.text, 1))
        assert report_of(before, tmp_path, trust).is_verified
        after = copied(before)
        proof = ledger.state_proof(ALMA)
        assert [len(run["pages"]) for run in proof["runs"]] == [1]
        after["state_proof"], after["checkpoint"] = proof, ledger.checkpoint()
        assert "leaves 5, 6, 7, 8, 9, found 5, 6, 7, 8" in evidence(report_of(after, tmp_path, trust))


def test_destroyed_content_is_accepted_only_before_an_erasure_that_can_be_read(tmp_path: Path) -> None:
    plain = PlainLedger([*others(5), *told()])
    plain.destroy(ALMA)
    withheld = standing_receipt(plain, POLICY, ALMA, "marketing", "email", AT)
    assert "expected an erasure after every event that is closed" in evidence(report_of(withheld, tmp_path))
    plain.append([event(AT, event_type="erased", purpose_code="*", signal_id="gone")])
    receipt = standing_receipt(plain, POLICY, ALMA, "marketing", "email", AT)
    assert receipt["standing"][0]["reason_code"] == "erased"
    report = report_of(receipt, tmp_path)
    assert report.is_verified
    assert "content destroyed by an erasure" in [
        check.check for check in report.checks if check.outcome == "not covered"
    ]


# What it refuses: one change at a time, by somebody without the key.


Attack = Callable[[Any], object]


def _swap(entries: list[Any]) -> None:
    entries[0], entries[1] = entries[1], entries[0]


def _exchange(receipt: Any, *names: str) -> None:
    first, second = receipt["events"][0], receipt["events"][1]
    for name in names:
        first[name], second[name] = second[name], first[name]


def _claim(receipt: Any, **changes: object) -> None:
    row = next(
        row for row in receipt["standing"] if (row["purpose_code"], row["channel_code"]) == ("marketing", "email")
    )
    row.update(changes)


ATTACKS: dict[str, tuple[Attack, str]] = {
    "an event left out": (lambda r: r["events"].pop(), "expected leaves 10, 80, 81, 152, found 10, 80, 81"),
    "all events left out": (lambda r: r["events"].clear(), "found none"),
    "events in another order": (lambda r: _swap(r["events"]), "found 80, 10"),
    "an event twice": (lambda r: r["events"].append(r["events"][-1]), "found 10, 80, 81, 152, 152"),
    "contents exchanged": (lambda r: _exchange(r, "event", "salt"), "expected commitment"),
    "a salt exchanged": (lambda r: _exchange(r, "salt"), "expected commitment"),
    "entries exchanged": (lambda r: _exchange(r, "entry"), "expected index key"),
    "proofs exchanged": (lambda r: _exchange(r, "tlog_proof"), "proof of leaf 10"),
    "content withheld": (lambda r: r["events"][3].update(event=None, salt=None), "an erasure after every event"),
    "an event changed": (lambda r: r["events"][3]["event"].update(event_type="grant"), "expected commitment"),
    "an unknown event": (lambda r: r["events"][3]["event"].update(event_type="nod"), "expected one of grant"),
    "another subject": (lambda r: r.update(subject_id=BRUNO), "troth state proof 1 for"),
    "a field more": (lambda r: r.update(note="trust me"), "receipt: expected the fields"),
    "a field less": (lambda r: r.pop("policy"), "receipt: expected the fields"),
    "a field more inside": (lambda r: r["events"][0].update(seen=True), "events: expected the fields"),
    "no state proof": (lambda r: r.update(state_proof=None), "state proof: expected the fields"),
    "no runs": (lambda r: r["state_proof"].update(runs=[]), "expected runs up to leaf 153"),
    "the last run missing": (lambda r: r["state_proof"]["runs"].pop(), "expected runs up to leaf 153"),
    "the first run missing": (lambda r: r["state_proof"]["runs"].pop(0), "expected a run from leaf 0"),
    "runs out of order": (lambda r: _swap(r["state_proof"]["runs"]), "expected a run from leaf 0"),
    "a run cut short": (lambda r: r["state_proof"]["runs"][2].update(stop=152), "state proof"),
    "a run with another root": (lambda r: r["state_proof"]["runs"][0].update(root="00" * 32), "expected root 0000"),
    "no pages": (lambda r: r["state_proof"]["runs"][0].update(pages=[], paths=[]), "pages of the run's 3"),
    "a page cut short": (lambda r: _cut(r["state_proof"]["runs"][0]), "bytes in hex"),
    "another first page": (lambda r: r["state_proof"]["runs"][2].update(first_page=1), "state proof"),
    "a path cut short": (lambda r: r["state_proof"]["runs"][0]["paths"][0].pop(), "a longer path"),
    "a path too long": (lambda r: r["state_proof"]["runs"][0]["paths"][0].append("00" * 32), "a shorter path"),
    "a yes claimed": (lambda r: _claim(r, is_allowed=True, reason_code="granted"), "standing for marketing over email"),
    "an end claimed": (lambda r: _claim(r, expires_at="2030-01-01T00:00:00.000000Z"), "standing for marketing"),
    "an answer left out": (lambda r: r["standing"].pop(), "one row for all that is asked"),
    "a record of others": (lambda r: r["record"]["header"].update(pii_principal_id=BRUNO), "record: expected subject"),
    "a record that lies": (
        lambda r: r["record"]["events"][3].update(event_state="dpv:ConsentGiven"),
        "record: expected the proved events",
    ),
    "a policy without a rule": (lambda r: r["policy"]["rules"].pop(), "policy: expected one row"),
    "no signature": (lambda r: r.update(checkpoint=r["checkpoint"][: r["checkpoint"].rindex("—")]), "signature lines"),
    "a forged seal": (lambda r: r.update(seal=r["checkpoint"]), "seal: expected troth receipt seal 1"),
}


def _cut(run: Any) -> None:
    run["pages"][0] = run["pages"][0][:-80]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_receipt_with_something_changed_is_refused_with_the_evidence(
    name: str, made: Receipt, tmp_path: Path
) -> None:
    attack, expected = ATTACKS[name]
    spoiled = copied(made)
    attack(spoiled)
    assert expected in evidence(report_of(spoiled, tmp_path))


def test_a_false_never_asked_is_refused_for_who_has_events(ledger: PlainLedger, made: Receipt, tmp_path: Path) -> None:
    receipt = copied(standing_receipt(ledger, POLICY, ALMA, "personalization", "*", AT))
    never = standing_receipt(ledger, POLICY, BRUNO, "personalization", "*", AT)
    receipt.update(events=[], standing=never["standing"])
    assert "expected leaves 10, 80, 81, 152, found none" in evidence(report_of(receipt, tmp_path))
    receipt.update(state_proof=never["state_proof"])
    assert "It is about somebody else" in evidence(report_of(receipt, tmp_path))
    receipt["state_proof"] = {**never["state_proof"], "prefix": made["state_proof"]["prefix"]}
    evidence(report_of(receipt, tmp_path))


def test_pages_at_the_borders_cannot_be_left_out(tmp_path: Path) -> None:
    """One person fills more than a page, so that there is a page on each side that only the border rule asks for."""
    many = [event(MONDAY + n * DAY, signal_id=f"much-{n}") for n in range(70)]
    plain = PlainLedger([*others(60), *many, *others(60, 60)], run_leaves=500)
    receipt = standing_receipt(plain, POLICY, ALMA, "personalization", "*", AT)
    assert report_of(receipt, tmp_path).is_verified
    run = receipt["state_proof"]["runs"][0]
    assert len(run["pages"]) >= 3
    for side, first in ((0, 1), (-1, 0)):
        spoiled = copied(receipt)
        shown = spoiled["state_proof"]["runs"][0]
        shown["pages"].pop(side)
        shown["paths"].pop(side)
        shown["first_page"] += first
        assert "may have been left out" in evidence(report_of(spoiled, tmp_path))
    swapped = copied(receipt)
    _swap(swapped["state_proof"]["runs"][0]["pages"])
    assert "state proof, run 0 to 190, page" in evidence(report_of(swapped, tmp_path))
    assert run == receipt["state_proof"]["runs"][0]


def test_a_stale_checkpoint_is_refused_by_the_proofs_and_by_who_kept_a_newer_one(
    ledger: PlainLedger, made: Receipt, tmp_path: Path
) -> None:
    older = PlainLedger()
    older.entries = ledger.entries[:152]
    spoiled = copied(made)
    spoiled["checkpoint"] = older.checkpoint()
    assert "runs up to leaf 152" in evidence(report_of(spoiled, tmp_path))
    earlier = PlainLedger([*others(10), told()[0]])
    stale = standing_receipt(earlier, POLICY, ALMA, "personalization", "*", AT)
    assert report_of(stale, tmp_path).is_verified
    kept = Trust(TRUST.key, since=ledger.checkpoint())
    assert "a ledger of at least 153 events, found 11" in evidence(report_of(stale, tmp_path, kept))
    assert report_of(made, tmp_path, kept).is_verified


def test_another_key_and_another_ledger_are_refused(made: Receipt, tmp_path: Path) -> None:
    other = Trust(Key.parse(PlainSigner(PLAIN.name, 8).text, 1))
    assert "a signature by troth/consent-ledger, found 1 by others" in evidence(report_of(made, tmp_path, other))
    forged = PlainLedger([*others(10), told()[0]], signer=PlainSigner("troth/other-ledger", 7))
    receipt = standing_receipt(forged, POLICY, ALMA, "personalization", "*", AT)
    assert "another key signed it" in evidence(report_of(receipt, tmp_path)).lower()
    broken = copied(made)
    signature = broken["checkpoint"].rindex(" ") + 20
    letter = "A" if broken["checkpoint"][signature] != "A" else "B"
    broken["checkpoint"] = broken["checkpoint"][:signature] + letter + broken["checkpoint"][signature + 1 :]
    assert "a valid one by troth/consent-ledger" in evidence(report_of(broken, tmp_path))


def test_a_seal_covers_every_field_and_cannot_be_moved(ledger: PlainLedger, tmp_path: Path) -> None:
    with open_ledger(tmp_path) as real:
        real.append(told())
        receipt = shopper_receipt(real, POLICY, ALMA, AT, read_controller(), signer=SIGNER)
    trust = Trust(Key.parse(SIGNER.verifier.text, 1))
    assert report_of(receipt, tmp_path, trust).is_verified
    renamed = copied(receipt)
    renamed["record"]["party_identification"][0]["party_name"] = "Somebody Else"
    assert "seal: expected troth receipt seal 1 over this receipt" in evidence(report_of(renamed, tmp_path, trust))
    unsealed = {**renamed, "seal": None}
    assert report_of(unsealed, tmp_path, trust).is_verified  # and says what is not covered
    strict = replace(trust, needs_seal=True)
    assert "Ask for a sealed receipt" in evidence(report_of(unsealed, tmp_path, strict))
    assert report_of(receipt, tmp_path, strict).is_verified
    assert report_of(sealed(renamed, SIGNER), tmp_path, trust).is_verified


class Lying(PlainLedger):
    """A ledger whose keeper signs an index that was not built as it must be."""

    def __init__(self, lie: Callable[[list[bytes]], list[bytes]]) -> None:
        self._lie = lie
        super().__init__([*others(3), *told()])

    def runs(self) -> list[tuple[int, int, list[bytes]]]:
        rows = sorted(key[:32] + at.to_bytes(8) for at, key in enumerate(self.entries))
        return [(0, len(rows), [b"".join(self._lie(rows))])]


def test_an_index_that_was_not_built_as_it_must_be_proves_nothing_even_when_signed(tmp_path: Path) -> None:
    def lied(lie: Callable[[list[bytes]], list[bytes]]) -> str:
        plain, honest = Lying(lie), PlainLedger([*others(3), *told()])
        receipt = standing_receipt(honest, POLICY, ALMA, "personalization", "*", AT)
        forged = _under({**receipt, "state_proof": plain.state_proof(ALMA)}, plain.checkpoint())
        return evidence(report_of(forged, tmp_path))

    assert "rows in ascending order" in lied(lambda rows: rows[::-1])
    assert "leaves of the run" in lied(lambda rows: [rows[0][:32] + (99).to_bytes(8), *rows[1:]])
    assert "rows in ascending order" in lied(lambda rows: [*rows[:-1], rows[0]])


def test_a_checkpoint_of_another_shape_is_refused_even_when_signed(made: Receipt, tmp_path: Path) -> None:
    body = made["checkpoint"].rpartition("\n\n")[0] + "\n"
    lines = body.split("\n")
    for changed, expected in (
        (lines[:3], "It cannot prove that nothing was left out"),
        (["troth/other", *lines[1:-1]], "origin troth/consent-ledger"),
        ([lines[0], "0153", *lines[2:-1]], "a line each"),
        (lines[:2], "a line each"),
        ([*lines[:-1], lines[3]], "at most one state root"),
        ([*lines[:3], "state AAAA"], "at most one state root"),
        ([*lines[:3], "state " + "A" * 43 + "="], "It is of another state"),
        ([*lines[:2], "A" * 43 + "=", lines[3]], "It is not what the ledger holds there"),
    ):
        forged = _under(made, PLAIN.note("\n".join(changed) + "\n"))
        assert expected in evidence(report_of(forged, tmp_path))


def test_an_entry_that_names_another_event_than_it_commits_to_is_refused_even_when_signed(tmp_path: Path) -> None:
    plain = PlainLedger(told())
    hidden = PlainLedger([event(event_type="withdraw", purpose_code="analytics", signal_id="hidden")])
    plain.entries[0] = hidden.entries[0][:32] + plain.entries[0][32:]
    receipt = standing_receipt(plain, POLICY, ALMA, "personalization", "*", AT)
    assert "The entry names another event" in evidence(report_of(receipt, tmp_path))


def test_two_receipts_of_one_size_with_different_roots_are_a_split_view(tmp_path: Path) -> None:
    one, two = PlainLedger([*others(3), told()[0]]), PlainLedger([*others(3), told()[3]])
    paths = [
        write(standing_receipt(found, POLICY, ALMA, "personalization", "*", AT), tmp_path / f"{name}.json")
        for name, found in (("one", one), ("two", two))
    ]
    reports = [verifier.verify(path, TRUST) for path in paths]
    assert all(report.is_verified for report in reports)
    assert "The ledger showed two histories" in evidence(verifier.compare(reports))
    assert verifier.compare([reports[0], reports[0]]).is_verified
    assert verifier.main([*map(str, paths), "--key", PLAIN.text]) == 1
    since = Trust(TRUST.key, since=two.checkpoint())
    assert "Two histories exist" in evidence(verifier.verify(paths[0], since))


def test_a_quorum_of_named_witnesses_must_have_seen_it(tmp_path: Path) -> None:
    anna, ben, carl = (PlainSigner(f"witness.example/{name}", 20 + n, kind=4) for n, name in enumerate("abc"))
    plain = PlainLedger([*others(3), *told()])
    plain.cosigners = [(anna, 1_741_000_000), (ben, 1_741_000_060)]
    receipt = shopper_receipt(plain, POLICY, ALMA, AT, read_controller())
    keys = [Key.parse(witness.text, 4) for witness in (anna, ben, carl)]

    def trusting(quorum: int, *witnesses: Key) -> Trust:
        return Trust(TRUST.key, witnesses, quorum)

    report = report_of(receipt, tmp_path, trusting(2, *keys))
    assert report.is_verified
    assert report.facts["witnessed_at"] == {anna.name: 1_741_000_000, ben.name: 1_741_000_060}
    assert "expected 3 of the named witnesses, found 2" in evidence(report_of(receipt, tmp_path, trusting(3, *keys)))
    assert "found 0" in evidence(report_of(receipt, tmp_path, trusting(1, keys[2])))
    assert "found 1" in evidence(report_of(receipt, tmp_path, trusting(2, keys[0], keys[0])))
    lying = PlainSigner(anna.name, 20, kind=4)
    plain.cosigners = [(lying, 1_741_000_000)]
    note = plain.checkpoint()
    later = note.replace(note.split("\n")[-2], lying.cosignature(PlainLedger().checkpoint(), 1).rstrip("\n"))
    assert "a valid one by" in evidence(report_of(_under(receipt, later), tmp_path, trusting(1, keys[0])))
    assert "signatures by keys not named" in [check.check for check in report_of(receipt, tmp_path).checks]


def test_post_quantum_witnesses_count_too(made: Receipt, tmp_path: Path) -> None:
    heron = MLDSA44Signer("heron.example/witness", b"h" * 32)
    body = made["checkpoint"].rpartition("\n\n")[0] + "\n"
    key = Key.parse(heron.verifier.text, verifier.COSIGNER_MLDSA)
    seen = _under(made, with_signatures(made["checkpoint"], [signature_line(body, heron, 1_741_000_000)]))
    report = report_of(seen, tmp_path, Trust(TRUST.key, (key,), 1))
    assert report.facts["witnessed_at"] == {heron.verifier.name: 1_741_000_000}
    assert report.is_verified
    other = body.replace("153", "154", 1)
    lied = _under(made, with_signatures(made["checkpoint"], [signature_line(other, heron, 1_741_000_000)]))
    assert "a valid one by heron" in evidence(report_of(lied, tmp_path, Trust(TRUST.key, (key,), 1)))


def _under(receipt: Receipt, note: str) -> Receipt:
    """The same receipt under other signature lines."""
    moved = copied(receipt)
    for one in moved["events"]:
        one["tlog_proof"] = one["tlog_proof"].replace(moved["checkpoint"], note)
    moved["checkpoint"] = note
    return dict(moved)


SMALL = Policy(
    purposes={"marketing": Purpose("marketing", "Write.", "consent", ("email",), 365)},
    channels={"email": "E-mail."},
    notices={"web_banner": Notice("web_banner", 1, 1)},
    jurisdictions={"*": Jurisdiction("*", "opt_in", {})},
    gpc_purposes=frozenset({"marketing"}),
)


def flips(raw: bytes, count: int, seed: int) -> Iterator[bytes]:
    """The bytes with one bit changed, at `count` places."""
    for place in random.Random(seed).sample(range(len(raw) * 8), count):
        broken = bytearray(raw)
        broken[place // 8] ^= 1 << place % 8
        yield bytes(broken)


def test_one_bit_changed_anywhere_is_caught_or_lands_in_what_is_reported_as_not_covered(tmp_path: Path) -> None:
    plain = PlainLedger([*told()[:2], *others(1)])
    receipt = standing_receipt(plain, SMALL, ALMA, "marketing", "email", AT)
    path = write(receipt, tmp_path / "receipt.json")
    assert verifier.verify(path, TRUST).is_verified
    for broken in flips(path.read_bytes(), 800, seed=3):
        path.write_bytes(broken)
        report = verifier.verify(path, TRUST)
        if report.is_verified:
            assert "not sealed" in [check.check for check in report.checks if check.outcome == "not covered"]
            free = dict.fromkeys(("policy", "at", "known_at"))
            assert {**json.loads(broken), **free} == {**receipt, **free}
        else:
            evidence(report)


def test_one_bit_changed_anywhere_in_a_sealed_receipt_is_caught(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as real:
        real.append([*told()[:2], *others(1)])
        receipt = standing_receipt(real, SMALL, ALMA, "marketing", "email", AT, signer=SIGNER)
    path = write(receipt, tmp_path / "receipt.json")
    trust = Trust(Key.parse(SIGNER.verifier.text, 1))
    assert verifier.verify(path, trust).is_verified
    for broken in flips(path.read_bytes(), 800, seed=4):
        path.write_bytes(broken)
        evidence(verifier.verify(path, trust))


# What nobody should send, and how it is told.


HOSTILE = {
    "nothing": b"",
    "a blank line": b"\n",
    "an empty object": b"{}\n",
    "no newline": b'{"format":"troth consent receipt 1"}',
    "a list": b"[]\n",
    "deep": b"[" * 100_000 + b"]" * 100_000 + b"\n",
    "a huge number": b'{"format":' + b"9" * 10_000 + b"}\n",
    "a fraction": b'{"format":1.5}\n',
    "not a number": b'{"format":NaN}\n',
    "the same field twice": b'{"format":"x","format":"x"}\n',
    "half a character": b'{"format":"\\ud800"}\n',
    "other bytes": b"\xff\xfe\x00\n",
    "blanks": b'{ "format": "troth consent receipt 1" }\n',
    "another format": b'{"format":"troth consent receipt 2"}\n',
    "a decision without a note": b"troth decision receipt 1\n{}\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_without_a_traceback(name: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(HOSTILE[name])
    evidence(verifier.verify(path, TRUST))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=5) | st.just("00" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_in_any_place_is_refused_without_a_traceback(data: st.DataObject) -> None:
    receipt = copied(_RECEIPT)
    place: Any = receipt
    while True:
        keys: list[Any] = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(json_values)
    report = Report("mutated")
    try:
        raw = canonical(receipt)
    except UnicodeEncodeError:
        return
    try:
        verifier.check_receipt(verifier.read_json(raw, "mutated"), TRUST, None, report)
    except verifier.Refusal:
        return
    assert receipt == _RECEIPT or any(check.check == "not sealed" for check in report.checks)


_RECEIPT = standing_receipt(PlainLedger([*others(3), *told()]), POLICY, ALMA, "marketing", "email", AT)


def test_a_file_too_large_is_not_read(tmp_path: Path, made: Receipt) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(verifier.MAXIMUM_FILE + 1)
    assert "expected at most" in evidence(verifier.verify(path, TRUST))


def test_an_empty_report_is_no_proof(tmp_path: Path) -> None:
    assert not Report("nothing").is_verified
    assert "at least one decision receipt, found none" in evidence(verifier.verify(tmp_path, TRUST))


def test_the_exit_code_is_0_for_yes_1_for_no_and_2_for_misuse(
    made: Receipt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(made, tmp_path / "receipt.json"))
    assert verifier.main([path, "--key", PLAIN.text]) == 0
    assert "receipt.json: verified\n  verified     the checkpoint is signed" in capsys.readouterr().out
    assert verifier.main([path, "--key", PLAIN.text, "--json", "--at", "2025-03-04T00:00:00.000000Z"]) == 0
    told_as_json = json.loads(capsys.readouterr().out)
    assert told_as_json["is_verified"] is True
    assert told_as_json["reports"][0]["facts"]["standing_at"]["standing"]
    assert verifier.main([path, "--key", PLAIN.text, "--sealed"]) == 1
    spoiled = copied(made)
    _claim(spoiled, is_allowed=True)
    broken = str(write(spoiled, tmp_path / "broken.json"))
    assert verifier.main([broken, "--key", PLAIN.text]) == 1
    assert "DOES NOT VERIFY" in capsys.readouterr().out
    assert verifier.main([path, broken, "--key", PLAIN.text, "--json"]) == 1
    (tmp_path / "kept").write_text("nothing")
    for misuse in (
        ["--key", "nonsense"],
        ["--key", PLAIN.text, "--at", "tomorrow"],
        ["--key", PLAIN.text, "--quorum", "1"],
        ["--key", PLAIN.text, "--witness", PLAIN.text],
        ["--key", PLAIN.text, "--since", str(tmp_path / "nowhere")],
        ["--key", PLAIN.text, "--since", str(tmp_path / "kept")],
    ):
        assert verifier.main([path, *misuse]) == 2
        assert "expected" in (told := capsys.readouterr().err) or "No such file" in told
    assert verifier.main([str(tmp_path / "nowhere"), "--key", PLAIN.text]) == 2
    assert verifier.main([path]) == 2
    assert "--key: expected the ledger's verifier key, found none" in capsys.readouterr().err


def _subproof(old: int, leaves: list[bytes], is_whole: bool = True) -> list[bytes]:
    """RFC 9162, 2.1.4.1."""
    if old == len(leaves):
        return [] if is_whole else [tree_root(leaves)]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if old <= split:
        return [*_subproof(old, leaves[:split], is_whole), tree_root(leaves[split:])]
    return [*_subproof(old - split, leaves[split:], False), tree_root(leaves[:split])]


def test_that_one_ledger_goes_on_from_another_is_believed_for_the_right_proof_alone() -> None:
    leaves = [sha256(bytes([n])).digest() for n in range(20)]
    claims = [verifier.Checkpoint("log", n, tree_root(leaves[:n]), None) for n in range(21)]
    for new in range(21):
        for old in range(new + 1):
            proof = _subproof(old, leaves[:new]) if 0 < old < new else []
            verifier.check_consistency("log", claims[old], claims[new], proof)
            forked = replace(claims[old], root=sha256(b"another history").digest())
            wrong = [
                (claims[old], [*proof, leaves[0]]),
                *((claims[old], [*proof[:at], leaves[0], *proof[at + 1 :]]) for at in range(len(proof))),
                *([(claims[old], proof[:-1])] if proof else []),
                *([(forked, proof)] if old else []),
            ]
            for claimed, path in wrong:
                with pytest.raises(verifier.Refusal):
                    verifier.check_consistency("log", claimed, claims[new], path)
        if new:
            with pytest.raises(verifier.Refusal, match="at least"):
                verifier.check_consistency("log", claims[new], claims[new - 1], [])


def test_the_verifier_is_one_file_that_runs_alone(made: Receipt, tmp_path: Path) -> None:
    write(made, tmp_path / "receipt.json")
    shutil.copy(FILE, tmp_path / "verifier.py")
    command = [sys.executable, "-I", "verifier.py", "receipt.json", "--key", PLAIN.text, "--json"]
    done = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["is_verified"] is True


def test_the_verifier_imports_the_standard_library_and_cryptography_alone_and_is_written_for_python_3_9() -> None:
    tree = ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {
        (node.module or "" if isinstance(node, ast.ImportFrom) else name.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported - sys.stdlib_module_names == {"cryptography"}


# Exports.


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 entries under four checkpoints and the empty one; one person was erased."""
    folder = tmp_path_factory.mktemp("exported")
    with open_ledger(folder) as real:
        for first in (0, 20, 40):
            real.append(others(20, first))
        real.erase(
            event(AT, event_type="erased", purpose_code="*", subject_id=others(1)[0].subject_id, signal_id="gone")
        )
        return real.export(folder / "export")


REAL = Trust(Key.parse(SIGNER.verifier.text, 1))


def test_an_export_verifies_root_by_root_and_says_what_can_be_read(exported: Path) -> None:
    report = verifier.verify(exported, Trust(REAL.key, since=(exported / "checkpoint").read_text()))
    assert report.is_verified, report.checks
    told = {check.check: check.evidence for check in report.checks}
    assert told["every readable event is what its entry commits to"] == "60 of 61 readable"
    assert told["root and state root of every checkpoint follow from the entries"] == "5 checkpoints"


@pytest.mark.parametrize("name", ["entries.jsonl", "checkpoints.jsonl", "checkpoint", "key", "manifest.json"])
def test_one_bit_changed_in_an_export_is_caught(name: str, exported: Path, tmp_path: Path) -> None:
    export = Path(shutil.copytree(exported, tmp_path / "export"))
    path = export / name
    for broken in flips(path.read_bytes(), 25, seed=5):
        path.write_bytes(broken)
        evidence(verifier.verify(export, REAL))
    path.unlink()
    if name != "entries.jsonl":
        assert "expected files" in evidence(verifier.verify(export, REAL))


def test_an_export_in_which_an_event_is_withheld_that_no_erasure_explains_is_caught(
    exported: Path, tmp_path: Path
) -> None:
    export = Path(shutil.copytree(exported, tmp_path / "export"))
    path, manifest = export / "entries.jsonl", json.loads((export / "manifest.json").read_bytes())
    lines = path.read_bytes().splitlines(keepends=True)
    withheld = {**json.loads(lines[7]), "event": None, "salt": None}
    path.write_bytes(b"".join([*lines[:7], canonical(withheld) + b"\n", *lines[8:]]))
    manifest["sha256"]["entries.jsonl"] = sha256(path.read_bytes()).hexdigest()
    (export / "manifest.json").write_bytes(canonical(manifest) + b"\n")
    assert "line 8: expected an event, or the erasure" in evidence(verifier.verify(export, REAL))


def test_an_export_with_its_tail_cut_or_entries_moved_is_caught(exported: Path, tmp_path: Path) -> None:
    export = Path(shutil.copytree(exported, tmp_path / "export"))
    lines = (export / "entries.jsonl").read_bytes().splitlines(keepends=True)
    for spoiled, expected in (
        (lines[:-1], "The tail is missing"),
        ([*lines, lines[-1]], "No checkpoint covers them"),
        ([lines[1], lines[0], *lines[2:]], "Entries were moved"),
        ([*lines[:-1], lines[-1][:-1]], "one cut short"),
        ([], "The tail is missing"),
    ):
        (export / "entries.jsonl").write_bytes(b"".join(spoiled))
        assert expected in evidence(verifier.verify(export, REAL))


def test_the_runs_of_an_index_follow_from_its_size() -> None:
    assert list(verifier.tiling(0)) == []
    assert list(verifier.tiling(4095)) == [(0, 4095)]
    assert list(verifier.tiling(3 * 4096 + 1)) == [(0, 4096), (4096, 8192), (8192, 12288), (12288, 12289)]
    assert list(verifier.tiling(5 * 4096)) == [(0, 16384), (16384, 20480)]
    for size in (1, 40_000, 1_000_003, 16 * 4096, 64 * 4096 - 1):
        runs = list(verifier.tiling(size))
        assert [start for start, _ in runs] == [0, *(stop for _, stop in runs[:-1])]
        assert runs[-1][1] == size


# The fifth form of the rule of standing.


def test_every_event_type_has_the_state_the_vocabulary_gives_it() -> None:
    assert set(verifier.STATES) == set(EVENT_TYPES)
    assert {kind: vocabulary.EVENTS[kind].state for kind in EVENT_TYPES} == verifier.STATES


STRICT = Policy(
    purposes={
        "marketing": Purpose("marketing", "Write.", "consent", ("email", "sms"), 6),
        "analytics": Purpose("analytics", "Measure.", "consent", ("*",), None),
        "fraud": Purpose("fraud", "Watch.", "legitimate_interest", ("*",), 9),
        "sharing": Purpose("sharing", "Sell.", "consent", ("*",), 4),
        "service": Purpose("service", "Deliver.", "contract", ("*",), None),
    },
    channels={"email": "E-mail.", "sms": "Text."},
    notices={"banner": Notice("banner", 2, 2), "form": Notice("form", 1, 1)},
    jurisdictions={
        "*": Jurisdiction("*", "opt_in", {}, {"fraud": "notice_only"}),
        "US-CA": Jurisdiction("US-CA", "opt_out", {"sharing": 2}, {"marketing": "opt_in", "fraud": "notice_only"}),
        "DE": Jurisdiction("DE", "opt_in", {}, {}, {("marketing", "email"): 2, ("marketing", "sms"): 1}),
    },
    gpc_purposes=frozenset({"sharing", "analytics"}),
)
instants = st.integers(0, 12).map(lambda day: MONDAY + day * DAY)
LIKELY = ("grant", "grant", "grant", "renew", "confirm", "notice_shown", "notice_shown")
clocks = st.one_of(instants.map(lambda at: (at, at, at)), st.tuples(instants, instants, instants))
said = st.builds(
    lambda times, **changes: event(**dict(zip(TIMES, times, strict=True)), **changes),
    clocks,
    event_type=st.sampled_from((*LIKELY, *EVENT_TYPES)),
    purpose_code=st.sampled_from(("*", "marketing", "analytics", "fraud", "sharing", "service")),
    channel_code=st.sampled_from(("*", "*", "email", "sms")),
    capture_method=st.sampled_from(("gpc", "form_tick")),
    notice_id=st.sampled_from(("banner", "form", "form", "rumour", None)),
    notice_version=st.sampled_from((1, 2, 2, None)),
    jurisdiction_code=st.sampled_from(("US-CA", "DE", "FR")),
    linked_subject_id=st.sampled_from((None, BRUNO)),
    link_type=st.sampled_from((None, "hub", "contact")),
)


def forms_of(history: list[Any], purpose: str, channel: str, at: datetime, known: datetime | None) -> tuple[Any, Any]:
    """Standing as the platform says it, and as the verifier does."""
    recorded = [Recorded(n, decode(encode(one))) for n, one in enumerate(history)]
    theirs = standing_row(standing(recorded, ALMA, purpose, channel, at, policy=STRICT, known_at=known))
    read = [verifier.read_event(n, json.loads(encode(one))) for n, one in enumerate(history)]
    return theirs, verifier.decide(read, policy_document(STRICT), purpose, channel, at, known).row


@settings(max_examples=500, deadline=None)
@given(
    st.lists(said, max_size=8),
    st.sampled_from(("marketing", "marketing", "analytics", "fraud", "sharing", "service", "gossip")),
    st.sampled_from(("*", "email", "email", "sms", "post")),
    instants,
    st.none() | instants,
)
def test_the_verifier_decides_as_the_platform_does(
    history: list[Any], purpose: str, channel: str, at: datetime, known: datetime | None
) -> None:
    theirs, ours = forms_of(history, purpose, channel, at, known)
    assert ours == theirs
