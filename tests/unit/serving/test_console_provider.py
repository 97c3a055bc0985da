"""Signing in with an identity provider: who gets in, and every way to get in that there must not be."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from starlette.applications import Starlette

from serving.console import accounts, provider
from serving.console.routes import Console
from serving.errors import ServingError
from tests.unit.serving.open_console import ADDRESS, AT, PASSWORD, Browser
from tests.unit.serving.told_provider import CLIENT, KEY, NOW, OTHER_KEY, SECRET, ToldProvider, public, telling
from troth.clock import FixedClock
from troth.home import Home

WAY, BACK = "/console/sign-in/with", "/console/sign-in/back"


def named(home: Home, **changes: Any) -> None:
    """Write who is believed; None leaves a field out."""
    folder = home.root / "keys"
    folder.mkdir(exist_ok=True)
    (folder / "sign_in.secret").write_text(f"{SECRET}\n")
    told = {
        "client_id": CLIENT, "address": ADDRESS, "client_secret_file": "sign_in.secret", "title": "Kettle & Sons",
        "roles": {"retail-marketing": ["marketer"], "retail-privacy": ["privacy_officer", "auditor"]},
    } | changes  # fmt: skip
    (folder / provider.FILE_NAME).write_text(
        json.dumps({name: value for name, value in told.items() if value is not None})
    )


@pytest.fixture
def told() -> Iterator[ToldProvider]:
    with telling() as found:
        yield found


@pytest.fixture
def home(tmp_path: Path, told: ToldProvider) -> Home:
    made = Home(tmp_path)
    named(made, issuer=told.issuer)
    return made


@pytest.fixture
def wall() -> FixedClock:
    return FixedClock(AT)


@pytest.fixture
def browser(home: Home, wall: FixedClock) -> Iterator[Browser]:
    console = Console(home, FixedClock(AT), wall)
    yield Browser(Starlette(routes=console.routes()))
    console.close()


def left(browser: Browser, then: str = "/console/you") -> str:
    """Off to the provider; the address the browser is sent to."""
    answer = browser.get(f"{WAY}?next={then}")
    assert answer.status_code == 303, browser.text()
    return answer.headers["location"]


def back(browser: Browser, address: str) -> httpx.Response:
    parts = urlsplit(address)
    assert f"{parts.scheme}://{parts.netloc}" == ADDRESS
    return browser.get(f"{parts.path}?{parts.query}")


def came(browser: Browser, told: ToldProvider) -> httpx.Response:
    """The whole way there and back."""
    return back(browser, told.allow(left(browser)))


def refused(browser: Browser, answer: httpx.Response) -> int:
    """That somebody is told no by a page, and is not signed in."""
    said = browser.text()
    assert "expected" in said
    assert "Mara" not in said
    assert "code-" not in said
    assert browser.get("/console/you").status_code == 303
    return answer.status_code


def test_who_has_a_role_by_their_group_gets_in_and_where_they_were_going(
    browser: Browser, told: ToldProvider, home: Home
) -> None:
    assert "Sign in with Kettle &amp; Sons" in browser.get("/console/sign-in?next=/console/you").text
    answer = came(browser, told)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/you")
    page = browser.get("/console/you")
    assert "Mara Lind" in page.text
    assert "Marketer" in page.text
    log = (home.root / "logs" / "console_looks.jsonl").read_text()
    assert '"staff":"sso:248289761001"' in log
    assert '"act":"signed_in"' in log
    assert b"unused" not in (home.root / "serving" / "console.db").read_bytes()


def test_the_question_is_by_code_with_a_challenge_and_the_exchange_has_what_it_was_made_of(
    browser: Browser, told: ToldProvider
) -> None:
    address = left(browser)
    question = parse_qs(urlsplit(address).query)
    assert address.startswith(f"{told.issuer}/authorize?")
    assert question["scope"] == ["openid profile"]
    assert len(question["code_challenge"][0]) == len(question["state"][0]) == len(question["nonce"][0]) == 43
    cookie = browser.shown.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    for secret in (question["state"][0], question["nonce"][0]):
        assert secret.lower() not in cookie
    back(browser, told.allow(address))
    assert told.asked[0]["grant_type"] == "authorization_code"
    assert "client_secret" not in told.asked[0]


@pytest.mark.parametrize(
    ("groups", "roles"),
    [
        ("retail-privacy", ["Auditor", "Privacy officer"]),
        (["retail-privacy", "retail-marketing", "tea"], ["Marketer", "Auditor", "Privacy officer"]),
    ],
)
def test_roles_are_those_of_all_groups(browser: Browser, told: ToldProvider, groups: Any, roles: list[str]) -> None:
    told.groups = groups
    came(browser, told)
    page = browser.get("/console/you").text
    assert all(role in page for role in roles)


def test_a_claim_may_lie_within_another_and_a_name_with_dots_is_a_name_first(
    browser: Browser, told: ToldProvider, home: Home
) -> None:
    told.changes = {"realm_access": {"roles": ["retail-marketing"]}, "https://kettle.example/id": "E-17"}
    named(home, issuer=told.issuer, groups_claim="realm_access.roles", person_claim="https://kettle.example/id")
    assert came(browser, told).status_code == 303
    assert "sso:E-17" in (home.root / "logs" / "console_looks.jsonl").read_text()


@pytest.mark.parametrize("groups", [None, [], ["tea"], "tea", {"retail-marketing": True}, [["retail-marketing"]], 7])
def test_nobody_without_a_mapped_role_gets_in(browser: Browser, told: ToldProvider, groups: Any) -> None:
    told.groups = groups
    assert refused(browser, came(browser, told)) == 403


WRONG: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "n" * 43},
    "no nonce": {"nonce": None},
    "another audience": {"aud": "till"},
    "others' audience too": {"aud": [CLIENT, "till"]},
    "another party": {"azp": "till"},
    "another issuer": {"iss": "https://evil.example"},
    "an end in the past": {"exp": NOW - 31},
    "no end": {"exp": None},
    "no beginning": {"iat": None},
    "made in the future": {"iat": NOW + 60},
    "nobody's": {"sub": None},
    "a name that is too long": {"sub": "s" * 101},
    "a name that is not to be read": {"sub": "mara\u202e"},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG.keys())
def test_an_id_token_that_is_not_what_it_should_be_lets_nobody_in(
    browser: Browser, told: ToldProvider, changes: dict[str, Any]
) -> None:
    told.changes = changes
    assert refused(browser, came(browser, told)) == 403


@pytest.mark.parametrize(
    ("key", "kid", "algorithm"),
    [
        (OTHER_KEY, "one", "RS256"),
        (OTHER_KEY, "two", "RS256"),
        (KEY, "one", "RS512"),
        (KEY, "one", "HS256"),
        (KEY, "one", None),
    ],
)
def test_a_token_under_no_key_another_key_or_in_another_way_lets_nobody_in(
    browser: Browser, told: ToldProvider, key: Any, kid: str, algorithm: str | None
) -> None:
    told.key, told.kid, told.algorithm = key, kid, algorithm
    assert refused(browser, came(browser, told)) == 403


def test_a_key_that_came_since_is_fetched(browser: Browser, told: ToldProvider) -> None:
    told.key, told.kid, told.keys = OTHER_KEY, "two", [public(KEY, "one"), public(OTHER_KEY, "two")]
    assert came(browser, told).status_code == 303


def test_an_answer_under_another_state_without_one_or_without_its_browser_lets_nobody_in(
    browser: Browser, told: ToldProvider
) -> None:
    address = left(browser)
    for state in ("s" * 43, None, "", "é"):
        told.answer = {"state": state}
        assert refused(browser, back(browser, told.allow(address))) == 400
    told.answer = {}
    other = Browser(browser.app)
    assert refused(other, back(other, told.allow(address))) == 400
    swapped = left(other)
    assert refused(other, back(other, told.allow(address))) == 400
    assert refused(browser, back(browser, told.allow(swapped))) == 400
    assert back(browser, told.allow(address)).status_code == 303
    assert len(told.asked) == 1


def test_an_answer_of_another_issuer_or_of_none_where_it_names_itself_is_not_even_exchanged(
    browser: Browser, told: ToldProvider
) -> None:
    for issuer in ("https://evil.example", f"{told.issuer}/", None):
        told.answer = {"iss": issuer}
        assert refused(browser, came(browser, told)) == 403
    assert told.asked == []


def test_a_parameter_that_is_sent_twice_is_no_answer(browser: Browser, told: ToldProvider) -> None:
    address = told.allow(left(browser))
    assert refused(browser, back(browser, f"{address}&code=another")) == 400
    assert told.asked == []


def test_a_code_is_good_once_and_so_is_the_way(browser: Browser, told: ToldProvider) -> None:
    address = left(browser)
    kept = dict(browser.cookies)
    answer = told.allow(address)
    assert back(browser, answer).status_code == 303
    thief = Browser(browser.app)
    thief.cookies.update({name: value for name, value in kept.items() if name.endswith("-way")})
    assert refused(thief, back(thief, answer)) == 400
    assert refused(thief, back(thief, told.allow(address))) == 400  # another code, the same way


def test_a_way_ends_after_a_while(browser: Browser, told: ToldProvider, wall: FixedClock) -> None:
    address = left(browser)
    wall.at = AT + provider.ON_THE_WAY + timedelta(seconds=1)
    assert refused(browser, back(browser, told.allow(address))) == 400


@pytest.mark.parametrize("cookie", ["x", "A" * 4_000, "A" * 100, "é", ""])
def test_a_made_up_way_opens_nothing(browser: Browser, cookie: str) -> None:
    browser.request("GET", f"{BACK}?code=a&state=b", headers={"cookie": f"troth-way={cookie}".encode()})
    assert browser.shown.status_code == 400


def test_a_no_of_the_provider_is_told_without_its_words(browser: Browser, told: ToldProvider) -> None:
    told.answer = {"code": None, "error": "access_denied", "error_description": "<script>alert(1)</script>"}
    answer = came(browser, told)
    assert "alert" not in answer.text
    assert refused(browser, answer) == 403


def test_after_signing_in_one_is_on_a_page_of_the_console_and_nowhere_else(
    browser: Browser, told: ToldProvider
) -> None:
    for then in ("https://evil.example/", "//evil.example", "/console/sign-in/with", "/console/" + "x" * 1_900):
        answer = back(browser, told.allow(left(browser, then)))
        assert answer.headers["location"] == "/console"


def test_a_provider_that_points_elsewhere_is_not_followed(browser: Browser, told: ToldProvider) -> None:
    told.is_moved = True
    assert browser.get(WAY).status_code == 503
    assert "evil" not in browser.shown.text


@pytest.mark.parametrize(
    "published",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://id.example/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": None},
    ],
)
def test_a_provider_that_publishes_what_it_must_not_is_not_asked(
    browser: Browser, told: ToldProvider, published: dict[str, Any]
) -> None:
    told.published = published
    assert browser.get(WAY).status_code == 503


def test_a_token_endpoint_that_knows_us_not_is_told_of(browser: Browser, told: ToldProvider, home: Home) -> None:
    (home.root / "keys" / "sign_in.secret").write_text("another")
    assert refused(browser, came(browser, told)) == 503


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65_537, 2_048),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["RS256", "ES256", "EdDSA"],
)
def test_we_may_prove_who_we_are_by_a_key(browser: Browser, told: ToldProvider, home: Home, key: Any) -> None:
    named(home, issuer=told.issuer, client_secret_file=None, private_key_file="sign_in.pem", private_key_id="k1")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (home.root / "keys" / "sign_in.pem").write_bytes(pem)
    told.client_key = key.public_key()
    assert came(browser, told).status_code == 303


@pytest.mark.parametrize("what", ["removed", "other roles", "too long"])
def test_a_session_ends_with_what_it_rests_on(
    browser: Browser, told: ToldProvider, home: Home, wall: FixedClock, what: str
) -> None:
    came(browser, told)
    assert browser.get("/console/you").status_code == 200
    if what == "removed":
        (home.root / "keys" / provider.FILE_NAME).unlink()
    elif what == "other roles":
        named(home, issuer=told.issuer, roles={"retail-marketing": ["operations"]})
    else:
        for _ in range(17):
            browser.get("/console/you")
            wall.at += timedelta(minutes=30)
    assert browser.get("/console/you").status_code == 303


def test_whoever_signs_out_here_may_sign_out_there_too(browser: Browser, told: ToldProvider) -> None:
    came(browser, told)
    assert browser.send("/console/sign-out").headers["location"] == "/console/sign-in/out"
    page = browser.get("/console/sign-in/out").text
    asked = urlencode({"client_id": CLIENT, "post_logout_redirect_uri": f"{ADDRESS}/console/sign-in"})
    assert f"{told.issuer}/bye?{asked}".replace("&", "&amp;") in page
    assert browser.get("/console/you").status_code == 303


def test_nobody_goes_to_a_provider_over_plain_http_from_another_machine(browser: Browser) -> None:
    far = Browser(browser.app, "http://10.1.2.3")
    assert far.get(WAY).status_code == 403
    assert far.get(f"{BACK}?code=a&state=b").status_code == 403


def test_over_tls_the_cookie_of_the_way_is_bound_to_the_host(browser: Browser) -> None:
    far = Browser(browser.app, "https://troth.example")
    cookie = far.get(WAY).headers["set-cookie"]
    assert cookie.startswith("__Host-troth-way=")
    assert "; secure" in cookie.lower()


def test_nobody_from_outside_is_taken_for_an_account_of_the_home(
    browser: Browser, told: ToldProvider, home: Home
) -> None:
    accounts.add(home, "ada", ["operations"], AT, PASSWORD)
    told.changes = {"sub": "ada", "name": "ada"}
    came(browser, told)
    assert "Marketer" in browser.get("/console/you").text
    assert '"staff":"sso:ada"' in (home.root / "logs" / "console_looks.jsonl").read_text()


@pytest.mark.parametrize(("is_verified", "status"), [(True, 303), (False, 403), ("true", 403), (None, 403)])
def test_an_address_names_somebody_when_it_was_verified(
    browser: Browser, told: ToldProvider, home: Home, is_verified: Any, status: int
) -> None:
    named(home, issuer=told.issuer, person_claim="email")
    told.changes = {"email": "mara@kettle.example", "email_verified": is_verified}
    assert came(browser, told).status_code == status


def test_without_a_provider_there_is_no_way_to_one(tmp_path: Path) -> None:
    browser = Browser(Starlette(routes=Console(Home(tmp_path), FixedClock(AT)).routes()))
    assert browser.get(WAY).status_code == 404
    assert browser.get(f"{BACK}?code=a&state=b").status_code == 404
    assert "Sign in with" not in browser.get("/console/sign-in").text


def test_a_damaged_file_shuts_out_no_account_of_the_home(browser: Browser, home: Home) -> None:
    accounts.add(home, "ada", ["marketer"], AT, PASSWORD)
    (home.root / "keys" / provider.FILE_NAME).write_text("{")
    assert "does not work just now" in browser.get("/console/sign-in").text
    assert browser.get(WAY).status_code == 503
    assert browser.enter() == 303


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://id.example"}, {"issuer": None}, {"client_id": ""}, {"roles": {}}, {"roles": {"a": ["chief"]}}, {"typo": 1},
        {"address": "https://troth.example/"}, {"address": "http://troth.example"}, {"client_secret_file": None},
        {"client_secret_file": "../../etc/passwd"}, {"private_key_file": "k.pem"}, {"algorithms": ["none"]}, {"algorithms": ["HS256"]},
        {"scopes": ["profile"]}, {"hours": 13}, {"token_endpoint": "https://id.example/token"},
        {"authorization_endpoint": "https://id.example/a", "token_endpoint": "http://id.example/t", "jwks_uri": "https://id.example/k"},
    ],
)  # fmt: skip
def test_a_provider_that_is_not_described_as_it_must_be_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    named(Home(tmp_path), **{"issuer": "https://id.example", **changes})
    with pytest.raises(ServingError, match=r"sign_in.json: expected .*, found "):
        provider.settings(Home(tmp_path))


def test_endpoints_may_be_given_instead_of_looked_up(browser: Browser, told: ToldProvider, home: Home) -> None:
    places = {name: told.document()[name] for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
    named(home, issuer=told.issuer, **places)
    told.published = {"issuer": "https://evil.example"}  # never asked
    assert came(browser, told).status_code == 303
