"""`python -m simulator --home DIR --scale small --seed 7`: write a simulated retailer's landed files and its truth."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from datetime import date
from pathlib import Path

from simulator import SCALES, TINY, Scale, SimulatorError, simulate
from troth.errors import TrothError
from troth.home import Home


def arguments() -> argparse.ArgumentParser:
    """One flag per field of `Scale`, and where to write."""
    parser = argparse.ArgumentParser(
        prog="python -m simulator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True, help="the home to write into: DIR/landing and DIR/truth")
    parser.add_argument(
        "--scale",
        choices=[*SCALES, "tiny"],
        default="small",
        help="a size with a name; the flags below change parts of it",
    )
    parser.add_argument("--seed", type=int, default=7, help="the same seed gives the same bytes")
    parser.add_argument("--force", action="store_true", help="remove what DIR/landing and DIR/truth hold first")
    for field in fields(Scale):
        kind: Callable[[str], object] = _day if field.type is date else type(getattr(SCALES["small"], field.name))
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=kind, default=None, metavar=kind.__name__.strip("_").upper()
        )
    return parser


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a day such as 2026-03-02, found {text!r}") from error


def chosen_scale(options: argparse.Namespace) -> Scale:
    """The named size with the changes that were asked for."""
    named = TINY if options.scale == "tiny" else SCALES[options.scale]
    changes = {field.name: getattr(options, field.name) for field in fields(Scale)}
    return replace(named, **{name: value for name, value in changes.items() if value is not None})


def make_room(home: Home, force: bool) -> None:
    """Refuse a landing folder that already holds files, or empty it and the truth when forced."""
    held = next((path for path in home.landing.rglob("*") if path.is_file()), None) if home.landing.exists() else None
    if held is not None and not force:
        raise SimulatorError(
            f"landing folder {home.landing}: expected no files, found {held.relative_to(home.landing)}. "
            "Choose another --home, or give --force to replace what is there."
        )
    for folder in (home.landing, home.truth):
        if folder.exists():
            shutil.rmtree(folder)


def _progress(stage: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{stage}: day {done} of {total}" + ("\n" if done == total else ""))
    elif done % max(1, total // 10) == 0:
        sys.stderr.write(f"{stage}: day {done} of {total}\n")
    sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments().parse_args(argv)
    try:
        scale = chosen_scale(options)
        home = Home(options.home.resolve())
        make_room(home, options.force)
        report = simulate(home, scale, options.seed, _progress)
    except (TrothError, OSError) as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    print(f"{report.files:,} files, {report.bytes / 1e6:,.0f} MB in {home.landing}; the truth is in {home.truth}")
    for table, count in report.records.items():
        print(f"  {table:36} {count:12,} records")
    print(
        f"{report.store_lines:,} lines sold in stores and {report.web_lines:,} ordered online, {report.lines_per_second:,.0f} lines/s"
    )
    print(
        f"{report.wrong_record_share:.0%} of store stock records are wrong at the end; {sum(report.malformed.values()):,} records are malformed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
