"""Recorded stock as of two times, against a replay: the landed files received by then, read into a home of their own.

Questions are (SKU, location, valid time, known time) at random, half of them at the very moment of a movement, the known times among the
very moments at which files were received. One side reads the published movements of the whole home; the other never saw a later file.
"""

import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.harness import Measure, conditions
from troth.errors import TrothError
from troth.home import Home

SUMMARY = "1,000 questions of what was on hand at one time as known at another, each equal to a replay of the files received by then."
SEED = 7
QUESTIONS = 1_000
KNOWN_TIMES = 8
# What other rooms write for SQL to read and no stock rests on: a replay needs it to be there.
BESIDES = ("consent_*", "identity_*")

Question = tuple[str, str, datetime, datetime]  # location, SKU, valid, known; naive UTC


class AsOfError(TrothError):
    """An answer differed from its replay, or could not be had."""

    code = 1


@dataclass(frozen=True)
class Answers:
    """Canonical JSON of both sides, question by question, and what it took."""

    questions: list[Question]
    ours: list[bytes]
    replayed: list[bytes]
    answer_seconds: float
    replay_seconds: float

    @property
    def different(self) -> list[int]:
        return [
            number for number, (our, other) in enumerate(zip(self.ours, self.replayed, strict=True)) if our != other
        ]


def measure(scale: str | None = None) -> Iterator[Measure]:
    """Both sides over a simulated retailer (`tiny` or `small`). Raises: AsOfError at the first answer that differs."""
    from simulator import SCALES, TINY

    scales, name = {"tiny": TINY, **SCALES}, scale or "tiny"
    if name not in scales:
        raise AsOfError(f"scale: expected one of {', '.join(scales)}, found {name}. Correct --scale.")
    with tempfile.TemporaryDirectory(prefix="troth-as-of-") as folder:
        answers = race(Path(folder), scales[name], SEED, QUESTIONS, KNOWN_TIMES)
    for number in answers.different[:1]:
        raise AsOfError(
            f"as of {answers.questions[number]}: expected {answers.replayed[number].decode()} as a replay says, "
            f"found {answers.ours[number].decode()}. Mend what is known when before publishing a number."
        )
    known = sum(b'"on_hand_units":null' not in answer for answer in answers.ours)
    stated = conditions(scale=name, seed=SEED, known_times=KNOWN_TIMES, questions=QUESTIONS, of_known_positions=known, replay_seconds=round(answers.replay_seconds, 1))  # fmt: skip
    yield Measure(
        "as_of_equal_to_replay",
        len(answers.ours) - len(answers.different),
        "answers",
        "higher",
        QUESTIONS,
        conditions=stated,
    )
    yield Measure("as_of_answers", len(answers.ours) / answers.answer_seconds, "answers/s", "higher", conditions=stated)


def race(folder: Path, scale: Any, seed: int, questions: int, known_times: int) -> Answers:
    """Simulate, take and build a home; ask it; and for each known time build one of the files received by then, and ask that."""
    import polars as pl

    from models.stock.history import MOVEMENTS, QUESTION, SUPERSEDED, stock_as_of_frame
    from orchestration import stages, warehouse
    from orchestration.identities import resolve_identities
    from simulator import simulate
    from troth.clock import FixedClock

    home = Home(folder / "whole")
    simulate(home, scale, seed)
    until = _take(home)
    stages.append_consents(home, FixedClock(until), lambda *_: None)
    resolve_identities(home, until, lambda *_: None)
    parsed = _parsed(home, folder / "parsed")
    _build(home, until, parsed)
    warehouse.publish_tables(home, [MOVEMENTS, SUPERSEDED])
    asked = _questions(home, random.Random(seed), questions, known_times)
    began = time.perf_counter()
    answered = stock_as_of_frame(home, pl.DataFrame(asked, schema=QUESTION, orient="row"))
    answer_seconds = time.perf_counter() - began
    ours = [canonical(question, on_hand, count) for question, on_hand, count in zip(
        asked, answered["on_hand_units"], answered["movement_count"], strict=True)]  # fmt: skip
    began = time.perf_counter()
    replayed: dict[Question, bytes] = {}
    for known in sorted({question[3] for question in asked}):
        then = replay(home, folder / f"known-{known:%Y%m%dT%H%M%S}", known, parsed)
        replayed |= _told(then, [question for question in asked if question[3] == known])
        shutil.rmtree(then.root)
    return Answers(asked, ours, [replayed[q] for q in asked], answer_seconds, time.perf_counter() - began)


