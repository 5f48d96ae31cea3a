from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest

from face_encode.detectors.alignment import (
    ARCFACE_POINTS,
    DLIB_LANDMARKS_IN_ARCFACE,
    crop_faces,
    crop_whole,
    find_landmarks,
    similarity_transform,
)
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


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_the_chip_of_a_lying_face_is_the_same_in_a_stack(
    people_photos: list[Path], rotation: int
) -> None:
    upright = read_image(people_photos[0])
    (found,) = DlibHogDetector().detect(upright)
    lying, box = upright, found.box
    # The photo has to be turned clockwise for the face to stand upright.
    for _ in range(rotation // 90):
        box = Box(box.top, lying.shape[1] - box.left - box.width, box.height, box.width)
        lying = np.rot90(lying)
    face = Face(box, 1.0, rotation=rotation)
    lying = np.ascontiguousarray(lying)
    stack = CropRecipe.stacked([CHIP, CropRecipe("arcface", 112, 112)])
    received = crop_faces(lying, [face], stack)[:, :150, :150]
    np.testing.assert_array_equal(received, crop_faces(lying, [face], CHIP))


def test_a_box_crop_holds_the_pixels_of_the_box() -> None:
    image = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    crop = crop_faces(image, [Face(Box(5, 3, 8, 6), 1.0)], CropRecipe("box", 6, 8))
    np.testing.assert_array_equal(crop[0], image[3:9, 5:13])


def test_the_margin_grows_a_box_as_far_as_the_photo_reaches() -> None:
    image = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3).astype(np.uint8)
    # A quarter of 8 and of 4 on every side: columns 0..11 (cut from -1), rows 2..7.
    crop = crop_faces(image, [Face(Box(1, 3, 8, 4), 1.0)], CropRecipe("box", 6, 11, margin=0.25))
    np.testing.assert_array_equal(crop[0], image[2:8, 0:11])


# Left, top, right and bottom, both inside, of ``CropImage._get_new_box`` of
# Silent-Face-Anti-Spoofing at b6d5f04, for the size of a photo, a box, and the share of it that is
# added on every side.
SURROUNDINGS = [
    ((640, 480), (300, 200, 60, 70), 0.85, (249, 140, 411, 329)),
    ((640, 480), (300, 200, 60, 70), 1.5, (210, 95, 450, 375)),
    ((640, 480), (10, 20, 101, 97), 0.85, (0, 0, 272, 261)),
    ((640, 480), (560, 400, 75, 77), 0.85, (436, 271, 639, 479)),
    ((640, 480), (560, 400, 75, 77), 1.5, (339, 171, 639, 479)),
    ((250, 250), (69, 84, 109, 109), 0.85, (0, 0, 249, 249)),
    ((200, 150), (20, 10, 120, 130), 1.5, (11, 0, 148, 149)),
]


