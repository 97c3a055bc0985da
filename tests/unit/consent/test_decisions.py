"""Every use leaves a receipt: signed, chained, decided again to the byte, and shown for one person without the others."""

import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.errors import ConsentError
from consent.events import FIELDS, Event, Recorded
from consent.ledger.ledger import Ledger
from consent.log.merkle import VerificationError
from consent.log.note import Ed25519Signer, sign_note
from consent.receipts import decisions, verifier
from consent.receipts.decisions import DecisionReceipt, Question, Use
from consent.receipts.shopper import encoded, policy_hash
from consent.receipts.verifier import Key, Report, Trust
from consent.rule.policy import Policy, read_policy
from consent.rule.standing import standing
from tests.unit.consent.builders import MONDAY, SIGNER, event, open_ledger
from tests.unit.consent.receipts_ledger import key_of, leaf, root
from troth.clock import FixedClock

DAY = timedelta(days=1)
AT = MONDAY + 10 * DAY
KEY = SIGNER.verifier
TRUST = Trust(Key.parse(KEY.text, 1))
POLICY = read_policy()
CLOCK = FixedClock(AT)
PEOPLE = [f"email_{letter * 22}" for letter in "abcdefgh"]
SCHEMA = {
    "subject_id": pl.String(),
    "is_allowed": pl.Boolean(),
    "reason_code": pl.String(),
    **dict.fromkeys(("since_at", "expires_at"), pl.Datetime("us", "UTC")),
    "leaf_index": pl.Int64(),
}


class ByRule:
    """The rule of standing, one by one; `lenient` lets everyone pass, as a broken gate would."""

    def __init__(self, policy: Policy = POLICY, lenient: bool = False) -> None:
        self.policy, self.lenient = policy, lenient

    def __call__(self, events: pl.DataFrame, subjects: Sequence[str], question: Question) -> pl.DataFrame:
        recorded = [
            Recorded(row["leaf_index"], Event(**{name: row[name] for name in FIELDS}))
            for row in events.iter_rows(named=True)
        ]
        rows = []
        for subject in subjects:
            found = standing(
                recorded, subject, question.purpose_code, question.channel_code, question.at,
                policy=self.policy, known_at=question.known_at,
            )  # fmt: skip
            reason = "granted" if self.lenient else found.reason_code
            rows.append(
                (subject, found.is_allowed or self.lenient, reason, found.since_at, found.expires_at, found.leaf_index)
            )
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def said() -> list[Event]:
    """Of eight people two said yes, one no, one took it back; four were never asked."""
    kinds = [(0, "grant"), (1, "grant"), (2, "refuse"), (3, "grant"), (3, "withdraw")]
    return [
        event(MONDAY + n * DAY, subject_id=PEOPLE[who], event_type=kind, purpose_code="marketing", signal_id=f"s{n}")
        for n, (who, kind) in enumerate(kinds)
    ]


def asked(**changes: Any) -> Use:
    plain = Use(
        use="export",
        asked_by="segment:lapsed_buyers",
        question=Question("marketing", "email", AT),
        policy_sha256=policy_hash(POLICY),
        definition_sha256="ab" * 32,
        outputs={"lapsed_buyers.csv": "cd" * 32},
    )
    return replace(plain, **changes)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with open_ledger(tmp_path) as found:
        found.append(said())
        yield found


def recorded(folder: Path, ledger: Ledger, use: Use | None = None, people: Sequence[str] = PEOPLE) -> DecisionReceipt:
    use = use or asked()
    rows = ByRule()(ledger.frame(), people, use.question)
    return decisions.record(folder, use, rows, ledger.checkpoint(), SIGNER, CLOCK)


