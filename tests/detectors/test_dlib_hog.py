from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import dlib
import pytest

from face_encode.detectors.dlib_hog import load_frontal_face_detector
from face_encode.photos.reading import read_image
from face_encode.weights import CACHE_VARIABLE
from tests.conftest import EXAMPLES


def found_by(detector: Any) -> list[tuple[int, int, int, int, float]]:
    boxes, scores, _ = detector.run(read_image(EXAMPLES / "group.jpg"), 0, 0.0)
    return [
        (box.left(), box.top(), box.right(), box.bottom(), score)
        for box, score in zip(boxes, scores, strict=True)
    ]


@pytest.fixture(scope="module")
def original() -> list[tuple[int, int, int, int, float]]:
    return found_by(dlib.get_frontal_face_detector())


def test_what_is_kept_finds_what_the_original_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: list[Any]
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    assert found_by(load_frontal_face_detector()) == original
    assert len(original) == 5
    (kept,) = (tmp_path / "cache").iterdir()
    # From now on nothing is unpacked.
    monkeypatch.setattr(dlib, "get_frontal_face_detector", None)
    assert found_by(load_frontal_face_detector()) == original
    assert kept.stat().st_size < 200_000


@pytest.mark.parametrize("damage", ["cut off", "changed", "a folder"])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: list[Any], damage: str
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    load_frontal_face_detector()
    (kept,) = tmp_path.iterdir()
    content = kept.read_bytes()
    kept.unlink()
    if damage == "a folder":
        kept.mkdir()
    else:
        kept.write_bytes(content[:1000] if damage == "cut off" else content[:-9] + bytes(9))
    assert found_by(load_frontal_face_detector()) == original
    if damage != "a folder":
        assert hashlib.sha256(kept.read_bytes()).digest() == hashlib.sha256(content).digest()


def test_a_cache_that_cannot_be_written_to_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: list[Any]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    assert found_by(load_frontal_face_detector()) == original


def test_another_detector_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr("face_encode.detectors.dlib_hog._SHA256", "0" * 64)
    assert len(found_by(load_frontal_face_detector())) == 5
    assert not list(tmp_path.iterdir())
