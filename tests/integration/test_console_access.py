"""Who gets through which door of the console: every route by everybody, and whatever somebody may try on a way in. Walks the app's own routes, so a new one is in.

On a home after a real run, where names hold markup and formulas.
"""

import asyncio
import csv
import io
import re
import selectors
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import polars as pl
import pytest
from starlette.routing import Route

from serving import keys
from serving.answers import clock_of
from serving.app import create_app
from serving.console.frame import ROOT, Page
from serving.console.roles import ROLES, rights_of
from serving.console.routes import Console
from serving.console.sessions import IDLE, Sessions
from serving.requests import BODY_SECONDS
from tests.browser.staffed_home import account, staffed
from tests.unit.serving.open_console import ADDRESS, Browser
from troth.clock import SystemClock
from troth.home import Home
from troth.published import current, publish

MARK = "xss-mark"
MARKUP = f"\"'></title></textarea></script><{MARK} onload=alert(1)>{{{{7*7}}}}"
FORMULA = '=HYPERLINK("http://evil.example","x")'
# Names that a source could bring: one of each two is markup, the others formulas.
NAMED = {"products": ("product_name", "brand_name"), "locations": ("location_name",)}
HOSTILE = (
    "../../keys/api.json", f"{'x' * 300}.html", "..%2f..%2f..%2fkeys%2faccounts.html", "..%2f..%2fkeys%2fapi.json", "%00", "a%00b", "x" * 3_000, "'; drop table orders; --", "%E2%80%AE", "%ff",
    MARKUP.replace("/", ""), "-1", "9" * 40, "*", ".", "{{7*7}}",
)  # fmt: skip
SECRET = ("argon2", "Traceback", "sqlite3", "PRIVATE KEY")
OUT = f"{ROOT}/sign-out"


class Everywhere:
    """The service over the home, and a browser for somebody of each role."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.app = create_app(home, clock_of(home))
        console = Console(home, SystemClock())
        self.pages = [(page, f"{ROOT}{page.path}") for area in console.desk.areas for page in area.pages]
        self.staff = {role: self.browser(role) for role in ROLES}
        customers = pl.read_parquet(current(home, "customers"))
        self.samples = {
            "customer_id": customers["customer_id"][0],
            "who": customers["customer_id"][0],
            "order_id": pl.read_parquet(current(home, "orders"))["order_id"][0],
            "sku": "SKU-00001",
            "name": "weekend_browsers",
            "form": "html",
            "number": "1",
            "path": "index.html",
        }

    def browser(self, role: str | None = None) -> Browser:
        made = Browser(self.app)
        if role:
            assert made.enter(account(role)) == 303
        return made

    def address(self, path: str, given: Mapping[str, str] = MappingProxyType({})) -> str:
        """A path with something in the place of each of its parameters."""
        return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: given.get(found[1]) or self.samples.get(found[1], "1"), path)


@pytest.fixture(scope="module")
def everywhere(ran_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everywhere]:
    home = staffed(ran_home, tmp_path_factory.mktemp("access"))
    for table, columns in NAMED.items():
        frame = pl.read_parquet(current(home, table)).with_row_index("row")
        told = pl.when(pl.col("row") % 2 == 0).then(pl.lit(MARKUP)).otherwise(pl.lit(FORMULA))
        draft = home.root / f"{table}.draft.parquet"
        frame.with_columns(told.alias(column) for column in columns).drop("row").write_parquet(draft)
        publish(home, table, draft)
    yield Everywhere(home)
    for each in threading.enumerate():  # what a form began goes on beside the pages
        if each.name.startswith("export "):
            each.join(60)


class Read(HTMLParser):
    """What of a page a browser would run, and its forms: (action, method, fields)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.run: list[str] = []
        self.links: list[str] = []
        self.forms: list[tuple[str, str, dict[str, tuple[str, str]]]] = []
        self._list = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == MARK or (tag == "script" and "src" not in said) or tag in ("iframe", "object", "embed", "base"):
            self.run.append(tag)
        self.run += [name for name in said if name.startswith("on") or name == "style"]
        self.run += [value for value in said.values() if re.match(r"\s*(javascript|data):", value, re.I)]
        if tag == "a" and said.get("href", "").startswith(ROOT):
            self.links.append(said["href"])
        if tag == "form":
            self.forms.append((said.get("action", ""), said.get("method", "get").lower(), {}))
        elif self.forms and tag in ("input", "textarea", "select", "button") and said.get("name"):
            kind = said.get("type", tag)
            self._list = said["name"] if tag == "select" else ""
            self.forms[-1][2].setdefault(said["name"], (kind, said.get("value", "")))
        elif tag == "option" and self._list and "selected" in said:
            self.forms[-1][2][self._list] = ("select", said.get("value", ""))


