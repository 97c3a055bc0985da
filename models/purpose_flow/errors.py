"""The one base class of this folder's errors."""

from models.errors import ModelsError


class FlowError(ModelsError):
    """A query that cannot be followed, or a declaration that cannot be read or does not hold."""
