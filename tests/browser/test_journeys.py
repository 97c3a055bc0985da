"""What each role comes for, from signing in to what they wanted: with a mouse, without scripts, by keyboard alone, on a phone."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.browser.hands import Hands, Keys
from tests.browser.service import Service
from tests.browser.staffed_home import PASSWORD, account
from tests.browser.walking import NARROW, TOO_WIDE, WIDE, shot, sign_in, walker
from troth.published import current

WAYS = ("mouse", "no scripts", "keyboard", "phone")
Visiting = Callable[[str], "contextmanager[Hands]"]
_TRIES = 60


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def visiting(chromium: Browser, service: Service, screenshots: Path, way: str) -> Visiting:
    """Somebody of a role, signed in, in one of the ways; what they see last is kept as a picture."""

    @contextmanager
    def visit(role: str) -> Iterator[Hands]:
        size = NARROW if way == "phone" else WIDE
        with walker(chromium, service.address, scripts=way != "no scripts", size=size) as walk:
            sign_in(walk.page, account(role), PASSWORD)
            yield (Keys if way == "keyboard" else Hands)(walk.page)
            shot(walk.page, screenshots, f"journey-{role}-{way.replace(' ', '-')}")
            assert walk.page.evaluate(TOO_WIDE) <= 0

    return visit


def until(page: Page, text: str) -> None:
    """Look again until what goes on beside the pages has come so far."""
    for _ in range(_TRIES):
        if text in page.inner_text("main"):
            return
        page.wait_for_timeout(250)
        with suppress(Error):  # what was pressed may be on its way still
            page.goto(page.url)
    raise AssertionError(f"expected {text!r}, found {page.inner_text('main')[:500]}")


def an_order(service: Service) -> tuple[str, str]:
    """The name of an order, and whose it is: somebody found by it."""
    frame = pl.read_parquet(current(service.home, "orders")).filter(
        pl.col("customer_id").is_not_null(), pl.col("source_name") == "ecommerce"
    )
    row = frame.sort("order_id").row(0, named=True)
    return str(row["order_name"]), str(row["customer_id"])


def test_a_marketer_describes_a_segment_sees_how_many_it_has_and_sends_it_out(visiting: Visiting, way: str) -> None:
    name = f"buyers_{way.replace(' ', '_')}"
    with visiting("marketer") as hands:
        page = hands.page
        hands.is_on("Segments")
        hands.follow("New segment")
        hands.fill("Name", name)
        hands.fill("Whom you mean, in a sentence", "Whoever bought something.")
        hands.fill("Who answers for it", "the shop team")
        hands.choose("Fact", "order count in 90 days (customer purchases)")
        hands.choose("Comparison", "is at least")
        hands.fill("Value", "1")
        hands.check("email")
        hands.press("Save")
        hands.is_on(name)
        hands.reads("order count in 90 days is at least 1")
        hands.press("Count now")
        hands.reads("match")
        hands.follow("Send it out")
        hands.press("Decide, and write nothing yet")
        until(page, "people would be in the file")
        if "So there is nothing to write" in page.inner_text("main"):
            hands.reads("capped")  # who came before wrote to the same people, and there is a limit to that
        else:
            hands.press("Write the file for")
            until(page, "The file is written")
            hands.reads("SHA-256 of the file")
            hands.reads("Receipt")


def test_an_associate_finds_a_customer_an_order_and_where_goods_are(visiting: Visiting, service: Service) -> None:
    order_name, customer_id = an_order(service)
    with visiting("associate") as hands:
        hands.is_on("Find a customer")
        hands.fill("E-mail, phone, card number or order number", order_name)
        hands.press("Find")
        expect(hands.page).to_have_url(re.compile(customer_id))
        assert not re.search(r"\w\w@", hands.page.inner_text("main"))  # masked, and there is nothing to press
        hands.follow("Orders")
        hands.fill("Order number", order_name)
        hands.press("Find")
        hands.reads(order_name)
        hands.follow("Goods")
        hands.fill("Name or SKU", "SKU-00001")
        hands.press("Find")
        hands.reads("SKU-00001")


def test_the_contact_centre_sees_contact_data_with_a_reason_that_is_written_down(
    visiting: Visiting, service: Service
) -> None:
    order_name, customer_id = an_order(service)
    with visiting("contact_centre") as hands:
        hands.fill("E-mail, phone, card number or order number", order_name)
        hands.press("Find")
        expect(hands.page).to_have_url(re.compile(customer_id))
        assert not re.search(r"\w\w@", hands.page.inner_text("main"))
        hands.fill("Why", f"They rang about {order_name}")
        hands.press("Show it")
        expect(hands.page.locator("main")).to_contain_text(re.compile(r"\w\w@\w"))
        log = (service.home.root / "logs" / "console_looks.jsonl").read_text().splitlines()
        assert [line for line in log if '"act":"reveal"' in line and f"They rang about {order_name}" in line]
        hands.follow("Customers")


def test_an_auditor_verifies_the_ledger_and_decides_a_use_again(visiting: Visiting) -> None:
    with visiting("auditor") as hands:
        hands.is_on("Audit")
        hands.follow("The ledger")
        hands.press("Verify")
        hands.reads("verifies")
        hands.follow("Audit")
        hands.follow("Recorded uses")
        hands.is_on("Recorded uses")
        hands.page.goto("/console/audit/uses/1")  # of the run that the home comes from, whatever was sent out since
        hands.press("Decide it again and compare")
        hands.reads("The same to the byte")


def test_a_privacy_officer_takes_a_request_in_and_answers_it(visiting: Visiting, service: Service) -> None:
    _, customer_id = an_order(service)
    with visiting("privacy_officer") as hands:
        hands.follow("Requests")
        hands.choose("What is asked for", "Access: a copy of what we hold (GDPR 15)")
        hands.fill("Who asks", customer_id)
        hands.press("Take it in")
        hands.reads("Who it is about")
        if "First make sure" in hands.page.inner_text("main"):  # whoever comes second finds it checked
            hands.fill("Why, or how you know", "They showed their card in the shop")
            hands.press("Write it down")
            hands.reads("Written down.")
        hands.follow("See what would be handed over")
        hands.reads("customers")


def test_operations_see_what_was_promised_what_differs_and_what_to_count(visiting: Visiting) -> None:
    with visiting("operations") as hands:
        hands.is_on("Operations")
        hands.reads("Promise kept")
        hands.follow("What differs")
        hands.reads("open")
        hands.follow("Count list")
        hands.reads("count")
        hands.follow("How fresh")
        expect(hands.page.locator("table").first).to_be_visible()


def test_a_data_engineer_sees_what_failed_and_what_a_column_means(visiting: Visiting) -> None:
    with visiting("engineer") as hands:
        hands.is_on("Engineering")
        hands.reads("Rows set aside")
        hands.follow("Models")
        hands.follow("orders")
        hands.reads("order_id")
