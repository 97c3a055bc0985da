"""The pages of deliveries: asked for by one, let out by another, sent, called back, answered."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette

from models.segments.rules import Rules
from serving.activation.approving import COUNTED_FOR, ask, begin
from serving.activation.deliveries import deliveries, delivery
from serving.activation.rounds import STOPPED_AFTER, go_round
from serving.activation.sending import send
from serving.activation.worker import go_on
from serving.console import accounts, activating, frame, sign_in
from serving.console.frame import Desk
from serving.console.looks import Looks
from serving.console.sessions import Sessions
from tests.integration.activation_shop import MovingClock, declare, describe, dispatch_of, withdraws
from tests.integration.segment_shop import AS_OF, Shop
from tests.unit.serving.open_console import PASSWORD, Browser
from troth.clock import FixedClock
from troth.home import Home

PATH = "/console/deliveries"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    made = Shop(Home(tmp_path / "home"))
    declare(made.home)
    describe(made.home)
    for name, role in (("ada", "marketer"), ("kim", "marketer"), ("pia", "privacy_officer"), ("otto", "operations")):
        accounts.add(made.home, name, [role], AS_OF, PASSWORD)
    return made


@pytest.fixture
def wall() -> MovingClock:
    return MovingClock()


@pytest.fixture
def app(shop: Shop, wall: MovingClock) -> Iterator[Starlette]:
    """The door and these pages; what is sent is sent before the answer."""

    def start(home: Home, delivery_id: str, by: str) -> None:
        go_on(dispatch_of(home, wall, rules=None), delivery_id, by)

    home = shop.home
    desk = Desk(
        home, FixedClock(AS_OF), wall, Sessions(home.root / "serving" / "console.db"), Looks(home.root / "logs")
    )
    desk = replace(desk, areas=[sign_in.area(desk), activating.area(start)])
    yield Starlette(routes=[*sign_in.routes(desk), *frame.routes(desk)])
    desk.close()


def signed_in(app: Starlette, name: str) -> Browser:
    browser = Browser(app)
    assert browser.enter(name) == 303
    return browser


def ask_for(browser: Browser, destination: str = "desk", **more: str) -> str:
    form = {"segment": "everybody", "destination": destination, "channel": "email", **more}
    begun = browser.send(f"{PATH}/new", **form)
    assert begun.status_code == 303
    address = str(begun.headers["location"])
    browser.get(address)
    assert "people would go out by email" in browser.text()
    assert browser.send(f"{address}/ask", why=" ").status_code == 422
    assert browser.send(f"{address}/ask", why="spring letter").status_code == 303
    return address


def test_one_asks_another_lets_it_out_and_it_is_sent(shop: Shop, app: Starlette) -> None:
    ada, kim = signed_in(app, "ada"), signed_in(app, "kim")
    before = deliveries(shop.home)
    address = ask_for(ada)
    assert (len(before), len(deliveries(shop.home))) == (0, 1)
    ada.get(address)
    assert "You asked for it: somebody else has to let it out." in ada.text()
    refused = ada.send(f"{address}/approve", why="mine")
    assert refused.status_code == 422
    assert "expected another person than asked for it, found ada" in ada.text()
    kim.get(PATH)
    assert "everybody to desk" in kim.text()
    assert kim.send(f"{address}/approve", why=" ").status_code == 422
    assert kim.send(f"{address}/approve", why="looked at it").status_code == 303
    kim.get(address)
    assert "Let out by kim" in kim.text()
    assert kim.send(f"{address}/send").status_code == 303
    kim.get(address)
    (done,) = deliveries(shop.home)
    assert (done.state, done.exported) == ("sent", done.expected)
    assert str(done.manifest_sha256) in kim.text()
    assert _files(done.manifest)
    assert all(file["sha256"] in kim.text() for file in _files(done.manifest))
    looks = (shop.home.root / "logs" / "console_looks.jsonl").read_text()
    assert all(each in looks for each in ("asked for delivery", "approved delivery", "sent delivery"))


def _files(manifest: str | None) -> list[dict[str, str]]:
    return list(json.loads(manifest or "{}")["files"].values())


def test_what_was_counted_is_asked_for_by_whoever_began_it_once_and_in_time(
    shop: Shop, app: Starlette, wall: MovingClock
) -> None:
    ada, kim = signed_in(app, "ada"), signed_in(app, "kim")
    form = {"segment": "everybody", "destination": "desk", "channel": "email"}
    address = str(ada.send(f"{PATH}/new", **form).headers["location"])
    kim.get(address)
    assert "counted, not asked for yet" in kim.text()
    assert "Ask for it" not in kim.text()
    assert kim.send(f"{address}/ask", why="hers").status_code == 422
    assert "expected whoever began it to ask for it, found kim" in kim.text()
    assert kim.send(f"{address}/approve", why="too early").status_code == 422
    assert kim.send(f"{address}/send").status_code == 422
    assert ada.send(f"{address}/ask", why="spring letter").status_code == 303
    assert ada.send(f"{address}/ask", why="spring letter").status_code == 422
    (found,) = deliveries(shop.home)
    assert (found.state, found.why, found.expected > 0) == ("asked", "spring letter", True)
    assert found.expires_at - wall.at > COUNTED_FOR
    forgotten = str(ada.send(f"{PATH}/new", **form).headers["location"]).rpartition("/")[2]
    wall.at += 2 * COUNTED_FOR
    go_round(dispatch_of(shop.home, wall))
    assert {each.delivery_id: each.state for each in deliveries(shop.home)} == {
        forgotten: "expired", found.delivery_id: "asked",
    }  # fmt: skip


def test_a_count_that_was_killed_is_made_by_a_round(shop: Shop, wall: MovingClock) -> None:
    dispatch = dispatch_of(shop.home, wall)
    begun = begin(dispatch, "everybody", "desk", "email", by="ada")
    go_round(dispatch)
    assert delivery(shop.home, begun.delivery_id).state == "counting"
    wall.at += 2 * STOPPED_AFTER
    go_round(dispatch)
    assert delivery(shop.home, begun.delivery_id).state == "counted"


def test_a_count_that_cannot_be_made_says_why_and_ends(shop: Shop, app: Starlette) -> None:
    ada = signed_in(app, "ada")
    shop.home.vault.unlink()
    form = {"segment": "everybody", "destination": "desk", "channel": "email"}
    address = str(ada.send(f"{PATH}/new", **form).headers["location"])
    ada.get(address)
    assert "vault: expected one" in ada.text()
    assert deliveries(shop.home)[0].state == "failed"


def test_a_privacy_officer_may_refuse_and_may_not_send(shop: Shop, app: Starlette) -> None:
    ada, pia = signed_in(app, "ada"), signed_in(app, "pia")
    address = ask_for(ada, "own_folder")
    assert pia.get(address).status_code == 200
    assert "Send it now" not in pia.text()
    assert pia.send(f"{address}/send").status_code == 403
    assert pia.get(f"{PATH}/new").status_code == 403
    assert pia.send(f"{address}/refuse", why="too many").status_code == 303
    assert deliveries(shop.home)[0].state == "refused"
    assert ada.send(f"{address}/send").status_code == 422
    assert "expected one that was let out, found one that is refused" in ada.text()


def test_who_has_no_right_to_let_out_sees_nothing_of_it(app: Starlette) -> None:
    otto = signed_in(app, "otto")
    assert otto.get(PATH).status_code == 403
    assert Browser(app).get(PATH).headers["location"].startswith("/console/sign-in")


def test_recalls_stand_with_their_age_until_they_are_answered(shop: Shop, app: Starlette, wall: MovingClock) -> None:
    dispatch = dispatch_of(shop.home, wall, rules=Rules())
    done = send(dispatch, ask(dispatch, "everybody", "own_folder", "email", by="ada", why="letter").delivery_id)
    gone = next(who["customer_id"] for who in shop.customers if who["customer_id"] in _sent_to(shop, done.delivery_id))
    withdraws(shop, gone)
    go_round(dispatch)
    wall.at = AS_OF.replace(day=20)
    kim = signed_in(app, "kim")
    kim.get(PATH)
    assert "own_folder, recall 1" in kim.text()
    assert "1 of them overdue" in kim.text()
    assert "1 withdrawn" in kim.text()
    address = f"{PATH}/{done.delivery_id}"
    assert kim.send(f"{address}/acknowledge", number="0").status_code == 422
    assert kim.send(f"{address}/acknowledge", number="0", receipt="letter of 19 May").status_code == 303
    kim.get(PATH)
    assert "Every recall was answered." in kim.text()
    kim.get(address)
    assert "answered, late" in kim.text()


def _sent_to(shop: Shop, delivery_id: str) -> str:
    return (shop.home.exports / "own" / delivery_id / "members.csv").read_text()


def test_what_does_not_fit_is_told_on_the_form(shop: Shop, app: Starlette) -> None:
    ada = signed_in(app, "ada")
    answer = ada.send(f"{PATH}/new", segment="everybody", destination="advice", channel="email")
    assert answer.status_code == 422
    assert "purpose: expected one of personalization, found marketing" in ada.text()
    assert ada.get(f"{PATH}/dlv_nothing").status_code == 404
    (shop.home.root / "destinations.yml").write_text("destinations: {x: {kind: pigeon}}")
    assert ada.get(PATH).status_code == 200
    assert "destinations.x.kind: expected one of folder, s3, webhook" in ada.text()


def test_nobody_s_data_and_no_markup_of_a_name_is_on_a_page(shop: Shop, app: Starlette) -> None:
    path = shop.home.root / "destinations.yml"
    path.write_text(path.read_text().replace("Letterbird GmbH", "<script>alert(1)</script>"))
    ada, kim = signed_in(app, "ada"), signed_in(app, "kim")
    address = ask_for(ada)
    kim.send(f"{address}/approve", why="<b>fine</b>")
    kim.send(f"{address}/send")
    for page in (PATH, address):
        shown = kim.get(page).text
        assert "<script>alert" not in shown
        assert "<b>fine" not in shown
        assert "@example.com" not in shown
        assert "cus_" not in shown
