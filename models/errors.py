"""The one base class of this room's errors."""

from troth.errors import TrothError


class ModelsError(TrothError):
    """A training set, a model or a segment that cannot be had, in words."""
