"""Every reason has plain words for a shopper and for a marketer; nobody is named, nothing is left unfilled."""

import re
from datetime import UTC, datetime
from typing import get_args

import pytest

from consent.errors import ConsentError
from consent.rule.explanations import DENIED_BY_LIKENESS, EXPLANATIONS, SILENT_BY_LIKENESS, Audience, explain
from consent.rule.policy import read_policy
from consent.rule.standing import ALLOWED, REASONS, Standing
from tests.unit.consent.builders import MONDAY

POLICY = read_policy()
UNTIL = datetime(2027, 3, 3, tzinfo=UTC)
JARGON = ("leaf", "ledger", "subject", "gdpr", "opt", "consent", "processing", "standing", "identity", "expire", "null")


def test_every_reason_has_words_for_both_and_no_words_are_for_nothing() -> None:
    assert set(EXPLANATIONS) == set(REASONS)
    assert all(set(words) == set(get_args(Audience)) for words in EXPLANATIONS.values())


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("audience", get_args(Audience))
def test_an_explanation_says_what_since_when_until_when_and_what_changes_it(reason: str, audience: Audience) -> None:
    allowed = reason in ALLOWED
    dated = "{since}" in EXPLANATIONS[reason][audience].holds
    found = Standing(
        allowed, reason, MONDAY if dated else None, UNTIL if dated and allowed else None, 7 if dated else None
    )
    said = explain(found, audience, POLICY, "marketing", "email")
    assert said.startswith("Write to a person about offers. E-mail.")
    assert said.endswith(".")
    assert ".." not in said
    assert ("3 March 2025" in said) == dated
    assert ("It ends by itself on 3 March 2027." in said) == (dated and allowed)
    assert not re.search(r"[{}_@*]|\bleaf\b|None", said)


@pytest.mark.parametrize("audience", get_args(Audience))
def test_who_is_refused_for_a_likeness_is_told_that_it_is_one(audience: Audience) -> None:
    silent = explain(Standing(False, "never_asked", is_by_likeness=True), audience, POLICY, "analytics")
    assert silent.endswith(f"{SILENT_BY_LIKENESS[audience].changes}.")
    refused = explain(Standing(False, "withdrawn", MONDAY, is_by_likeness=True), audience, POLICY, "analytics")
    plain = explain(Standing(False, "withdrawn", MONDAY), audience, POLICY, "analytics")
    assert refused.replace(f" {DENIED_BY_LIKENESS[audience]}", "") == plain != refused


@pytest.mark.parametrize("reason", [*REASONS, "likeness"])
def test_a_shopper_reads_no_jargon(reason: str) -> None:
    words = EXPLANATIONS.get(reason, SILENT_BY_LIKENESS)["shopper"]
    spoken = re.findall(r"[a-z]+", f"{words.holds} {words.changes} {DENIED_BY_LIKENESS['shopper']}".lower())
    assert [word for word in spoken if word in JARGON or word.startswith("opt")] == []
    assert {"you", "your", "we", "us"} & set(spoken) or "sign" in spoken


def test_a_date_that_is_not_known_is_not_invented() -> None:
    assert "an unknown day" in explain(Standing(False, "refused"), "shopper", POLICY, "analytics")


def test_a_purpose_that_is_unknown_is_explained_too_and_a_reason_that_is_unknown_is_an_error() -> None:
    assert explain(Standing(False, "unknown_purpose"), "marketer", POLICY, "gossip").startswith("A use we do not have.")
    with pytest.raises(ConsentError, match="expected a reason of standing and shopper or marketer, found mood"):
        explain(Standing(False, "mood"), "shopper", POLICY, "analytics")
