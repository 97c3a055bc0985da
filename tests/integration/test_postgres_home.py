"""A small retailer's home whose consent ledger is in PostgreSQL: run, asked, withdrawn from, erased from, its key changed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from consent.errors import LedgerError
from consent.ledger.opening import ORIGIN, ledger_size, open_ledger
from consent.ledger.rotation import rotate_kek
from consent.log.entry import prefix_of
from consent.log.note import Ed25519Signer
from consent.rights import open_certificate
from feature_repo.reads import Source, read_features, source
from models.segments.definition import load
from models.segments.export import export
from orchestration.cli import app
from orchestration.rights.erasing import erase
from orchestration.stages import known_until
from serving.rights.persons import resolve
from simulator import TINY, simulate
from tests.integration.places import raw
from tests.integration.postgres import fresh_schema
from tests.unit.consent.builders import event
from troth.clock import FixedClock
from troth.home import Home
from troth.published import current

pytestmark = pytest.mark.slow
VARIABLE = "TROTH_LEDGER"
SHOP = replace(TINY, people=50, skus=15, days=2, malformed_record_rate=0.0)
SEED = 11


@dataclass(frozen=True)
class Shop:
    """A home after a run, the place of its ledger, and two people who agreed to personalisation: one for each test that needs one."""

    home: Home
    place: str
    report: dict[str, Any]
    until: datetime
    agreed: tuple[str, str]

    @property
    def clock(self) -> FixedClock:
        return FixedClock(self.until + timedelta(hours=1))


@pytest.fixture(scope="module")
def shop(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """`troth run` in a process of its own that was told of the database."""
    home = Home(tmp_path_factory.mktemp("shop") / "home")
    simulate(home, SHOP, SEED)
    with fresh_schema(postgres_server) as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, place)
        command = [sys.executable, "-m", "orchestration.cli", "run", "--home", str(home.root), "--json", "--no-sample"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "TROTH_WORKERS": "2"}
        )
        assert done.returncode == 0, done.stderr[-3000:]
        until = known_until(home)
        yield Shop(home, place, json.loads(done.stdout), until, _agreed(home, source(home), until))


@pytest.fixture(autouse=True)
def _told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, shop.place)


def _agreed(home: Home, kept: Source, at: datetime) -> tuple[str, str]:
    """Two customers who are answered, and of whom the ledger knows something."""
    identities = pl.read_parquet(current(home, "customer_identities")).filter(pl.col("link_type") != "contact")
    found = [who for who in identities["customer_id"].unique().sort() if _read(kept, who, at) == (True, "granted")]
    return found[0], found[-1]


def _read(kept: Source, customer_id: str, at: datetime) -> tuple[bool, str]:
    (answer,) = read_features(kept, "recommend_v1", [{"customer_id": customer_id}], at)
    return answer.is_allowed, answer.reason_code


def _told_by(shop: Shop, *said: str, code: int = 0) -> dict[str, Any]:
    found = CliRunner().invoke(app, [*said, "--home", str(shop.home.root), "--json"])
    assert found.exit_code == code, (found.output, found.exception)
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def test_a_run_fills_the_ledger_in_the_database_and_leaves_neither_file_nor_address_in_the_home(shop: Shop) -> None:
    assert not shop.home.ledger.exists()
    assert 0 < shop.report["ledger"]["size"] <= ledger_size(shop.home)
    assert shop.report["ledger"]["verified"]
    address = shop.place.split("&options")[0].encode()
    assert not [path for path in shop.home.root.rglob("*") if path.is_file() and address in path.read_bytes()]


def test_the_commands_show_verify_and_export_it(shop: Shop, tmp_path: Path) -> None:
    assert _told_by(shop, "consent", "show", shop.agreed[0])["standing"]
    verified = _told_by(shop, "audit", "verify")
    assert (verified["is_verified"], verified["ledger_size"]) == (True, ledger_size(shop.home))
    exported = _told_by(shop, "consent", "export", str(tmp_path / "export"))
    assert exported["ledger_size"] == verified["ledger_size"]
    again = _told_by(shop, "consent", "verify", str(tmp_path / "export"), "--key", exported["verifier_key"])
    assert again["is_verified"]
    tiles = _told_by(shop, "consent", "export", str(tmp_path / "tiles"), "--tiles")
    assert tiles["root"] == verified["root"]


def test_a_withdrawal_blocks_the_next_online_read(shop: Shop) -> None:
    kept, who = source(shop.home), shop.agreed[0]
    at = shop.until
    assert _read(kept, who, at) == (True, "granted")
    with open_ledger(shop.home, shop.clock) as ledger:
        for token in resolve(shop.home, [who]).tokens:
            ledger.append([event(at, event_type="withdraw", subject_id=token, purpose_code="*", signal_id="late")])
        assert _read(kept, who, at) == (False, "withdrawn")
        assert _read(source(shop.home), who, at) == (False, "withdrawn")


def test_without_the_variable_every_online_read_and_export_is_refused(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    assert _read(source(shop.home), shop.agreed[0], shop.until) == (False, "ledger_unreadable")
    found = CliRunner().invoke(app, ["consent", "checkpoint", "--home", str(shop.home.root)])
    assert "Set TROTH_LEDGER" in str(found.exception)
    with pytest.raises(LedgerError, match="Set TROTH_LEDGER"):
        export(shop.home, load("lapsed_regulars"), tmp_path / "out", shop.until)
    assert not (tmp_path / "out").exists()
    assert not shop.home.ledger.exists()


def test_an_erasure_leaves_no_key_in_the_database_and_says_what_the_search_does_not_reach(shop: Shop) -> None:
    person = resolve(shop.home, [shop.agreed[1]])
    known = [prefix_of(token) for token in person.tokens]
    before = _keys_of(shop, known)
    assert before
    with open_ledger(shop.home, shop.clock) as ledger:
        leaves = sum(len(ledger.leaves_of(token)) for token in person.tokens)
    done = erase(shop.home, shop.clock, [shop.agreed[1]])
    assert not before & _keys_of(shop, known)
    assert done.certificate is not None
    signer = Ed25519Signer(ORIGIN, shop.home.key("ledger"))
    said = open_certificate(Path(done.certificate).read_text(), signer.verifier)
    assert (said["search"]["finds"], said["search"]["sealed_leaves"]) == ([], leaves)
    assert any("PostgreSQL" in each.get("what", "") for each in said["kept"])
    with open_ledger(shop.home, shop.clock) as ledger:
        ledger.verify()


def _keys_of(shop: Shop, subjects: list[bytes]) -> set[bytes]:
    """Ids of the keys that the database has of the subjects."""
    with raw(shop.place) as run:
        rows = run("select subject_key, key_id from subject_keys")
    return {bytes(key) for subject, key in rows if bytes(subject) in subjects}


def test_the_key_is_rotated_in_the_database_too(shop: Shop) -> None:
    before = _read(source(shop.home), shop.agreed[0], shop.until)
    done = rotate_kek(shop.home, shop.clock)
    with raw(shop.place) as run:
        assert [(bytes(kek).hex(),) for (kek,) in run("select distinct kek_id from subject_keys")] == [(done.kek_id,)]
    assert done.vault_keys > 0
    with open_ledger(shop.home, shop.clock) as ledger:
        ledger.verify()
    assert _read(source(shop.home), shop.agreed[0], shop.until) == before
