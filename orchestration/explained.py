"""An explanation of identity on a terminal: the sentence, the two, and a waterfall of bits with a bar per field."""

from collections.abc import Iterator
from typing import Any

from models.identity.explanations import Comparison, CustomerExplanation, Explanation, FieldStep, Link, Who
from models.identity.reasons import percent

HALF = 12  # characters of a bar to either side


def render(told: Explanation | CustomerExplanation) -> Iterator[Any]:
    """What to print, top to bottom."""
    from rich.text import Text

    yield Text(told.sentence, style="bold")
    if isinstance(told, CustomerExplanation):
        for group in told.groups:
            yield _people(f"proved group {group.hub_identity_ref}", group.members)
        yield from _chain("held together by", told.links)
        yield from _chain("weighed between its groups", told.between)
    else:
        yield _people("the two", (told.first, told.second))
        if told.comparison:
            yield _waterfall(told.comparison)
            yield Text(_footing(told))
        yield from _chain("from the first to the second", told.chain)
        if told.members:
            yield _people("others of the customer" if told.is_joined else "others of both customers", told.members)
    yield Text(f"model {told.model}", style="dim")


def _people(title: str, people: tuple[Who, ...]) -> Any:
    table = _table(title, ("identifier", "of type", "told by", "customer", "how it is there", "may be joined"))
    for who in people:
        may = (
            "yes"
            if who.may_be_joined
            else f"no: {'test account' if who.is_test else who.consent_reason or 'not asked'}"
        )
        table.add_row(
            who.identity_ref, who.identity_type, who.source_name, who.customer_id, who.proof, may.replace("_", " ")
        )
    return table


def _waterfall(told: Comparison) -> Any:
    """Each step with its bits, a bar to the right for one person or to the left against, and the sum so far."""
    has_clear = any(step.clear for step in told.fields)
    clear = ("the first says", "the second says") if has_clear else ()
    table = _table(
        "in bits: each doubles the odds",
        (
            "",
            "agreement",
            "bits",
            f"{'against':>{HALF}}│for one person",
            "so far",
            "of it rarity",
            "against household",
            *clear,
        ),
    )
    for column in (2, 4, 5, 6):
        table.columns[column].justify = "right"
    table.columns[3].no_wrap, table.columns[3].min_width = True, 2 * HALF + 1
    steps: list[tuple[str, str, float, FieldStep | None]] = [
        ("before looking", "two records out of all", told.prior_bits, None),
        *((step.field.replace("_", " "), step.words, step.bits, step) for step in told.fields),
        ("household", "two of one household agree as well", told.household_bits, None),
    ]
    most = max(abs(step[2]) for step in steps) or 1.0
    so_far = 0.0
    for name, words, bits, step in steps:
        so_far += bits
        rarity = f"{step.rarity_bits:+.1f}" if step and step.rarity_bits else ""
        household = f"{step.bits_against_household:+.1f}" if step else ""
        said = [value or "" for value in (step and step.clear) or (None, None)] if has_clear else []
        table.add_row(name, words, f"{bits:+.1f}", bar(bits, most), f"{so_far:+.1f}", rarity, household, *said)
    return table


def bar(bits: float, most: float) -> str:
    """A bar of `HALF` characters to either side of a line: right for, left against."""
    length = min(round(abs(bits) / most * HALF), HALF)
    mark = "█" * length
    return f"{mark:>{HALF}}│{'':<{HALF}}" if bits < 0 else f"{'':>{HALF}}│{mark:<{HALF}}"


def _footing(told: Explanation) -> str:
    best, costs = told.comparison, told.costs
    if best is None:
        return ""
    keys = ", ".join(best.keys_shared) or "none: no run compares them"
    between = (
        f"\nbetween the customers: {told.between.against} of {told.between.pairs} pairs against, {told.between.average_bits:+.1f} bits on average"
        if told.between
        else ""
    )
    steward = (
        f"\nsteward: {told.steward.decision_type} {told.steward.decision_id} by {told.steward.actor_id}"
        if told.steward
        else ""
    )
    return (
        f"sum {best.bits:+.1f} bits = {percent(best.probability)} likely one person; bar {best.bar_bits:+.1f} bits = {best.bar_probability:.1%}, "
        f"for a wrong merge costs {costs.wrong_merge:g} and a missed one {costs.missed_merge:g}\nkeys shared: {keys}"
        f"{between}{steward}"
    )  # fmt: skip


def _chain(title: str, links: tuple[Link, ...]) -> Iterator[Any]:
    if links:
        table = _table(title, ("from", "to", "how", "in words"))
        for link in links:
            table.add_row(link.first_ref, link.second_ref, link.how, link.words)
        yield table


def _table(title: str, columns: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="dim", header_style="dim", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
