"""No API returns a personal feature without the gate: every route with every service, asked about somebody who refused, tells nothing of theirs.

That the walk would see it is shown on the same home where they allowed everything.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import polars as pl
import pytest
from starlette.routing import Route

from consent.ledger.opening import open_ledger
from consent.rule.policy import read_policy
from consent.rule.standing import standing_frame
from feature_repo import catalogue
from feature_repo.catalogue import CUSTOMER, RECOMMEND_CONTEXT, SERVICES, STANDING_SLOTS, VIEWS
from serving import keys
from serving.app import create_app
from serving.console import accounts
from serving.console.roles import ROLES
from tests.agreement.committed import ROOT
from tests.unit.feature_repo.published_home import ADA, AS_OF, publish_table, standing_row, view_frame
from tests.unit.serving.open_console import PASSWORD, Browser
from tests.unit.serving.open_shop import AT, Caller, open_shop, train
from tests.unit.serving.test_orders import order, tables
from tests.unit.serving.test_supply import publish_supply
from troth.clock import FixedClock
from troth.home import Home

WHO = (ADA, "email_ada")
PERSONAL = [view for view in VIEWS if view.is_personal and view is not catalogue.SUBJECT_STANDING]
IN_ORDER = "Storm lantern"
HOME_STORE = "S777"
OF_GOODS = "/console/goods"  # a name of goods is nobody's there
LINKS = {
    "identity_type": ["email", "card"], "identity_ref": ["email_ada", "card_ada"], "customer_id": [ADA] * 2, "link_type": ["hub", "deterministic"],
    "group_ref": ["email_ada"] * 2, "source_name": ["loyalty"] * 2, "linked_at": [AS_OF] * 2, "is_test": [False] * 2,
}  # fmt: skip
# Where stored rows are read apart from the gate, by module: of nobody, or for what is named beside it.
READ_DIRECTLY = {
    ("serving/answers.py", "AVAILABILITY"): "of nobody",
    ("serving/answers.py", "PRODUCT_POPULARITY"): "of nobody",
    ("serving/answers.py", "CUSTOMER_IDENTITY"): "whom the gate is to be asked about",
}
READS = ("read", "scan", "fetch", "sample")
WRITES = "serving/intake/features.py"  # what the stream says of stock; it opens a store and reads none of its rows


def marked(view: catalogue.View) -> tuple[dict[str, Any], list[str]]:
    """Values of a view that are found nowhere else, and their spellings."""
    row: dict[str, Any] = {"customer_id": ADA}
    for number, field in enumerate(view.fields):
        mark = 770_000 + 100 * PERSONAL.index(view) + number
        row[field.name] = {"text": f"mark-{mark}", "decimal": mark + 0.5, "boolean": True}.get(field.type, mark)
    return row, [str(value) for name, value in row.items() if name != "customer_id" and value is not True]


MARKS = [mark for view in PERSONAL for mark in marked(view)[1]] + [IN_ORDER, HOME_STORE]


def found_in(text: str) -> list[str]:
    """The marks that a text tells. Measured seconds have digits enough to hold any number by chance: what is part of one is none."""
    return [mark for mark in MARKS if re.search(rf"(?<![\d.]){re.escape(mark)}(?!\d)", text)]


def opened(root: Path, *, allowed: bool) -> Caller:
    """A service over a home where Ada allowed everything, or nothing."""
    changes = {f"is_{slot}_allowed": allowed for slot in STANDING_SLOTS}
    reasons = {f"reason_{slot}": "granted" if allowed else "refused" for slot in STANDING_SLOTS}
    standing = view_frame("subject_standing", [standing_row(ADA, **changes, **reasons) | {"ledger_size": 0}])
    home = open_shop(
        root,
        **tables(order()),
        **{view.table: view_frame(view.name, [marked(view)[0]]) for view in PERSONAL},
        customers=pl.DataFrame({"customer_id": [ADA], "home_location_code": [HOME_STORE], "is_test": [False]}),
        customer_identities=pl.DataFrame(LINKS),
        ftr_subject_standing=standing,
    ).home
    publish_supply(home)
    with open_ledger(home, FixedClock(AT)) as ledger:
        mart = standing_frame(ledger.frame(), pl.DataFrame(LINKS), read_policy(), AT)
    publish_table(home, "consent_standing", mart.with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None)))
    train(home)
    return Caller(create_app(home, FixedClock(AT)), keys.first_key(home, AT))


def bodies() -> Iterator[dict[str, Any]]:
    """Every service and every feature by name, in both protocols, about Ada."""
    for use in (*SERVICES, RECOMMEND_CONTEXT):
        columns = (
            {"customer_id": list(WHO)}
            if use.entity == CUSTOMER
            else {key: ["SKU-00001"] for key in use.entity.join_keys}
        )
        yield {"service": use.name, "entities": columns}
        yield {"feature_service": use.name, "entities": columns}
    everything = {
        "customer_id": list(WHO),
        "sku": ["SKU-00001"] * 2,
        "location_code": ["S001"] * 2,
        "identity_ref": list(WHO),
    }
    for view in (*VIEWS, *catalogue.INDEXES):
        names = [f"{view.name}:{field.name}" for field in view.online_fields]
        yield {"features": names, "entities": everything}
        yield {"features": names, "feature_service": "availability_v1", "entities": everything}
        yield {"features": ["product_popularity:sold_units_7d", *names], "entities": everything}


def asked(caller: Caller) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every route by every method, about Ada, under every service, with every body that may be meant for it."""
    services = [use.name for use in (*SERVICES, RECOMMEND_CONTEXT)]
    for route in caller._app.routes:
        assert isinstance(route, Route), "a route that this walk does not know how to ask"
        for method in sorted((route.methods or set()) - {"HEAD"}):
            takes_body = method in ("POST", "PATCH") and route.path in ("/v1/features", "/get-online-features")
            for who in WHO:
                path = route.path.replace("{customer_id}", who)
                for name in route.param_convertors:
                    path = path.replace(f"{{{name}}}", who)
                for service in services if "{customer_id}" in route.path else services[:1]:
                    about = {"service": service, "customer_id": who, "order": "#10001", "sku": "SKU-00001", "location": "S001", "allow_popular": "true"}  # fmt: skip
                    for body in bodies() if takes_body else ({"customer_id": who, "subject_id": who},):
                        yield method, path, {"params": about} | ({} if method == "GET" else {"json": body})


