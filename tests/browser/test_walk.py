"""Whoever works here opens every page that a link leads them to: none has a barrier, is wider than its window, asks elsewhere or goes wrong."""

import re
from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from serving.console.roles import ROLES
from serving.console.routes import Console
from tests.browser.service import Service
from tests.browser.staffed_home import AT, PASSWORD, account
from tests.browser.walking import Kinds, links, looked_over, opened, shot, sign_in, walker
from troth.clock import FixedClock

MOST_OF_A_KIND = 2
# What other tools wrote, shown in a box, is theirs.
NO_PAGES = ("/console/static", "/console/sign-in", "/console/engineering/gx", "/console/engineering/dbt")


@pytest.mark.parametrize("role", ROLES)
def test_every_page_a_role_comes_to_is_open_to_all(
    chromium: Browser, service: Service, screenshots: Path, role: str
) -> None:
    kind = Kinds(Console(service.home, FixedClock(AT)).routes())
    with walker(chromium, service.address) as walk:
        page = walk.page
        sign_in(page, account(role), PASSWORD)
        wrong: list[str] = []
        ahead, kinds = [page.url.removeprefix(service.address)], Counter[str]()
        known = set(ahead)
        while ahead:
            path = ahead.pop(0)
            if kinds[kind(path)] == MOST_OF_A_KIND:
                continue
            kinds[kind(path)] += 1
            if not opened(page, path):
                continue
            wrong += looked_over(page)
            if kinds[kind(path)] == 1:
                shot(page, screenshots, f"{role}{re.sub(r'[^a-z]+', '-', kind(path).removeprefix('/console'))}")
            for each in links(page, "/console"):
                if each not in known and not each.startswith(NO_PAGES):
                    known.add(each)
                    ahead.append(each)
        wrong += walk.amiss
        assert not wrong, "\n".join(wrong)
        assert len(kinds) > 1