def run_by(answer: httpx.Response) -> list[str]:
    """What a browser would run of it in our name: nothing of what may run no script, or has no origin."""
    policy = answer.headers.get("content-security-policy", "script-src")
    is_boxed = "script-src" not in policy or ("sandbox" in policy and "allow-same-origin" not in policy)
    return Read(answer.text).run if "text/html" in answer.headers.get("content-type", "") and not is_boxed else []


def harmless(everywhere: Everywhere, answer: httpx.Response, what: str) -> None:
    """That an answer is no fault, tells no secret of the home, and runs nothing."""
    assert answer.status_code < 500, (what, answer.status_code, answer.text[:500])
    assert run_by(answer) == [], what
    text = answer.text
    for secret in (*SECRET, str(everywhere.home.root)):
        assert secret not in text, (what, secret)


def walked(browser: Browser, most: int = 3) -> Iterator[tuple[str, httpx.Response]]:
    """Every page that links lead to, a few of each kind."""
    routes = [each for each in browser.app.routes if isinstance(each, Route) and "GET" in (each.methods or ())]
    ahead, known, kinds = [ROOT], {ROOT}, Counter[str]()
    while ahead:
        address = ahead.pop(0)
        path = address.partition("?")[0]
        kind = next(each.path for each in routes if each.path_regex.fullmatch(path))
        kinds[kind] += 1
        if kinds[kind] > most or path.startswith((f"{ROOT}/engineering/gx", f"{ROOT}/engineering/dbt")):
            continue
        answer = browser.get(address)
        yield address, answer
        onward = (
            [answer.headers["location"]]
            if answer.is_redirect
            else Read(answer.text).links
            if "html" in answer.headers.get("content-type", "")
            else []
        )
        for each in (link.partition("#")[0] for link in onward):
            if (
                each.startswith(ROOT)
                and each not in known
                and not each.startswith((f"{ROOT}/static", f"{ROOT}/sign-in"))
            ):
                known.add(each)
                ahead.append(each)


def test_every_page_is_open_to_the_roles_that_have_its_right_and_to_nobody_else(everywhere: Everywhere) -> None:
    for page, path in everywhere.pages:
        address = everywhere.address(path)
        for role, browser in everywhere.staff.items():
            answer = browser.request(page.method, address)
            may = page.right is None or page.right in rights_of([role])
            told = f"{page.method} {path} for {role}"
            harmless(everywhere, answer, told)
            if not may:
                assert answer.status_code == 403, told
                assert "role that may see it" in answer.text, told
            elif page.method == "GET":
                assert "role that may see it" not in answer.text, told
                assert answer.status_code != 303 or "/sign-in" not in answer.headers["location"], told
            else:
                assert answer.status_code in (403, 415), told  # a form without its token, or no form


STRANGERS = ["nobody", "forged", "expired", "another home's", "signed out", "too long", "an API key", "a form token"]


def stranger(
    everywhere: Everywhere, what: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Browser, dict[str, str]]:
    """A browser of somebody who is not signed in, and what they send besides."""
    browser, headers = everywhere.browser(), {}
    database = everywhere.home.root / "serving" / "console.db"
    if what == "forged":
        browser.cookies.set("troth", "A" * 43)
    elif what == "too long":
        browser.cookies.set("troth", "A" * 6_000)
    elif what == "expired":
        sessions = Sessions(database)
        browser.cookies.set("troth", sessions.begin("marketer", ["marketer"], "x", datetime.now(UTC) - 2 * IDLE))
        sessions.close()
    elif what == "another home's":
        other = Sessions(tmp_path_factory.mktemp("other") / "console.db")
        browser.cookies.set("troth", other.begin("marketer", tuple(ROLES), "x", datetime.now(UTC)))
        other.close()
    elif what == "signed out":
        browser = everywhere.browser("marketer")
        kept = dict(browser.cookies)
        browser.send(OUT)
        browser.cookies.update(kept)
    elif what == "an API key":
        key = keys.make_key(everywhere.home, "pages", keys.ALL_PURPOSES, SystemClock().now(), keys.SCOPES)
        headers["authorization"] = f"Bearer {key}"
        browser.cookies.set("troth", key)
    elif what == "a form token":
        browser.cookies.set("troth", everywhere.staff["marketer"].token())
    return browser, headers


