from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode.detectors.base import Detector
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.evaluation.faces import central_face, embed_faces, measure_speeds, similarities
from face_encode.types import Box, Face, ImageArray


def face(left: int, top: int, side: int) -> Face:
    return Face(Box(left, top, side, side), 1.0)


def test_a_bystander_at_the_edge_is_not_meant_although_larger() -> None:
    assert central_face([face(0, 0, 100), face(80, 80, 90)], (250, 250)) == 1


class TwoFaces(Detector):
    """Finds a large face in the corner and a smaller one in the middle, but in blue none."""

    name = "two"

    def detect(self, image: ImageArray) -> list[Face]:
        return [] if image[0, 0, 2] > 200 else [face(0, 0, 100), face(80, 80, 90)]


def test_the_largest_face_counts_unless_another_is_chosen(tmp_path: Path, tiny: Encoder) -> None:
    photos = [tmp_path / "a.png", tmp_path / "blue.png", tmp_path / "none.png"]
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 200, (250, 250, 3), np.uint8)).save(photos[0])
    Image.new("RGB", (250, 250), "blue").save(photos[1])
    largest = embed_faces(photos, TwoFaces(), tiny, workers=1, progress=False)
    central = embed_faces(photos, TwoFaces(), tiny, central_face, workers=1, progress=False)
    for faces, side in ((largest, 100), (central, 90)):
        chosen, *others = faces.faces
        assert chosen is not None
        assert (chosen.box.width, others) == (side, [None, None])
        assert faces.found.tolist() == [True, False, False]
        assert np.isfinite(faces.embeddings).all(axis=1).tolist() == [True, False, False]
        assert np.isfinite(faces.sharpness).tolist() == [True, False, False]
        assert [photo for photo, _ in faces.not_found()] == [str(each) for each in photos[1:]]
    assert not np.allclose(largest.embeddings[0], central.embeddings[0])


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


@pytest.mark.data
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
