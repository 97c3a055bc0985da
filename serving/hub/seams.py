"""What the hub asks of the rest of the platform, as plain callables, and who the house is."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from consent.log.merkle import VerificationError
from consent.receipts.shopper import CONTROLLER_FILE, Controller, encoded, read_controller, shopper_receipt
from consent.rule.policy import Policy
from serving.errors import ServingError
from serving.rights.work import Work
from troth.home import Home


@dataclass(frozen=True)
class Seams:
    """Each takes a subject and a time. What is not there is not offered.

    `receipt` and `export` give a document to download, as values or as its bytes; `erase` takes a request and gives its
    number. `work` is what the desk that answers requests has done elsewhere.
    """

    receipt: Callable[[str, datetime], Any] | None = None
    export: Callable[[str, datetime], Any] | None = None
    erase: Callable[[str, datetime], str] | None = None
    work: Work | None = None


def as_json(document: Any) -> bytes:
    """A document of a seam as the bytes to send."""
    if isinstance(document, bytes | str):
        return document.encode() if isinstance(document, str) else document
    return msgspec.json.encode(document)


def controller_of(home: Home) -> Controller:
    """Who is responsible: `controller.yml` in the home, or the one that comes with consent/.

    Raises: ConsentError naming what is wrong with the file.
    """
    path = home.root / CONTROLLER_FILE.name
    return read_controller(path if path.exists() else CONTROLLER_FILE)


def receipts_of(ledger: Callable[[], Any], policy: Policy, controller: Controller) -> Callable[[str, datetime], bytes]:
    """Receipts from the ledger, for `Seams.receipt`."""

    def receipt(subject_id: str, at: datetime) -> bytes:
        try:
            return encoded(shopper_receipt(ledger(), policy, subject_id, at, controller))
        except VerificationError as evidence:
            raise ServingError(f"receipt: expected a ledger that proves it, found otherwise: {evidence}") from evidence

    return receipt
