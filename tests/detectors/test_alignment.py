from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np
import pytest

from face_encode.detectors.alignment import crop_faces, crop_whole, find_landmarks
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.photos.reading import read_image
from face_encode.types import Box, CropRecipe, Face
from face_encode.weights import installed_path

CHIP = CropRecipe("dlib_chip", 150, 150, margin=0.25)


def test_the_chip_is_dlibs_own(people_photos: list[Path]) -> None:
    image = read_image(people_photos[0])
    (box,) = dlib.get_frontal_face_detector()(image, 0)
    shape = dlib.shape_predictor(str(installed_path("dlib_landmarks_5")))(image, box)
    expected = dlib.get_face_chip(image, shape, size=150, padding=0.25)
    received = crop_faces(image, DlibHogDetector().detect(image), CHIP)
    np.testing.assert_array_equal(received, expected[np.newaxis])


def test_landmarks_are_found_where_the_detector_gives_none(people_photos: list[Path]) -> None:
    image = read_image(people_photos[0])
    (face,) = DlibHogDetector().detect(image)
    bare = Face(face.box, face.score)
    np.testing.assert_array_equal(crop_faces(image, [bare], CHIP), crop_faces(image, [face], CHIP))
    np.testing.assert_array_equal(find_landmarks(image, face.box), face.landmarks)


def test_a_box_crop_holds_the_pixels_of_the_box() -> None:
    image = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    crop = crop_faces(image, [Face(Box(5, 3, 8, 6), 1.0)], CropRecipe("box", 6, 8))
    np.testing.assert_array_equal(crop[0], image[3:9, 5:13])


def test_the_margin_grows_a_box_as_far_as_the_photo_reaches() -> None:
    image = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    # A quarter of 8 and of 4 on every side: columns 0..11 (cut from -1), rows 2..7.
    crop = crop_faces(image, [Face(Box(1, 3, 8, 4), 1.0)], CropRecipe("box", 6, 11, margin=0.25))
    np.testing.assert_array_equal(crop[0], image[2:8, 0:11])


def test_no_face_gives_no_crop() -> None:
    crops = crop_faces(np.zeros((9, 9, 3), np.uint8), [], CHIP)
    assert crops.shape == (0, 150, 150, 3)
    assert crops.dtype == np.uint8


@pytest.mark.parametrize("shape", [(1, 1), (300, 10), (64, 64)])
def test_the_whole_photo_is_brought_to_size(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    crop = crop_whole(image, CropRecipe("box", 32, 16))
    assert crop.shape == (32, 16, 3)
    assert (crop == 77).all()


def test_landmarks_come_to_openfaces_places() -> None:
    # White dots on the landmarks of a face that is turned, large and narrow.
    landmarks = np.array([(150, 60), (125, 65), (60, 80), (85, 76), (112, 130)], np.float32)
    image = np.zeros((200, 200, 3), np.uint8)
    for x, y in landmarks[[2, 0, 4]].astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    face = Face(Box(40, 20, 130, 150), 1.0, landmarks)
    (crop,) = crop_faces(image, [face], CropRecipe("openface", 96, 96))
    for x, y in ((18.6, 16.3), (75.7, 15.2), (47.5, 49.4)):
        column, row = round(x), round(y)
        assert crop[row, column].min() > 200
        assert crop[row, column + 8].max() == crop[row + 8, column].max() == 0
    (wider,) = crop_faces(image, [face], CropRecipe("openface", 96, 96, margin=0.25))
    assert wider[round((16.3 + 24) / 1.5), round((18.6 + 24) / 1.5)].min() > 150
