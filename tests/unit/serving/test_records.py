"""The record of processing in its three forms, and two records compared: over a small flow, without a run."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from consent.receipts.shopper import CONTROLLER_FILE
from consent.receipts.vocabulary import CONTEXT
from consent.rule.policy import read_policy
from models.purpose_flow.declarations import categories
from models.purpose_flow.kept import keep
from serving.errors import ServingError
from serving.records.compare import diff
from serving.records.linked import as_json_ld, read_json_ld
from serving.records.page import as_html
from serving.records.record import record
from serving.records.shapes import Change, Event, Implementation, Recipient, Record
from serving.records.sheet import EVENT_HEADER, HEADER, as_csv, events_csv
from tests.unit.models.purpose_flow.small_flow import flow
from troth.home import Home

AT = datetime(2026, 5, 1, 8, tzinfo=UTC)
PAYLOAD = "=cmd|'/C calc'!A0"
# Of the Data Privacy Vocabulary 2.0 (https://w3id.org/dpv/2.0): the terms that the record uses beside those of vocabulary.py.
KNOWN_TERMS = {
    "dpv:DataProcessingRecord", "dpv:DataController", "dpv:DataProtectionAuthority", "dpv:Process", "dpv:StorageDuration",
    "dpv:Recipient", "dpv:DataProcessor", "dpv:ThirdParty", "dpv:DataSubject", "dpv:Customer", "dpv:Member",
    "dpv:EncryptionAtRest", "dpv:EncryptionInTransfer", "dpv:CryptographicKeyManagement", "dpv:DigitalSignatures",
    "dpv:Pseudonymisation", "dpv:InformationFlowControl", "dpv:AuthorisationProtocols", "dpv:AccessControlMethod",
    "dpv:AuthenticationProtocols", "dpv:ActivityMonitoring", "dpv:DataSanitisationTechnique", "dpv:FileSystemSecurity",
    "dpv:hasDataController", "dpv:hasName", "dpv:hasAddress", "dpv:hasContact", "dpv:hasAuthority", "dpv:hasRight", "dpv:hasProcess",
    "dpv:hasTechnicalOrganisationalMeasure", "dpv:hasPurpose", "dpv:hasProcessing", "dpv:hasPersonalData", "dpv:hasDataSubject",
    "dpv:hasLegalBasis", "dpv:hasRecipient", "dpv:hasStorageCondition", "dpv:hasDuration", "dpv:hasCountry",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    keep(found, flow(), "print", AT)
    return found


class Page(HTMLParser):
    """What a page is made of: its tags in order with their attributes, and the text of headings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "hr", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def told(home: Home) -> Record:
    return record(home, AT)


def with_odd_names(found: Record, name: str) -> Record:
    """A record in which somebody has a name that means something to a page or a spreadsheet."""
    recipient = Recipient(
        name=name, kind="destination", role="third_party", country="DE", is_transfer=True, purposes=["marketing"], keep_days=30, sha256="00",
    )  # fmt: skip
    activities = [msgspec.structs.replace(each, recipients=[recipient]) for each in found.activities]
    return msgspec.structs.replace(found, activities=activities)


def test_every_purpose_of_the_policy_is_an_activity_and_nothing_is_made_up(home: Home) -> None:
    found, policy = told(home), read_policy()
    assert [each.purpose_code for each in found.activities] == list(policy.purposes)
    said = yaml.safe_load(CONTROLLER_FILE.read_text())["controller"]
    for activity in found.activities:
        assert activity.retention == said["purposes"][activity.purpose_code]["retention"]
        assert {each.jurisdiction_code for each in activity.bases} == set(policy.jurisdictions)
        for basis in activity.bases:
            assert basis.expires_after_days == policy.days(activity.purpose_code, basis.jurisdiction_code)
        assert activity.people == []  # no standing was published here
    assert found.controller.name == said["name"]


def test_a_purpose_that_nobody_declared_a_period_for_says_so(home: Home) -> None:
    content = yaml.safe_load(CONTROLLER_FILE.read_text())
    del content["controller"]["purposes"]["analytics"]
    (home.root / CONTROLLER_FILE.name).write_text(yaml.safe_dump(content))
    found = told(home)
    assert {each.purpose_code: each.retention for each in found.activities}["analytics"] == "not declared"
    assert ("analytics", "purpose", "found_not_declared") in {
        (each.purpose_code, each.what, each.kind) for each in found.differences
    }
    assert "not declared" in as_html(found).decode()


def test_in_a_home_that_was_never_checked_no_data_is_told_of(tmp_path: Path) -> None:
    found = record(Home(tmp_path), AT)
    assert found.flow_checked_at is None
    assert all(each.data == [] and each.implementations == [] for each in found.activities)
    assert "No flow of data was checked in this home yet" in as_html(found).decode()


def test_the_page_is_whole_runs_nothing_and_can_be_read_by_ear(home: Home) -> None:
    html = as_html(with_odd_names(told(home), "<script>alert(1)</script>")).decode()
    page = Page(html)
    assert page.open == []
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "iframe", "img", "link", "object", "form"} & set(tags)
    assert not [name for _, attrs in page.tags for name in attrs if name == "style" or name.startswith("on")]
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    headings = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    assert tags.count("table") == tags.count("caption") > 10
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {str(attrs["href"])[1:] for tag, attrs in page.tags if tag == "a"} <= set(ids)
    assert dict(page.tags)["html"] == {"lang": "en"}
    assert "@media print" in html