def told(caller: Caller, accept: str) -> str:
    """All that the walk was told, as text."""
    answers = []
    for method, path, content in asked(caller):
        response = caller.request(method, path, headers={"Accept": accept}, **content)
        if response.headers.get("content-type") == "application/msgpack":
            answers.append(repr(msgspec.to_builtins(msgspec.msgpack.decode(response.content))))
        else:
            answers.append(response.text)
    return "\n".join(answers)


@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
def test_of_somebody_who_refused_no_route_tells_anything_under_any_service(accept: str, tmp_path: Path) -> None:
    text = told(opened(tmp_path, allowed=False), accept)
    assert found_in(text) == []


def test_the_same_walk_finds_all_of_it_where_they_allowed_it(tmp_path: Path) -> None:
    text = told(opened(tmp_path, allowed=True), "application/json")
    assert found_in(text) == MARKS


def seen_by(browser: Browser) -> str:
    """All that somebody of a role is told of Ada: by every page there is, by every form that asks who, and by where forms lead."""
    told = []
    token = browser.token()
    for route in browser.app.routes:
        assert isinstance(route, Route)
        if (
            not route.path.startswith("/console")
            or route.path.startswith("/console/sign-")
            or "rest" in route.param_convertors
        ):
            continue
        for who in (*WHO, "#10001"):
            path = re.sub(r"\{\w+(:\w+)?\}", quote(who), route.path)
            asked = {"who": who, "customer_id": who, "order": who, "typed": who, "why": "they rang and asked"}
            if "POST" in (route.methods or ()):
                sent = browser.post(path, data={"form": token, **asked}, headers={"origin": browser.address})
            else:
                sent = browser.get(path, params=asked)
            if sent.is_redirect:
                sent = browser.get(sent.headers["location"])
            text = sent.text.replace(IN_ORDER, "") if route.path.startswith(OF_GOODS) else sent.text
            told.append(text)
    return "\n".join(told)


@pytest.mark.parametrize("role", ROLES)
def test_no_page_of_the_console_tells_any_role_a_thing_of_somebody_who_refused(role: str, tmp_path: Path) -> None:
    browser = staff(opened(tmp_path, allowed=False), tmp_path, role)
    assert found_in(seen_by(browser)) == []


def test_the_same_pages_tell_whoever_serves_them_of_somebody_who_allowed_it(tmp_path: Path) -> None:
    told = found_in(seen_by(staff(opened(tmp_path, allowed=True), tmp_path, "associate")))
    assert IN_ORDER in told


def staff(caller: Caller, root: Path, role: str) -> Browser:
    """The same service, to somebody who is signed in."""
    accounts.add(Home(root), "ada", [role], AT, PASSWORD)
    browser = Browser(caller._app)
    assert browser.enter() == 303
    return browser


def modules() -> Sequence[Path]:
    return sorted((ROOT / "serving").rglob("*.py"))


def test_nothing_in_serving_reads_rows_of_the_store_apart_from_the_gate_but_for_what_is_named_here() -> None:
    found = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READS):
                continue
            if "store" in ast.unparse(node.func.value):
                assert node.args, (
                    f"{path}: expected the view of a read of the store in place, found none. Name it there."
                )
                views = node.args[0].elts if isinstance(node.args[0], ast.List) else [node.args[0]]
                found |= {(str(path.relative_to(ROOT)), ast.unparse(view).rpartition(".")[2]) for view in views}
    assert found == set(READ_DIRECTLY)


def test_nothing_in_serving_opens_a_store_of_features_itself_unless_to_write() -> None:
    """Rows come with a `Source`, which `feature_repo.reads.source` makes."""
    openers = {"online_store", "sqlite_store", "redis_store"}
    found = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.ImportFrom | ast.Import) else []
            module = (node.module or "").split(".") if isinstance(node, ast.ImportFrom) else []
            if openers & {part for name in names for part in name.split(".")} or openers & set(module):
                found.append(str(path.relative_to(ROOT)))
    assert found == [WRITES]
    written = ast.walk(ast.parse((ROOT / WRITES).read_text(encoding="utf-8")))
    assert not [node.attr for node in written if isinstance(node, ast.Attribute) and node.attr in (*READS, "decoded")]
