"""The one base class of every error a person may see. Each room derives its own."""


class TrothError(Exception):
    """A refusal in words: `<what>: expected <x>, found <y>. <what to do>.`"""
