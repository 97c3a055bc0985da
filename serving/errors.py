"""The base class of every refusal of this room."""

from troth.errors import TrothError


class ServingError(TrothError):
    """`<what>: expected <x>, found <y>. <what to do>.`"""
