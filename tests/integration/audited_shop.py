"""A small retailer that uses people's data while they change their minds: exports, trainings, bulk reads and segments, under random
ledgers with grants, withdrawals, links, merges and erasures."""

import random
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl

from consent.events import Event
from consent.ledger.opening import open_ledger
from consent.rule.identity import LINKED, UNLINKED
from consent.rule.policy import read_policy
from models.decisions import Basis, record
from models.permission import LINKS, FrameStanding, identities
from models.segments.export import export
from models.segments.rules import Rules
from models.tables import naive, versions, write
from orchestration.rights.tables import erase_published
from tests.integration.segment_shop import AS_OF, EVERYBODY, Shop, plain_segment, said
from troth.clock import FixedClock
from troth.home import Home
from troth.published import current

POLICY = read_policy()
ASKED = [
    (code, channel)
    for code, purpose in POLICY.purposes.items()
    for channel in purpose.channels
    if not purpose.rests_on_contract
]
_SAYING = (*["grant"] * 6, "refuse", "withdraw", "withdraw", "object", "restrict", "unrestrict", "renew", "expire")


class AuditedShop:
    """A shop that lives on, in one home, by the dice of one seed."""

    def __init__(self, home: Home, seed: int, people: int = 30) -> None:
        self.home = home
        self.chance = random.Random(seed)
        self.shop = Shop(home, people=people, seed=seed, grants=9)
        self.at = AS_OF + timedelta(days=1)
        self.number = 10_000
        self.erased: set[str] = set()
        self.exports: list[Path] = []
        self._read: tuple[Basis, FrameStanding] | None = None

    @property
    def clock(self) -> FixedClock:
        return FixedClock(self.at)

    def live(self, uses: int) -> None:
        """Until so many uses are recorded; between them people speak, are joined, parted and erased."""
        before = self._count()
        while self._count() < before + uses:
            self.at += timedelta(minutes=self.chance.randrange(1, 5_000))
            step = self.chance.random()
            if step < 0.25:
                self.speak(self.chance.randrange(1, 8))
            elif step < 0.32:
                self.join()
            elif step < 0.36:
                if len(self._customers()) > 6:
                    self.erase() if step < 0.34 else self.merge()
            elif step < 0.42:
                self.export()
            elif step < 0.60:
                self.use("training", "model:churn", ("model_training", "*"))
            else:
                kind = self.chance.choice(("read_bulk", "segment"))
                self.use(kind, f"{kind}:nightly", self.chance.choice(ASKED))

    def tokens(self) -> list[str]:
        known = identities(current(self.home, LINKS))["identity_ref"].unique().sort()
        return [one for one in known if one not in self.erased]

    def _customers(self) -> list[str]:
        return list(identities(current(self.home, LINKS))["customer_id"].unique().sort())

    def speak(self, count: int) -> None:
        with open_ledger(self.home, self.clock) as ledger:
            ledger.append([self._said(self.chance.choice(self.tokens())) for _ in range(count)])

    def agree(self, purpose: str, channel: str = "*", people: int | None = None) -> None:
        """Some customers, or all of them, say yes under every identity."""
        known = identities(current(self.home, LINKS))
        customers = known["customer_id"].unique().sort()[: people or None]
        mine = known.filter(pl.col("customer_id").is_in(customers.to_list()))["identity_ref"].unique().sort()
        yes = {"purpose_code": purpose, "channel_code": channel, "notice_version": 2}
        with open_ledger(self.home, self.clock) as ledger:
            ledger.append([said(one, "grant", self._next(), self.at, **yes) for one in mine])

    def join(self) -> None:
        """Two identities are linked, or parted, both sides saying so."""
        one, other = self.chance.sample(self.tokens(), 2)
        kind = self.chance.choice((LINKED, LINKED, UNLINKED))
        link = self.chance.choice(("hub", "deterministic", "contact", "probabilistic"))
        about = {"event_type": kind, "link_type": link, "purpose_code": "*", "channel_code": "*"}
        with open_ledger(self.home, self.clock) as ledger:
            ledger.append(
                [
                    replace(self._said(one), linked_subject_id=other, **about),
                    replace(self._said(other), linked_subject_id=one, **about),
                ]
            )

    def erase(self) -> None:
        """One person: key destroyed, identities gone from every version that was published."""
        known = identities(current(self.home, LINKS))
        customer = self.chance.choice(known["customer_id"].unique().sort().to_list())
        theirs = known.filter(pl.col("customer_id") == customer)["identity_ref"].to_list()
        shared = known.filter(pl.col("customer_id") != customer)["identity_ref"].to_list()
        alone = [one for one in theirs if one not in shared]
        with open_ledger(self.home, self.clock) as ledger:
            for token in alone:
                ledger.erase(
                    said(
                        token, "erased", self._next(), self.at, purpose_code="*", channel_code="*",
                        notice_id=None, notice_version=None, language_code=None,
                    )
                )  # fmt: skip
        self.erased |= set(alone)
        erase_published(self.home, [customer, *alone], alone)

    def merge(self) -> None:
        """Two customers are taken for one: another version of the identities."""
        known = identities(current(self.home, LINKS))
        one, other = self.chance.sample(known["customer_id"].unique().sort().to_list(), 2)
        merged = known.with_columns(pl.col("customer_id").replace({other: one})).unique(maintain_order=True)
        write(self.home, LINKS, merged)

    def export(self) -> None:
        folder = self.home.exports / "segments" / f"{self._count() + 1:04d}"
        channel = self.chance.choice(("email", "sms"))
        segment = plain_segment(EVERYBODY, name=f"everybody_by_{channel}", channels=(channel,))
        export(self.home, segment, folder, self.at, rules=Rules())
        self.exports.append(folder)

    def use(self, kind: str, who: str, question: tuple[str, str]) -> None:
        """A use of some of the customers, at this or an earlier time."""
        at = self.at - timedelta(minutes=self.chance.choice([0, 0, 0, 60, 50_000]))
        basis, rule = self._known()
        everybody = rule.links["customer_id"].unique().sort().to_list()
        people = pl.Series(sorted(self.chance.sample(everybody, self.chance.randrange(1, len(everybody) + 1))))
        standing = rule.known_at(*question, naive(at))
        outputs = {"model.pickle": f"{self._count():064x}"} if kind == "training" else {}
        record(self.home, kind, who, (*question, naive(at)), people, standing, basis, self.clock, outputs=outputs)

    def _known(self) -> tuple[Basis, FrameStanding]:
        """What is decided under: read anew where somebody spoke, or was taken for somebody else, since."""
        with open_ledger(self.home, self.clock) as ledger:
            basis = Basis(ledger.checkpoint(), versions(self.home, [LINKS])[LINKS])
            if self._read is None or self._read[0] != basis:
                links = identities(current(self.home, LINKS))
                self._read = basis, FrameStanding(ledger.frame(), links, POLICY)
        return self._read

    def _said(self, token: str) -> Event:
        purpose, channel = self.chance.choice([*ASKED, ("*", "*")])
        late = timedelta(days=self.chance.choice([0, 0, 0, 1, 400, 900]))
        return said(
            token, self.chance.choice(_SAYING), self._next(), self.at - late, received_at=self.at,
            purpose_code=purpose, channel_code=channel, notice_version=self.chance.choice([1, 2, 2, 2]),
        )  # fmt: skip

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _count(self) -> int:
        return len(list((self.home.root / "decisions").glob("*.note")))
