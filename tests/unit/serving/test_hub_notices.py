import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from consent.errors import ConsentError
from consent.notices import DEFAULT_LANGUAGE, FOLDER, SUMS, read_notices
from consent.rule.policy import read_policy
from tests.unit.serving.open_hub import OpenHub, problem

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
