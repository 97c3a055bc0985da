"""Pages for those who work here: templates, one style sheet, one small script without which everything works. Nothing from elsewhere.

A page is told what to say. What it says of numbers, times and money is spelled here, once.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from serving.console import charts
from serving.hub.pages import SAFE as _SAFE
from serving.problems import ProblemError

FOLDER = Path(__file__).parent
KINDS = {"console.css": "text/css", "console.js": "text/javascript", "icon.svg": "image/svg+xml"}
STATIC = "/console/static"
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
SAFE = {**_SAFE, "Content-Security-Policy": POLICY}
UNKNOWN = "–"


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page. `session` is None where nobody is signed in."""
    values = {"session": None, "areas": [], "note": None, "path": "", "rights": frozenset(), **values}
    html = _environment().get_template(template).render(**values)
    return HTMLResponse(html, status, SAFE)


def fragment(template: str, **values: Any) -> HTMLResponse:
    """A piece of a page."""
    return HTMLResponse(_environment().get_template(template).render(**values), 200, SAFE)


def problem(found: ProblemError, *, is_piece: bool = False) -> HTMLResponse:
    """A refusal as a page, or a piece of one: what was expected, what was found, what to do."""
    told = found.details
    if is_piece:
        return HTMLResponse(_environment().get_template("wrong.html").render(detail=told.detail), told.status, SAFE)
    answer = page("problem.html", told.status, title=told.title, detail=told.detail)
    answer.headers.update({name: value for name, value in found.headers.items() if name == "Retry-After"})
    return answer


async def static(request: Request) -> Response:
    """The style sheet, the script or the icon, under a name that says its content, so that a browser may keep it."""
    for name, kind in KINDS.items():
        if request.path_params["name"] == _named(name):
            headers = {**SAFE, "Cache-Control": "public, max-age=31536000, immutable"}
            return Response(_content(name), headers=headers, media_type=kind)
    return Response(status_code=404, headers=SAFE)


def count(value: float | None) -> str:
    """1,234; nothing known is a dash."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Of a share between 0 and 1."""
    return UNKNOWN if share is None else f"{share:.{digits}%}"


def money(cents: float | None, currency: str = "") -> str:
    return UNKNOWN if cents is None else f"{Decimal(round(cents)) / 100:,.2f} {currency}".strip()


def moment(at: datetime | None) -> str:
    """UTC to the minute, as people read it."""
    if at is None:
        return UNKNOWN
    known = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return f"{known:%Y-%m-%d %H:%M} UTC"


def age(seconds: float | timedelta | None) -> str:
    """A length of time in its largest unit: 40 s, 12 min, 3 h, 5 days."""
    if seconds is None:
        return UNKNOWN
    left = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
    for unit, size in (("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)):
        if left >= 2 * size or (unit != "days" and left >= size):
            return f"{left / size:,.0f} {unit}"
    return f"{left:,.0f} s"


def words(code: str | None) -> str:
    """A code as people read it: never_asked, never asked."""
    return UNKNOWN if code is None else str(code).replace("_", " ")


def short(text: str | None, most: int = 12) -> str:
    """The beginning of an id or a hash."""
    return UNKNOWN if text is None else text if len(text) <= most else f"{text[:most]}…"


FILTERS: Mapping[str, Any] = {
    "count": count,
    "percent": percent,
    "money": money,
    "moment": moment,
    "age": age,
    "words": words,
    "short": short,
}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    made.globals.update(
        charts=charts,
        css=f"{STATIC}/{_named('console.css')}",
        script=f"{STATIC}/{_named('console.js')}",
        icon=f"{STATIC}/{_named('icon.svg')}",
    )
    return made


@cache
def _content(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


@cache
def _named(name: str) -> str:
    stem, _, ending = name.rpartition(".")
    return f"{stem}.{sha256(_content(name)).hexdigest()[:16]}.{ending}"
