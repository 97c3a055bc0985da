"""GS1 identifiers: GTIN-14 and GLN-13 out of EPC URNs and Digital Link URIs, and words of the Core Business Vocabulary.

Sources: GS1 General Specifications 7.9 (check digit), EPC Tag Data Standard 2.0 chapters 6 and 7 (URNs), GS1 Digital
Link 1.2 (URIs), CBV 2.0 (vocabulary).
"""

import re
from functools import lru_cache

_ITEM_URN = re.compile(r"urn:epc:(?:id:sgtin|class:lgtin|idpat:sgtin):([0-9]{6,12})\.([0-9]{1,7})\..+")
_PLACE_URN = re.compile(r"urn:epc:id:(?:sgln|pgln):([0-9]{6,12})\.([0-9]{0,6})(?:\..*)?")
_ITEM_LINK = re.compile(r"https?://.+?/(?:01|gtin)/([0-9]{8,14})(?:[/?#].*)?")
_PLACE_LINK = re.compile(r"https?://.+?/(?:414|417|gln|party)/([0-9]{13})(?:[/?#].*)?")
_WORD = re.compile(
    r"(?:urn:.+:(?:bizstep|disp|btt|sdt|er):|(?:https?://ref\.gs1\.org/cbv/|cbv:)(?:BizStep|Disp|BTT|SDT|ER)-)(.+)"
)


def check_digit(digits: str) -> str:
    """Check digit behind a GTIN's or GLN's other digits: weights 3 and 1 from the right, modulo 10."""
    total = sum(int(digit) * (3 if i % 2 == 0 else 1) for i, digit in enumerate(reversed(digits)))
    return str(-total % 10)


@lru_cache(maxsize=100_000)
def is_checked(number: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    return len(number) > 1 and number.isascii() and number.isdigit() and check_digit(number[:-1]) == number[-1]


@lru_cache(maxsize=100_000)
def gtin(identifier: str) -> str | None:
    """GTIN-14 of an SGTIN or LGTIN URN, an SGTIN pattern or a Digital Link, unchecked; None for anything else."""
    urn = _ITEM_URN.fullmatch(identifier)
    if urn:
        prefix, item = urn.groups()
        digits = item[0] + prefix + item[1:]
        return digits + check_digit(digits) if len(digits) == 13 else None
    link = _ITEM_LINK.fullmatch(identifier)
    return link[1].zfill(14) if link else None


def without_serial(identifier: str) -> str:
    """An SGTIN URN as the pattern of its class, so that each class is looked up once; other identifiers as they are."""
    if identifier.startswith("urn:epc:id:sgtin:"):
        return identifier.rpartition(".")[0].replace(":id:", ":idpat:", 1) + ".*"
    return identifier


@lru_cache(maxsize=100_000)
def gln(identifier: str) -> str:
    """GLN-13 of an SGLN or PGLN URN or a Digital Link; the identifier itself where it holds none."""
    urn = _PLACE_URN.fullmatch(identifier)
    if urn and len(digits := "".join(urn.groups())) == 12:
        return digits + check_digit(digits)
    link = _PLACE_LINK.fullmatch(identifier)
    return link[1] if link and is_checked(link[1]) else identifier


@lru_cache(maxsize=10_000)
def bare_word(term: str) -> str:
    """A vocabulary term without its URN or web prefix: `shipping` of `urn:epcglobal:cbv:bizstep:shipping`."""
    word = _WORD.fullmatch(term)
    return word[1] if word else term
