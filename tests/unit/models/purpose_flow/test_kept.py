"""What a home keeps of its flow: the same flow again, asked about uses that came later."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.purpose_flow.errors import FlowError
from models.purpose_flow.kept import file_of, keep, kept, known, refuse_uncovered, uncovered
from tests.unit.models.purpose_flow.small_flow import BORN, PLANTED, SERVED, flow
from troth.home import Home

AT = datetime(2026, 5, 1, 8, tzinfo=UTC)


def test_a_kept_flow_is_read_as_the_same_flow(tmp_path: Path) -> None:
    home, made = Home(tmp_path), flow()
    keep(home, made, "print", AT)
    again = known(home)
    assert again is not None
    assert {place: steps for place, steps in again.graph.into.items() if steps} == {
        place: steps for place, steps in made.graph.into.items() if steps
    }
    assert all(place in again.graph.into for place in made.graph.into)
    assert again.graph.columns == made.graph.columns
    assert again.declared == made.declared
    assert tuple(again.uses) == tuple(made.uses)
    found = kept(home)
    assert found is not None
    assert (found.is_verified, found.fingerprint, found.checked_at) == (True, "print", AT)


def test_a_home_without_a_check_keeps_nothing_and_refuses_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert kept(home) is None
    assert known(home) is None
    assert uncovered(home, [PLANTED]) == ()
    refuse_uncovered(home, [PLANTED])


def test_a_use_described_later_is_held_against_the_kept_flow(tmp_path: Path) -> None:
    home = Home(tmp_path)
    keep(home, flow(), "print", AT)
    assert [finding.column for finding in uncovered(home, [PLANTED])] == [BORN]
    with pytest.raises(FlowError, match=r"segment spenders: expected data that may be used for marketing, found raw_loyalty__members\.birth_date"):  # fmt: skip
        refuse_uncovered(home, [PLANTED])
    refuse_uncovered(home, [replace(PLANTED, purpose="service")])


def test_what_a_home_described_blocks_itself_alone(tmp_path: Path) -> None:
    own = replace(PLANTED, is_of_home=True)
    found = keep(Home(tmp_path), flow(SERVED, own), "print", AT)
    assert not found.is_verified
    assert found.blocking == []
    assert [each.use for each in found.findings] == ["segment spenders"]
    assert keep(Home(tmp_path), flow(SERVED, PLANTED), "print", AT).blocking


def test_the_hash_says_what_was_checked_and_not_when(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first, later = keep(home, flow(), "print", AT), keep(home, flow(), "print", AT + timedelta(days=1))
    assert first.hash == later.hash
    assert keep(home, flow(SERVED, PLANTED), "print", AT).hash != first.hash


def test_a_newer_check_is_seen_at_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for number in range(5):
        keep(home, flow(), f"print {number}", AT)
        found = kept(home)
        assert found is not None
        assert found.fingerprint == f"print {number}"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": "another"}', b"not JSON"])
def test_a_damaged_file_is_said(tmp_path: Path, content: bytes) -> None:
    home = Home(tmp_path)
    home.reports.mkdir(parents=True)
    file_of(home).write_bytes(content)
    with pytest.raises(FlowError, match="expected a kept flow, found another file"):
        kept(home)
