"""Figures as people read them, on a page and on a terminal alike."""

from collections.abc import Mapping

from models.results.figures import Difference, Estimate, Unit, Verdict

VERDICTS: Mapping[Verdict, str] = {
    "more": "more, and not by chance",
    "less": "less, and not by chance",
    "no_difference_seen": "no difference seen",
    "not_enough_data": "not enough data",
    "nobody_held_out": "nobody was held out",
    "arms_mismatch": "the arms do not match",
}
MISMATCH = (
    "The arms are not as large as they were drawn, and chance does not explain it: something lost people of one of them, "
    "and no difference is to be trusted. Look into what was kept of the exports before anything else."
)


def spelled(value: float, unit: Unit, *, signed: bool = False) -> str:
    """A share in percent, a difference of shares in points; cents as money; a number as it is."""
    sign = "+" if signed else ""
    if unit == "share":
        return f"{100 * value:{sign}.1f} {'points' if signed else '%'}"
    return f"{value / 100 if unit == 'cents' else value:{sign},.2f}"


def between(low: float, high: float, unit: Unit) -> str:
    """Bounds of a difference: +1.0 to +3.0 points."""
    first, second = (spelled(bound, unit, signed=True) for bound in (low, high))
    return f"{first.removesuffix(' points')} to {second}"


def sentence(found: Estimate) -> str:
    """What is to be said of a measure, and no more than that."""
    seen = (
        ""
        if found.smallest is None
        else f"a difference of {spelled(found.smallest, found.unit, signed=True)[1:]} or more"
    )
    if found.difference is None or found.treated is None or found.held_out is None:
        would = f" With so many people {seen} would be seen in four cases of five." if seen else ""
        return f"{VERDICTS[found.verdict].capitalize()}: {found.why}{would}"
    said = f"{_title(found)}: {spelled(found.treated, found.unit)} of the treated, {spelled(found.held_out, found.unit)} of the held out"
    if found.unit != "share":
        said = f"{_title(found)}: {spelled(found.treated, found.unit)} by the treated, {spelled(found.held_out, found.unit)} by the held out"
    if found.verdict in ("more", "less"):
        return f"{said}. The difference is {_bounds(found, found.difference)}, however often anybody looks."
    if found.verdict == "arms_mismatch":
        return f"{said}. No difference is to be trusted: the arms do not match."
    return f"{said}. No difference was seen; {seen} would be, in four cases of five."


def _bounds(found: Estimate, difference: Difference) -> str:
    return between(difference.always_low, difference.always_high, found.unit)


def _title(found: Estimate) -> str:
    return found.title[0].upper() + found.title[1:]