def replay(home: Home, folder: Path, known_at: datetime, parsed: Path) -> Home:
    """A home that got the landed files received by `known_at` and no other, taken and built as any."""
    then = Home(folder)
    until_ns = int(known_at.replace(tzinfo=UTC).timestamp() * 1_000_000) * 1000
    for path in sorted(path for path in home.landing.rglob("*") if path.is_file()):
        if path.stat().st_mtime_ns <= until_ns:
            copy = then.landing / path.relative_to(home.landing)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    _take(then)
    for pattern in BESIDES:
        for table in home.raw.glob(pattern):
            shutil.copytree(table, then.raw / table.name)
    _build(then, known_at.replace(tzinfo=UTC), parsed)
    return then


def canonical(question: Question, on_hand_units: int | None, movement_count: int) -> bytes:
    """An answer as bytes that are equal when it is: sorted names, no spaces."""
    location, sku, valid, known = question
    told = {
        "location_code": location, "sku": sku, "valid_at": valid.isoformat(), "known_at": known.isoformat(),
        "on_hand_units": on_hand_units, "movement_count": movement_count,
    }  # fmt: skip
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def _take(home: Home) -> datetime:
    from orchestration import stages, taking
    from orchestration.catalog import SOURCES

    for source in SOURCES:
        taking.take(home, taking.plan(home, source.name), workers=1)
    return stages.known_until(home)


def _questions(home: Home, chance: random.Random, count: int, known_times: int) -> list[Question]:
    """Random positions of the home and times: known among the times files were received, valid anywhere or just when something moved."""
    import duckdb

    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        moves = connection.execute(
            "select location_code, sku, occurred_at from stock_movements union all "
            "select location_code, sku, occurred_at from superseded_movements order by all"
        ).fetchall()
        known = [row[0] for row in connection.execute(
            "select known_at from stock_movements union select superseded_at from superseded_movements order by 1").fetchall()]  # fmt: skip
    times = sorted(chance.sample(known, min(known_times, len(known))))
    first, last = min(move[2] for move in moves), known[-1]
    asked = []
    for number in range(count):
        location, sku, moved = chance.choice(moves)
        anywhere = first + timedelta(seconds=chance.randrange(int((last - first).total_seconds()) + 1))
        asked.append((location, sku, moved if number % 2 else anywhere, chance.choice(times)))
    return asked


def _told(home: Home, asked: Sequence[Question]) -> Mapping[Question, bytes]:
    """What a home without a later file says: the plain sum of its movements."""
    import duckdb

    query = "select sum(units)::bigint, count(*) from stock_movements where location_code = ? and sku = ? and occurred_at <= ?"
    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        return {
            question: canonical(question, *connection.execute(query, question[:3]).fetchall()[0]) for question in asked
        }


def _parsed(home: Home, target: Path) -> Path:
    from orchestration import warehouse

    _dbt(["--quiet", "parse"], {**warehouse.dbt_environment(home, None), "DBT_TARGET_PATH": str(target)})
    return target


def _build(home: Home, until: datetime, parsed: Path) -> None:
    """The movements and what they rest on, from an already parsed project."""
    from orchestration import warehouse

    target = home.root / "dbt"
    shutil.copytree(parsed, target)
    variables = json.dumps({"as_of_at": until.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
    _dbt(
        ["run", "--select", "+stock_movements", "+superseded_movements", "--vars", variables],
        warehouse.dbt_environment(home, until),
    )


def _dbt(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    from orchestration import warehouse

    done = subprocess.run(
        [warehouse.dbt_executable(), *arguments, "--project-dir", str(warehouse.PROJECT)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise AsOfError(
            f"dbt {arguments[0]}: expected it to succeed, found exit code {done.returncode}. Mend this:\n{done.stdout[-4000:]}"
        )
