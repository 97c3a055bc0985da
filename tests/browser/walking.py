"""What holds of every page, whoever opens it: no barrier that axe knows as serious, no wider than its window, nothing from elsewhere, nothing amiss."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, BrowserContext, Error, Page
from starlette.routing import Route

NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
PATIENCE_MS = 60_000  # a machine that does much else is slow, and that is no fault of a page
SERIOUS = ("serious", "critical")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ALL = {"resultTypes": ["violations"], "runOnly": TAGS}
COLOURS = {
    "resultTypes": ["violations"],
    "runOnly": {"type": "rule", "values": ["color-contrast"]},
}  # all that the dark can change
# What stands out of a page although nobody asked for it to scroll; a region that scrolls by itself does not count.
TOO_WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Watch:
    """What went wrong while somebody walked."""

    def __init__(self, address: str, page: Page) -> None:
        self.address, self.page = address, page
        self.amiss: list[str] = []
        page.on(
            "console",
            lambda said: self.amiss.append(f"console: {said.text}") if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda fault: self.amiss.append(f"script: {fault}"))
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(address) else self.amiss.append(f"asked elsewhere: {asked.url}"),
        )
        page.on("response", lambda got: self.amiss.append(f"{got.status} of {got.url}") if got.status >= 400 else None)

    def refusals(self, *statuses: int) -> None:
        """Forget what was meant to be refused: its answer, and the browser's own line about it."""
        told = "|".join(map(str, statuses))
        self.amiss = [
            each for each in self.amiss if not re.match(rf"({told}) of |console: .* status of ({told}) ", each)
        ]


@contextmanager
def walker(
    browser: Browser, address: str, *, scripts: bool = True, dark: bool = False, size: dict[str, int] = WIDE
) -> Iterator[Watch]:
    """Somebody with a browser of their own. Whatever went wrong on their way fails when they leave."""
    context: BrowserContext = browser.new_context(
        base_url=address,
        java_script_enabled=scripts,
        color_scheme="dark" if dark else "light",
        viewport=size,
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    watch = Watch(address, context.new_page())
    try:
        yield watch
        assert watch.amiss == []
    finally:
        context.close()


def sign_in(page: Page, name: str, password: str, then: str = "/console") -> None:
    page.goto(f"/console/sign-in?next={then}")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def barriers(page: Page, asked: dict[str, Any] = ALL) -> list[str]:
    """What axe calls serious or critical on this page, with where. It is a script: where scripts are off it would wait for ever."""
    session = page.context.new_cdp_session(page)
    script = f"{AXE_SCRIPT}\n;axe.run({asked})"  # by the inspector: the page's policy lets in no script of ours, and stays in force
    answer: dict[str, Any] = session.send(
        "Runtime.evaluate", {"expression": script, "awaitPromise": True, "returnByValue": True}
    )
    session.detach()
    assert "exceptionDetails" not in answer, answer
    return [
        f"{page.url}: {found['id']} ({found['impact']}): {node['target'][0]} {node['html'][:120]}: {node.get('failureSummary', '')}"
        for found in answer["result"]["value"]["violations"]
        if found["impact"] in SERIOUS
        for node in found["nodes"]
    ]


def shape(page: Page) -> list[str]:
    """What every page has, and axe does not ask for."""
    found = []
    if page.locator("h1").count() != 1:
        found.append(f"{page.url}: {page.locator('h1').count()} headings of the first level")
    if page.locator("main").count() != 1:
        found.append(f"{page.url}: no main part")
    found += [
        f"{page.url}: a table without a caption"
        for table in page.locator("table").all()
        if table.locator("caption").count() == 0
    ]
    return found


def looked_over(page: Page, *, with_dark: bool = True) -> list[str]:
    """Everything that is wrong with the page as it stands: in both sizes, in light and dark."""
    found = shape(page)
    for size in (NARROW, WIDE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        if (over := page.evaluate(TOO_WIDE)) > 0:
            found.append(f"{page.url}: {over} px wider than {size['width']}")
        if size is NARROW or not with_dark:
            found += barriers(page)
    if with_dark:
        page.emulate_media(color_scheme="dark")
        found += barriers(page, COLOURS)
        page.emulate_media(color_scheme="light")
    return found


def opened(page: Page, path: str) -> bool:
    """Go to a page; False for what a browser keeps as a file."""
    try:
        page.goto(path)
    except Error as fault:
        if "Download is starting" not in fault.message:
            raise
        return False
    return True


def links(page: Page, below: str) -> list[str]:
    """Paths that this page leads to, below a path, in their order."""
    found = page.eval_on_selector_all("a[href]", "every => every.map(a => a.href)")
    parts = [urlsplit(each) for each in found]
    here = urlsplit(page.url).netloc
    return [
        f"{each.path}{'?' + each.query if each.query else ''}"
        for each in parts
        if each.netloc == here and each.path.startswith(below)
    ]


class Kinds:
    """Of which kind a page is: the path of its route, whatever it is a page of."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = [each for each in routes if "GET" in (each.methods or ())]

    def __call__(self, path: str) -> str:
        return next(each.path for each in self._routes if each.path_regex.fullmatch(urlsplit(path).path))


def shot(page: Page, folder: Path, name: str) -> None:
    page.screenshot(path=folder / f"{name}.png", full_page=True)
