"""The base of every error of this room that a person may see."""

from troth.errors import TrothError


class ConsentError(TrothError):
    """A refusal by consent: `<what>: expected <x>, found <y>. <what to do>.`"""


class LedgerError(ConsentError):
    """The ledger cannot be trusted as it is: rolled back, forked, changed by hand or unreadable."""
