"""The texts people were shown when asked: files by notice, version and language, each with its hash.

`notices/<notice>/<version>.<language>.md`. `notices/SHA256SUMS` names the hash of every text: what was shown is not
edited afterwards, it gets a new version. Which versions still count is in the policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from consent.errors import ConsentError
from consent.rule.policy import Policy

FOLDER = Path(__file__).with_name("notices")
SUMS = "SHA256SUMS"
DEFAULT_LANGUAGE = "en"


@dataclass(frozen=True)
class NoticeText:
    """One text: its first line is the title; `hash` is the SHA-256 of the file, in hex."""

    notice_id: str
    version: int
    language_code: str
    title: str
    text: str
    hash: str


@dataclass(frozen=True)
class Notices:
    """Every text, by (notice, version, language)."""

    texts: Mapping[tuple[str, int, str], NoticeText]

    def find(self, notice_id: str, version: int, language_code: str) -> NoticeText | None:
        return self.texts.get((notice_id, version, language_code))

    def has(self, notice_id: str, version: int) -> bool:
        return any(key[:2] == (notice_id, version) for key in self.texts)

    def best(self, notice_id: str, version: int, language_code: str) -> NoticeText:
        """The text in a language, or in the default one. Every version in use has that."""
        return self.texts.get((notice_id, version, language_code)) or self.texts[(notice_id, version, DEFAULT_LANGUAGE)]


def read_notices(policy: Policy, folder: Path = FOLDER) -> Notices:
    """All texts of a folder, checked against their hashes and against the policy.

    Raises: ConsentError when a text was edited, is not listed, belongs to no notice of the policy, or is missing: every
    version that counts has a text in the default language.
    """
    listed = _listed(folder / SUMS)
    texts: dict[tuple[str, int, str], NoticeText] = {}
    for path in sorted(folder.glob("*/*.md")):
        name = path.relative_to(folder).as_posix()
        found = _read(path)
        if listed.pop(name, None) != found.hash:
            raise _wrong(
                name, f"the hash {SUMS} names", "another", "Restore it, or add the changed text as a new version"
            )
        notice = policy.notices.get(found.notice_id)
        if notice is None or found.version > notice.current_version:
            raise _wrong(
                name, "a notice and version of the policy", "neither", "Add it to the policy, or remove the text"
            )
        texts[(found.notice_id, found.version, found.language_code)] = found
    if listed:
        raise _wrong(min(listed), f"a text, as {SUMS} says", "none", "Restore it")
    for notice in policy.notices.values():
        for version in range(notice.minimum_version, notice.current_version + 1):
            if (notice.notice_id, version, DEFAULT_LANGUAGE) not in texts:
                name = f"{notice.notice_id}/{version}.{DEFAULT_LANGUAGE}.md"
                raise _wrong(name, "a text for every version that counts", "none", "Write it")
    return Notices(texts)


def _read(path: Path) -> NoticeText:
    data = path.read_bytes()
    version, _, language = path.stem.partition(".")
    title, _, text = data.decode().partition("\n")
    if not (version.isdigit() and language and title.startswith("# ") and text.strip()):
        name = f"{path.parent.name}/{path.name}"
        raise _wrong(name, "`<version>.<language>.md` with a title and a text", "otherwise", "Correct it")
    return NoticeText(
        notice_id=path.parent.name,
        version=int(version),
        language_code=language,
        title=title[2:].strip(),
        text=text.strip(),
        hash=sha256(data).hexdigest(),
    )


def _listed(path: Path) -> dict[str, str]:
    if not path.exists():
        raise _wrong(path.name, "the list of hashes", "none", "Restore it")
    lines = (line.split() for line in path.read_text().splitlines())
    return {name: digest for digest, name in lines}


def _wrong(what: str, expected: str, found: str, advice: str) -> ConsentError:
    return ConsentError(f"notice text {what}: expected {expected}, found {found}. {advice}.")
