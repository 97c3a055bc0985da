"""The record as one page that stands alone: to print, to send, to keep. No scripts, nothing from elsewhere."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from serving.console.pages import FILTERS
from serving.records.shapes import NOT_DECLARED, Record


def as_html(record: Record) -> bytes:
    """HTML 5, UTF-8."""
    return _template().render(record=record, not_declared=NOT_DECLARED).encode()


@cache
def _template() -> Template:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    return made.get_template("record.html")