def test_a_receipt_names_who_asked_and_under_what_and_counts_every_reason(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    receipt = recorded(folder, ledger)
    assert (receipt.number, receipt.previous, receipt.size, receipt.subject_count) == (1, None, 5, 8)
    assert [(row["reason_code"], row["is_allowed"], row["subject_count"]) for row in receipt.counts] == [
        ("granted", True, 2), ("never_asked", False, 4), ("refused", False, 1), ("withdrawn", False, 1),
    ]  # fmt: skip
    assert decisions.load(folder, 1, KEY) == receipt
    report = verifier.verify(folder / "00000001.note", TRUST)
    assert report.is_verified
    assert report.facts["decision"]["asked_by"] == "segment:lapsed_buyers"
    assert report.facts["size"] == 5


def test_the_root_is_that_of_salted_rows_in_order(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    receipt = recorded(folder, ledger)
    shown = [decisions.show_one(folder, 1, KEY, subject) for subject in PEOPLE]
    rows = sorted(shown, key=lambda one: str(one["row"]["subject_key"]))
    texts = [json.dumps(one["row"], sort_keys=True, separators=(",", ":")).encode() for one in rows]
    hashes = [leaf(bytes.fromhex(one["salt"]) + text) for one, text in zip(rows, texts, strict=True)]
    assert root(hashes).hex() == receipt.decisions_root
    assert [one["index"] for one in rows] == list(range(8))
    assert {one["row"]["subject_key"] for one in shown} == {key_of("subject", one)[:16].hex() for one in PEOPLE}
    assert len({one["salt"] for one in shown}) == 8


def test_one_decision_is_shown_without_the_others(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    recorded(folder, ledger)
    shown = decisions.show_one(folder, 1, KEY, PEOPLE[3])
    path = tmp_path / "shown.json"
    path.write_bytes(encoded(shown))
    report = verifier.verify(path, TRUST)
    assert report.is_verified
    assert report.facts["row"]["reason_code"] == "withdrawn"
    assert all(subject not in path.read_text() for subject in PEOPLE if subject != PEOPLE[3])
    for change in (
        {"subject_id": PEOPLE[0]},
        {"row": {**shown["row"], "is_allowed": True, "reason_code": "granted"}},
        {"salt": "00" * 16},
        {"index": shown["index"] ^ 1},
        {"path": shown["path"][:-1]},
        {"path": []},
    ):
        path.write_bytes(encoded({**shown, **change}))
        assert not verifier.verify(path, TRUST).is_verified


def test_nobody_who_was_not_asked_for_can_be_shown(ledger: Ledger, tmp_path: Path) -> None:
    recorded(tmp_path / "decisions", ledger, people=PEOPLE[:2])
    with pytest.raises(ConsentError, match="found none"):
        decisions.show_one(tmp_path / "decisions", 1, KEY, PEOPLE[2])


def test_deciding_again_gives_the_same_root_also_when_the_ledger_has_grown(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    receipt = recorded(folder, ledger)
    ledger.append(
        [event(MONDAY + 6 * DAY, subject_id=PEOPLE[0], event_type="withdraw", purpose_code="*", signal_id="late")]
    )
    shuffled = random.Random(1).sample(PEOPLE, len(PEOPLE))
    found = decisions.replay(folder, 1, KEY, ledger, POLICY, shuffled, ByRule())
    assert (found.decisions_root, found.subject_count, found.destroyed_count) == (receipt.decisions_root, 8, 0)


def test_what_was_known_later_is_not_held_against_what_was_decided(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    use = asked(question=Question("marketing", "email", AT, MONDAY + 2 * DAY))
    receipt = recorded(folder, ledger, use)
    assert {row["reason_code"]: row["subject_count"] for row in receipt.counts} == {
        "granted": 2, "refused": 1, "never_asked": 5,
    }  # fmt: skip
    assert decisions.replay(folder, 1, KEY, ledger, POLICY, PEOPLE, ByRule()).decisions_root == receipt.decisions_root


def test_a_use_that_passed_a_broken_gate_is_found_by_deciding_again(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    rows = ByRule(lenient=True)(ledger.frame(), PEOPLE, asked().question)
    decisions.record(folder, asked(), rows, ledger.checkpoint(), SIGNER, CLOCK)
    with pytest.raises(VerificationError, match=r'"reason_code":"granted".*, found .*"is_allowed":false'):
        decisions.replay(folder, 1, KEY, ledger, POLICY, PEOPLE, ByRule())


def test_other_people_another_policy_or_changed_rows_do_not_replay(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    receipt = recorded(folder, ledger)
    with pytest.raises(VerificationError, match="expected the same 8 subjects, found 7"):
        decisions.replay(folder, 1, KEY, ledger, POLICY, PEOPLE[1:], ByRule())
    other = replace(POLICY, gpc_purposes=frozenset({"analytics"}))
    with pytest.raises(VerificationError, match="expected policy"):
        decisions.replay(folder, 1, KEY, ledger, other, PEOPLE, ByRule())
    rows = folder / f"{receipt.decisions_root}.parquet"
    pl.read_parquet(rows).with_columns(pl.lit(True).alias("is_allowed")).write_parquet(rows)
    with pytest.raises(VerificationError, match="replay of decision 1, subject"):
        decisions.replay(folder, 1, KEY, ledger, POLICY, PEOPLE, ByRule())


def test_who_was_erased_since_stands_on_the_hash_alone(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    receipt = recorded(folder, ledger)
    ledger.erase(event(AT, subject_id=PEOPLE[1], event_type="erased", purpose_code="*", signal_id="gone"))
    found = decisions.replay(folder, 1, KEY, ledger, POLICY, PEOPLE, ByRule())
    assert (found.decisions_root, found.destroyed_count) == (receipt.decisions_root, 1)
    rows = pl.read_parquet(folder / f"{receipt.decisions_root}.parquet")
    mine = key_of("subject", PEOPLE[1])[:16].hex()
    rows.with_columns(
        pl.when(pl.col("subject_key") == mine).then(pl.lit(7)).otherwise("leaf_index").alias("leaf_index")
    ).write_parquet(folder / f"{receipt.decisions_root}.parquet")
    with pytest.raises(VerificationError, match="The kept decisions are not those signed"):
        decisions.replay(folder, 1, KEY, ledger, POLICY, PEOPLE, ByRule())


def test_each_receipt_names_the_one_before_and_a_missing_one_shows(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    made = [recorded(folder, ledger, asked(use=use)) for use in ("read_bulk", "training", "segment", "export")]
    assert [receipt.previous for receipt in made] == [None, *(receipt.hash for receipt in made[:-1])]
    assert decisions.verify(folder, KEY) == 4
    report = verifier.verify(folder, TRUST)
    assert report.is_verified
    assert report.facts["newest"] == made[-1].hash
    second = (folder / "00000002.note").read_bytes()
    (folder / "00000002.note").unlink()
    with pytest.raises(VerificationError, match="expected decision 2 after"):
        decisions.verify(folder, KEY)
    with pytest.raises(VerificationError, match=r"expected a receipt 00000002.note, found none"):
        decisions.load(folder, 2, KEY)
    (folder / "00000002.note").write_text(sign_note(replace(made[1], previous="00" * 32).text, SIGNER))
    with pytest.raises(VerificationError, match=f"expected decision 2 after {made[0].hash}"):
        decisions.verify(folder, KEY)
    (folder / "00000002.note").write_bytes(second)
    assert decisions.verify(folder, KEY) == 4
    last = (folder / "00000004.note").read_bytes()
    (folder / "00000004.note").unlink()
    with pytest.raises(VerificationError, match=f"expected decision 4, {made[3].hash}"):
        decisions.verify(folder, KEY)
    (folder / "00000004.note").write_bytes(last)
    (folder / "newest").unlink()
    with pytest.raises(VerificationError, match="expected a signed note of the newest, found none"):
        decisions.verify(folder, KEY)


def test_a_writer_killed_before_it_named_its_receipt_newest_is_caught_up_with(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    recorded(folder, ledger)
    named = (folder / "newest").read_bytes()
    recorded(folder, ledger)
    (folder / "newest").write_bytes(named)
    assert decisions.verify(folder, KEY) == 2
    recorded(folder, ledger)
    assert b"newest decision 1\n3\n" in (folder / "newest").read_bytes()


def test_writers_at_once_make_one_chain(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    with ThreadPoolExecutor(4) as pool:
        numbers = [receipt.number for receipt in pool.map(lambda _: recorded(folder, ledger), range(12))]
    assert sorted(numbers) == list(range(1, 13))
    assert decisions.verify(folder, KEY) == 12
    assert not list(folder.glob(".*"))


def test_a_use_of_nobody_is_recorded_and_replayed(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    receipt = recorded(folder, ledger, people=[])
    assert (receipt.subject_count, receipt.counts) == (0, ())
    assert verifier.verify(folder, TRUST).is_verified
    assert decisions.replay(folder, 1, KEY, ledger, POLICY, [], ByRule()).subject_count == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use": "gossip"}, "use: expected one of read_bulk, export, training, segment, found gossip"),
        ({"asked_by": "alma@shop.example"}, "Name an id, not a person"),
        ({"asked_by": "Alma from the pier"}, "Name an id, not a person"),
        ({"question": Question("mar keting", "email", AT)}, "Name an id, not a person"),
    ],
)
def test_a_use_that_would_tell_personal_data_is_refused(
    changes: dict[str, Any], expected: str, ledger: Ledger, tmp_path: Path
) -> None:
    with pytest.raises(ConsentError, match=expected):
        recorded(tmp_path / "decisions", ledger, asked(**changes))
    assert not (tmp_path / "decisions").exists()


def test_two_decisions_about_one_subject_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ConsentError, match="expected one row per subject, found several"):
        recorded(tmp_path / "decisions", ledger, people=[PEOPLE[0], PEOPLE[0]])


def test_a_note_of_another_key_or_kind_is_no_receipt(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    receipt = recorded(folder, ledger)
    path = folder / "00000001.note"
    for note in (
        sign_note(receipt.text, Ed25519Signer(KEY.name, bytes(32))),
        ledger.checkpoint(),
        sign_note(receipt.text.replace("receipt 1", "receipt 2"), SIGNER),
        sign_note(receipt.text.replace('"number":1', '"number": 1'), SIGNER),
        sign_note("troth decision receipt 1\n{}\n", SIGNER),
        "",
    ):
        path.write_text(note)
        with pytest.raises(VerificationError):
            decisions.load(folder, 1, KEY)
        assert not verifier.verify(path, TRUST).is_verified


@pytest.mark.parametrize(
    "change",
    [
        {"subject_count": 9},
        {"counts": ()},
        {"counts": ({"is_allowed": True, "reason_code": "refused", "subject_count": 8},)},
        {"decisions_root": "zz"},
        {"number": 0},
        {"previous": "00" * 32},
    ],
)
def test_a_signed_receipt_that_contradicts_itself_does_not_verify(
    change: dict[str, Any], ledger: Ledger, tmp_path: Path
) -> None:
    receipt = replace(recorded(tmp_path / "decisions", ledger), **change)
    path = tmp_path / "odd.note"
    path.write_text(sign_note(receipt.text, SIGNER))
    report: Report = verifier.verify(path, TRUST)
    assert not report.is_verified
    assert "unreadable" not in report.checks[-1].evidence


def test_one_bit_changed_in_a_note_is_caught(ledger: Ledger, tmp_path: Path) -> None:
    folder = tmp_path / "decisions"
    recorded(folder, ledger)
    path, chance = folder / "00000001.note", random.Random(6)
    raw = path.read_bytes()
    for place in chance.sample(range(len(raw) * 8), 400):
        broken = bytearray(raw)
        broken[place // 8] ^= 1 << place % 8
        path.write_bytes(broken)
        assert not verifier.verify(path, TRUST).is_verified


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(PEOPLE), unique=True), st.randoms(use_true_random=False))
def test_the_order_in_which_people_are_asked_does_not_matter(people: list[str], chance: random.Random) -> None:
    shuffled = list(people)
    chance.shuffle(shuffled)
    frames = [ByRule()(pl.DataFrame(schema={name: pl.String() for name in FIELDS}), found, asked().question)
              for found in (people, shuffled)]  # fmt: skip
    rows = [decisions._rows(frame) for frame in frames]
    assert rows[0].equals(rows[1])
    assert decisions._root(rows[0], b"s" * 32) == decisions._root(rows[1], b"s" * 32)
