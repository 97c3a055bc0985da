"""The door of the console and the preference centre of shoppers, in a real browser: with and without scripts, by keyboard, narrow and wide."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.hands import Keys
from tests.browser.service import Service
from tests.browser.staffed_home import PASSWORD
from tests.browser.walking import NARROW, TOO_WIDE, WIDE, Watch, links, looked_over, shot, sign_in, walker

PLANTED = """() => { const main = document.querySelector('main');
  main.insertAdjacentHTML('beforeend', '<img src="https://elsewhere.example/x.png"><input name="nameless"><p id="long">wide</p>');
  document.getElementById('long').style.width = '2000px'; }"""
FOCUSED = """() => { const it = document.activeElement, style = getComputedStyle(it); return {
  tag: it.tagName, text: (it.innerText || it.value || it.name || '').trim().slice(0, 60), outline: style.outlineStyle, width: parseFloat(style.outlineWidth) } }"""


def tab_to(page: Page, text: str, most: int = 60) -> None:
    """Press Tab until what has this text is in focus, and can be seen to be."""
    seen = []
    for _ in range(most):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        seen.append(found["text"])
        if found["text"] == text:
            assert found["outline"] not in ("none", ""), found
            assert found["width"] >= 2, found
            return
    raise AssertionError(f"{text!r}: expected to come to it by Tab, found {seen}")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_somebody_signs_in_sees_what_they_may_do_and_signs_out(
    chromium: Browser, service: Service, screenshots: Path, scripts: bool
) -> None:
    with walker(chromium, service.address, scripts=scripts) as walk:
        page = walk.page
        page.goto("/console/you")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        page.get_by_label("Name").fill("operations")
        page.get_by_label("Password").fill("not the one I had in mind")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("Name or password is wrong.")
        walk.refusals(401)
        expect(page.get_by_label("Name")).to_have_value("operations")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("What you may do")
        expect(page.get_by_text("see promises, breaks, counts and checks")).to_be_visible()
        shot(page, screenshots, f"you-{'scripts' if scripts else 'plain'}")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
        page.go_back()
        page.goto("/console/you")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_before_and_behind_the_door_have_no_barrier(
    chromium: Browser, service: Service, screenshots: Path, dark: bool
) -> None:
    with walker(chromium, service.address, dark=dark) as walk:
        page = walk.page
        found = []
        page.goto("/console/sign-in")
        found += looked_over(page, with_dark=False)
        shot(page, screenshots, f"sign-in-{'dark' if dark else 'light'}")
        sign_in(page, "engineer", PASSWORD, "/console/you")
        found += looked_over(page, with_dark=False)
        page.goto("/console/nowhere")
        found += looked_over(page, with_dark=False)
        page.goto("/console/segments")
        walk.refusals(403, 404)
        found += looked_over(page, with_dark=False)
        shot(page, screenshots, f"problem-{'dark' if dark else 'light'}")
        assert found == []


def test_by_keyboard_alone_somebody_signs_in_skips_to_the_page_and_signs_out(
    chromium: Browser, service: Service
) -> None:
    with walker(chromium, service.address) as walk:
        page = walk.page
        page.goto("/console/sign-in?next=/console/you")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type("auditor")
        page.keyboard.press("Tab")
        page.keyboard.type(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("What you may do")
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to content")).to_be_in_viewport()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.goto("/console/you")
        tab_to(page, "Sign out")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["narrow", "wide"])
def test_a_shopper_says_yes_and_no_in_the_preference_centre(
    chromium: Browser, service: Service, screenshots: Path, scripts: bool, size: dict[str, int]
) -> None:
    with walker(chromium, service.address, scripts=scripts, size=size) as walk:
        page = walk.page
        page.goto(service.link("preferences"))
        about = page.get_by_role("region", name="Products and offers that fit you")
        for press, now in (("Say yes", "Now: yes"), ("Say no", "Now: no"), ("Say yes", "Now: yes")):
            about.get_by_role("button", name=press).click()
            expect(about.locator("strong").first).to_have_text(now)
        page.get_by_role("button", name="Say no to everything").click()
        expect(page.locator("main")).not_to_contain_text("Now: yes")
        assert page.evaluate(TOO_WIDE) <= 0
        shot(page, screenshots, f"preferences-{size['width']}-{'scripts' if scripts else 'plain'}")


def test_by_keyboard_alone_a_shopper_says_yes(chromium: Browser, service: Service) -> None:
    with walker(chromium, service.address) as walk:
        page, hands = walk.page, Keys(walk.page)
        page.goto(service.link("preferences"))
        about = page.get_by_role("region", name="Teaching our recommendations")
        hands.press("Teaching our recommendations")
        expect(about.locator("strong").first).to_have_text("Now: yes")


def test_no_page_of_a_shopper_has_a_barrier(chromium: Browser, service: Service, screenshots: Path) -> None:
    with walker(chromium, service.address) as walk:
        page, found = walk.page, []
        preferences = service.link("preferences")
        for name, address in (
            ("preferences", preferences),
            ("delete", f"{preferences}/delete"),
            ("unsubscribe", service.link("unsubscribe")),
            ("confirm", service.link("confirm")),
            ("thanks", "/thanks"),
            ("stale-link", "/preferences/none"),
        ):
            page.goto(address)
            found += looked_over(page)
            shot(page, screenshots, f"shopper-{name}")
        for address in links(page, "/notices"):
            page.goto(address)
            found += looked_over(page)
        walk.refusals(404)
        assert found == []


def test_a_barrier_a_page_too_wide_and_a_request_elsewhere_would_be_seen(chromium: Browser, service: Service) -> None:
    with chromium.new_context(base_url=service.address) as context:
        walk = Watch(service.address, context.new_page())
        page = walk.page
        page.goto("/console/sign-in")
        page.evaluate(PLANTED)
        found = " ".join(looked_over(page))
    assert all(told in found for told in ("image-alt", "label", "px wider than 360")), found
    assert [each for each in walk.amiss if "Content Security Policy" in each], walk.amiss
