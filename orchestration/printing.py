"""Answers on a terminal: nested values as indented lines, lists of records as tables; or one JSON document."""

import json
import re
import sys
from typing import Any

_HASHES = re.compile(r"[0-9a-f.]{24,}")


def show(answer: Any, as_json: bool) -> int:
    """Print an answer (mapping, struct or dataclass). Gives the exit code: 1 where it says `is_allowed` or `is_verified` false."""
    plain = _plain(answer)
    if as_json:
        print(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        _print(console(), plain)
    refused = isinstance(plain, dict) and (plain.get("is_allowed") is False or plain.get("is_verified") is False)
    return int(refused)


def console() -> Any:
    """A console as wide as the terminal; on a pipe or in a file wide enough for a table."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=140)


def _plain(value: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(value, enc_hook=str, str_keys=True)


def _print(console: Any, value: Any, indent: int = 0) -> None:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        console.print(_table(value))
        return
    if not isinstance(value, dict):
        console.print(f"{' ' * indent}{value}", markup=False, highlight=False)
        return
    width = max((len(key) for key in value), default=0)
    for key, item in value.items():
        if isinstance(item, list) and item and isinstance(item[0], dict):
            console.print(f"{' ' * indent}{key}", style="dim", highlight=False)
            console.print(_table(item))
        elif isinstance(item, dict):
            console.print(f"{' ' * indent}{key}", style="dim", highlight=False)
            _print(console, item, indent + 2)
        else:
            text = (
                ", ".join(map(str, item))
                if isinstance(item, list)
                else f"{item:,}"
                if isinstance(item, int) and not isinstance(item, bool)
                else item
            )
            console.print(f"{' ' * indent}{key:<{width}}  {text}", markup=False, highlight=False)


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    columns = list(dict.fromkeys(key for row in rows for key in row))
    made = Table(header_style="dim", box=None, pad_edge=False)
    for column in columns:
        number = all(isinstance(row.get(column), int | float | None) for row in rows)
        made.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(_cell(row.get(column))) for column in columns))  # what stands in brackets is no markup
    return made


def _cell(value: Any) -> str:
    """A cell: nothing for None, the beginning of a hash. Machines get whole values from --json."""
    text = "" if value is None else str(value)
    return f"{text[:8]}..." if _HASHES.fullmatch(text) else text
