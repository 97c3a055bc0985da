"""The base class of every refusal of activation."""

from serving.errors import ServingError


class ActivationError(ServingError):
    """`<what>: expected <x>, found <y>. <what to do>.`"""
