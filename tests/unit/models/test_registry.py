"""The registry hands out what was trained here, whole and unchanged, or nothing."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import registry
from models.errors import ModelsError
from troth.home import Home

MANIFEST = {"model": "rfm", "metrics": {"silhouette": 0.3}}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def saved(home: Home, data: bytes = b"weights") -> str:
    return registry.save(home, "rfm", {"model.pickle": data}, MANIFEST)


class Planted:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_what_was_saved_is_read(home: Home) -> None:
    version = saved(home)
    assert registry.read(home, "rfm", version) == {"model.pickle": b"weights"}
    assert registry.manifest(home, "rfm", version)["metrics"] == {"silhouette": 0.3}


def test_a_version_is_the_hash_of_its_content(home: Home) -> None:
    assert saved(home) == saved(home)
    assert saved(home) != saved(home, b"other weights")


def test_what_was_saved_last_is_not_in_use_until_it_is_promoted(home: Home) -> None:
    version = saved(home)
    assert registry.pointed(home, "rfm") is None
    assert registry.pointed(home, "rfm", registry.LATEST) == version
    registry.promote(home, "rfm", version)
    assert registry.pointed(home, "rfm") == version


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(bit=st.integers(0, 8 * 7 - 1))
def test_every_one_bit_change_of_a_file_is_refused(home: Home, bit: int) -> None:
    version = saved(home)
    path = home.artifacts / "rfm" / version / "model.pickle"
    data = bytearray(b"weights")
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    with pytest.raises(ModelsError, match=r"model.pickle: expected hash .*, found .*\. The artifact is not what was"):
        registry.read(home, "rfm", version)
    path.write_bytes(b"weights")


def test_nothing_is_unpickled_before_it_is_verified(home: Home, tmp_path: Path) -> None:
    version = saved(home)
    mark = tmp_path / "mark"
    (home.artifacts / "rfm" / version / "model.pickle").write_bytes(pickle.dumps(Planted(mark)))
    with pytest.raises(ModelsError, match="expected hash"):
        registry.unpickled(home, "rfm", version, "model.pickle")
    assert not mark.exists()


def test_a_consistent_forgery_is_refused_for_want_of_the_homes_key(home: Home, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    data = pickle.dumps(Planted(mark))
    text = registry.canonical({**MANIFEST, "files": {"model.pickle": hashlib.sha256(data).hexdigest()}})
    version = hashlib.sha256(text).hexdigest()[:32]
    folder = home.artifacts / "rfm" / version
    folder.mkdir(parents=True)
    for name, content in (("model.pickle", data), ("manifest.json", text), ("manifest.seal", b"0" * 64)):
        (folder / name).write_bytes(content)
    with pytest.raises(ModelsError, match="expected the seal of this home's key, found another"):
        registry.unpickled(home, "rfm", version, "model.pickle")
    assert not mark.exists()


def test_a_manifest_moved_under_another_versions_name_is_refused(home: Home) -> None:
    mine, other = saved(home), saved(home, b"other weights")
    for name in ("manifest.json", "manifest.seal"):
        (home.artifacts / "rfm" / mine / name).write_bytes((home.artifacts / "rfm" / other / name).read_bytes())
    with pytest.raises(ModelsError, match=f"expected hash {mine}, found {other}"):
        registry.manifest(home, "rfm", mine)


def test_another_models_artifact_is_refused(home: Home) -> None:
    version = saved(home)
    (home.artifacts / "churn").mkdir()
    (home.artifacts / "rfm" / version).rename(home.artifacts / "churn" / version)
    with pytest.raises(ModelsError, match="the seal of this home's key"):
        registry.read(home, "churn", version)


def test_a_missing_file_is_named(home: Home) -> None:
    version = saved(home)
    (home.artifacts / "rfm" / version / "model.pickle").unlink()
    with pytest.raises(ModelsError, match=r"model.pickle: expected hash .* found no file"):
        registry.read(home, "rfm", version)


def test_a_pointer_to_a_version_that_is_gone_points_nowhere(home: Home) -> None:
    version = saved(home)
    registry.promote(home, "rfm", version)
    folder = home.artifacts / "rfm" / version
    folder.rename(folder.with_name("elsewhere"))
    assert registry.pointed(home, "rfm") is None


@pytest.mark.parametrize("name", ["../rfm", "RFM", "", "a/b"])
def test_a_model_name_that_could_leave_the_folder_is_refused(home: Home, name: str) -> None:
    with pytest.raises(ModelsError, match="expected a name of small letters"):
        registry.save(home, name, {}, MANIFEST)


@pytest.mark.parametrize("version", ["..", "0" * 31, "../" + "0" * 32, "0" * 32])
def test_a_version_that_is_none_is_refused(home: Home, version: str) -> None:
    with pytest.raises(ModelsError, match="expected"):
        registry.read(home, "rfm", version)


def test_a_manifest_is_the_same_bytes_for_the_same_content() -> None:
    assert registry.canonical({"b": 1, "a": [2.5, "é"]}) == registry.canonical({"a": [2.5, "é"], "b": 1})
    assert json.loads(registry.canonical(MANIFEST)) == MANIFEST
