"""The network of our own finds what dlib's finds, with the same scores."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_encode.detectors import dlib_cnn
from face_encode.detectors.base import Found
from face_encode.detectors.dlib_cnn import DlibCnnDetector, find_by_dlib
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray


def check_the_same(image: ImageArray) -> int:
    """Compare with dlib, and return the number of faces."""
    expected = find_by_dlib(image)
    found = dlib_cnn._finder().find(image)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)
        np.testing.assert_allclose(
            (one.left, one.top, one.width, one.height),
            (other.left, other.top, other.width, other.height),
            atol=1,
        )
    return len(found)


@pytest.fixture(scope="module")
def photo(people_photos: list[Path]) -> ImageArray:
    return np.ascontiguousarray(read_image(people_photos[0])[::2, ::2])


def test_a_face_is_found_as_dlib_finds_it(photo: ImageArray) -> None:
    assert check_the_same(photo) == 1


@pytest.mark.parametrize(
    "size", [(20, 20), (21, 64), (64, 21), (59, 59), (110, 300), (307, 95), (100, 101)]
)
def test_odd_and_tiny_sizes_give_what_dlib_gives(photo: ImageArray, size: tuple[int, int]) -> None:
    check_the_same(np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8))


def test_faces_at_the_borders_and_beside_each_other_give_what_dlib_gives(
    photo: ImageArray,
) -> None:
    small = np.asarray(cv2.resize(photo, (150, 150)), np.uint8)
    grid = np.tile(small, (2, 2, 1))[20:, 25:]
    assert check_the_same(np.ascontiguousarray(grid)) >= 2


def test_a_picture_without_a_face_gives_none() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (150, 200, 3)).astype(np.uint8)
    assert check_the_same(noise) == 0


def test_colours_are_not_swapped(photo: ImageArray) -> None:
    assert check_the_same(np.ascontiguousarray(photo[:, :, ::-1])) == 1


def test_a_group_photo_gives_what_dlib_gives(samples: Path) -> None:
    group = read_image(samples / "multiface.jpg")
    assert check_the_same(np.ascontiguousarray(group[20:270, 390:660])) == 2


def test_photos_of_people_give_what_dlib_gives(lfw_photos: Path) -> None:
    found = [check_the_same(read_image(path)) for path in sorted(lfw_photos.glob("*/*.jpg"))[:3]]
    assert sum(found) >= 2


def test_threads_share_one_network(people_photos: list[Path]) -> None:
    images = [read_image(path)[::2, ::2].copy() for path in people_photos[:2]]
    alone = [dlib_cnn._finder().find(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(dlib_cnn._finder().find, images * 4))
    assert together == alone * 4


def test_a_dlib_with_a_gpu_is_asked_itself(
    photo: ImageArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = DlibCnnDetector().detect(photo)
    asked = []

    def find(image: ImageArray) -> list[Found]:
        asked.append(image.shape)
        return find_by_dlib(image)

    monkeypatch.setattr(dlib_cnn, "find_by_dlib", find)
    monkeypatch.setattr(dlib_cnn, "_dlib_has_gpu", lambda: True)
    (face,) = DlibCnnDetector().detect(photo)
    assert asked == [photo.shape]
    assert face.box == own[0].box
