"""The open benchmark of availability: any engine against what was physically there, in worlds whose faults are known. See README.md."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import Measure, conditions
from troth.errors import TrothError

if TYPE_CHECKING:
    from benchmarks.availability.engines import Made
    from benchmarks.availability.scoring import Joined
    from benchmarks.availability.worlds import World
    from models.stock.belief.parameters import Parameters
    from simulator import Scale

SUMMARY = "What can be found, by eight engines against the shelf's truth, on held-out seeds; --scale tiny, belief_10m"
DRAWS = True  # takes `plot` and draws its own curves
TRAINED_ON, HELD_OUT = (11, 12), (21, 22, 23)
MONTOYA_FOUND, MONTOYA_FALSE = 0.6348, 0.1552
FALSE_ALARMS = 0.10  # chosen on training seeds, with room to the peer's 15.52 %
LOST_ROOM = 0.9  # of what naive ATP loses on training seeds: others must lose no more on the held-out ones
TRIALS = 60
OURS, PEER = "belief", "naive_atp"


@dataclass(frozen=True)
class Size:
    """Which retailer, which seeds, and how long to learn. Goals are for the size they were set for."""

    scale: "Scale"
    trained_on: Sequence[int]
    held_out: Sequence[int]
    trials: int
    has_goals: bool


def measure(scale: str | None = None, data: Path | None = None, plot: Path | None = None) -> Iterator[Measure]:
    """Every engine trained and tuned on some seeds, scored on others. `data`: folder where worlds are kept. Raises: TrothError for another scale."""
    match scale or "retailer":
        case "belief_10m":
            from benchmarks.availability import size

            yield from size.measure()
        case "retailer" | "tiny" as name:
            yield from _scored(name, data or Path(tempfile.gettempdir()) / "troth-availability-worlds", plot)
        case other:
            raise TrothError(
                f"availability, scale: expected retailer, tiny or belief_10m, found {other}. Choose one of them."
            )


def _size(name: str) -> Size:
    from benchmarks.availability.worlds import RETAILER

    if name == "tiny":
        tiny = replace(RETAILER, people=1_500, stores=3, skus=60, days=14, dropped_file_rate=0.02)
        return Size(tiny, TRAINED_ON[:1], HELD_OUT[:1], 3, has_goals=False)
    return Size(RETAILER, TRAINED_ON, HELD_OUT, TRIALS, has_goals=True)


def _scored(name: str, folder: Path, plot: Path | None) -> Iterator[Measure]:
    from benchmarks.availability.worlds import world
    from orchestration.progress import RichDisplay

    size, load = _size(name), os.getloadavg()[0]
    with RichDisplay() as display:
        training = [world(folder, size.scale, seed, display.advance) for seed in size.trained_on]
        display.begin("learn")
        engines, learned = _learned(folder, training, size.trials)
        display.end("learn")
        trained = _replayed(training, engines, display)
        held_out = [world(folder, size.scale, seed, display.advance) for seed in size.held_out]
        tested = _replayed(held_out, engines, display)
    stated = conditions(
        **{"scale": name, "trained_on": list(size.trained_on), "held_out": list(size.held_out), "scikit-learn": version("scikit-learn")},
        load_average_at_start=round(load, 1), books=_accuracy(held_out), questions=len(tested[OURS][0].chance), **learned,
    )  # fmt: skip
    if plot:
        from benchmarks.availability import plots

        plots.draw({each: joined for each, (joined, _) in tested.items()}, plot)
    yield from _measures(trained, tested, stated, size.has_goals)


def _learned(folder: Path, training: Sequence["World"], trials: int) -> tuple[Mapping[str, "Made"], Mapping[str, Any]]:
    """Engines with all they take from training worlds: labels are outcomes of picks and counts, never the truth."""
    import numpy as np

    from benchmarks.availability import engines, learned
    from benchmarks.availability.replay import FIRST_DAY, mornings, setting_of
    from models.stock.belief.believing import groups_of
    from models.stock.belief.calibration import fitted, picks_of
    from models.stock.belief.filtering import Scores

    parameters = _parameters(folder, training, trials)
    labels, series, foreseen = learned.Labels(), [], []
    for each in training:
        setting, scores = setting_of(each), Scores()
        seen, belief, days = learned.Sights(setting), engines.Belief(setting, parameters, scores=scores), []
        for morning in mornings(each, setting):
            if morning.told.day >= FIRST_DAY // 2:
                labels.gather(seen, morning.told)
            seen.observe(morning.told)
            belief.observe(morning.told)
            days.append((seen.today, seen.expected))
        series.append(learned.lines_of(days, setting))
        position, chance, outcome = picks_of(scores)
        foreseen.append((chance, outcome, groups_of(belief.beliefs, position)))
    chances, outcomes, groups = (np.concatenate(part) for part in zip(*foreseen, strict=True))
    calibration = fitted(chances, outcomes, groups)
    moves, pace = learned.markov_model(series)
    model, curve = learned.boosted_model(labels), learned.books_curve(labels)
    made = engines.entrants(parameters, calibration, [
        ("calibrated_books", lambda setting: learned.BooksCurve(setting, curve)),
        ("hidden_markov", lambda setting: learned.Markov(setting, moves, pace)),
        ("gradient_boosting", lambda setting: learned.Boosted(setting, model)),
    ])  # fmt: skip
    return made, {"labels": int(sum(map(len, labels.found))), "calibrated_on_picks": calibration.picks}


def _parameters(folder: Path, training: Sequence["World"], trials: int) -> "Parameters":
    """Learned from the training worlds; kept beside them under what they follow from."""
    from benchmarks.availability.worlds import name_of
    from models.stock import belief
    from models.stock.belief.evidence import Tables
    from models.stock.belief.learning import learn
    from models.stock.belief.parameters import Parameters
    from troth.home import write_atomically

    told = hashlib.sha256(f"{trials} {[name_of(each.scale, each.seed) for each in training]}".encode())
    for path in sorted(Path(belief.__path__[0]).glob("*.py")):
        told.update(path.read_bytes())
    kept = folder / f"parameters-{told.hexdigest()[:16]}.json"
    if kept.exists():
        return Parameters.from_json(kept.read_bytes())
    found = learn([
        (Tables(each.movements, each.picks, each.counts, each.products, each.locations), each.asked_at(each.scale.days - 1)) for each in training
    ], trials=trials)  # fmt: skip
    write_atomically(kept, found.parameters.to_json())
    return found.parameters


def _replayed(
    worlds: Sequence["World"], engines: Mapping[str, "Made"], display: Any
) -> dict[str, tuple["Joined", Mapping[str, float]]]:
    """Every engine through all worlds, each world from nothing; by engine, the answers of all worlds together and what its count lists found."""
    from benchmarks.availability.replay import mornings, setting_of
    from benchmarks.availability.scoring import Answers

    answers = {name: Answers() for name in engines}
    for number, each in enumerate(worlds):
        setting = setting_of(each)
        running = {name: made(setting) for name, made in engines.items()}
        for morning in mornings(each, setting):
            display.advance("replay", number * each.scale.days + morning.told.day, len(worlds) * each.scale.days)
            for name, engine in running.items():
                engine.observe(morning.told)
                answers[name].ask(engine, morning)
    return {name: (each.joined(), each.count_shares()) for name, each in answers.items()}


def _measures(
    trained: Mapping[str, tuple["Joined", Mapping[str, float]]], tested: Mapping[str, tuple["Joined", Mapping[str, float]]], stated: Mapping[str, Any], has_goals: bool
) -> Iterator[Measure]:  # fmt: skip
    import numpy as np

    ours, naive = tested[OURS][0], tested[PEER][0]
    mine, books = ours.quality(), naive.quality()

    def goal(value: float) -> float | None:
        return value if has_goals else None

    flagged = ours.flagging(trained[OURS][0].flag_at(FALSE_ALARMS))
    strict = ours.flagging(trained[OURS][0].flag_at_precision(MONTOYA_FALSE))
    rule = naive.accepting(0.5)
    most_lost = LOST_ROOM * trained[PEER][0].accepting(0.5)["lost"]
    policy = ours.accepting(trained[OURS][0].accept_at_lost(most_lost))
    age = np.nan_to_num(ours.age, nan=stated.get("days", 60.0))
    stated = {
        **stated,
        "age_of_evidence_days": {
            "median": round(float(np.median(age)), 2),
            "p95": round(float(np.quantile(age, 0.95)), 2),
        },
    }
    yield Measure("brier", mine["brier"], "", "lower", goal(0.7), "naive ATP", books["brier"], stated)
    yield Measure("ece", mine["ece"], "", "lower", goal(0.02), conditions=stated)
    yield Measure(
        "phantoms_found", flagged["phantoms_found"], "share", "higher", goal(MONTOYA_FOUND), conditions=stated
    )
    yield Measure(
        "false_alarms", flagged["false_alarms"], "share of sound", "lower", goal(MONTOYA_FALSE), conditions=stated
    )
    yield Measure("phantoms_found_strict", strict["phantoms_found"], "share", "higher", conditions=stated)
    yield Measure("false_of_alarms_strict", strict["false_of_alarms"], "share of alarms", "lower", conditions=stated)
    yield Measure(
        "oversell_at_equal_lost",
        policy["oversell"],
        "share",
        "lower",
        goal(0.999),
        "naive ATP",
        rule["oversell"],
        stated,
    )
    yield Measure("lost_there", policy["lost"], "share", "lower", None, "naive ATP", rule["lost"], stated)
    for name, (joined, counts) in tested.items():
        told = trained[name][0]
        numbers = joined.quality()
        alarms = joined.flagging(told.flag_at(FALSE_ALARMS))
        accepts = joined.accepting(told.accept_at_lost(trained[PEER][0].accepting(0.5)["lost"]))
        for measured in ("brier", "brier_uniform", "brier_demand", "log_loss", "ece"):
            yield Measure(f"{name}.{measured}", numbers[measured], "", conditions=stated)
        yield Measure(f"{name}.phantoms_found", alarms["phantoms_found"], "share", "higher", conditions=stated)
        yield Measure(f"{name}.false_alarms", alarms["false_alarms"], "share of sound", conditions=stated)
        narrow = joined.flagging(told.flag_at_precision(MONTOYA_FALSE))
        yield Measure(f"{name}.phantoms_found_strict", narrow["phantoms_found"], "share", "higher", conditions=stated)
        yield Measure(f"{name}.false_of_alarms_strict", narrow["false_of_alarms"], "share of alarms", conditions=stated)
        yield Measure(f"{name}.oversell", accepts["oversell"], "share", conditions=stated)
        yield Measure(f"{name}.lost", accepts["lost"], "share", conditions=stated)
        yield Measure(f"{name}.promise_kept", 1 - accepts["oversell"], "share", "higher", conditions=stated)
        yield Measure(f"{name}.phantoms_per_count", counts["phantoms"], "per count", "higher", conditions=stated)
        yield Measure(f"{name}.wrong_signs_per_count", counts["wrong_signs"], "per count", "higher", conditions=stated)
        yield Measure(
            f"{name}.idle_demand_per_count", counts["idle_demand"] / 100, "a day", "higher", conditions=stated
        )


def _accuracy(worlds: Sequence["World"]) -> Mapping[str, float]:
    """How right the books of stores are on the last morning: to the piece, within two, and on whether anything is there."""
    import numpy as np

    from benchmarks.availability.replay import mornings, setting_of

    shares = []
    for each in worlds:
        setting = setting_of(each)
        *_, last = mornings(each, setting)
        gap = np.abs(last.books - last.found_units)[setting.is_store]
        same = ((last.books > 0) == (last.found_units > 0))[setting.is_store]
        shares.append((float((gap == 0).mean()), float((gap <= 2).mean()), float(same.mean())))
    return dict(
        zip(("exact", "within_two", "sign"), (round(float(part), 3) for part in np.mean(shares, axis=0)), strict=True)
    )
