from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from face_encode.detectors.mmod.finding import FaceFinder
from face_encode.errors import WeightsError
from face_encode.photos.reading import read_image
from face_encode.weights import installed_path


@pytest.fixture(scope="module")
def finder() -> FaceFinder:
    return FaceFinder.of(installed_path("dlib_cnn").read_bytes())


def test_a_face_is_found_where_it_was_put(finder: FaceFinder, people_photos: list[Path]) -> None:
    photo = cv2.resize(read_image(people_photos[0]), (160, 160), interpolation=cv2.INTER_AREA)
    image = np.full((240, 420, 3), 128, np.uint8)
    image[60:220, 20:180] = photo
    (first,) = finder.find(image)
    image = np.roll(image, (-40, 200), axis=(0, 1))
    (second,) = finder.find(image)
    assert abs(second.left - first.left - 200) <= 8
    assert abs(second.top - first.top + 40) <= 8
    assert 60 < first.width == first.height < 160
    assert 20 < first.left < 180 - first.width / 2


def test_the_best_face_comes_first(finder: FaceFinder, people_photos: list[Path]) -> None:
    photos = [cv2.resize(read_image(path), (150, 150)) for path in people_photos[:8:4]]
    found = finder.find(np.asarray(np.concatenate(photos, axis=1), np.uint8))
    assert len(found) == 2
    assert found[0].score > found[1].score > 0


def test_nothing_is_kept_between_two_pictures(
    finder: FaceFinder, people_photos: list[Path]
) -> None:
    photo = read_image(people_photos[0])[::2, ::2]
    before = finder.find(photo)
    finder.find(np.full((31, 400, 3), 255, np.uint8))
    assert finder.find(photo) == before


def test_one_core_is_used_whatever_is_allowed(finder: FaceFinder) -> None:
    image = np.zeros((400, 500, 3), np.uint8)
    finder.find(image)
    of_thread, of_process = time.thread_time(), time.process_time()
    for _ in range(3):
        finder.find(image)
    of_thread, of_process = time.thread_time() - of_thread, time.process_time() - of_process
    assert of_process < 1.25 * of_thread


def test_another_file_is_refused() -> None:
    with pytest.raises(WeightsError, match="not a dlib network"):
        FaceFinder.of(installed_path("dlib_resnet").read_bytes())