@pytest.mark.parametrize(("size", "box", "margin", "seen"), SURROUNDINGS)
def test_the_surroundings_are_those_of_the_original(
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    margin: float,
    seen: tuple[int, int, int, int],
) -> None:
    image = np.random.default_rng(4).integers(0, 256, (*size[::-1], 3), np.uint8)
    left, top, right, bottom = seen
    expected = image[top : bottom + 1, left : right + 1]
    recipe = CropRecipe("surroundings", bottom + 1 - top, right + 1 - left, margin)
    crop = crop_faces(image, [Face(Box(*box), 1.0)], recipe)
    np.testing.assert_array_equal(crop[0], expected)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_the_surroundings_of_a_lying_face_are_upright(rotation: int) -> None:
    coarse = np.random.default_rng(4).integers(0, 256, (5, 7, 3), np.uint8)
    upright = np.asarray(cv2.resize(coarse, (120, 90)), np.uint8)
    recipe = CropRecipe("surroundings", 60, 60, 1.0)
    expected = crop_faces(upright, [Face(Box(30, 20, 20, 20), 1.0)], recipe)
    lying, left, top = upright, 30, 20
    # The photo has to be turned clockwise for the face to stand upright.
    for _ in range(rotation // 90):
        left, top = top, lying.shape[1] - left - 20
        lying = np.rot90(lying)
    face = Face(Box(left, top, 20, 20), 1.0, rotation=rotation)
    received = crop_faces(lying, [face], recipe)
    # The original ends one pixel further right and down than it begins left and up.
    assert np.abs(received.astype(int) - expected).max() < 25
    lying_crop = crop_faces(lying, [replace(face, rotation=0)], recipe)
    assert np.abs(lying_crop.astype(int) - expected).max() > 100


@pytest.mark.parametrize("angle", [0, 20])
@pytest.mark.parametrize("size", [2.5, 4, 9])
def test_a_large_face_is_averaged_not_sampled(size: float, angle: int) -> None:
    random = np.random.default_rng(1)
    coarse = random.integers(60, 196, (24, 24, 3)).astype(np.float32)
    smooth = cv2.resize(coarse, (1400, 1400), interpolation=cv2.INTER_CUBIC)
    noisy = np.clip(smooth + 40 * random.standard_normal(smooth.shape), 0, 255).astype(np.uint8)
    turn = size * np.exp(1j * np.radians(angle))
    places = (ARCFACE_POINTS - 56) @ (1, 1j) * turn + 700 + 700j
    points = np.column_stack([places.real, places.imag]).astype(np.float32)
    face = Face(Box(600, 600, 200, 200), 1.0, points=points)
    (crop,) = crop_faces(noisy, [face], CropRecipe("arcface", 112, 112))
    # The same frame ten times as fine, every area averaged.
    transform = similarity_transform(points, 10 * ARCFACE_POINTS + 4.5)
    fine = cv2.warpAffine(noisy, transform, (1120, 1120))
    expected = cv2.resize(fine, (112, 112), interpolation=cv2.INTER_AREA).astype(int)
    sampled = cv2.warpAffine(noisy, similarity_transform(points, ARCFACE_POINTS), (112, 112))
    error, without = (((each - expected) ** 2).mean() for each in (crop, sampled))
    assert error < without / 4


def test_a_face_beyond_the_photo_is_cut_out_black() -> None:
    image = np.full((800, 800, 3), 200, np.uint8)
    points = (ARCFACE_POINTS * 6 + 400).astype(np.float32)
    face = Face(Box(700, 700, 100, 100), 1.0, points=points)
    (crop,) = crop_faces(image, [face], CropRecipe("arcface", 112, 112))
    assert (crop[:60, :60] == 200).all()
    assert (crop[70:] == 0).all()
    away = Face(Box(700, 700, 100, 100), 1.0, points=points + 2000)
    assert not crop_faces(image, [away], CropRecipe("arcface", 112, 112)).any()


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


def test_an_arcface_crop_is_fitted_to_points_and_landmarks_together() -> None:
    random = np.random.default_rng(5)
    small = random.integers(0, 256, (20, 20, 3)).astype(np.uint8)
    image = np.asarray(cv2.resize(small, (200, 200)), np.uint8)
    points = (ARCFACE_POINTS + 40).astype(np.float32)
    # The landmarks lie 6 pixels further right than the points say: the crop, 3.
    landmarks = (DLIB_LANDMARKS_IN_ARCFACE + np.array([46, 40])).astype(np.float32)
    face = Face(Box(40, 40, 112, 112), 1.0, landmarks, points)
    recipe = CropRecipe("arcface", 112, 112)
    (crop,) = crop_faces(image, [face], recipe)
    everything = np.concatenate([points, landmarks])
    places = np.concatenate([ARCFACE_POINTS, DLIB_LANDMARKS_IN_ARCFACE])
    transform = similarity_transform(everything, places)
    np.testing.assert_array_equal(crop, cv2.warpAffine(image, transform, (112, 112)))
    # Nearer to the crop by each set alone than those are to each other.
    by_points, by_landmarks = (
        crop_faces(image, [Face(face.box, 1.0, *each)], recipe)[0].astype(int)
        for each in ((None, points), (landmarks, None))
    )
    between = np.abs(by_points - by_landmarks).mean()
    assert np.abs(crop - by_points).mean() < between
    assert np.abs(crop - by_landmarks).mean() < between