def test_no_cell_is_run_by_a_spreadsheet(home: Home) -> None:
    rows = list(csv.reader(io.StringIO(as_csv(with_odd_names(told(home), PAYLOAD)).decode())))
    assert tuple(rows[0]) == HEADER
    assert {len(row) for row in rows} == {len(HEADER)}
    assert f"'{PAYLOAD}" in {cell for row in rows for cell in row}
    odd = Event(at=AT, kind="look", who="@kim", what=PAYLOAD)
    (header, row) = list(csv.reader(io.StringIO(events_csv([odd]).decode())))
    assert tuple(header) == EVENT_HEADER
    assert row[2:4] == ["'@kim", f"'{PAYLOAD}"]


def test_every_fact_of_an_activity_is_a_line(home: Home) -> None:
    found = with_odd_names(told(home), "Letterbird")
    rows = [tuple(row) for row in csv.reader(io.StringIO(as_csv(found).decode()))]
    for activity in found.activities:
        mine = [row for row in rows if row[0] == activity.purpose_code]
        assert len([row for row in mine if row[1] == "legal basis"]) == len(activity.bases)
        assert {row[2] for row in mine if row[1] == "personal data"} == {each.category for each in activity.data}
        assert len([row for row in mine if row[1] == "implementation"]) == len(activity.implementations)
        assert ("recipient", "Letterbird", "third_party", "DE, transfer to another country") in {
            row[1:] for row in mine
        }
    assert {row[2] for row in rows if row[1] == "measure"} == {each.title for each in found.measures}


def terms(value: Any) -> set[str]:
    """Every prefixed name in a document, keys and values alike."""
    if isinstance(value, dict):
        return {name for key, part in value.items() if key != "record" for name in {key} | terms(part)}
    if isinstance(value, list):
        return {name for part in value for name in terms(part)}
    return {value} if isinstance(value, str) and re.fullmatch(r"[a-z-]+:[A-Za-z0-9-]+", value) else set()


def test_the_json_speaks_the_vocabulary_and_is_read_back_as_the_same_record(home: Home, tmp_path: Path) -> None:
    found = with_odd_names(told(home), "Letterbird")
    document = json.loads(as_json_ld(found))
    assert document["@context"].items() >= CONTEXT.items()
    used = {name for name in terms(document) if ":" in name}
    prefixes = {name.partition(":")[0] for name in used}
    assert prefixes <= set(document["@context"]) | {"https", "http"}
    from consent.receipts import vocabulary

    own = {
        each for table in (vocabulary.PURPOSES, vocabulary.OPERATIONS) for listed in table.values() for each in listed
    }
    own |= {each for pair in vocabulary.LEGAL_BASES.values() for each in pair} | set(vocabulary.RIGHTS.values())
    own |= {each.term for each in categories().values()}
    known = KNOWN_TERMS | own
    assert {name for name in used if name.startswith(("dpv:", "pd:", "eu-gdpr:"))} <= known
    assert len(document["dpv:hasProcess"]) == len(found.activities)
    path = tmp_path / "record.json"
    path.write_bytes(as_json_ld(found))
    assert read_json_ld(path) == found
    assert diff(read_json_ld(path), found) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"record": {}}', b'{"record": []}'])
def test_another_file_is_no_record(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ServingError, match=r"record\.json: expected a record of processing as JSON"):
        read_json_ld(path)


def test_two_records_of_one_home_differ_in_nothing_but_their_time(home: Home) -> None:
    first, second = record(home, AT), record(home, AT + timedelta(days=1))
    assert first.sha256 == second.sha256
    assert diff(first, second) == []


def test_what_is_new_gone_or_changed_is_named(home: Home) -> None:
    before = told(home)
    new = Implementation(
        kind="feature service", name="resell_v1", version="v1", sha256="ab" * 32, declared_in="catalogue.py"
    )
    service = next(each for each in before.activities if each.purpose_code == "service")
    changed = msgspec.structs.replace(service, implementations=[*service.implementations[1:], new], retention="P1Y")
    after = msgspec.structs.replace(
        before, activities=[changed if each is service else each for each in before.activities]
    )
    found = {change.where: change for change in diff(before, after)}
    place = "activities / service"
    gone = service.implementations[0]
    assert found[f"{place} / retention"] == Change(where=f"{place} / retention", before="P7Y", after="P1Y")
    assert found[f"{place} / implementations / feature service resell_v1"].before is None
    assert found[f"{place} / implementations / {gone.kind} {gone.name}"].after is None
    assert all(where.startswith(place) for where in found)


def test_what_people_are_told_is_held_against_what_flows(home: Home) -> None:
    content = yaml.safe_load(CONTROLLER_FILE.read_text())
    content["controller"]["purposes"]["marketing"]["personal_data"] = ["pd:Contact", "pd:ShoeSize"]
    (home.root / CONTROLLER_FILE.name).write_text(yaml.safe_dump(content))
    found = {(each.purpose_code, each.kind, each.name) for each in told(home).differences if each.what == "data"}
    assert ("marketing", "declared_not_found", "pd:ShoeSize") in found
    assert ("marketing", "found_not_declared", "identifier") in found
    assert ("marketing", "found_not_declared", "contact") not in found
