"""One customer, one order, and goods, for whoever serves people: found, masked, under standing, and every look written down."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from consent.log.entry import subject_key
from serving.console import accounts
from serving.console.counter import Counter, Item
from serving.console.goods import matching, nearest, sku_of
from serving.console.looks import Look
from serving.console.masking import masked
from serving.console.roles import ROLES
from serving.console.routes import Console
from serving.console.searches import MOST, WINDOW, Searches
from tests.unit.feature_repo.published_home import ADA, BRAM, CLEO
from tests.unit.serving.open_console import ADDRESS, PASSWORD, Browser
from tests.unit.serving.open_counter import (
    ADAS_CARD,
    ADAS_PHONE,
    DORA,
    EMAILS,
    SHARED_PHONE,
    TEST,
    Shop,
    Ticking,
    lines_of,
    open_counter,
    said,
)
from tests.unit.serving.open_shop import AT
from troth.clock import FixedClock

NOBODY = "Nobody was found whom we may show"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """The retailer, for tests that change nothing of it."""
    return open_counter(tmp_path_factory.mktemp("counter"))


@pytest.fixture(scope="module")
def doors(made: Shop) -> Iterator[dict[str, Browser]]:
    """Somebody of each role, signed in under its name."""
    console = Console(made.home, FixedClock(AT))
    found = {}
    for role in ROLES:
        accounts.add(made.home, role, [role], AT, PASSWORD)
        found[role] = Browser(Starlette(routes=console.routes()))
        assert found[role].enter(role) == 303
    yield found
    console.close()


@pytest.fixture
def associate(doors: dict[str, Browser]) -> Browser:
    return doors["associate"]


@pytest.fixture
def centre(doors: dict[str, Browser]) -> Browser:
    return doors["contact_centre"]


def looks(shop: Shop) -> list[Look]:
    return [msgspec.json.decode(line, type=Look) for line in lines_of(shop)]


@pytest.mark.parametrize(
    "typed",
    ["ada@pier.example", " ADA@Pier.Example ", ADAS_CARD, "7001000042", ADAS_PHONE, "(503) 555-0142", ADA, "#10001", "10001", "BZ-77"],
)  # fmt: skip
def test_a_customer_is_found_by_what_they_say_of_themselves(typed: str, associate: Browser) -> None:
    found = associate.send("/console/customers", who=typed)
    assert (found.status_code, found.headers["location"]) == (303, f"/console/customers/{ADA}")


@pytest.mark.parametrize(
    "typed",
    ["nobody@pier.example", EMAILS[DORA], DORA, "cus_nobody", EMAILS[TEST], TEST, SHARED_PHONE, "#10006", "#10007", "#99999", "'; drop table"],
)  # fmt: skip
def test_nobody_several_and_who_may_not_be_served_are_answered_alike(typed: str, associate: Browser) -> None:
    found = associate.send("/console/customers", who=typed)
    assert found.status_code == 404
    said = associate.text().replace(typed, "")
    assert NOBODY in said
    assert not any(name in said for name in (ADA, BRAM, DORA))


def test_a_page_of_somebody_who_may_not_be_served_is_no_other_than_of_nobody(associate: Browser) -> None:
    pages = []
    for who in (DORA, "cus_nobody", TEST):
        assert associate.get(f"/console/customers/{who}").status_code == 404
        pages.append(associate.shown.text)
    assert len({*pages}) == 1


def test_what_was_typed_stands_in_no_address_and_no_log(made: Shop, associate: Browser) -> None:
    found = associate.send("/console/customers", who=EMAILS[ADA])
    assert "pier" not in found.headers["location"].lower()
    associate.send("/console/customers", who="somebody@else.example")
    assert not any(
        part in line.lower() for line in lines_of(made) for part in ("pier.example", "else.example", "5550142")
    )


def test_who_was_found_by_a_mere_contact_is_to_be_asked_who_they_are(associate: Browser) -> None:
    associate.send("/console/customers", who=ADAS_PHONE)
    associate.get(f"/console/customers/{ADA}")
    assert "only seen in a record" in associate.text()
    associate.send("/console/customers", who=ADAS_CARD)
    associate.get(f"/console/customers/{ADA}")
    assert "only seen in a record" not in associate.text()


def test_searches_are_counted_by_the_hour_and_then_refused(tmp_path: Path) -> None:
    searches, at = Searches(tmp_path / "console.db", most=3), AT
    assert [searches.wait_seconds("ada", at) for _ in range(3)] == [0, 0, 0]
    assert searches.wait_seconds("ada", at + timedelta(minutes=20)) == 40 * 60
    assert searches.wait_seconds("otto", at) == 0
    assert searches.wait_seconds("ada", at + WINDOW) == 0
    searches.close()


def test_whoever_looks_for_one_after_the_other_is_told_to_wait(tmp_path: Path) -> None:
    shop, wall = open_counter(tmp_path), Ticking()
    browser = shop.open("associate", wall=wall)
    searches = Searches(shop.home.root / "serving" / "console.db")
    for _ in range(MOST):
        assert searches.wait_seconds("ada", wall.now()) == 0
    searches.close()
    for path, form in (("/console/customers", {"who": ADA}), ("/console/orders", {"name": "#10001"})):
        assert browser.send(path, **form).status_code == 429
        assert "Wait 60 minutes" in browser.text() or "Wait 61 minutes" in browser.text()
    assert looks(shop)[-1].reason_code == "too_often"
    wall.at += timedelta(minutes=61)
    assert browser.enter() == 303
    assert browser.send("/console/customers", who=ADA).status_code == 303


def test_every_look_says_who_looked_at_whom_for_what_and_what_standing_said(made: Shop, centre: Browser) -> None:
    centre.get(f"/console/customers/{CLEO}")
    page, offers = looks(made)[-2:]
    assert (page.staff, page.act, page.purpose_code, page.allowed, page.reason_code) == (
        "contact_centre", "customer", "service", True, "contract",
    )  # fmt: skip
    assert (offers.act, offers.purpose_code, offers.allowed, offers.reason_code) == (
        "recommendations", "personalization", False, "withdrawn",
    )  # fmt: skip
    assert page.subject_key == offers.subject_key == subject_key(made.tokens[CLEO]).hex()
    centre.get(f"/console/customers/{DORA}")
    refused = looks(made)[-1]
    assert (refused.allowed, refused.reason_code, refused.subject_key) == (
        False, "restricted", subject_key(made.tokens[DORA]).hex(),
    )  # fmt: skip


def test_contact_data_is_masked(associate: Browser) -> None:
    associate.get(f"/console/customers/{ADA}")
    said = associate.text()
    assert "A•••@P•••.example" in said
    assert "••• ••• 42" in said
    assert "Ada@" not in associate.shown.text
    assert "555" not in associate.shown.text


def test_an_associate_sees_nothing_in_the_clear(associate: Browser) -> None:
    associate.get(f"/console/customers/{ADA}")
    assert "in the clear" not in associate.text()
    assert associate.send(f"/console/customers/{ADA}/reveal", what="email", why="calling back").status_code == 403


def test_the_contact_centre_sees_one_contact_point_once_with_a_reason_that_is_written_down(
    made: Shop, centre: Browser
) -> None:
    assert centre.send(f"/console/customers/{ADA}/reveal", what="email", why="").status_code == 422
    before = len(looks(made))
    assert centre.send(f"/console/customers/{ADA}/reveal", what="email", why="parcel came back").status_code == 200
    assert "Ada@Pier.example" in centre.shown.text
    assert "555 0142" not in centre.shown.text
    act = looks(made)[before]
    assert (act.act, act.why, act.allowed, act.subject_key) == (
        "reveal", "email: parcel came back", True, subject_key(made.tokens[ADA]).hex(),
    )  # fmt: skip
    assert not any("pier.example" in line.lower() for line in lines_of(made))
    centre.get(f"/console/customers/{ADA}")
    assert "Ada@Pier.example" not in centre.shown.text
    assert centre.send(f"/console/customers/{ADA}/reveal", what="street", why="parcel came back").status_code == 400
    assert centre.send(f"/console/customers/{DORA}/reveal", what="email", why="parcel came back").status_code == 404


@given(st.from_regex(r"[a-z0-9.+]{2,30}@[a-z0-9]{2,20}\.(com|co\.uk)", fullmatch=True))
def test_of_an_e_mail_two_letters_and_its_ending_are_shown(email: str) -> None:
    name, _, domain = email.partition("@")
    shown = masked("email", email)
    assert shown == f"{name[0]}•••@{domain[0]}•••.{email.rpartition('.')[2]}"


@given(st.text(max_size=40))
def test_what_is_no_contact_point_is_hidden_whole_and_masking_never_fails(value: str) -> None:
    assert masked("street", value) == "•••"
    for kind in ("email", "phone"):
        shown = masked(kind, value)
        assert sum(each.isalnum() for each in shown.rpartition(".")[0] or shown) <= 2


def test_what_may_be_offered_follows_standing_and_the_store_that_is_chosen(associate: Browser) -> None:
    associate.get(f"/console/customers/{ADA}?store=S001")
    said = associate.text()
    assert "goes with what they bought" in said
    assert "Storm lantern 39.00" not in said  # just bought
    associate.get(f"/console/customers/{CLEO}")
    said = associate.text()
    assert "nothing personal. Refused: the person withdrew on 25 February 2026" in said
    assert "goes with what they bought" not in said
    assert "sells well" in said
    associate.get(f"/console/customers/{CLEO}?store=DC1")
    assert "Trail lantern 39.00 · 8 at Valley" in associate.text()


def test_a_role_that_looks_at_nobody_to_personalise_is_offered_nothing_and_asks_for_nothing(
    made: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    serves = replace(ROLES["associate"], purposes=frozenset({"service"}))
    monkeypatch.setitem(ROLES, "associate", serves)
    browser = made.open("associate")
    before = len(looks(made))
    browser.get(f"/console/customers/{ADA}")
    assert browser.shown.status_code == 200
    assert "What to offer" not in browser.text()
    assert [look.act for look in looks(made)[before:] if look.act == "recommendations"] == []


def test_what_may_be_said_stands_in_words_for_every_purpose_and_channel(associate: Browser) -> None:
    associate.get(f"/console/customers/{ADA}")
    said = associate.text()
    assert re.search(r"Yes Write to a person about offers: E-mail Allowed: the person agreed on 20 February 2026", said)
    assert re.search(r"No Write to a person about offers: Text message Refused: the person was never asked", said)
    assert said.count("To tell:") == 12
    assert "Said yes: News and offers sent to you (E-mail)." in said
    associate.get(f"/console/customers/{BRAM}")
    assert "entered by an associate" in associate.text()
    assert "Perhaps several people" in associate.text()


def test_a_withdrawal_is_heard_before_anything_is_published_again(tmp_path: Path) -> None:
    shop = open_counter(tmp_path)
    browser = shop.open("associate")
    browser.get(f"/console/customers/{ADA}")
    assert "goes with what they bought" in browser.text()
    shop.say(said(shop.tokens[ADA], "withdraw", 9, 0, notice_id=None, notice_version=None))
    browser.get(f"/console/customers/{ADA}")
    assert "goes with what they bought" not in browser.text()
    assert (
        "No Show products and offers that fit what a person looked at and bought Refused: the person withdrew"
        in browser.text()
    )


def test_orders_returns_and_what_is_still_to_come_stand_on_the_page(associate: Browser) -> None:
    associate.get(f"/console/customers/{ADA}")
    said = associate.text()
    assert "Still to come #10001" in said
    assert "Late by 1 hour." in said
    assert "Bought at Pier 9." in said
    assert "1 × Storm lantern Pier 9 not yet inspected, or nobody says" in said
    assert "card 1 proved to be theirs loyalty" in said
    assert "phone 2 seen in a record of theirs, not proved ecommerce" in said


def test_a_link_to_their_preferences_is_made_with_a_reason_and_for_the_person_alone(
    made: Shop, associate: Browser
) -> None:
    assert associate.send(f"/console/customers/{ADA}/link", why="").status_code == 422
    before = len(looks(made))
    assert associate.send(f"/console/customers/{ADA}/link", why="asked at the till").status_code == 200
    found = re.search(rf'value="{ADDRESS}(/preferences/[\w-]+)"', associate.shown.text)
    assert found is not None
    act = looks(made)[before]
    assert (act.act, act.why) == ("preference_link", "asked at the till")
    assert found[1] not in "".join(lines_of(made))
    assert associate.send(f"/console/customers/{DORA}/link", why="asked at the till").status_code == 404


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"name": "#10001"}, 303),
        ({"name": "10001", "email": "ADA@pier.example"}, 303),
        ({"name": "10001", "email": "bram@quay.example"}, 404),
        ({"name": "#10006"}, 404),
        ({"name": "#10009"}, 404),
        ({"name": "#10007", "email": "ada@pier.example"}, 404),
        ({"name": ""}, 422),
    ],
)
def test_an_order_is_found_by_its_number_and_where_it_is_typed_by_whose_e_mail(
    form: dict[str, str], status: int, associate: Browser
) -> None:
    assert associate.send("/console/orders", **form).status_code == status
    assert associate.shown.headers.get("location") == ("/console/orders/ecommerce/5000" if status == 303 else None)


def test_an_order_is_told_for_staff_and_as_the_shopper_hears_it(made: Shop, associate: Browser) -> None:
    associate.get("/console/orders/ecommerce/5000")
    staff = associate.text()
    assert "0.20 USD off what was due" in staff
    assert "raw_ecommerce__orders r-1" in staff
    assert "Parcel UPS 1Z9" in staff
    assert looks(made)[-1].subject_key == subject_key(made.tokens[ADA]).hex()
    associate.get("/console/orders/ecommerce/5000?told=shopper")
    shopper = associate.text()
    assert "We could not find 1 x Storm lantern." in shopper
    assert "off what was due" not in shopper
    assert "raw_" not in shopper
    assert associate.get("/console/orders/ecommerce/5000?told=neighbour").status_code == 400


def test_of_an_order_that_may_not_be_shown_the_page_is_that_of_none(associate: Browser) -> None:
    pages = {associate.get(f"/console/orders/{order}").text for order in ("ecommerce/6000", "ecommerce/6001")}
    assert len(pages) == 1
    assert associate.shown.status_code == 404


def test_an_order_of_nobody_known_is_shown(associate: Browser) -> None:
    assert associate.get("/console/orders/ecommerce/7000").status_code == 200
    assert "Of nobody we know." in associate.text()


@pytest.mark.parametrize("role", ["marketer", "auditor", "operations", "engineer", "privacy_officer"])
def test_who_serves_nobody_sees_no_customer_and_no_order(role: str, doors: dict[str, Browser]) -> None:
    browser = doors[role]
    for path in (
        f"/console/customers/{ADA}",
        "/console/customers",
        "/console/orders",
        "/console/orders/ecommerce/5000",
    ):
        assert browser.get(path).status_code == 403
    assert browser.send(f"/console/customers/{ADA}/reveal", what="email", why="out of curiosity").status_code == 403


def test_goods_are_found_by_words_and_by_sku(associate: Browser) -> None:
    associate.get("/console/goods?find=lantern&store=S001")
    said = associate.text()
    assert "2 found" in said
    assert "Trail lantern 0 39.00" in said
    assert associate.get("/console/goods?find=nothing+like+it").status_code == 200
    assert "Nothing of that name" in associate.text()
    associate.send("/console/goods", find="sku-00001", near="")
    assert associate.shown.headers["location"] == "/console/goods/SKU-00001"


def test_what_is_found_so_far_is_a_piece_of_the_page(associate: Browser) -> None:
    assert associate.send("/console/goods/found", find="lant", store="S001").status_code == 200
    assert "<html" not in associate.shown.text
    assert "2 found" in associate.text()
    associate.get("/console/goods?find=%3Cb%3Elantern")
    assert "<b>lantern" not in associate.shown.text


def test_an_item_says_how_many_where_how_sure_on_whose_word_and_how_old(associate: Browser) -> None:
    associate.get("/console/goods/SKU-00001?store=S001")
    said = associate.text()
    assert "7 to be had at Pier 9, 83% sure that one is found. On the word of: a picker did not find it." in said
    assert "Valley 45 99%" in said
    assert "Stock known 1 h ago" in said
    associate.get("/console/goods/SKU-00002?store=S001")
    assert "None to be had at Pier 9" in associate.text()
    assert associate.get("/console/goods/SKU-99999").status_code == 404


def test_a_postal_code_leads_to_the_nearest_store_and_goes_no_further(made: Shop, associate: Browser) -> None:
    found = associate.send("/console/goods", find="SKU-00001", near="94110")
    assert (found.status_code, found.headers["location"]) == (303, "/console/goods/SKU-00001?store=S002")
    assert associate.send("/console/goods", find="SKU-00001", near="nowhere").status_code == 422
    logs = (made.home.root / "logs").glob("*.jsonl")
    assert not any("94110" in path.read_text() for path in logs)


def test_a_basket_is_promised_with_where_when_and_how_sure(associate: Browser) -> None:
    form = {"sku1": "sku-00001", "units1": "1", "near": "94110"}
    assert associate.send("/console/goods/promise", **form).status_code == 200
    said = associate.text()
    assert "Yes." in said
    assert "sure that it is kept" in said
    assert "Nothing was set aside." in said
    form = {"sku1": "SKU-00005", "units1": "900", "store": "S001"}
    assert associate.send("/console/goods/promise", **form).status_code == 200
    assert "No. We cannot promise this now." in associate.text()


@pytest.mark.parametrize(
    "form",
    [
        {"near": "94110"},
        {"sku1": "SKU-00001", "units1": "0", "near": "94110"},
        {"sku1": "SKU-00001", "units1": "many", "near": "94110"},
        {"sku1": "SKU-00001"},
        {"sku1": "SKU-00001", "near": "37.8,east"},
        {"sku1": "SKU-00001", "near": "00000"},
    ],
)
def test_a_question_that_makes_no_sense_is_shown_again_with_what_is_wrong(
    form: dict[str, Any], associate: Browser
) -> None:
    assert associate.send("/console/goods/promise", **form).status_code == 422
    assert "expected" in associate.text()


def test_a_sku_is_known_in_whatever_case_it_is_typed() -> None:
    items = {sku: Item(sku, "Kettle", "Camp", 100) for sku in ("SKU-1", "ab/c 2", "x9")}
    assert [sku_of(items, typed) for typed in ("sku-1", "ab/c 2", "AB/C 2", "X9", "kettle")] == [
        "SKU-1", "ab/c 2", "ab/c 2", "x9", None,
    ]  # fmt: skip


def test_the_nearest_store_is_no_warehouse(made: Shop) -> None:
    counter = Counter(made.home, FixedClock(AT))
    assert nearest(counter.places(), "93701") in ("S001", "S002")
    assert nearest(counter.places(), "00000") is None
    assert [item.name for item in matching(counter.items(), "LANTERN trail")] == ["Trail lantern"]
    counter.close()
