"""Consent events for benchmarks: five said at once, three tenths of the time by somebody who is known already."""

import base64
from datetime import UTC, datetime
from hashlib import sha256
from random import Random

import polars as pl

_CHANNELS = ("email", "sms", "push", "post", "onsite")
_START = datetime(2025, 1, 1, tzinfo=UTC)
_RETURNING = 0.3


class Events:
    """Endless events of a growing number of people, the same for the same seed."""

    def __init__(self, seed: int = 7) -> None:
        self._chance = Random(seed)
        self._people: list[str] = []
        self._said = 0

    def frame(self, count: int) -> pl.DataFrame:
        """The next events, with the columns of an event. Count is a multiple of five."""
        signals = range(self._said // 5, (self._said + count) // 5)
        subjects = [self._subject() for _ in signals]
        types = ["withdraw" if self._chance.random() < 0.1 else "grant" for _ in signals]
        seconds = pl.int_range(self._said, self._said + count, eager=True)
        self._said += count
        return pl.DataFrame(
            {
                "subject_id": [subject for subject in subjects for _ in _CHANNELS],
                "event_type": [each for each in types for _ in _CHANNELS],
                "channel_code": [*_CHANNELS] * len(signals),
                "signal_id": [f"sig-{signal}" for signal in signals for _ in _CHANNELS],
            }
        ).with_columns(
            *(
                (pl.lit(_START) + pl.duration(seconds=seconds)).alias(f"{clock}_at")
                for clock in ("occurred", "recorded", "received")
            ),
            purpose_code=pl.lit("marketing"),
            notice_id=pl.lit("web_banner"),
            notice_version=pl.lit(1, pl.Int64),
            language_code=pl.lit("en"),
            capture_method=pl.lit("banner_accept"),
            capture_place=pl.lit("web_banner"),
            actor_type=pl.lit("subject"),
            jurisdiction_code=pl.lit("US-CA"),
        )

    def _subject(self) -> str:
        if self._people and self._chance.random() < _RETURNING:
            return self._chance.choice(self._people)
        digest = sha256(f"person {len(self._people)}".encode()).digest()
        self._people.append("email_" + base64.b32encode(digest)[:22].decode().lower())
        return self._people[-1]
