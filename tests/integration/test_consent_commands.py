"""`troth consent` from end to end over a small home: what each command says, writes and refuses."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from consent.ledger.opening import ORIGIN, open_ledger, signer_of
from consent.log.audit import verify_export
from consent.log.note import COSIGNATURE, Ed25519Signer, MLDSA44Signer, Signer
from consent.log.tiles import verify_tiles
from consent.log.witness import Witness
from consent.receipts import verifier
from consent.rule.policy import read_policy
from models.baseline import Baseline, Fitted
from models.build import train_all
from models.decisions import Basis, keeper, record
from models.permission import FrameStanding
from models.tables import naive, versions, write
from orchestration.cli import app
from orchestration.errors import MISUSE, RunError
from serving import keys
from serving.hub.links import Links
from serving.hub.webhooks import NewDestination, Outbox
from tests.integration.witnesses import served
from tests.unit.consent.builders import ALMA, MONDAY, erasure, event, subject
from tests.unit.consent.histories import BORIS
from troth.clock import FixedClock, SystemClock
from troth.home import Home

RUNNER = CliRunner()
DAY = timedelta(days=1)
WITHDRAWN = event(
    MONDAY + DAY, event_type="withdraw", subject_id=BORIS, purpose_code="marketing", channel_code="email", signal_id="w"
)
GULL = Ed25519Signer("gull.example/witness", b"g" * 32, COSIGNATURE)
HERON = MLDSA44Signer("heron.example/witness", b"h" * 32)
CUSTOMERS = ("cus_1", "cus_1", "cus_2")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Alma, who said yes, also as Boris, who took it back; somebody who was erased; thirteen more."""
    home, gone = Home(tmp_path / "home"), subject(99)
    with open_ledger(home, FixedClock(MONDAY)) as ledger:
        ledger.append([event(subject_id=gone), event(), event(purpose_code="marketing", channel_code="email")])
        ledger.append([event(subject_id=subject(n), event_type="refuse") for n in range(13)])
        ledger.append([WITHDRAWN])
        ledger.erase(erasure(MONDAY + DAY, gone))
    rows = list(zip(CUSTOMERS, (ALMA, BORIS, gone), ("hub", "contact", "hub"), strict=True))
    write(home, "customer_identities", pl.DataFrame(rows, ["customer_id", "identity_ref", "link_type"], orient="row"))
    return home


def run(home: Home, *said: str, code: int = 0) -> str:
    found = RUNNER.invoke(app, ["consent", *said, "--home", str(home.root)])
    assert found.exit_code == code, (found.output, found.exception)
    return str(found.stdout)


def told(home: Home, *said: str, code: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run(home, *said, "--json", code=code))
    return answer


def refused(home: Home, *said: str) -> RunError:
    found: Result = RUNNER.invoke(app, ["consent", *said, "--home", str(home.root)])
    assert isinstance(found.exception, RunError)
    return found.exception


def standing_of(answer: dict[str, Any], purpose: str, channel: str) -> tuple[bool, str]:
    return next(
        (row["is_allowed"], row["reason"])
        for row in answer["standing"]
        if (row["purpose"], row["channel"]) == (purpose, channel)
    )


def test_show_says_what_holds_at_a_time_and_in_words(home: Home) -> None:
    answer = told(home, "show", ALMA, "--at", (MONDAY + DAY).isoformat())
    assert standing_of(answer, "marketing", "email") == (True, "granted")
    assert "agreed on 3 March 2025" in answer["in_words"]["marketing email"]
    assert standing_of(told(home, "show", ALMA, "--at", "2025-03-02"), "marketing", "email") == (False, "never_asked")
    earlier = told(home, "show", BORIS, "--known-at", MONDAY.isoformat())
    assert standing_of(earlier, "marketing", "email") == (False, "never_asked")


def test_show_of_a_customer_merges_identities_and_a_no_wins(home: Home) -> None:
    answer = told(home, "show", "cus_1", "--at", (MONDAY + 2 * DAY).isoformat())
    assert standing_of(answer, "marketing", "email") == (False, "withdrawn")
    assert standing_of(answer, "personalization", "*") == (True, "granted")
    assert standing_of(answer, "service", "*") == (True, "contract")


def test_history_shows_every_leaf_and_that_an_erased_one_is_there(home: Home) -> None:
    answer = told(home, "history", "cus_2")
    assert [(row["leaf"], row["event"]) for row in answer["events"]] == [(0, "(erased)"), (17, "erased")]
    assert "withdraw" in run(home, "history", BORIS)
    assert told(home, "history", "email_" + "q" * 22)["events"] == []


