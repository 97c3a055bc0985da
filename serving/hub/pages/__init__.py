"""Pages for shoppers: templates, words by language, one style sheet. No scripts, nothing loaded from anywhere.

A page is told what to say and knows neither ledger nor links. Wording is in `<language>.yml`, layout in the templates.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from consent.notices import NoticeText
from consent.rule.explanations import EXPLANATIONS
from consent.rule.policy import EVERY, Policy

FOLDER = Path(__file__).parent
DEFAULT_LANGUAGE = "en"
Words = Mapping[str, Any]


@dataclass(frozen=True)
class Block:
    """A paragraph or a list of a notice text."""

    is_list: bool
    lines: Sequence[str]


@dataclass(frozen=True)
class ShownNotice:
    """A notice text, cut into what a page shows."""

    notice_id: str
    version: int
    language_code: str
    title: str
    hash: str
    blocks: Sequence[Block]


@cache
def languages() -> dict[str, Words]:
    """Words by language, the default one first."""
    codes = sorted((path.stem for path in FOLDER.glob("*.yml")), key=lambda code: (code != DEFAULT_LANGUAGE, code))
    # YAML 1.1 takes a bare `yes` or `no` for a truth value, so the files are read as text throughout.
    found = {code: yaml.load((FOLDER / f"{code}.yml").read_text("utf-8"), Loader=yaml.BaseLoader) for code in codes}  # noqa: S506
    found[DEFAULT_LANGUAGE]["reasons"] = {code: said["shopper"].holds for code, said in EXPLANATIONS.items()}
    return found


def language_of(asked: str | None, accepted: str) -> str:
    """The language to answer in: asked for by the page's own links, else the browser's first that we have."""
    if asked in languages():
        return str(asked)
    ranked = []
    for position, part in enumerate(accepted.split(",")[:20]):
        code, _, weight = part.partition(";q=")
        try:
            ranked.append((-float(weight or 1), position, code.strip().lower().partition("-")[0]))
        except ValueError:
            continue
    return next((code for _, _, code in sorted(ranked) if code in languages()), DEFAULT_LANGUAGE)


def date(words: Words, at: datetime | None) -> str | None:
    """A date in words."""
    if at is None:
        return None
    return str(words["date"]).format(day=at.day, month=words["months"][at.month - 1], year=at.year)


def purpose_words(words: Words, policy: Policy, purpose_code: str) -> Mapping[str, str]:
    """Title, text and data of a purpose; one the words do not know speaks with the policy's description."""
    described = policy.purposes.get(purpose_code)
    fallback = {"title": purpose_code.replace("_", " "), "text": described.description if described else "", "data": ""}
    found: Mapping[str, str] = words["purposes"].get(purpose_code, fallback)
    return found


def channel_words(words: Words, policy: Policy, channel_code: str) -> str:
    return str(words["channels"].get(channel_code) or policy.channels.get(channel_code) or channel_code)


def name(words: Words, policy: Policy, purpose_code: str, channel_code: str) -> str:
    """A purpose, and its channel where it is asked by channel."""
    purpose = purpose_words(words, policy, purpose_code)["title"]
    if channel_code == EVERY:
        return purpose
    return str(words["choose"]).format(purpose=purpose, channel=channel_words(words, policy, channel_code))


def shown(notice: NoticeText) -> ShownNotice:
    """Paragraphs and lists of a text; nothing else of Markdown is used in notices."""
    blocks: list[Block] = []
    for part in notice.text.split("\n\n"):
        lines = part.strip().splitlines()
        is_list = all(line.startswith("- ") for line in lines)
        blocks.append(Block(is_list, [line.removeprefix("- ") for line in lines] if is_list else lines))
    return ShownNotice(notice.notice_id, notice.version, notice.language_code, notice.title, notice.hash, blocks)


def page(template: str, language: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page in a language, with headers that let nothing in, nothing out and nothing be kept."""
    style, policy = _style()
    found = languages()
    html = (
        _environment()
        .get_template(template)
        .render(
            language=language,
            words=found[language],
            languages={code: words["language_name"] for code, words in found.items()},
            css=style,
            **values,
        )
    )
    return HTMLResponse(html, status, {**SAFE, "Content-Security-Policy": policy, "Content-Language": language})


SAFE = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "X-Robots-Tag": "noindex",
}


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _style() -> tuple[Markup, str]:
    """The style sheet, and the policy that lets in this one style and nothing else."""
    css = (FOLDER / "hub.css").read_text("utf-8")
    digest = b64encode(sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return Markup(css), policy  # noqa: S704