@pytest.mark.parametrize("what", STRANGERS)
def test_whoever_is_not_signed_in_sees_no_page_and_changes_nothing(
    everywhere: Everywhere, what: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    browser, headers = stranger(everywhere, what, tmp_path_factory)
    for page, path in everywhere.pages:
        answer = browser.request(page.method, everywhere.address(path), headers=headers)
        told = f"{page.method} {path} for {what}"
        harmless(everywhere, answer, told)
        if page.method == "GET":
            assert (answer.status_code, answer.headers["location"].startswith(f"{ROOT}/sign-in?next=")) == (
                303,
                True,
            ), told
        else:
            assert answer.status_code == 401, told
        assert MARK not in answer.text, told


def test_a_page_without_a_right_is_one_for_whoever_is_signed_in_and_no_other_is(everywhere: Everywhere) -> None:
    assert {path for page, path in everywhere.pages if page.right is None} == {ROOT, OUT, f"{ROOT}/you"}


def test_staffs_cookies_open_nothing_that_asks_for_a_key(everywhere: Everywhere) -> None:
    browser = everywhere.staff["privacy_officer"]
    for route in everywhere.app.routes:
        assert isinstance(route, Route), "a route that this walk does not know how to ask"
        if (
            route.path.startswith("/v1/")
            and route.path not in ("/v1/health", "/v1/ready", "/v1/notices")
            and "{link}" not in route.path
        ):
            for method in (route.methods or set()) - {"HEAD"}:
                answer = browser.request(method, everywhere.address(route.path))
                assert answer.status_code in (401, 404), (method, route.path)


def test_a_form_is_taken_from_our_own_pages_with_the_token_of_its_session_alone(everywhere: Everywhere) -> None:
    own = {role: browser.token() for role, browser in everywhere.staff.items()}
    for page, path in everywhere.pages:
        if page.method != "POST":
            continue
        address = everywhere.address(path)
        role = next(each for each in ROLES if page.right is None or page.right in rights_of([each]))
        other = next(each for each in ROLES if each != role)
        browser, mine = everywhere.staff[role], {"form": own[role]}
        for form, headers in (
            ({}, {}),
            ({"form": ""}, {}),
            ({"form": "0" * 64}, {}),
            ({"form": own[other]}, {}),
            ({"form": "é" * 64}, {}),
            (mine, {"origin": "https://evil.example"}),
            (mine, {"origin": "null"}),
            (mine, {"origin": ADDRESS.replace("8400", "8401")}),
            (mine, {"sec-fetch-site": "cross-site"}),
            (mine, {"sec-fetch-site": "same-site", "origin": ADDRESS}),
        ):
            answer = browser.post(address, data=form, headers=headers)
            assert answer.status_code == (403 if form else 415), (path, form, headers)
            harmless(everywhere, answer, path)


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"form=" + b"x" * (65 * 1024), {"content-type": "application/x-www-form-urlencoded"}, 413),
        (
            b"&".join([b"f="] * 5_000),
            {"content-type": "application/x-www-form-urlencoded"},
            400,
        ),
        (b'{"form": "x"}', {"content-type": "application/json"}, 415),
        (b"form=x", {"content-type": "text/plain"}, 415),
        (b"form=x", {}, 415),
        (b"form=%ff%fe", {"content-type": "application/x-www-form-urlencoded"}, 403),
        (b"\xff\xfe", {"content-type": "application/x-www-form-urlencoded"}, 400),
        (b"--b\r\nnonsense", {"content-type": "multipart/form-data; boundary=b"}, 403),
        (b"x", {"content-type": "multipart/form-data"}, 403),
    ],
    ids=[
        "too long",
        "thousands of fields",
        "JSON",
        "text",
        "no type",
        "no text",
        "no letters",
        "half a part",
        "no boundary",
    ],
)
def test_what_is_no_form_of_a_page_is_refused_by_every_page(
    everywhere: Everywhere, content: bytes, headers: dict[str, str], status: int
) -> None:
    for page, path in [
        *everywhere.pages,
        (Page("/sign-in", None, everywhere.pages[0][0].handle, "POST"), f"{ROOT}/sign-in"),
    ]:
        if page.method == "POST":
            role = next(each for each in ROLES if page.right is None or page.right in rights_of([each]))
            answer = everywhere.staff[role].post(everywhere.address(path), content=content, headers=headers)
            harmless(everywhere, answer, path)
            refused = {status, 401} if path.endswith("/sign-in") else {status}
            assert answer.status_code in refused, (path, answer.status_code)