def test_an_unknown_subject_is_misuse(home: Home) -> None:
    for said in ("cus_9", "alma@example.com"):
        found = refused(home, "show", said)
        assert found.code == MISUSE
        assert said not in str(found)


def test_a_receipt_of_everything_or_of_one_question_verifies_sealed_and_elsewhere(home: Home, tmp_path: Path) -> None:
    whole, one, single = tmp_path / "whole.json", tmp_path / "one.json", tmp_path / "verifier.py"
    made = told(home, "receipt", ALMA, "--out", str(whole))
    told(home, "receipt", ALMA, "--out", str(one), "--purpose", "marketing", "--channel", "email")
    assert (made["events"], made["format"]) == (2, verifier.RECEIPT)
    assert "verified" in run(home, "verify", str(whole), str(one), "--sealed")
    told(home, "verifier", "--out", str(single))
    done = subprocess.run(
        [sys.executable, "-I", str(single), str(whole), "--key", made["verifier_key"]], capture_output=True, check=False
    )
    assert (done.returncode, single.read_bytes()) == (0, Path(verifier.__file__).read_bytes())


def test_a_receipt_that_was_changed_or_is_of_another_key_does_not_verify(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "receipt.json"
    run(home, "receipt", ALMA, "--out", str(out))
    other = Ed25519Signer(ORIGIN, bytes(32)).verifier.text
    assert RUNNER.invoke(app, ["consent", "verify", str(out), "--key", other]).exit_code == 1
    out.write_bytes(out.read_bytes().replace(b"granted", b"refused", 1))
    run(home, "verify", str(out), code=1)
    run(home, "verify", str(tmp_path / "nothing"), code=2)


def test_a_receipt_is_about_one_identity_and_asks_what_the_policy_asks(home: Home, tmp_path: Path) -> None:
    out = str(tmp_path / "r.json")
    assert refused(home, "receipt", "cus_1", "--out", out).code == MISUSE
    found = refused(home, "receipt", ALMA, "--out", out, "--purpose", "marketing", "--channel", "*")
    assert "expected one of" in str(found)


def test_the_ledger_is_exported_for_auditors_and_as_tiles_without_events(home: Home, tmp_path: Path) -> None:
    answer = told(home, "export", str(tmp_path / "export"))
    assert verify_export(tmp_path / "export", answer["verifier_key"]).size == answer["ledger_size"] == 18
    tiles = told(home, "export", str(tmp_path / "tiles"), "--tiles")
    assert verify_tiles(tmp_path / "tiles", signer_of(home).verifier).root.hex() == tiles["root"]
    assert not any(b"grant" in path.read_bytes() for path in (tmp_path / "tiles").rglob("*") if path.is_file())


def test_a_checkpoint_is_printed_as_it_was_signed(home: Home) -> None:
    with open_ledger(home, FixedClock(MONDAY)) as ledger:
        assert run(home, "checkpoint") == told(home, "checkpoint")["note"] == ledger.checkpoint()


@contextmanager
def witnessing(home: Home, folder: Path, signer: Signer) -> Iterator[str]:
    """A policy line of a witness on loopback that knows the home's ledger."""
    folder.mkdir()
    witness = Witness(folder / "witness.db", [signer], {ORIGIN: [signer_of(home).verifier]}, FixedClock(MONDAY))
    try:
        with served(witness) as address:
            yield f"{signer.verifier.text} {address}"
    finally:
        witness.close()


def policy_file(path: Path, needed: int, *lines: str) -> str:
    named = [f"witness w{number} {line}\n" for number, line in enumerate(lines)]
    members = " ".join(f"w{number}" for number in range(len(lines)))
    path.write_text("".join(named) + f"group all {needed} {members}\nquorum all\n")
    return str(path)


def test_receipts_carry_cosignatures_of_their_checkpoint_until_the_ledger_grows(home: Home, tmp_path: Path) -> None:
    out = str(tmp_path / "r.json")
    with witnessing(home, tmp_path / "gull", GULL) as gull, witnessing(home, tmp_path / "heron", HERON) as heron:
        policy = policy_file(tmp_path / "policy", 2, gull, heron)
        answer = told(home, "witness", "--policy", policy)
        assert answer["cosigned_by"] == [GULL.verifier.name, HERON.verifier.name]
        assert Path(answer["note"]) == home.root / "checkpoints" / "18.note"
        assert told(home, "receipt", ALMA, "--out", out)["cosigned_by"] == answer["cosigned_by"]
        run(home, "verify", out, "--witness", GULL.verifier.text)
        with open_ledger(home, FixedClock(MONDAY)) as ledger:
            ledger.append([event(MONDAY + 2 * DAY, signal_id="later")])
        assert told(home, "receipt", ALMA, "--out", out)["cosigned_by"] == []
        assert told(home, "witness", "--policy", policy)["ledger_size"] == 19


def test_without_a_quorum_nothing_is_kept(home: Home, tmp_path: Path) -> None:
    with witnessing(home, tmp_path / "gull", GULL) as gull:
        away = f"{HERON.verifier.text} http://127.0.0.1:9"
        policy = policy_file(tmp_path / "policy", 2, gull, away)
        answer = told(home, "witness", "--policy", policy, code=1)
    assert (answer["is_verified"], list(answer["refusals"])) == (False, ["w1"])
    assert not (home.root / "checkpoints").exists()
    (tmp_path / "bad").write_text("nonsense\n")
    assert refused(home, "witness", "--policy", str(tmp_path / "bad")).code == MISUSE


def use(home: Home) -> None:
    """Marketing by e-mail, decided about both customers two days later."""
    moment = naive(MONDAY + 2 * DAY)
    with open_ledger(home, FixedClock(MONDAY)) as ledger:
        basis = Basis(ledger.checkpoint(), versions(home, ["customer_identities"])["customer_identities"])
        standing = FrameStanding.published(home, ledger.frame()).known_at("marketing", "email", moment)
    customers = pl.Series(["cus_1", "cus_2"])
    asked = ("marketing", "email", moment)
    record(home, "export", "segment:plain", asked, customers, standing, basis, FixedClock(MONDAY + 2 * DAY))


def test_a_decision_is_listed_shown_and_decided_again_to_the_byte(home: Home, tmp_path: Path) -> None:
    assert told(home, "decisions")["count"] == 0
    use(home)
    (row,) = told(home, "decisions")["decisions"]
    assert (row["use"], row["asked_by"], row["subjects"], row["allowed"]) == ("export", "segment:plain", 2, 0)
    assert {each["reason_code"] for each in told(home, "decisions", "1")["counts"]} == {"withdrawn", "erased"}
    with open_ledger(home, FixedClock(MONDAY)) as ledger:
        ledger.append([event(MONDAY + DAY, subject_id=ALMA, event_type="withdraw", purpose_code="*", signal_id="late")])
    again = told(home, "decisions", "--replay", "1")
    assert (again["is_verified"], again["subjects"], again["erased_since"]) == (True, 2, 0)
    shown = tmp_path / "shown.json"
    run(home, "decisions", "1", "--subject", "cus_1", "--out", str(shown))
    run(home, "verify", str(shown), str(home.root / "decisions"))
    assert refused(home, "decisions", "2").code == MISUSE


def test_a_decision_about_somebody_erased_since_stands_on_its_hash(home: Home) -> None:
    use(home)
    with open_ledger(home, FixedClock(MONDAY)) as ledger:
        ledger.erase(erasure(MONDAY + 3 * DAY, BORIS, "erased-boris"))
    assert told(home, "decisions", "--replay", "1")["erased_since"] == 1


def test_a_decision_that_was_tampered_with_is_shown_with_the_evidence(home: Home) -> None:
    use(home)
    path = home.root / "decisions" / "00000001.note"
    path.write_text(path.read_text().replace("withdrawn", "granted"))
    answer = told(home, "decisions", code=1)
    assert (answer["is_verified"], "expected" in answer["evidence"]) == (False, True)


def parrot(learned: pl.DataFrame) -> Baseline:
    """A model that learns to repeat."""
    return Baseline(
        name="parrot", description="Repeats.", tables=(), features=(), use_purpose_code="analytics", settings={},
        rows=lambda home, at: learned, fit=lambda rows, in_use: Fitted({"words.txt": b"polly"}, {}, ()),
        subjects=None, predict=lambda files, rows: pl.DataFrame({"word": ["polly"]}), nothing=pl.DataFrame({"word": []}),
    )  # fmt: skip


def test_a_training_leaves_a_receipt_that_is_decided_again(home: Home) -> None:
    at = MONDAY + 2 * DAY
    who = pl.DataFrame({"customer_id": ["cus_1", "cus_2"]})
    with open_ledger(home, FixedClock(MONDAY)) as ledger:
        ledger.append([event(MONDAY, purpose_code="model_training", signal_id="m")])
        basis = Basis(ledger.checkpoint(), versions(home, ["customer_identities"])["customer_identities"])
        write(home, "consent_events", ledger.frame())
        size, root = ledger.size, ledger.root().hex()
    write(home, "customers", who.with_columns(is_test=pl.lit(False)))
    learned = who.with_columns(feature_at=pl.lit(naive(at)))
    keep, baselines = keeper(home, basis, FixedClock(at)), (parrot(learned),)
    (report,) = train_all(home, at, size, root, lambda _: None, baselines=baselines, keep=keep)
    assert (report.outcome, report.rows_kept) == ("promoted", 1)
    found = told(home, "decisions", "1")
    assert (found["use"], found["asked_by"], found["purpose"]) == ("training", "model:parrot", "model_training")
    assert (found["subjects"], found["allowed"], list(found["outputs"])) == (2, 1, ["words.txt"])
    assert told(home, "decisions", "--replay", "1")["is_verified"]
    (again,) = train_all(home, at, size, root, lambda _: None, baselines=baselines, keep=keep)
    assert (again.outcome, told(home, "decisions")["count"]) == ("unchanged", 1)


def test_measures_are_reconciled_and_hide_small_cells(home: Home, tmp_path: Path) -> None:
    use(home)
    plot = tmp_path / "measures.png"
    answer = told(home, "measures", "--by", "purpose", "--weekly", "--plot", str(plot))
    assert answer["control_sum"] == answer["ledger_size"] == 18
    rates = {row["purpose_code"]: row for row in answer["rates"]}
    assert (rates["personalization"]["asked"], rates["personalization"]["yes"]) == (14, None)
    assert rates["marketing"]["asked"] is None
    heard = {row["consumer"]: row for row in answer["heard_after"]}
    assert (heard["export segment:plain"]["acted"], heard["export segment:plain"]["late_uses"]) == (2, 0)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "a_blank_is" in run(home, "measures")
    assert refused(home, "measures", "--by", "colour").code == MISUSE


def test_the_control_table_is_not_suppressed_and_shown_only_when_asked_for(home: Home) -> None:
    use(home)
    shown, told_all = told(home, "measures"), told(home, "measures", "--control")
    told_more = {"answers", "control", "control_is"}
    assert told_all.keys() - shown.keys() == told_more
    assert {row["outcome"] for row in told_all["control"]} == {"yes", "no", "nothing", "destroyed"}
    assert sum(row["leaves"] for row in told_all["control"]) == shown["control_sum"]
    assert sum(row["answers"] for row in told_all["control"]) == told_all["answers"]
    assert "for auditors only" in run(home, "measures", "--control")
    assert "for auditors only" not in run(home, "measures")


def test_a_webhook_that_was_not_acknowledged_has_not_acted(home: Home) -> None:
    outbox = Outbox(home)
    with open_ledger(home, FixedClock(MONDAY)) as ledger:
        wanted = NewDestination(name="crm", url="https://127.0.0.1/hook", purposes=["marketing"], from_leaf=0)
        outbox.add(wanted, read_policy(), ledger.size, MONDAY, allow_loopback=True)
        outbox.fill(outbox.destinations()[0], ledger, MONDAY)
    outbox.close()
    row = next(row for row in told(home, "measures")["heard_after"] if row["consumer"] == "webhook crm")
    assert (row["acted"], row["not_yet"]) == (0, 2)


def test_a_ledger_that_was_changed_by_hand_is_unreadable(home: Home) -> None:
    home.ledger.write_bytes(b"not a ledger" * 1_000)
    for path in home.root.glob("ledger.db-*"):
        path.unlink()
    assert refused(home, "show", ALMA).code == 3


def test_keys_are_shown_once_listed_and_dropped(home: Home) -> None:
    key = told(home, "keys", "make", "till", "--scope", "capture", "--purpose", "personalization")["key"]
    assert keys.caller_of(keys.callers(home), key) is not None
    listed = run(home, "keys", "list")
    assert "till" in listed
    assert key not in listed
    run(home, "keys", "drop", "till")
    assert keys.callers(home) == []
    assert refused(home, "keys", "drop", "till").code == MISUSE


def test_a_link_opens_for_its_subject_and_what_it_is_about(home: Home) -> None:
    said = ("--scope", "unsubscribe", "--purpose", "marketing", "--channel", "email")
    path = told(home, "link", ALMA, *said)["path"]
    (text,) = re.findall(r"^/unsubscribe/(.+)$", path)
    link = Links(home.key("links")).open(text, ("unsubscribe",), SystemClock().now())
    assert (link.subject_id, link.purpose_code, link.channel_code) == (ALMA, "marketing", "email")
    assert refused(home, "link", ALMA, "--scope", "unsubscribe").code == MISUSE
