"""From a person, an export or a model back to the consents that allowed it: what was recorded is what the ledger decides again."""

import json
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
from typer.testing import CliRunner

from consent.ledger.opening import open_ledger, signer_of
from consent.log.entry import subject_key
from consent.receipts import decisions
from consent.receipts.decisions import Question, Use
from consent.receipts.shopper import policy_hash
from consent.receipts.uses import answers, folder_of, links_of, policy_of
from consent.receipts.verifier import Report
from consent.rule.identity import company
from consent.rule.policy import POLICY_FILE, read_policy
from consent.rule.standing import merged_groups, proved_groups, standing
from models import registry
from models.decisions import Basis, record
from models.permission import LINKS, FrameStanding, identities
from models.tables import naive, versions
from orchestration.cli import app
from serving.audit.evidence import reading
from serving.audit.exports import export_of, made
from serving.audit.features import feature
from serving.audit.ledgers import ledger as ledger_audit
from serving.audit.people import subject
from serving.audit.receipts import Once, chain_of, decided_again
from serving.audit.training import model
from serving.console.looks import Looks
from serving.errors import ServingError
from serving.hub.preferences import history
from serving.operations.read_log import PersonalRead, ReadLog
from tests.integration.audited_shop import POLICY, AuditedShop
from tests.integration.segment_shop import said
from troth.home import Home
from troth.ids import file_hash
from troth.published import current


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory, audited_uses: int) -> AuditedShop:
    shop = AuditedShop(Home(tmp_path_factory.mktemp("lived") / "home"), seed=4, people=max(20, audited_uses // 8))
    shop.live(audited_uses)
    return shop


@pytest.fixture
def fresh(tmp_path: Path) -> AuditedShop:
    return AuditedShop(Home(tmp_path / "home"), seed=7, people=12)


def test_every_use_is_decided_again_as_it_was_recorded_whatever_was_said_joined_or_erased_since(
    lived: AuditedShop, audited_uses: int
) -> None:
    report, destroyed = Report("all"), 0
    with reading(lived.home) as opened:
        once, chain = Once(opened), chain_of(lived.home, opened.verifier, Report("chain"))
        for receipt in chain.receipts.values():
            again, differs = decided_again(lived.home, receipt, once, report)
            assert again is not None
            assert (again.is_same, differs) == (True, [])
            destroyed += len(again.destroyed)
    assert chain.is_whole
    assert len(chain.receipts) >= audited_uses
    assert {each.use.use for each in chain.receipts.values()} == {"export", "training", "read_bulk", "segment"}
    assert lived.erased
    assert destroyed  # some decisions stand on their hash alone
    assert report.is_verified


def test_the_rule_for_one_person_says_of_rows_what_the_receipt_says(lived: AuditedShop, audited_uses: int) -> None:
    """Decided by the other form of the rule: one person, one identity after the other."""
    compared, allowed = 0, 0
    with open_ledger(lived.home, lived.clock) as ledger:
        for number in range(1, audited_uses, max(9, audited_uses // 12)):
            receipt = decisions.load(folder_of(lived.home), number, ledger.verifier)
            question = receipt.use.question
            asked = question.purpose_code, question.channel_code, question.at
            rows = {row["subject_key"]: row for row in decisions.proved_rows(folder_of(lived.home), receipt).to_dicts()}
            links = proved_groups(identities(links_of(lived.home, receipt.use.inputs[LINKS], ledger.verifier)[0]))
            for (customer,), theirs in links.group_by("customer_id"):
                row = rows.get(subject_key(str(customer)).hex())
                tokens = theirs["identity_ref"].to_list()
                near = {other for one in tokens for other in company(ledger, one)}
                if row is None or any(ledger.opened(leaf) is None for one in near for leaf in ledger.leaves_of(one)):
                    continue
                answers = []
                for token, link, group in theirs.select("identity_ref", "link_type", "group_ref").iter_rows():
                    heard = [each for each in history(ledger, token) if each.leaf_index < receipt.size]
                    answers.append(
                        (group, link, standing(heard, token, *asked, policy=POLICY, known_at=question.known_at))
                    )
                found = merged_groups(answers)
                said_then = (row["is_allowed"], row["reason_code"], row["leaf_index"])
                assert (found.is_allowed, found.reason_code, found.leaf_index) == said_then
                compared, allowed = compared + 1, allowed + found.is_allowed
    assert compared > 50
    assert allowed > 5


def test_a_use_that_decided_otherwise_than_the_ledger_is_named_person_by_person(fresh: AuditedShop) -> None:
    with open_ledger(fresh.home, fresh.clock) as ledger:
        note, events = ledger.checkpoint(), ledger.frame()
    links = identities(current(fresh.home, LINKS))
    people = links["customer_id"].unique().sort()
    at = naive(fresh.at)
    right = FrameStanding(events, links, POLICY).known_at("marketing", "email", at)
    refused = people.filter(~people.is_in(right.filter("is_allowed")["customer_id"].to_list()))
    lenient = right.with_columns(is_allowed=pl.lit(True), reason_code=pl.lit("granted"))
    basis = Basis(note, versions(fresh.home, [LINKS])[LINKS])
    record(fresh.home, "segment", "segment:lenient", ("marketing", "email", at), people, lenient, basis, fresh.clock)
    report = Report("lenient")
    with reading(fresh.home) as opened:
        receipt = decisions.load(folder_of(fresh.home), 1, opened.verifier)
        _, differs = decided_again(fresh.home, receipt, Once(opened), report)
    assert not report.is_verified
    assert {each.subject_key for each in differs} == {subject_key(one).hex() for one in refused}
    assert all(each.expected.startswith("yes, granted") and each.found.startswith("no, ") for each in differs)


def test_exports_hold_what_was_decided_and_their_counts_are_those_of_the_receipts(lived: AuditedShop) -> None:
    several = list(made(lived.home))
    assert len(several) == len(lived.exports) > 3
    for each in several[:3]:
        told = export_of(lived.home, each.name)
        assert told.is_verified, [check for check in told.checks if check.outcome == "failed"]
        assert told.differences == []
        assert [(one.found_sha256, one.found_rows) for one in told.files] == [
            (one.sha256, one.rows) for one in told.files
        ]
        assert all(one.in_receipts == one.again for one in told.counts if one.in_receipts is not None)
        assert told.withdrawn_since is not None
        assert export_of(lived.home, each.numbers[0]).folder == each.name


def test_who_withdrew_since_an_export_is_counted(fresh: AuditedShop) -> None:
    fresh.export()
    (folder,) = (each.name for each in made(fresh.home))
    before = export_of(fresh.home, folder)
    inside = next(made(fresh.home)).people["members.csv"]
    known = identities(current(fresh.home, LINKS))
    tokens = known.filter(pl.col("customer_id").is_in(list(inside)))["identity_ref"].unique().to_list()
    with open_ledger(fresh.home, fresh.clock) as ledger:
        ledger.append(
            [
                said(one, "withdraw", 90_000 + n, fresh.at, purpose_code="*", channel_code="*")
                for n, one in enumerate(tokens)
            ]
        )
    after = export_of(fresh.home, folder)
    assert inside
    assert (before.withdrawn_since, after.withdrawn_since) == (0, len(inside))
    assert after.is_verified  # what was right then stays so


def test_an_old_decision_is_made_again_under_the_policy_of_its_time(fresh: AuditedShop, tmp_path: Path) -> None:
    """Of another time: a policy that is not the one of today was kept when the use was recorded."""
    file = tmp_path / "policy.yml"
    text = POLICY_FILE.read_text(encoding="utf-8")
    assert "expires_after_days: 730" in text
    file.write_text(text.replace("expires_after_days: 730", "expires_after_days: 6"), encoding="utf-8")
    other = read_policy(file)
    with open_ledger(fresh.home, fresh.clock) as ledger:
        note, events = ledger.checkpoint(), ledger.frame()
    path = current(fresh.home, LINKS)
    people, at = identities(path)["customer_id"].unique().sort(), naive(fresh.at)
    rows = answers(people.to_list(), FrameStanding(events, identities(path), other).known_at("marketing", "email", at))
    question = Question("marketing", "email", fresh.at, fresh.at)
    use = Use("segment", "segment:old", question, policy_hash(other), inputs={LINKS: file_hash(path)})
    decisions.record(folder_of(fresh.home), use, rows, note, signer_of(fresh.home), fresh.clock)
    assert (
        rows["is_allowed"].sum()
        < FrameStanding(events, identities(path), POLICY).known_at("marketing", "email", at)["is_allowed"].sum()
    )
    with reading(fresh.home) as opened:
        receipt = decisions.load(folder_of(fresh.home), 1, opened.verifier)
        without, _ = decided_again(fresh.home, receipt, Once(opened), missing := Report("without it"))
        kept = folder_of(fresh.home) / "policies" / f"{use.policy_sha256[:32]}.yml"
        kept.parent.mkdir()
        kept.write_bytes(file.read_bytes())
        again, _ = decided_again(fresh.home, receipt, Once(opened), Report("with it"))
    assert without is None
    assert [(each.check, each.expected) for each in missing.checks] == [("policy", f"hash {use.policy_sha256}")]
    assert again is not None
    assert again.is_same


def test_a_use_keeps_the_policy_it_was_decided_under(fresh: AuditedShop) -> None:
    fresh.use("segment", "segment:nightly", ("marketing", "email"))
    (kept,) = (folder_of(fresh.home) / "policies").iterdir()
    assert kept.read_bytes() == POLICY_FILE.read_bytes()
    assert policy_of(fresh.home, _receipt(fresh, 1).use.policy_sha256) == POLICY


def test_a_person_is_followed_through_identities_events_standing_uses_looks_and_requests(lived: AuditedShop) -> None:
    known = identities(current(lived.home, LINKS))
    customer = known["customer_id"].unique().sort()[5]
    looks = Looks(lived.home.root / "logs")
    looks.write(
        lived.at, "r1", "kim", "/console/customers", "looked", customer, "service", True, "contract", "asked by phone"
    )
    looks.close()
    told = subject(lived.home, customer, lived.at)
    assert told.is_verified, [check for check in told.checks if check.outcome == "failed"]
    assert {one.token for one in told.identities} == set(known.filter(customer_id=customer)["identity_ref"])
    assert {(one.purpose, one.channel) for one in told.standing} == {
        (code, channel) for code, purpose in POLICY.purposes.items() for channel in purpose.channels
    }
    assert [one.leaf for one in told.events] == sorted(one.leaf for one in told.events)
    assert all(one.is_proved for one in told.events)
    assert all(one.is_proved for one in told.uses)
    assert [(one.staff, one.why) for one in told.looks] == [("kim", "asked by phone")]
    folder, mine = folder_of(lived.home), subject_key(customer).hex()
    in_them = [
        path
        for path in folder.glob("*.parquet")
        if mine in pl.read_parquet(path, columns=["subject_key"])["subject_key"].to_list()
    ]
    assert len(told.uses) == len(in_them) > 10
    assert {one.folder for one in told.exports if one.is_in_file} == {
        each.name for each in made(lived.home) if customer in each.people["members.csv"]
    }
    now = {
        (one.purpose, one.channel): (one.is_allowed, one.reason) for one in told.standing if one.reason != "contract"
    }
    last = {
        (one.purpose, one.channel): (one.is_allowed, one.reason)
        for one in sorted(told.spans, key=lambda one: one.from_at)
        if one.from_at <= lived.at
    }
    assert all(now[pair] == last[pair] for pair in last)
    earlier = subject(lived.home, customer, lived.at - timedelta(days=60), lived.at - timedelta(days=60), prove=False)
    assert {one.is_proved for one in earlier.uses} == {None}


def test_of_an_erased_person_what_can_still_be_said_is_said(lived: AuditedShop) -> None:
    token = sorted(lived.erased)[0]
    told = subject(lived.home, token, lived.at)
    assert told.is_erased
    assert told.is_verified
    assert {one.event for one in told.events} <= {"(erased)", "erased"}
    assert told.events[-1].event == "erased"
    assert {one.reason for one in told.standing} == {"erased", "contract"}


def test_who_is_unknown_is_refused(lived: AuditedShop) -> None:
    with pytest.raises(ServingError, match=r"found one that nothing is known of"):
        subject(lived.home, "cus_nobody", lived.at)
    with pytest.raises(ServingError, match=r"expected the number of a receipt of an export"):
        export_of(lived.home, 10_000)
    with pytest.raises(ServingError, match=r"expected a folder with the manifest"):
        export_of(lived.home, "exports/none")
    with pytest.raises(ServingError, match=r"model: expected one of none yet"):
        model(lived.home, "churn")
    with pytest.raises(ServingError, match=r"feature: expected one of"):
        feature(lived.home, "gossip", lived.at)


def test_the_ledger_verifies_with_everything_signed_over_it(lived: AuditedShop, audited_uses: int) -> None:
    told = ledger_audit(lived.home)
    assert told.is_verified, [check for check in told.checks if check.outcome == "failed"]
    assert told.decisions >= audited_uses
    assert told.checkpoints > 10
    assert sum("its rows are those signed" in check.check for check in told.checks) == told.decisions


@pytest.fixture
def trained(fresh: AuditedShop) -> tuple[AuditedShop, str]:
    """A model of two versions, the older one in use; its training set was recorded."""
    files = {"weights.json": b"[1, 2]"}
    fresh.agree("model_training")
    links = identities(current(fresh.home, LINKS))
    with open_ledger(fresh.home, fresh.clock) as ledger:
        note, events, size, root = ledger.checkpoint(), ledger.frame(), ledger.size, ledger.root().hex()
    at = naive(fresh.at)
    allowed = FrameStanding(events, links, POLICY).known_at("model_training", "*", at)
    people = links["customer_id"].unique().sort()
    outputs = {"weights.json": decisions.sha256(files["weights.json"]).hexdigest()}
    basis = Basis(note, versions(fresh.home, [LINKS])[LINKS])
    record(
        fresh.home, "training", "model:returners", ("model_training", "*", at), people, allowed, basis, fresh.clock,
        outputs=outputs,
    )  # fmt: skip
    training = {"customers_kept": 1, "ledger_size": size, "ledger_root": root}
    manifest = {"use_purpose_code": "personalization", "training": training, "metrics": {}}
    version = registry.save(fresh.home, "returners", files, manifest)
    registry.promote(fresh.home, "returners", version)
    registry.save(fresh.home, "returners", {"weights.json": b"[3]"}, manifest)
    return fresh, version


def test_a_model_leads_back_to_its_training_set_and_to_those_who_withdrew_since(
    trained: tuple[AuditedShop, str],
) -> None:
    shop, version = trained
    told = model(shop.home, "returners")
    assert told.is_verified, [check for check in told.checks if check.outcome == "failed"]
    assert (told.version, told.is_in_use, told.is_latest) == (version, True, False)
    assert [one.found_sha256 for one in told.artifacts] == [one.sha256 for one in told.artifacts]
    assert [one.number for one in told.receipts] == [1]
    assert told.promoted_to == ["CURRENT"]
    known = identities(current(shop.home, LINKS))
    learned = decisions.rows_of(folder_of(shop.home), _receipt(shop, 1)).filter("is_allowed")["subject_key"].to_list()
    assert learned
    customer = next(one for one in known["customer_id"].unique().sort() if subject_key(one).hex() in learned)
    token = known.filter(customer_id=customer, link_type="hub")["identity_ref"].to_list()
    token = token or known.filter(customer_id=customer)["identity_ref"].to_list()
    with open_ledger(shop.home, shop.clock) as ledger:
        ledger.append(
            [
                said(one, "withdraw", 80_000 + n, shop.at, purpose_code="model_training", channel_code="*")
                for n, one in enumerate(token)
            ]
        )
    after = model(shop.home, "returners")
    assert customer in {one.customer_id for one in after.withdrawn}
    assert after.withdrawn_since["withdrawn"] >= 1
    assert after.is_verified
    (of_person,) = subject(shop.home, customer, shop.at + timedelta(days=1)).trainings
    assert (of_person.versions, of_person.is_in_use, of_person.is_touched) == ([version], True, True)


def test_an_artifact_or_a_manifest_that_was_changed_is_named(trained: tuple[AuditedShop, str]) -> None:
    shop, version = trained
    folder = shop.home.artifacts / "returners" / version
    (folder / "weights.json").write_bytes(b"[1, 3]")
    (failed,) = (check for check in model(shop.home, "returners").checks if check.outcome == "failed")
    assert failed.check == f"returners {version}, weights.json"
    assert failed.found == decisions.sha256(b"[1, 3]").hexdigest()
    (folder / "weights.json").write_bytes(b"[1, 2]")
    manifest = json.loads((folder / registry.MANIFEST).read_bytes())
    manifest["training"]["ledger_root"] = "ab" * 32
    (folder / registry.MANIFEST).write_bytes(registry.canonical(manifest))
    named = [check.check for check in model(shop.home, "returners", version).checks if check.outcome == "failed"]
    assert named == [
        f"returners {version}, manifest.json",
        f"training, ledger at size {manifest['training']['ledger_size']}",
    ]


def test_reads_of_a_feature_service_are_summed_by_caller_and_held_to_its_purpose(fresh: AuditedShop) -> None:
    log = ReadLog(fresh.home.root / "logs")
    plain = PersonalRead(
        at=fresh.at, request_id="r", caller="shop", route="/v1/features", service="recommend_v1",
        purpose_code="personalization", channel_code="*", asked=3, allowed=2, refused={"withdrawn": 1}, ledger_size=9,
    )  # fmt: skip
    for read in (plain, plain, msgspec.structs.replace(plain, caller="app", purpose_code="marketing")):
        log.write(read)
    log.close()
    told = feature(fresh.home, "recommend_v1", fresh.at)
    assert [(one.caller, one.requests, one.asked, one.allowed, one.refused) for one in told.reads] == [
        ("shop", 2, 6, 4, {"withdrawn": 2}), ("app", 1, 3, 2, {"withdrawn": 1}),
    ]  # fmt: skip
    assert (told.purpose, told.kind, told.is_personal) == ("personalization", "service", True)
    (failed,) = (check for check in told.checks if check.outcome == "failed")
    assert failed.evidence.startswith("reads of recommend_v1 by app: expected purpose personalization, found marketing")


def _receipt(shop: AuditedShop, number: int) -> decisions.DecisionReceipt:
    with reading(shop.home) as opened:
        return decisions.load(folder_of(shop.home), number, opened.verifier)


def test_the_commands_print_tables_or_one_document_and_end_with_1_where_something_does_not_verify(
    fresh: AuditedShop, tmp_path: Path
) -> None:
    fresh.export()
    runner, at_home = CliRunner(), ["--home", str(fresh.home.root)]
    customer = identities(current(fresh.home, LINKS))["customer_id"].min()
    for command in (["subject", str(customer)], ["export", "1"], ["ledger"], ["feature", "recommend_v1"]):
        done = runner.invoke(app, ["audit", *command, *at_home])
        assert done.exit_code == 0, (command, done.output)
        told = json.loads(runner.invoke(app, ["audit", *command, *at_home, "--json"]).stdout)
        assert told["is_verified"]
    out = tmp_path / "evidence"
    done = runner.invoke(app, ["audit", "bundle", "--export", "1", "--out", str(out), *at_home, "--json"])
    assert (done.exit_code, json.loads(done.stdout)["is_verified"]) == (0, True)
    assert runner.invoke(app, ["audit", "bundle", "--out", str(tmp_path / "x"), *at_home]).exit_code == 2
    (fresh.exports[0] / "members.csv").write_text("customer_id,email\n")
    done = runner.invoke(app, ["audit", "export", "1", *at_home])
    assert done.exit_code == 1
    assert "members.csv" in done.output
