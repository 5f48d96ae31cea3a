from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.evaluation.faces import central_face, largest_face, measure_speeds, similarities
from face_encode.types import Box, Face


def face(left: int, top: int, side: int) -> Face:
    return Face(Box(left, top, side, side), 1.0)


def test_a_bystander_at_the_edge_is_not_meant_although_larger() -> None:
    faces = [face(0, 0, 100), face(80, 80, 90)]
    assert largest_face(faces, (250, 250)) == 0
    assert central_face(faces, (250, 250)) == 1


def test_a_tiny_face_in_the_middle_is_not_meant() -> None:
    assert central_face([face(30, 60, 120), face(115, 115, 20)], (250, 250)) == 0


def test_the_weight_is_halved_a_quarter_of_the_shorter_side_away() -> None:
    # Middles at (200, 100), the centre, and (250, 100), 50 pixels of 200 away.
    central, aside = face(180, 80, 40), face(222, 72, 56)
    assert central_face([aside, central], (400, 200)) == 1  # 1600 against 3136 / 2
    assert central_face([face(221, 71, 58), central], (400, 200)) == 0  # 3364 / 2


def test_similarities_by_hand() -> None:
    first = np.array([[1, 0], [3, 4], [np.nan, 0]], np.float32)
    second = np.array([[0, 2], [6, 8], [1, 0]], np.float32)
    np.testing.assert_allclose(similarities(first, second), [0, 1, np.nan])
    np.testing.assert_allclose(similarities(first, second, "euclidean"), [-np.sqrt(5), -5, np.nan])
    with pytest.raises(InputError, match="one of"):
        similarities(first, second, "manhattan")
    with pytest.raises(InputError, match="one shape"):
        similarities(first, second[:2])


def test_every_part_of_real_photos_takes_time(lfw_photos: Path, encoder: Encoder) -> None:
    photos = sorted((lfw_photos).glob("*/*.jpg"))[:4]
    # Where other programs take the processor for a moment, that moment is measured too.
    for _ in range(10):
        speeds = measure_speeds(photos, DlibHogDetector(), encoder)
        assert min(speeds.reading, speeds.encoding_batched) > 0
        if speeds.reading < speeds.detection and speeds.encoding_batched < speeds.encoding_one:
            break
    assert speeds.reading < speeds.detection
    # A batch takes less a face than a face by itself.
    assert speeds.encoding_batched < speeds.encoding_one


def test_photos_without_a_face_or_a_file_leave_encoding_unmeasured(
    tmp_path: Path, encoder: Encoder
) -> None:
    photo = tmp_path / "empty.png"
    Image.fromarray(np.full((100, 100, 3), 90, np.uint8)).save(photo)
    speeds = measure_speeds([photo, photo, tmp_path / "none.png"], DlibHogDetector(), encoder)
    assert speeds.detection > 0
    assert math.isnan(speeds.encoding_one)
