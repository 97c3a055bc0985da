"""The model in use: expectations until there are records enough, then one that was learned, kept until another is adopted."""

from pathlib import Path

import pytest

from models import registry
from models.errors import ModelsError
from models.identity.adopting import ENOUGH_RECORDS, EXPECTED_ONLY, adopted, adopted_or_learned, learn
from models.identity.model import ARTIFACT, FILE, Model, unlearned
from tests.unit.models.identity.made_people import records
from troth.home import Home

CROWD = records(1_300, seed=3).drop("person")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, str, Model]:
    """A home that learned of enough records."""
    home = Home(tmp_path_factory.mktemp("grown"))
    assert CROWD.height >= ENOUGH_RECORDS
    return home, *adopted_or_learned(home, CROWD)


def test_too_few_records_are_compared_by_what_is_expected_and_leave_no_model(tmp_path: Path) -> None:
    home = Home(tmp_path)
    version, model = adopted_or_learned(home, CROWD.head(ENOUGH_RECORDS - 1))
    assert version == EXPECTED_ONLY
    assert model.encoded() == unlearned().encoded()
    assert registry.pointed(home, ARTIFACT) is None


@pytest.mark.parametrize("kept", [[], ["postal_code"]])
def test_records_that_say_next_to_nothing_are_not_learned_from_however_many(kept: list[str], tmp_path: Path) -> None:
    bare = CROWD.select("record_id", *kept)
    assert adopted_or_learned(Home(tmp_path), bare)[0] == EXPECTED_ONLY
    if not kept:
        with pytest.raises(ModelsError, match="expected records that say something"):
            learn(Home(tmp_path), bare, adopt=True)


def test_enough_records_give_a_model_that_stays_in_use(grown: tuple[Home, str, Model]) -> None:
    home, version, model = grown
    assert registry.pointed(home, ARTIFACT) == version
    assert model.records == CROWD.height
    for few in (CROWD, CROWD.head(10)):
        again, kept = adopted_or_learned(home, few)
        assert (again, kept.encoded()) == (version, model.encoded())
    assert adopted(home)[1].encoded() == registry.read(home, ARTIFACT, version)[FILE]


def test_a_model_comes_with_what_to_judge_it_by(grown: tuple[Home, str, Model]) -> None:
    home, version, model = grown
    said = registry.manifest(home, ARTIFACT, version)
    assert said["records"] == CROWD.height
    assert said["keys"] == [each.key.name for each in model.keys]
    assert said["steps"] == len(model.mixture.changes)
    assert [row["field"] for row in said["weights"]] == [field.name for field in model.fields for _ in field.levels]
    assert [bar["probability"] for bar in said["bars"]] == [0.5, 0.8, 0.9, 0.95, 0.99]
    pairs = [bar["pairs"] for bar in said["bars"]]
    assert pairs == sorted(pairs, reverse=True)
    for bar in said["bars"]:
        assert bar["expected_right"] + bar["expected_wrong"] == pytest.approx(bar["pairs"], abs=0.2)
        assert bar["expected_right"] >= bar["probability"] * bar["pairs"] - 0.1


def test_another_home_with_the_same_records_in_another_order_learns_the_same_bytes_and_adopts_only_when_told(
    grown: tuple[Home, str, Model], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    version, model = learn(home, CROWD.sample(fraction=1, shuffle=True, seed=8), adopt=False)
    assert model.encoded() == grown[2].encoded()
    assert version == grown[1]
    assert adopted(home)[0] == EXPECTED_ONLY
    assert registry.pointed(home, ARTIFACT, registry.LATEST) == version


def test_what_is_learned_of_others_is_kept_beside_what_is_in_use(grown: tuple[Home, str, Model]) -> None:
    home, version, _ = grown
    other, _ = learn(home, CROWD.head(400), adopt=False)
    assert other != version
    assert adopted(home)[0] == version
