"""The door of the console: who gets in, who does not, and what a form must carry."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import Response

from serving.console import accounts, frame, sign_in
from serving.console.charts import scale
from serving.console.frame import ROOT, Area, Desk, Page, Visit, next_page
from serving.console.looks import Looks
from serving.console.roles import RIGHTS, ROLES
from serving.console.sessions import IDLE, MOST_FAILURES, WHOLE, WINDOW, Sessions
from serving.errors import ServingError
from tests.unit.serving.open_console import ADDRESS, AT, PASSWORD, Browser
from troth.clock import FixedClock
from troth.home import Home


class MovingClock:
    def __init__(self) -> None:
        self.at = AT

    def now(self) -> datetime:
        return self.at


@pytest.fixture
def wall() -> MovingClock:
    return MovingClock()


@pytest.fixture
def desk(tmp_path: Path, wall: MovingClock) -> Iterator[Desk]:
    home = Home(tmp_path)
    accounts.add(home, "ada", ["marketer"], AT, PASSWORD)
    accounts.add(home, "otto", ["operations"], AT, PASSWORD)

    def changed(visit: Visit) -> Response:
        visit.look("changed", "email_aaaaaaaaaaaaaaaaaaaaaa", why=visit.why())
        return visit.go("/segments", "<b>changed</b>")

    def listed(visit: Visit) -> Response:
        return visit.show("you.html", "Segments", allowed=[visit.text("name")])

    made = Desk(home, FixedClock(AT), wall, Sessions(home.root / "serving" / "console.db"), Looks(home.root / "logs"))
    area = Area(
        "segments", "Segments", "/segments", "segments",
        [Page("/segments", "segments", listed), Page("/segments/change", "export", changed, "POST")],
    )  # fmt: skip
    desk = replace(made, areas=[sign_in.area(made), area])
    yield desk
    desk.close()


@pytest.fixture
def browser(desk: Desk) -> Browser:
    return Browser(Starlette(routes=[*sign_in.routes(desk), *frame.routes(desk)]))


def test_a_page_is_shown_after_signing_in_and_not_before(browser: Browser) -> None:
    sent = browser.get("/console/segments?name=tents")
    assert (sent.status_code, sent.headers["location"]) == (
        303,
        "/console/sign-in?next=/console/segments%3Fname%3Dtents",
    )
    answer = browser.post(
        "/console/sign-in", data={"name": "ada", "password": PASSWORD, "next": "/console/segments?name=tents"}
    )
    assert answer.headers["location"] == "/console/segments?name=tents"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    shown = browser.get("/console/segments?name=%3Cscript%3E")
    assert shown.status_code == 200
    assert "<script>" not in shown.text
    assert shown.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in shown.headers["content-security-policy"]


def test_over_tls_the_cookie_is_bound_to_the_host(desk: Desk) -> None:
    browser = Browser(Starlette(routes=sign_in.routes(desk)), "https://troth.example")
    answer = browser.post("/console/sign-in", data={"name": "ada", "password": PASSWORD})
    assert answer.headers["set-cookie"].startswith("__Host-troth=")
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_nobody_signs_in_over_plain_http_from_another_machine(desk: Desk) -> None:
    browser = Browser(Starlette(routes=sign_in.routes(desk)), "http://10.1.2.3")
    assert browser.enter() == 403


@pytest.mark.parametrize(("name", "password"), [("ada", "wrong"), ("nobody", PASSWORD), ("ada", ""), ("", "")])
def test_a_wrong_name_and_a_wrong_password_are_told_alike(browser: Browser, name: str, password: str) -> None:
    answer = browser.post("/console/sign-in", data={"name": name, "password": password})
    assert answer.status_code == 401
    assert sign_in.WRONG in answer.text
    assert "set-cookie" not in answer.headers


def test_who_tries_in_vain_too_often_waits_even_with_the_right_password(browser: Browser, wall: MovingClock) -> None:
    for _ in range(MOST_FAILURES):
        assert browser.enter(password="guess") == 401
    answer = browser.post("/console/sign-in", data={"name": "ada", "password": PASSWORD})
    assert answer.status_code == 429
    assert 0 < int(answer.headers["retry-after"]) <= WINDOW.total_seconds()
    wall.at += timedelta(seconds=int(answer.headers["retry-after"]))
    assert browser.enter() == 303


def test_a_form_without_the_sessions_token_or_from_elsewhere_changes_nothing(browser: Browser, desk: Desk) -> None:
    browser.enter()
    form = {"form": browser.token(), "why": "as agreed"}
    for sent, headers in (
        ({"why": "as agreed"}, {}),
        ({**form, "form": "0" * 64}, {}),
        (form, {"origin": "https://elsewhere.example"}),
        (form, {"sec-fetch-site": "cross-site"}),
        (form, {"sec-fetch-site": "same-site"}),
        (form, {"origin": "null"}),
    ):
        assert browser.post("/console/segments/change", data=sent, headers=headers).status_code == 403
    log = desk.home.root / "logs" / "console_looks.jsonl"
    assert not log.exists()
    answer = browser.post("/console/segments/change", data=form, headers={"origin": ADDRESS})
    assert answer.headers["location"] == "/console/segments"
    assert "&lt;b&gt;changed" in browser.get("/console/segments").text
    assert "changed" not in browser.get("/console/segments").text
    line = log.read_text()
    assert '"staff":"ada"' in line
    assert "email_" not in line


def test_anothers_form_token_opens_nothing(browser: Browser, desk: Desk) -> None:
    browser.enter()
    mine = browser.token()
    other = Browser(browser.app)
    other.enter()
    assert other.post("/console/segments/change", data={"form": mine, "why": "as agreed"}).status_code == 403


def test_a_role_sees_its_own_pages_alone(browser: Browser) -> None:
    browser.enter("otto")
    assert browser.get("/console/segments").status_code == 403
    assert browser.post("/console/segments/change", data={"form": "x"}).status_code == 403
    assert "Segments" not in browser.get("/console/you").text


def test_a_page_that_is_none_is_a_page_that_says_so(browser: Browser) -> None:
    answer = browser.get("/console/../../etc/passwd%00")
    assert answer.status_code == 404
    assert browser.get("/console/nowhere").status_code == 404
    assert browser.get("/console/static/nothing.css").status_code == 404


@pytest.mark.parametrize("what", ["signed out", "idle", "whole", "removed", "new password", "other roles"])
def test_a_session_ends(browser: Browser, desk: Desk, wall: MovingClock, what: str) -> None:
    browser.enter()
    assert browser.get("/console/segments").status_code == 200
    if what == "signed out":
        cookie = dict(browser.cookies)
        browser.post("/console/sign-out", data={"form": browser.token()})
        browser.cookies.update(cookie)
    elif what == "idle":
        wall.at += IDLE + timedelta(seconds=1)
    elif what == "whole":
        for _ in range(int(WHOLE / IDLE) * 2 + 1):
            browser.get("/console/segments")
            wall.at += IDLE / 2
    elif what == "removed":
        accounts.remove(desk.home, "ada")
    else:
        roles = ["marketer"] if what == "new password" else ["auditor"]
        accounts.add(desk.home, "ada", roles, AT, PASSWORD + "!")
    assert browser.get("/console/segments").status_code == 303


def test_a_made_up_cookie_is_nobody(browser: Browser) -> None:
    browser.cookies.set("troth", "x" * 4_000)
    assert browser.get("/console/segments").status_code == 303


def test_accounts_keep_no_password_and_are_their_owners_alone(desk: Desk) -> None:
    path = desk.home.root / "keys" / "accounts.json"
    text = path.read_text()
    assert PASSWORD not in text
    assert "$argon2id$v=19$m=19456,t=2,p=1$" in text
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "roles", "password"),
    [
        ("Ada", ["marketer"], PASSWORD),
        ("ada", ["chief"], PASSWORD),
        ("ada", [], PASSWORD),
        ("ada", ["marketer"], "short"),
        ("lantern", ["marketer"], "lantern lantern lantern"),
    ],
)
def test_an_account_that_would_not_do_is_refused(tmp_path: Path, name: str, roles: list[str], password: str) -> None:
    with pytest.raises(ServingError, match=r"expected .*, found "):
        accounts.add(Home(tmp_path), name, roles, AT, password)


def test_every_role_has_rights_that_are_described() -> None:
    assert {right for role in ROLES.values() for right in role.rights} == set(RIGHTS)


@given(st.text(max_size=40) | st.sampled_from(["//evil.example", "/console/../x", "https://evil.example/console"]))
def test_signing_in_leads_to_the_console_and_nowhere_else(said: str) -> None:
    found = next_page(said)
    assert found == ROOT or found.startswith((f"{ROOT}/", f"{ROOT}?"))


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_scale_holds_both_ends_in_few_steps(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    ticks = scale(low, high)
    room = (ticks[-1] - ticks[0]) * 1e-9 + 1e-9
    assert ticks[0] <= low + room
    assert ticks[-1] >= high - room
    assert 2 <= len(ticks) <= 8
