"""What people say behind their links, and what the ledger holds of it."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.unit.serving.open_hub import FORM, PHONE, OpenHub, grant, problem

CLICK = {"List-Unsubscribe": "One-Click"}


def kinds(shop: OpenHub) -> list[tuple[str, str, str]]:
    return [(event.event_type, event.purpose_code, event.channel_code) for event in shop.said()]


def test_a_yes_and_a_no_are_one_click_each_and_are_recorded_with_the_text_that_was_shown(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link()
    for choice, expected in (("yes", (True, "granted")), ("no", (False, "withdrawn")), ("yes", (True, "granted"))):
        response = shop.choose(path, f"{choice}:marketing:email")
        assert (response.status_code, response.headers["location"].split("?")[0]) == (303, path)
        assert shop.stands(path, "marketing", "email") == expected
    assert [kind for kind, _, _ in kinds(shop)] == [
        *("notice_shown", "grant", "notice_shown", "withdraw", "notice_shown", "grant")
    ]
    assert {
        (event.notice_id, event.notice_version, event.language_code, event.capture_place, event.actor_type)
        for event in shop.said()
    } == {("preference_centre", 2, "en", "preference_centre", "subject")}
    assert shop.stands(path, "marketing", "sms") == (False, "never_asked")


def test_looking_writes_nothing(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    for path in (shop.link(), shop.link("unsubscribe"), shop.link("confirm")):
        assert shop.person.get(path).status_code == 200
    assert shop.hub.ledger.size == 0


def test_a_form_sent_twice_says_it_once(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link()
    form = FORM.search(shop.person.get(path).text)
    assert form is not None
    for choice in ("yes:analytics:*", "no:marketing:sms", "no:*:*"):
        before = shop.hub.ledger.size
        sizes = []
        for _ in range(2):
            assert shop.person.post(path, data={"form": form[1], "choice": choice}).status_code == 303
            sizes.append(shop.hub.ledger.size)
        assert before < sizes[0] == sizes[1]


@pytest.mark.parametrize("last", ["yes", "no"])
def test_however_often_minds_change_on_one_old_page_the_last_word_counts(last: str, tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link()
    form = FORM.search(shop.person.get(path).text)
    assert form is not None
    first = "no" if last == "yes" else "yes"
    for choice in (first, last) * 3:
        shop.clock.at += timedelta(seconds=1)
        shop.person.post(path, data={"form": form[1], "choice": f"{choice}:personalization:*"})
    assert shop.stands(path, "personalization")[0] == (last == "yes")


def test_no_to_everything_is_a_no_to_each_purpose_by_name_and_leaves_orders_alone(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1), grant(2, purpose_code="analytics", channel_code="*"))
    path = shop.link()
    shop.choose(path, "no:*:*")
    rows = shop.person.get(f"/v1{path}").json()["preferences"]
    assert {row["purpose_code"] for row in rows if row["is_allowed"]} == {"service"}
    assert {row["reason_code"] for row in rows} == {"withdrawn", "refused", "contract"}
    said = [kind for kind in kinds(shop)[2:] if kind[0] != "notice_shown"]
    assert ("withdraw", "marketing", "*") in said
    assert ("refuse", "third_party_sharing", "*") in said
    assert len(said) == 6


def test_a_yes_after_a_no_to_everything_is_heard(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link()
    shop.choose(path, "no:*:*")
    shop.choose(path, "yes:marketing:sms")
    assert shop.stands(path, "marketing", "sms") == (True, "granted")
    assert shop.stands(path, "marketing", "email") == (False, "refused")


@pytest.mark.parametrize(
    "choice", ["yes:*:*", "yes:marketing:*", "yes:service:*", "no:service:*", "no:astrology:*", "", "no"]
)
def test_what_the_page_does_not_offer_is_not_done(choice: str, tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    assert problem(shop.choose(shop.link(), choice)) == (400, "bad_request")
    assert shop.hub.ledger.size == 0


def test_a_form_of_another_link_of_another_site_or_of_nobody_changes_nothing(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path, other = shop.link(), shop.link()
    forms = [FORM.search(shop.person.get(each).text) for each in (path, other)]
    assert forms[0] is not None
    assert forms[1] is not None
    for form, headers in (
        (forms[1][1], {}),
        ("", {}),
        ("1.en.AAAA", {}),
        (forms[0][1], {"Sec-Fetch-Site": "cross-site"}),
    ):
        response = shop.person.post(path, data={"form": form, "choice": "yes:marketing:email"}, headers=headers)
        assert (response.status_code, response.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert shop.hub.ledger.size == 0


def test_a_no_under_a_joined_identity_is_shown_as_such_and_is_still_recorded_here_when_said_again(
    tmp_path: Path,
) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1), grant(2, event_type="refuse", identifier=PHONE))
    ends = (shop.alma(), shop.alma(PHONE))
    joined = [
        replace(event, event_type="identity_linked", linked_subject_id=other, link_type="hub", signal_id="merge-1")
        for event, other in zip(shop.said(), reversed(ends), strict=True)
    ]
    shop.hub.ledger.append(joined)
    path = shop.link()
    assert shop.stands(path, "marketing", "email") == (False, "refused")
    assert "under another address, card or account" in shop.person.get(path).text
    shop.choose(path, "no:marketing:email")
    assert [event.subject_id for event in shop.said()[4:]] == [shop.alma()] * 2


def test_one_click_stops_exactly_that_purpose_and_channel_and_needs_no_page(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1), grant(2, channel_code="sms"))
    path = shop.link("unsubscribe")
    assert shop.person.post(path, data=CLICK).status_code == 200
    mine = shop.link()
    assert shop.stands(mine, "marketing", "email") == (False, "withdrawn")
    assert shop.stands(mine, "marketing", "sms") == (True, "granted")
    (event,) = shop.said()[2:]
    assert (event.capture_method, event.capture_place) == ("one_click_unsubscribe", "unsubscribe_link")


def test_one_click_is_heard_as_multipart_and_however_often_it_is_sent(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1))
    path = shop.link("unsubscribe")
    for _ in range(3):
        response = shop.person.post(path, files={"List-Unsubscribe": (None, "One-Click")})
        assert response.status_code == 200
        assert "no longer get" in response.text
    assert shop.hub.ledger.size == 2


def test_an_old_one_click_link_stops_again_what_was_agreed_since(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path, mine = shop.link("unsubscribe"), shop.link()
    shop.person.post(path, data=CLICK)
    shop.choose(mine, "yes:marketing:email")
    shop.clock.at += timedelta(days=20)
    shop.person.post(path, data=CLICK)
    assert shop.stands(mine, "marketing", "email") == (False, "withdrawn")


def test_a_mail_scanner_that_follows_the_link_stops_nothing_and_the_button_does(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1))
    path, mine = shop.link("unsubscribe"), shop.link()
    assert shop.person.get(path).text.count("<button") == 3
    assert shop.stands(mine, "marketing", "email") == (True, "granted")
    assert shop.choose(path, "this").status_code == 303
    assert shop.stands(mine, "marketing", "email") == (False, "withdrawn")
    assert "no longer get" in shop.person.get(path).text


@pytest.mark.parametrize(
    ("choice", "other_channel", "other_purpose"), [("purpose", False, True), ("everything", False, False)]
)
def test_an_unsubscribe_page_offers_the_wider_nos(
    choice: str, other_channel: bool, other_purpose: bool, tmp_path: Path
) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1), grant(2, channel_code="sms"), grant(3, purpose_code="analytics", channel_code="*"))
    assert shop.choose(shop.link("unsubscribe"), choice).status_code == 303
    mine = shop.link()
    assert shop.stands(mine, "marketing", "email")[0] is False
    assert shop.stands(mine, "marketing", "sms")[0] is other_channel
    assert shop.stands(mine, "analytics")[0] is other_purpose


def test_an_unsubscribe_link_can_never_say_yes_nor_see_preferences(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link("unsubscribe")
    assert problem(shop.choose(path, "yes:marketing:email")) == (400, "bad_request")
    text = path.rpartition("/")[2]
    assert shop.person.get(f"/preferences/{text}").status_code == 404
    assert problem(shop.person.get(f"/v1/preferences/{text}")) == (404, "no_such_link")
    assert shop.person.post(f"/confirm/{text}", data={}).status_code == 404
    assert shop.hub.ledger.size == 0


def test_a_confirmation_counts_once_and_its_link_is_then_dead(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link("confirm")
    form = FORM.search(shop.person.get(path).text)
    assert form is not None
    answers = [shop.person.post(path, data={"form": form[1]}) for _ in range(2)]
    assert [(answer.status_code, answer.headers.get("location")) for answer in answers] == [
        (303, "/thanks?language=en"),
        (404, None),
    ]
    assert shop.person.get(path).status_code == 404
    assert shop.person.get("/thanks").status_code == 200
    assert kinds(shop) == [("confirm", "marketing", "email")]


def test_used_expired_forged_and_misplaced_links_get_one_and_the_same_page(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    used, mine, stop = shop.link("confirm"), shop.link(), shop.link("unsubscribe")
    shop.choose(used, "")
    found = [shop.person.get(used), shop.person.get(mine[:-1]), shop.person.get("/preferences/x")]
    found.append(shop.person.get(stop.replace("unsubscribe", "preferences")))
    shop.clock.at += timedelta(days=90)
    found += [shop.person.get(mine), shop.person.post(mine, data={"choice": "no:*:*"})]
    assert {(each.status_code, each.text) for each in found} == {(404, found[0].text)}


def test_a_privacy_signal_is_recorded_before_anything_else_is_answered_and_once_a_day(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.say(grant(1, purpose_code="third_party_sharing", channel_code="*"))
    path = shop.link()
    assert shop.stands(path, "third_party_sharing") == (True, "granted")
    signal = {"Sec-GPC": "1"}
    first = shop.person.get(f"/v1{path}", headers=signal).json()
    row = next(each for each in first["preferences"] if each["purpose_code"] == "third_party_sharing")
    assert (row["is_allowed"], row["reason_code"], first["is_gpc_honoured"]) == (False, "gpc", True)
    assert "Global Privacy Control" in shop.person.get(path, headers=signal).text
    assert shop.hub.ledger.size == 2
    shop.clock.at += timedelta(days=1)
    shop.person.get(shop.link("unsubscribe"), headers=signal)
    assert [event.capture_method for event in shop.said()[1:]] == ["gpc", "gpc"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_privacy_signal_counts_even_where_the_request_itself_is_refused(method: str, tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    shop.person.request(method, shop.link(), headers={"Sec-GPC": "1", "Content-Type": "text/plain"})
    assert [event.event_type for event in shop.said()] == ["signal_seen"]


def test_only_a_one_in_the_header_is_a_signal_and_only_a_link_proves_a_subject(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    for value in ("0", "true", ""):
        shop.person.get(shop.link(), headers={"Sec-GPC": value})
    shop.person.get("/preferences/nobody", headers={"Sec-GPC": "1"})
    assert shop.hub.ledger.size == 0
    assert shop.person.get("/.well-known/gpc.json").json()["gpc"] is True


def test_preferences_are_changed_as_json_under_the_notice_they_came_with(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = f"/v1{shop.link()}"
    notice = shop.person.get(path, headers={"Accept-Language": "es-MX, en;q=0.5"}).json()["notice"]
    shown = {"notice_version": notice["version"], "language_code": notice["language_code"]}
    yes = {"purpose_code": "analytics", "channel_code": "*", "is_allowed": True}
    found = shop.person.request("PATCH", path, json={"changes": [yes], **shown}).json()
    row = next(each for each in found["preferences"] if each["purpose_code"] == "analytics")
    assert (row["is_allowed"], row["notice_id"], row["leaf_index"]) == (True, "preference_centre", 1)
    assert shop.said()[1].language_code == "es"


@pytest.mark.parametrize(
    "body",
    [
        {"changes": []},
        {"changes": [{"purpose_code": "analytics", "channel_code": "*", "is_allowed": True}]},
        {"changes": [{"purpose_code": "analytics", "channel_code": "*", "is_allowed": True}], "notice_version": 9},
        {
            "changes": [{"purpose_code": "*", "channel_code": "*", "is_allowed": True}],
            "notice_version": 1,
            "language_code": "en",
        },
        {"changes": [{"purpose_code": "astrology", "channel_code": "*", "is_allowed": False}]},
        {"changes": [{"purpose_code": "service", "channel_code": "*", "is_allowed": False}]},
        {"changes": [{"purpose_code": "analytics", "channel_code": "*", "is_allowed": "yes"}]},
    ],
)
def test_a_change_that_cannot_be_meant_is_refused_whole(body: dict[str, object], tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    assert problem(shop.person.request("PATCH", f"/v1{shop.link()}", json=body)) == (422, "not_as_described")
    assert shop.hub.ledger.size == 0


def test_a_no_as_json_needs_no_notice(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    everything = {"purpose_code": "*", "channel_code": "*", "is_allowed": False}
    path = shop.link()
    assert shop.person.request("PATCH", f"/v1{path}", json={"changes": [everything]}).status_code == 200
    assert shop.stands(path, "model_training") == (False, "refused")


def test_oversize_and_odd_forms_are_refused_as_what_they_are(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link()
    for body, kind, expected in (
        (b"a" * 20_000, "application/x-www-form-urlencoded", (413, "too_large")),
        (b"&".join(b"a=b" for _ in range(50)), "application/x-www-form-urlencoded", (400, "bad_request")),
        (b"\xff", "application/x-www-form-urlencoded", (400, "bad_request")),
        (b"x", "multipart/form-data", (400, "bad_request")),
        (b"{}", "application/json", (415, "unsupported_type")),
    ):
        response = shop.person.post(path, content=body, headers={"Content-Type": kind})
        assert problem(response) == expected
