"""A marketer's pages over a small shop: what they show of whom, the form that describes a segment, and the way out."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from html.parser import HTMLParser
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from models.purpose_flow import kept as purpose_flow
from models.purpose_flow.declarations import Personal
from models.purpose_flow.graph import Graph
from models.purpose_flow.inspecting import Inspection
from models.segments import definition, described, kept
from models.segments.conditions import COUNTED, Comparison, Condition, Group, Happened, Lookalike, Unless
from models.segments.definition import Rank, Segment, parse, written
from models.segments.fields import EVENTS, Checked, FieldType
from models.segments.preview import record
from models.segments.values import values
from serving.console import accounts, builder, export_work, frame, marketing, sign_in, typed
from serving.console.builder import Draft, Row, UnfitError
from serving.console.export_work import Job
from serving.console.frame import Desk
from serving.console.looks import Looks
from serving.console.sessions import Sessions
from serving.console.wording import told
from tests.integration.segment_shop import AS_OF, EVERYBODY, Shop, plain_segment
from tests.unit.models.test_segment_definition import VALUES, WORDS, compared
from tests.unit.serving.open_console import AT, PASSWORD, Browser
from troth.clock import FixedClock
from troth.home import Home

PAYLOADS = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "=HYPERLINK(0)", "{{ 7 * 7 }}", "'; drop--")
GOLD = Comparison("customers", "tier_code", "=", ("gold",))
RICH = plain_segment(
    Group(
        "all",
        (
            Comparison("customers", "tier_code", "in", ("gold", "silver")),
            Comparison("customer_purchases", "order_count_90d", ">=", ("1",)),
            Group("not", (Comparison("customers", "region_code", "missing", ()),)),
            Group("any", (
                Happened("bought", (
                    Comparison("", "category_name", "in", ("Käse & Brot", 'Salt, and "Pepper"')),
                    Comparison("", "net_cents", ">=", ("500",)),
                ), "units", ">=", 2, 36),
                Happened("viewed", (), "times", ">=", 1, 24 * 14, Unless("bought", (), "sku", 24 * 30)),
                Happened("ordered", (), "net_cents", ">=", 5_000, 24 * 90),
                Lookalike("churn", 50),
            )),
            Group("not", (Group("any", (Comparison("customers", "has_card", "=", ("false",)), GOLD)),)),
            Group("not", (Group("all", (Comparison("customers", "first_seen_at", ">", ("30 days ago",)), GOLD)),)),
        ),
    ),
    name="rich", description="Who might come to the tents.", channels=("email", "sms"), holdout_percent=10,
    rank=Rank(Comparison("customers", "first_seen_at", "known", ()), "lowest", 25),
)  # fmt: skip


class Fields(HTMLParser):
    """The fields of the forms of a page as a browser would send them, by the form's action; buttons apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self.buttons: list[str] = []
        self.labels: set[str] = set()
        self.ids: list[str] = []
        self._form: dict[str, str] | None = None
        self._select: str | None = None
        self._text: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.ids += [said["id"]] if "id" in said else []
        if tag == "form":
            self._form = self.forms.setdefault(said["action"], {})
        elif tag == "label" and "for" in said:
            self.labels.add(said["for"])
        elif self._form is None:
            return
        elif tag == "input" and "name" in said:
            kind = said.get("type", "text")
            self.labels |= {said["name"]} if kind == "hidden" else set()
            if kind not in ("checkbox", "radio") or "checked" in said:
                self._form[said["name"]] = said.get("value", "on")
        elif tag == "select":
            self._select = said["name"]
        elif tag == "option" and self._select is not None and ("selected" in said or self._select not in self._form):
            self._form[self._select] = said["value"]
        elif tag == "textarea":
            self._text, self._form[said["name"]] = said["name"], ""
        elif tag == "button":
            self.buttons.append(said.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        self._select = None if tag == "select" else self._select
        self._text = None if tag == "textarea" else self._text

    def handle_data(self, data: str) -> None:
        if self._text is not None and self._form is not None:
            self._form[self._text] += data if self._form[self._text] else data.removeprefix("\n")


@dataclass
class Desks:
    """A shop, a browser of its console, and the clock on its wall."""

    shop: Shop
    browser: Browser
    wall: FixedClock

    @property
    def home(self) -> Home:
        return self.shop.home

    def form(self, path: str) -> dict[str, str]:
        """What the page at a path would send, unchanged."""
        assert self.browser.get(path).status_code == 200
        return self.shown(path.partition("?")[0])

    def shown(self, action: str) -> dict[str, str]:
        return dict(Fields(self.browser.shown.text).forms[action])

    def send(self, path: str, **form: str) -> int:
        return self.browser.send(path, **{name: value for name, value in form.items() if name != "form"}).status_code

    def looks(self) -> list[dict[str, Any]]:
        path = self.home.root / "logs" / "console_looks.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    found = Shop(Home(tmp_path_factory.mktemp("home")), people=120, grants=8)
    described.save(found.home, RICH, "ada", AS_OF, None)
    for days in (2, 1):
        named = [described.load(found.home, name) for name in ("rich",)]
        record(found.home, named, AS_OF - timedelta(days=days), loaded=described.loader(found.home))
    return found


def opened(shop: Shop, *roles: str) -> Iterator[Desks]:
    home, wall = shop.home, FixedClock(AS_OF)
    shutil.rmtree(kept.folder_of(home) / "contacts", ignore_errors=True)  # whoever was written to in another test

    def start(home: Home, job_id: str) -> None:
        export_work.work(home, job_id, FixedClock(AS_OF), wall)

    accounts.add(home, "ada", roles, AT, PASSWORD)
    folder = home.root / "serving" / f"{'-'.join(roles)}.db"
    made = Desk(home, FixedClock(AS_OF), wall, Sessions(folder), Looks(home.root / "logs"))
    desk = replace(made, areas=[sign_in.area(made), marketing.area(start)])
    browser = Browser(Starlette(routes=[*sign_in.routes(desk), *frame.routes(desk)]))
    assert browser.enter() == 303
    yield Desks(shop, browser, wall)
    desk.close()
    accounts.remove(home, "ada")


@pytest.fixture
def desks(shop: Shop) -> Iterator[Desks]:
    yield from opened(shop, "marketer")


@pytest.fixture
def both(shop: Shop) -> Iterator[Desks]:
    """Somebody who may see contact data, too."""
    yield from opened(shop, "marketer", "privacy_officer")


@pytest.fixture
def associate(shop: Shop) -> Iterator[Desks]:
    yield from opened(shop, "associate")


def saved(desks: Desks, name: str, **named: Any) -> Segment:
    return described.save(desks.home, plain_segment(**{"where": EVERYBODY, "name": name, **named}), "bob", AS_OF, None)


def exported(desks: Desks, name: str) -> str:
    """The address of a job that has been decided."""
    assert desks.send(f"/console/segments/{name}/export", channel="email") == 303
    return desks.browser.shown.headers["location"]


# What pages show.


def test_the_list_tells_every_segment_with_its_sizes_and_whether_it_went_out(desks: Desks) -> None:
    assert desks.browser.get("/console/segments").status_code == 200
    text = desks.browser.text()
    for name in described.names(desks.home):
        assert name in text
    assert "comes with Troth" in text
    assert "never" in text
    assert 'class="spark"' in desks.browser.shown.text
    assert "sizes over time" in text


def test_a_definition_that_cannot_be_read_harms_no_other(desks: Desks) -> None:
    path = kept.folder_of(desks.home) / "definitions" / "broken.yml"
    path.write_text("name: broken\nversion: one\n")
    try:
        assert desks.browser.get("/console/segments").status_code == 200
        assert "Cannot be read:" in desks.browser.text()
        assert "lapsed_regulars" in desks.browser.text()
    finally:
        path.unlink()


def test_a_page_shows_kept_sizes_at_once_and_counts_when_asked(desks: Desks) -> None:
    assert desks.browser.get("/console/segments/rich").status_code == 200
    text = desks.browser.text()
    assert "matched when the last run counted" in text
    assert "May be contacted" in text
    assert "customers: tier code is one of gold or silver" in text
    assert "None of these hold" in text
    size = kept.sizes(desks.home, "rich")[-1]["matched"]
    assert desks.send("/console/segments/rich") == 200
    assert f"{size} match" in desks.browser.text()
    assert desks.send("/console/segments/rich/count") == 200
    assert f"{size} match" in desks.browser.text()
    assert "<html" not in desks.browser.shown.text


def test_no_page_names_a_person(desks: Desks) -> None:
    job = exported(desks, "lapsed_regulars")
    for path in (
        "",
        "/rich",
        "/new?like=rich",
        "/exclusions",
        "/fields",
        "/exports",
        job.removeprefix("/console/segments"),
    ):
        text = desks.browser.get(f"/console/segments{path}").text
        assert "cus_" not in text
        assert "@example.com" not in text
        assert "+1 503" not in text


def test_what_holds_for_every_segment_is_told_and_has_no_switch(desks: Desks) -> None:
    kept.change_exclusions(desks.home, "complaints", AS_OF.replace(tzinfo=None), add={"cus_nobody"})
    assert desks.browser.get("/console/segments/exclusions").status_code == 200
    text = desks.browser.text()
    assert "complaints" in text
    assert "waits for a late order" in text
    assert "cus_nobody" not in text
    assert list(Fields(desks.browser.shown.text).forms) == ["/console/sign-out"]


def test_values_that_few_share_are_not_offered(desks: Desks) -> None:
    tiers = [who["tier_code"] for who in desks.shop.customers]
    assert set(values(desks.home, "customers", "tier_code")) == {
        each for each in set(tiers) if each and tiers.count(each) >= 10
    }
    assert desks.browser.get("/console/segments/new?like=rich").status_code == 200
    assert '<datalist id="values-customers.tier_code">' in desks.browser.shown.text


@pytest.mark.parametrize(
    "path",
    ["/nobody", "/nobody/edit", "/nobody/export", "/new?like=nobody", "/..%2F..%2Fetc", "/exports/nobody", "/exports/..%2Fx"],
)  # fmt: skip
def test_what_there_is_not_is_not_found(desks: Desks, path: str) -> None:
    assert desks.browser.get(f"/console/segments{path}").status_code == 404


def test_whoever_has_not_the_right_sees_and_does_nothing(associate: Desks) -> None:
    for path in ("", "/rich", "/new", "/rich/edit", "/rich/export", "/exports", "/exclusions", "/fields"):
        assert associate.browser.get(f"/console/segments{path}").status_code == 403
    for path in ("/rich", "/rich/count", "/count", "/new", "/rich/edit", "/rich/export", "/rich/remove", "/exports/x"):
        assert associate.send(f"/console/segments{path}") == 403


# The form.


def sent(draft: Draft) -> dict[str, str]:
    """A form as a browser sends it."""
    form = {**draft.said, **{f"channel_{each}": "on" for each in draft.channels}}
    for row in draft.where.all():
        form |= {f"{row.path}.{name}": value for name, value in row.said.items()}
        for number, each in enumerate(row.filters, start=1):
            form |= {f"{row.path}.{name}{number}": value for name, value in each.items()}
    return form


class Anything:
    """Takes any name and value."""

    def condition(self, condition: Condition) -> None:
        pass

    def kind(self, comparison: Comparison) -> FieldType:
        return "text"

    def values(self, comparison: Comparison, kind: FieldType | None = None) -> tuple[str, ...]:
        return comparison.values


HAPPENED = st.builds(
    Happened,
    event=st.sampled_from(sorted(EVENTS)),
    filters=st.lists(compared(st.just("")), max_size=3).map(tuple),
    counted=st.sampled_from(["times", "units", "net_cents"]),
    operator=st.sampled_from(sorted(COUNTED.values())),
    count=st.integers(0, 999_999_999),
    hours=st.integers(1, 24 * 3_660),
    unless=st.none()
    | st.builds(Unless, st.sampled_from(sorted(EVENTS)), st.just(()), st.just("sku"), st.integers(1, 24 * 3_660)),
)
CONDITIONS: st.SearchStrategy[Condition] = st.recursive(
    compared(WORDS) | HAPPENED | st.builds(Lookalike, WORDS, st.integers(1, 100), st.none() | WORDS),
    lambda inner: st.builds(
        lambda kind, some: Group(kind, tuple(some[:1] if kind == "not" else some)),
        st.sampled_from(["all", "any", "not"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(CONDITIONS)
def test_a_condition_that_the_form_can_show_comes_back_as_it_was(where: Condition) -> None:
    try:
        draft = builder.of_segment(plain_segment(where))
    except UnfitError:
        return
    again = builder.of_form(sent(draft))
    assert again == draft
    assert typed.condition_of(again.where, cast(Checked, Anything())) == where
    assert again.all_faults == []
    assert told(where).text


def test_what_the_form_cannot_show_is_edited_as_text(desks: Desks) -> None:
    for number, where in enumerate(
        (
            Group("not", (Group("not", (GOLD,)),)),
            Comparison("customers", "tier_code", "=", ("two\nlines",)),
            Happened("viewed", (), "times", ">=", 1, 24, Unless("bought", (Comparison("", "net_cents", ">", ("0",)),), "sku", 24)),
            Group("all", (GOLD,) * 80),
        )
    ):  # fmt: skip
        segment = saved(desks, f"unfit_{number}", where=where)
        form = desks.form(f"/console/segments/{segment.name}/edit")
        assert parse(form["text"]) == segment
        assert "more than the form can show" in desks.browser.text()
        assert desks.send(f"/console/segments/{segment.name}/edit", **form, do="save") == 303
        assert described.load(desks.home, segment.name) == segment


@given(
    st.dictionaries(
        st.from_regex(r"w(\.[0-9]{1,3}){0,14}\.(of|field|operator|value|event|times|count|not|on1|is2|to9|score|like)", fullmatch=True)
        | st.sampled_from(["w.of", "w.1.field", "w.1.event", "w.1.1.field", "name", "rank_by", "rank_top", "holdout"])
        | VALUES,
        VALUES | st.sampled_from(["all", "none", "customers.tier_code", "bought", "in", "=", '"', "3", "at least times"]),
        max_size=12,
    )
)  # fmt: skip
def test_whatever_is_sent_is_read_without_a_fault_of_ours(form: dict[str, str]) -> None:
    draft = builder.of_form(form)
    typed.condition_of(draft.where, cast(Checked, Anything()))
    assert len(list(draft.where.all())) <= len(form) + 1


def test_a_segment_opened_and_saved_unchanged_is_the_same(desks: Desks) -> None:
    before = described.load(desks.home, "rich")
    form = desks.form("/console/segments/rich/edit")
    assert desks.send("/console/segments/rich/edit", **form, do="save") == 303
    assert described.load(desks.home, "rich") == before
    assert len(described.history(desks.home, "rich")) == 1


@pytest.mark.parametrize("name", definition.names())
def test_a_copy_of_what_comes_with_troth_says_the_same(desks: Desks, name: str) -> None:
    form = desks.form(f"/console/segments/new?like={name}")
    assert form["name"] == f"{name}_copy"
    assert desks.send("/console/segments/new", **form, do="text") in (200, 422)  # this shop has not every table
    if desks.browser.shown.status_code == 200:
        original = definition.load(name)
        assert parse(desks.shown("/console/segments/new")["text"]) == replace(original, name=f"{name}_copy")


def test_a_segment_is_described_button_by_button_without_a_script(desks: Desks) -> None:
    path = "/console/segments/new"
    form = desks.form(path)
    assert form["owner"] == "ada"
    form |= {
        "name": "tent_lookers",
        "description": "Looked at tents.",
        "w.1.field": "customers.tier_code",
        "w.1.value": "gold",
        "holdout": "5",
    }
    assert desks.send(path, **form, do="add-event w") == 200
    form = desks.shown(path)
    assert form["w.1.value"] == "gold"
    form |= {"w.2.event": "viewed", "w.2.count": "2", "w.2.amount": "14"}
    assert desks.send(path, **form, do="filter w.2") == 200
    form = desks.shown(path) | {"w.2.on1": "category_name", "w.2.to1": "Tents"}
    assert desks.send(path, **form, do="add-group w") == 200
    form = desks.shown(path) | {"w.3.of": "none", "w.3.1.field": "customers.region_code", "w.3.1.value": "OR"}
    assert desks.send(path, **form, do="add-score w.3") == 200
    form = desks.shown(path)
    assert desks.send(path, **form, do="drop w.3.2") == 200
    form = desks.shown(path)
    assert desks.send(path, **form, do="count") == 200
    assert "match" in desks.browser.text()
    assert "tent_lookers" not in described.names(desks.home)
    form = desks.shown(path)
    assert desks.send(path, **form, do="save") == 303
    assert desks.browser.shown.headers["location"] == "/console/segments/tent_lookers"
    assert described.load(desks.home, "tent_lookers") == plain_segment(
        Group("all", (
            GOLD,
            Happened("viewed", (Comparison("", "category_name", "=", ("Tents",)),), "times", ">=", 2, 336),
            Group("not", (Group("any", (Comparison("customers", "region_code", "=", ("OR",)),)),)),
        )),
        name="tent_lookers", description="Looked at tents.", owner="ada", holdout_percent=5,
    )  # fmt: skip
    assert [each.saved_by for each in described.history(desks.home, "tent_lookers")] == ["ada"]
    assert "saved segment tent_lookers version 1" in [look["act"] for look in desks.looks()]
    assert desks.browser.get("/console/segments/tent_lookers").status_code == 200
    assert "tent_lookers is saved as version 1." in desks.browser.text()


def test_every_field_has_a_label_and_an_id_of_its_own(desks: Desks) -> None:
    desks.form("/console/segments/new?like=rich")
    fields = Fields(desks.browser.shown.text)
    assert len(fields.ids) == len(set(fields.ids))
    unlabelled = [each for each in fields.forms["/console/segments/new"] if each not in fields.labels]
    assert all(each.startswith("channel_") or each.endswith(".not") for each in unlabelled)


@pytest.mark.parametrize(
    ("changes", "at", "said"),
    [
        ({"name": "Gold members"}, "name", "small letters"),
        ({"name": ""}, "name", "small letters"),
        ({"name": "lapsed_regulars"}, "name", "found one that comes with Troth"),
        ({"name": "exports"}, "name", "found one of ours"),
        ({"name": "rich"}, "name", "found a segment that has it"),
        ({"description": " "}, "description", "a text"),
        ({"purpose": "service"}, "purpose", "Expected one of marketing"),
        ({"channel_email": ""}, "channels", "at least one channel"),
        ({"holdout": "91"}, "holdout", "from 0 to 90"),
        ({"w.1.field": ""}, "w.1.field", "Expected a fact"),
        ({"w.1.field": "customers.shoe_size"}, "w.1.field", "a field of customers"),
        ({"w.1.operator": "<"}, "w.1.operator", "Expected one of = != in"),
        ({"w.1.operator": "like"}, "w.1.operator", "Expected a comparison"),
        ({"w.1.value": ""}, "w.1.value", "Expected a value"),
        ({"w.1.operator": "in", "w.1.value": "gold,,silver"}, "w.1.value", "values between the commas"),
        ({"w.1.field": "customers.customer_number", "w.1.value": "many"}, "w.1.value", "a whole such as 3"),
        ({"w.of": "some"}, "w.of", "Expected one of all"),
        ({"w.2.event": "", "w.2.times": "at least times", "w.2.count": "1", "w.2.amount": "3", "w.2.unit": "days"}, "w.2.event", "something that people do"),
        ({"w.2.event": "viewed", "w.2.times": "at least units", "w.2.count": "1", "w.2.amount": "3", "w.2.unit": "days"}, "w.2.times", "times for viewed"),
        ({"w.2.event": "viewed", "w.2.times": "at least times", "w.2.count": "x", "w.2.amount": "3", "w.2.unit": "days"}, "w.2.count", "whole number"),
        ({"w.2.event": "viewed", "w.2.times": "at least times", "w.2.count": "1", "w.2.amount": "999999", "w.2.unit": "days"}, "w.2.amount", "an hour to ten years"),
        ({"w.2.event": "viewed", "w.2.times": "at least times", "w.2.count": "1", "w.2.amount": "3", "w.2.unit": "days", "w.2.on1": "net_cents", "w.2.is1": "=", "w.2.to1": "3"}, "w.2.on1", "a field of viewed"),
        ({"w.2.event": "bought", "w.2.times": "at least times", "w.2.count": "1", "w.2.amount": "3", "w.2.unit": "days", "w.2.on1": "net_cents", "w.2.is1": "=", "w.2.to1": "much"}, "w.2.to1", "a whole such as 3"),
        ({"w.2.event": "searched", "w.2.times": "at least times", "w.2.count": "1", "w.2.amount": "3", "w.2.unit": "days", "w.2.unless": "bought", "w.2.within": "3", "w.2.per": "days"}, "w.2.unless", "names a thing"),
        ({"w.2.score": "charm", "w.2.percent": "10"}, "w.2.score", "a score of a model"),
        ({"w.2.score": "churn", "w.2.percent": "0"}, "w.2.percent", "from 1 to 100"),
        ({"rank_top": "5"}, "rank_by", "what to rank by"),
        ({"rank_by": "customers.first_seen_at", "rank_top": "0"}, "rank_top", "from 1 on"),
    ],
)  # fmt: skip
def test_a_fault_is_told_at_its_field_with_what_was_expected(
    desks: Desks, changes: dict[str, str], at: str, said: str
) -> None:
    path = "/console/segments/new"
    form = desks.form(path) | {
        "name": "faulty", "description": "A try.", "w.1.field": "customers.tier_code", "w.1.value": "gold",
    }  # fmt: skip
    form = {name: value for name, value in (form | changes).items() if not (name.startswith("channel_") and not value)}
    assert desks.send(path, **form, do="save") == 422
    page = desks.browser.shown.text
    assert f'id="{at}-fault"' in page
    assert f'href="#{at}"' in page
    assert f'id="{at}"' in page
    assert said in desks.browser.text()
    assert "faulty" not in described.names(desks.home)


def test_counts_come_while_it_is_typed_or_say_what_is_missing(desks: Desks) -> None:
    form = desks.form("/console/segments/new")
    assert desks.send("/console/segments/count", **form) == 200
    assert "something is still missing" in desks.browser.text()
    form |= {"w.1.field": "customers.tier_code", "w.1.value": "gold"}
    assert desks.send("/console/segments/count", **form) == 200
    assert "of them may be contacted by email" in desks.browser.text()
    assert desks.send("/console/segments/count", text="name: x") == 200
    assert "expected name" in desks.browser.text()
    assert desks.send("/console/segments/count", text=written(RICH)) == 200
    assert "match" in desks.browser.text()


def test_the_form_and_the_text_are_two_ways_to_say_the_same(desks: Desks) -> None:
    form = desks.form("/console/segments/new?like=rich")
    assert desks.send("/console/segments/new", **form, do="text") == 200
    text = desks.shown("/console/segments/new")
    assert parse(text["text"]) == replace(RICH, name="rich_copy")
    assert desks.send("/console/segments/new", **text, do="form") == 200
    assert desks.shown("/console/segments/new") == form
    text["text"] = text["text"].replace("= 1", "== 1").replace(">= 1", ">== 1")
    assert desks.send("/console/segments/new", **text, do="save") == 422
    assert "where.all[2]" in desks.browser.text()
    assert ">== 1" in desks.shown("/console/segments/new")["text"]


def test_of_two_who_edit_at_once_the_second_sees_what_the_first_saved(desks: Desks) -> None:
    saved(desks, "twice")
    hers = desks.form("/console/segments/twice/edit")
    first = described.load(desks.home, "twice")
    described.save(desks.home, replace(first, where=GOLD), "bob", AS_OF, first.hash)
    mine = hers | {"description": "Mine."}
    assert desks.send("/console/segments/twice/edit", **mine, do="save") == 409
    assert "changed by bob" in desks.browser.text()
    assert "customers: tier code is gold" in desks.browser.text()
    assert described.load(desks.home, "twice").where == GOLD
    again = desks.shown("/console/segments/twice/edit")
    assert again["description"] == "Mine."
    assert desks.send("/console/segments/twice/edit", **again, do="save") == 303
    assert described.load(desks.home, "twice").description == "Mine."


def test_a_segment_keeps_its_name_whatever_a_form_says(desks: Desks) -> None:
    saved(desks, "steady")
    form = desks.form("/console/segments/steady/edit")
    assert desks.send("/console/segments/steady/edit", **{**form, "name": "rich", "owner": "eve"}, do="save") == 303
    assert described.load(desks.home, "steady").owner == "eve"
    assert described.load(desks.home, "rich") == RICH
    text = written(replace(described.load(desks.home, "steady"), name="other"))
    assert desks.send("/console/segments/steady/edit", text=text, started_from=form["started_from"], do="save") == 422
    assert "keep its name" in desks.browser.text()


def test_what_comes_with_troth_is_copied_and_not_changed(desks: Desks) -> None:
    assert desks.browser.get("/console/segments/lapsed_regulars/edit").status_code == 403
    assert desks.send("/console/segments/lapsed_regulars/edit", text="x", do="save") == 403
    assert desks.send("/console/segments/lapsed_regulars/remove", started_from="x") == 403
    assert "/edit" not in desks.browser.get("/console/segments/lapsed_regulars").text


def test_what_never_went_out_may_be_removed_and_its_history_stays(desks: Desks) -> None:
    segment = saved(desks, "gone_soon")
    assert desks.send("/console/segments/gone_soon/remove", started_from="0" * 64) == 303
    assert "gone_soon" in described.names(desks.home)
    assert desks.send("/console/segments/gone_soon/remove", started_from=segment.hash) == 303
    assert "gone_soon" not in described.names(desks.home)
    assert len(described.history(desks.home, "gone_soon")) == 1


def test_what_no_purpose_covers_is_not_saved(desks: Desks) -> None:
    columns = {f"of_{name}": ("customer_id", "happened_at", *event.all_fields) for name, event in EVENTS.items()}
    columns |= {"of_customers": ("tier_code", "region_code"), "customers": ("customer_id", "is_test", "email_ref")}
    flow = Inspection(
        graph=Graph({}, {**columns, "vault": ("email",), "products": ("category_name",)}),
        declared={("of_customers", "tier_code"): Personal("profile", frozenset({"service"}))},
        uses=[],
        breakers=[],
        keyed=frozenset(),
        purposes=frozenset({"marketing", "service"}),
    )
    purpose_flow.keep(desks.home, flow, "by hand", AS_OF)
    try:
        form = desks.form("/console/segments/new") | {
            "name": "not_covered",
            "description": "Gold.",
            "w.1.value": "gold",
        }
        assert desks.send("/console/segments/new", **(form | {"w.1.field": "customers.tier_code"}), do="save") == 422
        assert "expected data that may be used for marketing" in desks.browser.text().lower()
        assert "not_covered" not in described.names(desks.home)
        form = form | {"w.1.field": "customers.region_code"}
        assert desks.send("/console/segments/new", **form, do="save") == 303
    finally:
        purpose_flow.file_of(desks.home).unlink()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_a_marketer_types_is_shown_and_never_run(desks: Desks, payload: str) -> None:
    name = f"typed_{PAYLOADS.index(payload)}"
    form = desks.form("/console/segments/new") | {
        "name": name, "description": payload, "owner": payload, "w.1.field": "customers.tier_code", "w.1.value": payload.lstrip('"'),
    }  # fmt: skip
    assert desks.send("/console/segments/new", **form, do="save") == 303
    assert described.load(desks.home, name).description == payload
    for path in ("", f"/{name}", f"/{name}/edit", f"/{name}/export"):
        page = desks.browser.get(f"/console/segments{path}").text
        assert "<script>alert" not in page
        assert "<img" not in page
        assert " ".join(payload.split()) in desks.browser.text() or path.endswith("edit")
    assert desks.send("/console/segments/count", **(form | {"w.1.field": payload})) == 200
    assert "<script>alert" not in desks.browser.shown.text
    assert desks.send("/console/segments/new", **(form | {"name": payload, "w.of": payload}), do="save") == 422
    assert "<script>alert" not in desks.browser.shown.text


def test_what_is_typed_has_an_end(desks: Desks) -> None:
    form = desks.form("/console/segments/new") | {
        "name": "long_said",
        "w.1.field": "customers.tier_code",
        "w.1.value": "x" * 5_000,
        "description": "d" * 5_000,
    }
    assert desks.send("/console/segments/new", **form, do="save") == 303
    segment = described.load(desks.home, "long_said")
    assert len(segment.description) == 500
    assert desks.send("/console/segments/new", text="x" * 40_000, do="save") == 400
    assert desks.send("/console/segments/new", **{f"w.1.x{n}": "" for n in range(400)}) == 400


def test_a_form_that_is_full_says_so(desks: Desks) -> None:
    path = "/console/segments/new"
    form = desks.form(path)
    row = Row(
        "group",
        {"of": "all"},
        rows=[Row("fact", dict(form_fact)) for form_fact in [{"field": "", "operator": "=", "value": ""}] * 42],
    )
    draft = replace(builder.of_form(form), where=row.placed())
    assert desks.send(path, **{**form, **sent(draft)}, do="add-fact w") == 422
    assert "holds no more" in desks.browser.text()


# The way out.


def test_a_segment_goes_out_after_it_was_decided_and_confirmed(desks: Desks) -> None:
    saved(desks, "way_out")
    job = exported(desks, "way_out")
    assert desks.browser.get(job).status_code == 200
    text = desks.browser.text()
    assert "would be in the file" in text
    assert "refresh" not in desks.browser.shown.headers
    name = job.rpartition("/")[2]
    assert not export_work.folder_of(desks.home, name).exists()
    assert desks.browser.send(job).status_code == 303
    assert desks.browser.get(job).status_code == 200
    manifest = json.loads((export_work.folder_of(desks.home, name) / "manifest.json").read_text())
    text = desks.browser.text()
    assert manifest["files"]["members.csv"]["sha256"] in text
    assert f"number {manifest['decision']['number']}" in text
    assert manifest["consent"]["checkpoint"].splitlines()[0] in text
    assert "holds addresses in the clear, so it is not offered here" in text
    assert [look["act"] for look in desks.looks()][-2:] == [f"tried export {name}", f"wrote export {name}"]
    assert "way_out by email" in desks.browser.get("/console/segments/exports").text
    desks.browser.get("/console/segments/way_out")
    assert "Nothing went out yet" not in desks.browser.text()
    assert "Remove this segment" not in desks.browser.text()
    form = desks.form("/console/segments/way_out/edit") | {"description": "Another."}
    assert desks.send("/console/segments/way_out/edit", **form, do="save") == 303
    assert described.load(desks.home, "way_out").version == 2


def test_it_is_written_once_however_often_it_is_confirmed(desks: Desks) -> None:
    saved(desks, "once")
    job = exported(desks, "once")
    folder = export_work.folder_of(desks.home, job.rpartition("/")[2])
    desks.browser.send(job)
    first = (folder / "manifest.json").read_bytes()
    desks.browser.send(job)
    assert (folder / "manifest.json").read_bytes() == first
    desks.browser.get(job)
    assert "found written" in desks.browser.text()


def test_what_was_changed_or_is_too_old_is_decided_anew(desks: Desks) -> None:
    segment = saved(desks, "changed_since")
    job = exported(desks, "changed_since")
    described.save(desks.home, replace(segment, where=GOLD), "bob", AS_OF, segment.hash)
    desks.browser.send(job)
    desks.browser.get(job)
    assert "found it changed since" in desks.browser.text()
    second = exported(desks, "changed_since")
    desks.wall.at += timedelta(hours=25)
    desks.browser.enter()
    desks.browser.send(second)
    desks.browser.get(second)
    assert "too long ago" in desks.browser.text()
    assert not export_work.folder_of(desks.home, second.rpartition("/")[2]).exists()


def job_of(desks: Desks, name: str, **named: Any) -> Job:
    made = export_work.begin(desks.home, saved(desks, name), "email", "ada", desks.wall.now())
    made = msgspec.structs.replace(made, **named)
    (kept.folder_of(desks.home) / "jobs" / f"{made.job_id}.json").write_bytes(msgspec.json.encode(made))
    return made


@pytest.mark.parametrize("state", ["deciding", "writing"])
def test_what_nobody_is_at_any_more_says_that_it_was_stopped(desks: Desks, state: str) -> None:
    made = job_of(desks, f"stopped_{state}", state=state, confirmed_by="ada")
    assert desks.browser.get(f"/console/segments/exports/{made.job_id}").status_code == 200
    assert "stopped in the middle" in desks.browser.text()
    assert "Refresh" not in desks.browser.shown.headers


def test_what_goes_on_looks_again_by_itself_unless_told_to_stand_still(desks: Desks) -> None:
    made = job_of(desks, "going_on")
    with export_work.held(desks.home, made.job_id):
        page = desks.browser.get(f"/console/segments/exports/{made.job_id}")
        assert page.headers["refresh"] == "2"
        assert "You may close this page" in desks.browser.text()
        assert "refresh" not in desks.browser.get(f"/console/segments/exports/{made.job_id}?still=yes").headers


def test_a_file_whose_last_word_was_lost_is_found_written(desks: Desks) -> None:
    saved(desks, "lost_word")
    job = exported(desks, "lost_word")
    desks.browser.send(job)
    path = kept.folder_of(desks.home) / "jobs" / f"{job.rpartition('/')[2]}.json"
    told = msgspec.json.decode(path.read_bytes(), type=Job)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(told, state="writing", ended_at=None)))
    desks.browser.get(job)
    assert "The file is written" in desks.browser.text()


def test_a_file_that_was_changed_is_told(desks: Desks) -> None:
    saved(desks, "tampered")
    job = exported(desks, "tampered")
    desks.browser.send(job)
    path = export_work.folder_of(desks.home, job.rpartition("/")[2]) / "members.csv"
    path.write_bytes(path.read_bytes() + b"eve\n")
    desks.browser.get(job)
    assert "is not what its manifest says any more" in desks.browser.text()


def test_what_fails_says_why_and_nothing_goes_out(desks: Desks) -> None:
    saved(desks, "failing")
    vault = desks.home.vault.rename(desks.home.root / "away.db")
    try:
        job = exported(desks, "failing")
        desks.browser.get(job)
        assert "vault: expected one" in desks.browser.text()
        assert "Nothing went out" in desks.browser.text()
    finally:
        vault.rename(desks.home.vault)


def test_the_file_is_for_whoever_may_see_contact_data_and_says_why(both: Desks) -> None:
    saved(both, "downloaded")
    job = exported(both, "downloaded")
    both.browser.send(job)
    assert both.browser.send(f"{job}/members", why="x").status_code == 422
    got = both.browser.send(f"{job}/members", why="the sender asked for it")
    assert got.status_code == 200
    assert got.headers["content-disposition"].startswith("attachment")
    assert got.content == (export_work.folder_of(both.home, job.rpartition("/")[2]) / "members.csv").read_bytes()
    assert both.looks()[-1]["why"] == "the sender asked for it"


def test_a_marketer_cannot_ask_for_the_file(desks: Desks) -> None:
    saved(desks, "not_offered")
    job = exported(desks, "not_offered")
    desks.browser.send(job)
    assert desks.browser.send(f"{job}/members", why="the sender asked for it").status_code == 403


DESTINATIONS = """
destinations:
  newsletter:
    kind: folder
    where: exports/newsletter
    purposes: [marketing]
    channels: [email]
    recipient: {legal_name: Letterbird GmbH, role: processor, country: DE}
    needs_approval: true
  texts:
    kind: folder
    where: exports/texts
    purposes: [service]
    channels: [sms]
    recipient: {legal_name: Our own, role: own, country: DE}
"""


def test_where_it_may_be_delivered_to_is_told_with_what_it_takes(desks: Desks) -> None:
    path = desks.home.root / "destinations.yml"
    path.write_text(DESTINATIONS)
    try:
        desks.browser.get("/console/segments/rich/export")
        assert "somebody else has to let it out" in desks.browser.text()
        assert "/console/deliveries/new?segment=rich&amp;destination=newsletter" in desks.browser.shown.text
        path.write_text("destinations: 7")
        assert desks.browser.get("/console/segments/rich/export").status_code == 200
        assert "expected" in desks.browser.text()
    finally:
        path.unlink()


def test_a_segment_for_a_purpose_of_others_is_seen_and_not_sent(desks: Desks) -> None:
    saved(desks, "for_service", purpose="service", channels=("email",))
    assert desks.browser.get("/console/segments/for_service").status_code == 200
    assert desks.browser.get("/console/segments/for_service/export").status_code == 403
    assert desks.send("/console/segments/for_service/export", channel="email") == 403


def test_moments_are_utc() -> None:
    assert marketing.moment("2026-05-01T02:00:00+00:00") == datetime.fromisoformat("2026-05-01T02:00:00+00:00")
