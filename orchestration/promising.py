"""`troth ask promise`: what a shop would be promised, as a table or as JSON. Parses and prints; what is decided is in `models/promise`."""

from datetime import datetime
from typing import Annotated

import typer

from orchestration.options import HomeOption, JsonOption
from troth.settings import here


def ask_promise(
    sku: Annotated[list[str], typer.Option(help="Item; give it again for each line.")],
    near: Annotated[str, typer.Option(help="Where: a postal code, or latitude,longitude. Not kept.")],
    units: Annotated[
        list[int] | None, typer.Option(help="Pieces of each item, in their order; 1 where left out.")
    ] = None,
    by: Annotated[datetime | None, typer.Option(help="Wanted by this time, UTC.")] = None,
    store: Annotated[str | None, typer.Option(help="Collect at this store and nowhere else.")] = None,
    channel: Annotated[str, typer.Option(help="Sales channel that asks.")] = "web",
    partial: Annotated[bool, typer.Option("--partial", help="Leave out what cannot be had.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Can I have it, where, when and how surely: the way chosen, others nobody can call worse, and why not otherwise."""
    import msgspec

    from models.promise.asking import Ask, Line
    from models.promise.promising import promise
    from serving.answers import clock_of
    from serving.promising.shapes import spot_of
    from serving.promising.shop import Shop
    from serving.server import hub_clock

    counts = units or []
    if len(counts) > len(sku) or any(count < 1 for count in counts):
        raise typer.BadParameter("expected at most one --units of 1 or more for each --sku; correct them")
    lines = tuple(Line(item, counts[number] if number < len(counts) else 1) for number, item in enumerate(sku))
    served = here(home).home
    asked = Ask(
        lines=lines, spot=spot_of(near), channel=channel, store=store, allow_partial=partial, wanted_by=_aware(by)
    )
    answer = promise(asked, hub_clock(served, clock_of(served)).now(), Shop(served).grounds())
    if as_json:
        print(msgspec.json.encode(answer).decode())
        return
    _print(answer)


def _aware(at: datetime | None) -> datetime | None:
    from datetime import UTC

    return None if at is None else at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _print(answer: object) -> None:
    from rich.table import Table

    from models.promise.asking import Promise
    from models.promise.words import moment
    from orchestration.printing import console

    assert isinstance(answer, Promise)  # noqa: S101 (so that the command imports nothing heavy)
    out = console()
    out.print(answer.text, style="bold")
    table = Table("", "way", "from", "by", "kept", "cost", "carbon", "lines", header_style="dim")
    options = [(answer.chosen, "chosen")] if answer.chosen else []
    for option, mark in [*options, *((each, "") for each in answer.runners_up)]:
        for number, parcel in enumerate(option.parcels):
            is_first = number == 0
            table.add_row(
                mark if is_first else "", option.way if is_first else "", f"{parcel.location_code} {parcel.carrier or ''}".strip(),
                moment(parcel), f"{option.kept_probability:.1%}" if is_first else "", f"{parcel.cost_cents / 100:.2f}",
                f"{parcel.carbon_grams / 1000:.2f} kg", ", ".join(f"{line.units} {line.sku}" for line in parcel.lines),
            )  # fmt: skip
    if table.row_count:
        out.print(table)
    for refusal in answer.refusals:
        out.print(f"[dim]{refusal.method}: {refusal.reason_code} {refusal.sku or ''}[/]", highlight=False)
    if answer.left_out:
        out.print("Left out: " + ", ".join(f"{line.units} {line.sku}" for line in answer.left_out))
    age = "unknown" if answer.age_seconds is None else f"{answer.age_seconds:,.0f} s"
    out.print(f"[dim]stock known {age} ago, log offset {answer.evidence.log_offset}, rules {answer.evidence.rules_hash[:12]}[/]", highlight=False)  # fmt: skip
