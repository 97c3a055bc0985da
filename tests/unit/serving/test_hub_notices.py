import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from consent.errors import ConsentError
from consent.events import Recorded
from consent.notices import DEFAULT_LANGUAGE, FOLDER, SUMS, read_notices
from consent.rule.policy import read_policy
from consent.rule.standing import standing
from tests.unit.consent.builders import event as grant_event
from tests.unit.serving.open_hub import MONDAY, OpenHub, problem

POLICY = read_policy()


def relist(folder: Path) -> None:
    texts = sorted(folder.glob("*/*.md"))
    lines = [f"{sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in texts]
    (folder / SUMS).write_text("\n".join(lines) + "\n")


def test_every_version_that_counts_has_a_text_in_every_language_of_the_current_one() -> None:
    notices = read_notices(POLICY)
    for notice in POLICY.notices.values():
        spoken = {
            code
            for name, version, code in notices.texts
            if (name, version) == (notice.notice_id, notice.current_version)
        }
        assert DEFAULT_LANGUAGE in spoken
        for version in range(notice.minimum_version, notice.current_version + 1):
            assert all(notices.find(notice.notice_id, version, code) for code in spoken)


def test_what_the_preference_centre_tells_is_what_the_policy_does() -> None:
    """A change of the policy that fails here asks for a new version of the text."""
    told = (
        read_notices(POLICY).best("preference_centre", POLICY.notices["preference_centre"].current_version, "en").text
    )
    without_a_yes = {
        code
        for place in POLICY.jurisdictions
        for code, purpose in POLICY.purposes.items()
        if not purpose.rests_on_contract and POLICY.mechanism(code, place) != "opt_in"
    }
    assert ("Without a yes we do not do it, with one exception" in told, without_a_yes) == (True, {"analytics"})
    longest: dict[int | None, set[str]] = {}
    for code, purpose in POLICY.purposes.items():
        if purpose.rests_on_consent:
            days = [POLICY.days(code, place) for place in POLICY.jurisdictions]
            longest.setdefault(None if None in days else max(day for day in days if day), set()).add(code)
    assert "at most two years; for handing data to other companies, at most one year; for joining" in told
    assert longest == {
        730: {"personalization", "analytics", "marketing", "model_training"},
        365: {"third_party_sharing"},
        None: {"profile_unification"},
    }


def test_a_yes_under_the_first_text_of_the_preference_centre_still_stands() -> None:
    said = grant_event(notice_id="preference_centre", notice_version=1)
    found = standing([Recorded(0, said)], said.subject_id, "personalization", "*", said.received_at, policy=POLICY)
    assert (found.is_allowed, found.reason_code) == (True, "granted")


def test_the_hub_shows_the_newest_text_in_the_language_of_the_person(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link()
    for language, sentence in (("en", "with one exception"), ("es", "con una excepción")):
        assert sentence in shop.person.get(f"{path}?language={language}").text
        told = shop.person.get(f"/v1{path}", headers={"Accept-Language": language}).json()["notice"]
        assert (told["notice_id"], told["version"], told["language_code"]) == ("preference_centre", 2, language)
    listed = {
        (each["version"], each["is_current"], each["counts"])
        for each in shop.person.get("/v1/notices").json()
        if each["notice_id"] == "preference_centre"
    }
    assert listed == {(1, False, True), (2, True, True)}


def test_a_yes_to_a_page_with_the_text_before_is_asked_again_and_a_no_is_taken(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    path = shop.link()
    form = shop.hub.links.form_token(shop.hub.links.open(path.rsplit("/", 1)[1], ("preferences",), MONDAY), 1, "en")
    answers = [shop.person.post(path, data={"form": form, "choice": f"{word}:analytics:*"}) for word in ("yes", "no")]
    assert [answer.status_code for answer in answers] == [403, 303]
    assert shop.stands(path, "analytics") == (False, "refused")


def edit(folder: Path) -> None:
    path = folder / "web_banner" / "1.en.md"
    path.write_text(path.read_text().replace("none of it", "most of it"))


def lose(folder: Path) -> None:
    (folder / "web_banner" / "1.en.md").unlink()


def lose_and_relist(folder: Path) -> None:
    lose(folder)
    relist(folder)


def add_unlisted(folder: Path) -> None:
    (folder / "web_banner" / "2.fr.md").write_text("# Bonjour\n\nTexte.\n")


def add_ahead_of_the_policy(folder: Path) -> None:
    (folder / "web_banner" / "3.en.md").write_text("# New\n\nText.\n")
    relist(folder)


def forget_the_list(folder: Path) -> None:
    (folder / SUMS).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (edit, r"web_banner/1\.en\.md: expected the hash SHA256SUMS names, found another"),
        (lose, r"web_banner/1\.en\.md: expected a text, as SHA256SUMS says, found none"),
        (lose_and_relist, r"web_banner/1\.en\.md: expected a text for every version that counts, found none"),
        (add_unlisted, r"web_banner/2\.fr\.md: expected the hash SHA256SUMS names, found another"),
        (add_ahead_of_the_policy, r"web_banner/3\.en\.md: expected a notice and version of the policy, found neither"),
        (forget_the_list, r"SHA256SUMS: expected the list of hashes, found none"),
    ],
)
def test_a_text_that_was_shown_stays_as_it_was(spoil: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "notices"
    shutil.copytree(FOLDER, folder)
    assert read_notices(POLICY, folder) == read_notices(POLICY)
    spoil(folder)
    with pytest.raises(ConsentError, match=message):
        read_notices(POLICY, folder)


def test_notices_are_told_with_their_hash_to_everyone(tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    listed = shop.person.get("/v1/notices").json()
    one = shop.person.get("/v1/notices/web_banner/2/es").json()
    assert {(each["notice_id"], each["version"], each["language_code"]) for each in listed} >= {("web_banner", 1, "en")}
    assert one["hash"] == sha256((FOLDER / "web_banner" / "2.es.md").read_bytes()).hexdigest()
    assert (one["is_current"], one["counts"], one["title"]) == (True, True, "¿Podemos usar sus datos?")
    assert one["hash"] in shop.person.get("/notices/web_banner/2/es").text


@pytest.mark.parametrize(
    "path", ["web_banner/3/en", "web_banner/x/en", "web_banner/²/en", "nope/1/en", "web_banner/1/fr"]
)
def test_a_notice_that_was_never_shown_is_not_found(path: str, tmp_path: Path) -> None:
    shop = OpenHub(tmp_path)
    assert problem(shop.person.get(f"/v1/notices/{path}")) == (404, "no_such_notice")
    assert problem(shop.person.get(f"/notices/{path}")) == (404, "no_such_notice")