class Hurried(selectors.DefaultSelector):
    """Waits a thousandth of what it is told to."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout and timeout / 1_000)


class HurriedLoop(asyncio.SelectorEventLoop):
    """A loop whose seconds are thousandths."""

    def __init__(self) -> None:
        super().__init__(Hurried())

    def time(self) -> float:
        return time.monotonic() * 1_000


def test_a_form_that_never_ends_is_given_up(everywhere: Everywhere) -> None:
    browser = everywhere.staff["marketer"]
    cookie = f"troth={browser.cookies['troth']}"
    sent: list[dict[str, Any]] = []
    headers = [
        (b"host", b"127.0.0.1:8400"), (b"origin", ADDRESS.encode()), (b"cookie", cookie.encode()),
        (b"content-type", b"application/x-www-form-urlencoded"),
    ]  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": f"{ROOT}/segments/new", "raw_path": b"", "query_string": b"", "headers": headers,
        "scheme": "http", "server": ("127.0.0.1", 8400), "client": ("127.0.0.1", 1), "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    pieces = iter([{"type": "http.request", "body": b"form=", "more_body": True}])

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        return piece if piece is not None else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    with asyncio.Runner(loop_factory=HurriedLoop) as runner:
        runner.run(everywhere.app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408
    assert f"{BODY_SECONDS} seconds".encode() in sent[1]["body"]


def test_ids_of_nobody_of_elsewhere_and_of_no_kind_lead_nowhere(everywhere: Everywhere) -> None:
    foreign = ["cus_" + "f" * 22, "ecommerce/999999999", "email_" + "a" * 22, "SKU-99999", "req_" + "a" * 22]
    for page, path in everywhere.pages:
        if page.method != "GET" or "{" not in path:
            continue
        role = next(each for each in ROLES if page.right in rights_of([each]))
        for value in (*HOSTILE, *foreign):
            given = dict.fromkeys(re.findall(r"\{(\w+)", path), value)
            answer = everywhere.staff[role].get(everywhere.address(path, given))
            told = f"{path} of {value[:40]}"
            harmless(everywhere, answer, told)
            assert answer.status_code in (200, 303, 400, 403, 404, 422), (told, answer.status_code)
            assert "troth_" not in answer.text, told
            assert '"key_hash"' not in answer.text, told


def test_questions_that_are_none_break_no_page(everywhere: Everywhere) -> None:
    names = (
        "page",
        "by",
        "kind",
        "name",
        "state",
        "place",
        "week",
        "sku",
        "who",
        "q",
        "at",
        "count",
        "use",
        "sort",
        "note",
    )
    for page, path in everywhere.pages:
        if page.method == "GET":
            role = next(each for each in ROLES if page.right is None or page.right in rights_of([each]))
            for value in ("\0", "x" * 3_000, MARKUP, "-1", "9" * 400, "é\u202e", "%", "2026-13-45"):
                answer = everywhere.staff[role].get(everywhere.address(path), params=dict.fromkeys(names, value))
                harmless(everywhere, answer, f"{path}?{value[:10]}")


def forms_of(browser: Browser) -> Iterator[tuple[str, str, dict[str, tuple[str, str]]]]:
    """Every form on the pages that links lead to, one of each address."""
    known: set[str] = set()
    for _, answer in walked(browser, 2):
        if "html" in answer.headers.get("content-type", ""):
            for action, method, fields in Read(answer.text).forms:
                if action not in known and action != OUT:
                    known.add(action)
                    yield action, method, fields


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "payload", [MARKUP, FORMULA, "\0", "x" * 20_000], ids=["markup", "formula", "null byte", "long"]
)
def test_whatever_is_typed_into_any_field_comes_out_as_text_or_not_at_all(
    everywhere: Everywhere, role: str, payload: str
) -> None:
    browser = everywhere.staff[role]
    for action, method, fields in list(forms_of(browser)):
        typed = {
            name: payload if kind in ("text", "search", "textarea", "input", "email", "number", "date") else value
            for name, (kind, value) in fields.items()
        }
        answer = (
            browser.get(action, params=typed)
            if method == "get"
            else browser.send(action, **{k: v for k, v in typed.items() if k != "form"})
        )
        harmless(everywhere, answer, f"{method} {action} as {role}")
        if answer.is_redirect:
            harmless(everywhere, browser.get(answer.headers["location"]), f"after {action} as {role}")


@pytest.mark.parametrize("role", ROLES)
def test_names_in_the_data_come_out_as_text_on_every_page_and_in_every_download(
    everywhere: Everywhere, role: str
) -> None:
    for address, answer in walked(everywhere.staff[role]):
        harmless(everywhere, answer, address)
        if "text/csv" in answer.headers.get("content-type", ""):
            for row in csv.reader(io.StringIO(answer.text)):
                for cell in row:
                    assert not re.match(r"[=+@\t\r]|-[^\d]", cell), (address, cell)


def test_names_in_the_data_were_there_to_be_seen(everywhere: Everywhere) -> None:
    shown = [answer.text for _, answer in walked(everywhere.staff["operations"])]
    assert any(MARK in text for text in shown)
    assert any("HYPERLINK" in text for text in shown)
