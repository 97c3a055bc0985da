"""How audits collect evidence: checks in the verifier's own words, and refusals of every room taken apart into them."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from consent.errors import LedgerError
from consent.ledger.ledger import Ledger
from consent.ledger.opening import has_ledger, ledger_place, open_ledger
from consent.log.merkle import VerificationError
from consent.receipts.verifier import Refusal, Report
from troth.clock import SystemClock
from troth.errors import TrothError
from troth.home import Home

_SPOKEN = re.compile(r"(.*?): expected (.*?), found (.*?)\. (.*)", re.DOTALL)


@contextmanager
def proving(report: Report, check: str, evidence: object = "") -> Iterator[None]:
    """What is done inside proves `check`, unless something refuses it: then that is the evidence, and the audit goes on."""
    before = len(report.checks)
    try:
        yield
    except (VerificationError, TrothError) as fault:
        report.failed(refusal_of(check, fault))
    except OSError as fault:
        report.failed(Refusal(check, "files that can be read", type(fault).__name__, "Restore them from a backup"))
    else:
        if len(report.checks) == before:
            report.proved(check, evidence)


def refusal_of(check: str, fault: Exception) -> Refusal:
    """What was refused, what was expected and what was found, of an error of any room."""
    told = fault if isinstance(fault, VerificationError) else fault.__cause__
    if isinstance(told, VerificationError):
        return Refusal(told.what, told.expected, told.found, _advice(str(told)))
    spoken = _SPOKEN.fullmatch(str(fault))
    if spoken is None:
        return Refusal(check, "an answer", str(fault))
    what, expected, found, advice = spoken.groups()
    return Refusal(what, expected, found, advice.rstrip("."))


def _advice(text: str) -> str:
    spoken = _SPOKEN.fullmatch(text)
    return spoken[4].rstrip(".") if spoken else "Keep it as evidence"


@contextmanager
def reading(home: Home) -> Iterator[Ledger]:
    """The home's ledger, to be read. Raises: LedgerError when there is none, or it is in doubt."""
    if not has_ledger(home):
        raise LedgerError(f"ledger: expected one in {ledger_place(home)}, found none. Run `troth run` first.")
    with open_ledger(home, SystemClock()) as ledger:
        yield ledger
