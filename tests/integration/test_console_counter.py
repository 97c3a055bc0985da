"""The counter in the whole service: a person takes their yes back by the link they were given, and the next page for staff knows it."""

import re
from pathlib import Path

from serving.app import create_app
from serving.console import accounts
from tests.unit.feature_repo.published_home import ADA
from tests.unit.serving.open_console import PASSWORD, Browser
from tests.unit.serving.open_counter import open_counter
from tests.unit.serving.open_shop import AT
from troth.clock import FixedClock

FORM = re.compile(r'name="form" value="([^"]+)"')


def test_a_link_given_at_the_counter_lets_a_person_take_back_what_the_next_page_no_longer_offers(
    tmp_path: Path,
) -> None:
    shop = open_counter(tmp_path)
    accounts.add(shop.home, "ada", ["contact_centre"], AT, PASSWORD)
    app = create_app(shop.home, FixedClock(AT))
    staff, person = Browser(app), Browser(app)
    assert staff.enter() == 303
    staff.get(f"/console/customers/{ADA}")
    assert "goes with what they bought" in staff.text()

    assert staff.send(f"/console/customers/{ADA}/link", why="asked on the phone").status_code == 200
    link = re.search(r"(/preferences/[\w-]+)", staff.shown.text)
    assert link is not None
    assert person.get(link[1]).status_code == 200
    token = FORM.search(person.shown.text)
    assert token is not None
    said = person.post(link[1], data={"form": token[1], "choice": "no:*:*"})
    assert said.status_code in (200, 303)

    staff.get(f"/console/customers/{ADA}")
    told = staff.text()
    assert "goes with what they bought" not in told
    assert "nothing personal. Refused: the person withdrew on 2 March 2026" in told
    assert "Took the yes back" in told
    assert "Ada@Pier" not in staff.shown.text


def test_where_the_ledger_is_gone_the_page_of_a_customer_is_too(tmp_path: Path) -> None:
    shop = open_counter(tmp_path)
    browser = shop.open("associate")
    for path in shop.home.root.glob("ledger.*"):
        path.unlink()
    assert browser.get(f"/console/customers/{ADA}").status_code in (404, 503)
    assert "lantern" not in browser.text().lower()
    assert browser.send("/console/customers", who=ADA).status_code == 404
    assert browser.get("/console/goods/SKU-00001").status_code == 200
