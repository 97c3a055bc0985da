"""How somebody does things on a page: with a mouse, or with Tab, Enter, Space and letters alone, seeing where they are."""

from typing import Literal

from playwright.sync_api import Locator, Page, expect

MOST_TABS = 400
IN_FOCUS = """it => {
  if (document.activeElement !== it) return null;
  const style = getComputedStyle(it);
  return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
}"""


class Hands:
    """A mouse."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def labelled(self, label: str) -> Locator:
        """The first field of a label that can be seen."""
        return self.page.get_by_label(label, exact=True).filter(visible=True).first

    def named(self, role: Literal["button", "link"], name: str) -> Locator:
        return self.page.get_by_role(role, name=name).filter(visible=True).first

    def fill(self, label: str, text: str) -> None:
        self.labelled(label).fill(text)

    def choose(self, label: str, option: str) -> None:
        self.labelled(label).select_option(label=option)

    def check(self, label: str) -> None:
        self.labelled(label).check()

    def press(self, name: str) -> None:
        self.named("button", name).click()

    def follow(self, name: str) -> None:
        self.named("link", name).click()

    def reads(self, text: str) -> None:
        """That the page they are on says something."""
        expect(self.page.locator("main")).to_contain_text(text)

    def is_on(self, heading: str) -> None:
        expect(self.page.get_by_role("heading", level=1)).to_have_text(heading)


class Keys(Hands):
    """A keyboard. Whatever is used is come to by Tab, and can be seen to be where one is."""

    def fill(self, label: str, text: str) -> None:
        self._to(self.labelled(label))
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def choose(self, label: str, option: str) -> None:
        chosen = self.labelled(label)
        self._to(chosen)
        self.page.keyboard.type(option)
        expect(chosen.locator("option:checked")).to_have_text(option)

    def check(self, label: str) -> None:
        box = self.labelled(label)
        self._to(box)
        if not box.is_checked():
            self.page.keyboard.press("Space")
        expect(box).to_be_checked()

    def press(self, name: str) -> None:
        self._to(self.named("button", name))
        self.page.keyboard.press("Enter")

    def follow(self, name: str) -> None:
        self._to(self.named("link", name))
        self.page.keyboard.press("Enter")

    def _to(self, wanted: Locator) -> None:
        expect(wanted).to_be_visible()
        for _ in range(MOST_TABS):
            self.page.keyboard.press("Tab")
            seen = wanted.evaluate(IN_FOCUS)
            if seen is not None:
                assert seen, f"{wanted}: expected to be seen to be in focus, found no outline"
                return
        raise AssertionError(f"{wanted}: expected to come to it by Tab, found no way on {self.page.url}")
