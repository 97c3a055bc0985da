"""Pages of what segments did: what may be said and no more, with a table behind every chart, and nobody named."""

import re
from pathlib import Path

import pytest

from models.results.results import looks, record
from models.segments.decision import TREATED
from tests.integration.results_shop import AT, SENT, WRITTEN, ResultsShop, customer, simulated
from tests.unit.serving.open_console import Browser, open_console
from troth.clock import FixedClock
from troth.home import Home

PAGE = f"/console/results/{WRITTEN.name}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> ResultsShop:
    """A lift of fifteen points, over two channels, measured on three days."""
    made = simulated(Home(tmp_path_factory.mktemp("home")), 21, people=3_000, lift=0.15)
    made.assign({customer(number): TREATED for number in range(60)}, SENT.replace(hour=5), "sms")
    record(made.home, [WRITTEN.name], AT.replace(day=20))
    record(made.home, [WRITTEN.name], AT.replace(day=28))
    record(made.home, [WRITTEN.name], AT)
    return made


@pytest.fixture(scope="module")
def marketer(shop: ResultsShop) -> Browser:
    return open_console(shop.home, FixedClock(AT), "marketer")


def test_the_list_names_what_went_out_and_what_may_be_said(marketer: Browser) -> None:
    assert marketer.get("/console/results").status_code == 200
    assert f'href="{PAGE}"' in marketer.shown.text
    assert "more, and not by chance" in marketer.text()


def test_a_page_says_the_difference_its_bounds_and_what_they_rest_on(marketer: Browser) -> None:
    assert marketer.get(PAGE).status_code == 200
    said = marketer.text()
    assert re.search(r"Ordered: [0-9.]+ % of the treated, [0-9.]+ % of the held out\. The difference is \+[0-9.]+ to \+[0-9.]+ points", said)  # fmt: skip
    assert "ordered twice or more" in said
    assert "3 looks were kept" in said
    assert "all channels together" in said
    assert "What was spent per order is of those who ordered, whom chance did not choose" in said
    assert marketer.shown.text.count("<svg") == 6
    assert "cus_" not in marketer.shown.text


def test_every_chart_has_its_table_and_headings_are_in_order(marketer: Browser) -> None:
    html = marketer.get(PAGE).text
    assert re.findall(r"<h([1-6])", html) == ["1", *["2"] * (html.count("<h2"))]
    charts = html.count('<figure class="chart">')
    assert charts
    assert html.count("<caption>") >= 5
    assert all(f'for="{name}"' in html for name in ("channel", "days"))


def test_a_channel_and_a_window_may_be_chosen_and_nothing_else(marketer: Browser) -> None:
    assert marketer.get(f"{PAGE}?channel=sms&days=7").status_code == 200
    assert "In the 7 days after" in marketer.text()
    assert "expected at least 30 people measured in each arm, found 0 held out" in marketer.text()
    assert "not enough data" in marketer.shown.text
    assert marketer.get(f"{PAGE}?channel=push").status_code == 400
    assert marketer.get(f"{PAGE}?days=9").status_code == 400


def test_what_never_went_out_is_said_so_and_what_was_not_measured_can_be(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 3, people=200)
    browser = open_console(shop.home, FixedClock(AT), "marketer")
    assert browser.get("/console/results/%3Cb%3E").status_code == 200
    assert "Nothing of this segment has gone out" in browser.text()
    assert "<b>" not in browser.shown.text
    assert browser.send("/console/results/unknown").status_code == 404
    assert "not measured yet" in (browser.get("/console/results"), browser.text())[1]
    browser.get(PAGE)
    assert "has not been measured yet" in browser.text()
    assert browser.send(PAGE).status_code == 303
    assert browser.get(PAGE).status_code == 200
    assert "Measured anew" in browser.text()
    assert len({looked.as_of_at for looked in looks(shop.home, WRITTEN.name)}) == 1


def test_measuring_before_anything_went_out_says_so(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 3, people=60)
    browser = open_console(shop.home, FixedClock(AT.replace(year=2025)), "marketer")
    assert browser.send(PAGE).status_code == 303
    browser.get(PAGE)
    assert "expected a file that went out before 2025-06-30" in browser.text()


def test_arms_that_do_not_match_are_said_aloud(tmp_path: Path) -> None:
    shop = simulated(Home(tmp_path), 23, people=3_000, lift=0.3, arm_lost=0.3)
    record(shop.home, [WRITTEN.name], AT)
    browser = open_console(shop.home, FixedClock(AT), "auditor")
    assert 'role="alert"' in browser.get(PAGE).text
    assert "The arms do not match." in browser.text()
    assert "not by chance" not in browser.text()


def test_who_has_no_right_to_results_sees_none(shop: ResultsShop) -> None:
    from serving.console import accounts

    accounts.add(shop.home, "otto", ["operations"], AT, "lanterns and tents in march")
    browser = open_console(shop.home, FixedClock(AT))
    browser.enter("otto", "lanterns and tents in march")
    assert browser.get(PAGE).status_code == 403
    assert browser.send(PAGE).status_code == 403
