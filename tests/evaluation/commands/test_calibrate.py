from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from face_encode.encoders.encoder import Encoder
from face_encode.errors import GalleryError, InputError
from face_encode.gallery.opening import load_gallery
from face_encode.model import Face_Encode_Model


def test_a_gallery_keeps_what_was_learnt(
    run: Any, link: Any, several: list[Path], encoder: Encoder, tmp_path: Path
) -> None:
    people, path = link(tmp_path / "people", several, 0, 3), tmp_path / "people.npz"
    model = Face_Encode_Model(encoder)
    model.fit_dataset(people, progress=False)
    model.save_gallery(path)
    told = run("calibrate", path, "--false-match-rate", "0.05", "--json")
    kept = load_gallery(path, encoder).calibration
    assert kept is not None
    assert kept.false_match_rate == 0.05
    assert (kept.people, kept.photos) == (8, 24)
    assert told["threshold"] == kept.threshold(24)
    assert told["gallery"] == str(path)
    # The same people from their folder teach the same.
    fresh = run("calibrate", people, "--false-match-rate", "0.05", "--json")
    assert fresh["thresholds"] == pytest.approx(told["thresholds"], abs=1e-4)
    assert fresh["gallery"] is None


def test_the_thresholds_are_printed_and_an_extrapolation_is_told(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    printed = run("calibrate", link(tmp_path / "people", several, 0, 2))
    assert "two photos compared" in printed
    assert "16 photos enrolled" in printed
    assert "to the safe side" in printed


def test_too_few_people_and_a_missing_gallery_are_refused(
    run: Any, link: Any, several: list[Path], tmp_path: Path
) -> None:
    people = link(tmp_path / "people", several[:3], 0, 2)
    with pytest.raises(InputError, match="at least 5 people"):
        run("calibrate", people)
    with pytest.raises(GalleryError, match="no such gallery"):
        run("calibrate", people, "-g", tmp_path / "none.npz")
