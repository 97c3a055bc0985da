"""What people take home of a retailer's promises: receipts in three forms, their part of an export and of a training, and the
one file that verifies them. Kept outside the home, so that nothing that happens there reaches it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from consent.ledger.opening import open_ledger, signer_of
from consent.log.note import Checkpoint, open_checkpoint
from consent.receipts import shopper, verifier
from consent.receipts.decisions import show_one
from consent.receipts.shopper import read_controller, shopper_receipt, standing_receipt
from consent.rule.policy import read_policy
from models.decisions import Basis, folder_of, keeper
from models.permission import LINKS, FrameStanding
from models.segments.definition import Comparison, Segment
from models.segments.export import export
from models.segments.rules import Rules
from models.tables import naive, versions
from models.training import ANY_CHANNEL, PURPOSE
from serving.rights.persons import resolve
from troth.clock import Clock
from troth.home import Home
from troth.published import current

EVERY_BUYER = Segment(
    name="every_buyer", version=1, description="Whoever bought.", owner="tests", purpose="marketing", channels=("email",),
    holdout_percent=0, where=Comparison("customer_purchases", "order_count_90d", ">=", ("0",)),
)  # fmt: skip
EXPORT, TRAINING = 1, 2  # numbers of the decisions


@dataclass(frozen=True)
class TakenHome:
    """Files of several people, the checkpoint they were made under, and the verifier."""

    folder: Path
    key: str
    checkpoint: Checkpoint
    tokens: Mapping[str, str]  # whose receipts they are, by customer

    @property
    def since(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def receipts(self) -> list[Path]:
        return sorted((self.folder / "people").glob("*/*"))

    def verified(self, paths: Sequence[Path]) -> dict[str, Any]:
        """What the single file says of them, run alone in an empty folder."""
        empty = self.folder / "empty"
        empty.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-I", str(self.folder / "verifier.py"), *map(str, paths), "--key", self.key,
             "--since", str(self.since), "--json"],
            cwd=empty, env={}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told


def take_home(home: Home, customers: Sequence[str], folder: Path, clock: Clock) -> TakenHome:
    """Decide an export and a training over all customers; give each of some everything there is about them."""
    _use(home, folder / "segment", clock)
    tokens: dict[str, str] = {}
    with open_ledger(home, clock) as ledger:
        key, note = ledger.verifier, ledger.checkpoint()
        for number, customer in enumerate(customers):
            tokens[customer] = next(each for each in resolve(home, [customer]).tokens if ledger.leaves_of(each))
            mine = folder / "people" / str(number)
            whole, standing = receipts_of(home, tokens[customer], clock)
            shopper.write(whole, mine / "receipt.json")
            shopper.write(standing, mine / "standing.json")
            shopper.write_folder(whole, mine / "receipt")
            for name, decision in (("export.json", EXPORT), ("training.json", TRAINING)):
                shopper.write(show_one(folder_of(home), decision, key, customer), mine / name)
    (folder / "checkpoint").write_text(note)
    (folder / "verifier.py").write_bytes(Path(str(verifier.__file__)).read_bytes())
    return TakenHome(folder, key.text, open_checkpoint(note, key), tokens)


def _use(home: Home, folder: Path, clock: Clock) -> None:
    """One export of a segment, and one training on everybody who may be learned from."""
    export(home, EVERY_BUYER, folder, clock.now(), rules=Rules())
    links, at = pl.read_parquet(current(home, LINKS)), naive(clock.now())
    with open_ledger(home, clock) as ledger:
        basis = Basis(ledger.checkpoint(), versions(home, [LINKS])[LINKS])
        standing = FrameStanding(ledger.frame(), links, read_policy()).known_at(PURPOSE, ANY_CHANNEL, at)
    keeper(home, basis, clock)("rfm", links["customer_id"].unique().sort(), standing, at, {})


def receipts_of(home: Home, token: str, clock: Clock) -> Iterator[dict[str, Any]]:
    """What the home gives out about an identity now: everything, sealed; and one question."""
    policy, at = read_policy(), clock.now()
    with open_ledger(home, clock) as ledger:
        yield shopper_receipt(ledger, policy, token, at, read_controller(), signer=signer_of(home))
        yield standing_receipt(ledger, policy, token, "marketing", "email", at)


def newest_checkpoint(home: Home, clock: Clock) -> Checkpoint:
    with open_ledger(home, clock) as ledger:
        return open_checkpoint(ledger.checkpoint(), ledger.verifier)


def keep_receipts(home: Home, customer: str, other: str, clock: Clock) -> None:
    """Receipts somebody left lying in the home: three of one person, in two folders, and one of another."""
    for who, places in (
        (customer, ("exports/receipts/mine.json", "handed_out/mine.json")),
        (other, ("handed_out/other.json",)),
    ):
        with open_ledger(home, clock) as ledger:
            token = next(each for each in resolve(home, [who]).tokens if ledger.leaves_of(each))
        whole, _ = receipts_of(home, token, clock)
        for place in places:
            shopper.write(whole, home.root / place)
        if who == customer:
            shopper.write_folder(whole, home.root / "handed_out" / "folder")


def kept_receipts(home: Home) -> list[Path]:
    """What is left of them."""
    folders = (home.root / "handed_out", home.exports / "receipts")
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
