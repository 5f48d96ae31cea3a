"""The default detector: every face, at any size of photo, lying ones upright."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from face_encode.detectors import dlib_detector
from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.base import Found, best_apart, detect_in_all, notes_on
from face_encode.detectors.dlib_cnn import DlibCnnDetector
from face_encode.detectors.dlib_detector import DlibDetector
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.registry import load_detector
from face_encode.errors import InputError
from face_encode.photos.reading import read_image
from face_encode.types import Box, CropRecipe, Face, ImageArray

Place = tuple[int, int]


@pytest.fixture(scope="module")
def portraits(people_photos: list[Path]) -> list[tuple[ImageArray, Box]]:
    """Photos of the invented people, and where dlib's own detector frames the face."""
    images = [read_image(path) for path in people_photos]
    found = [DlibHogDetector().detect(image) for image in images]
    return [(image, faces[0].box) for image, faces in zip(images, found, strict=True)]


def collage(
    portraits: list[tuple[ImageArray, Box]], size: Place, places: list[Place], sides: list[int]
) -> tuple[ImageArray, list[Place]]:
    """Portraits on grey, each with a face of a side; and the middles of the faces."""
    canvas = np.full((size[1], size[0], 3), 128, np.uint8)
    middles = []
    for number, ((left, top), side) in enumerate(zip(places, sides, strict=True)):
        image, box = portraits[number % len(portraits)]
        scale = side / box.width
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        part = canvas[top : top + small.shape[0], left : left + small.shape[1]]
        part[:] = small[: part.shape[0], : part.shape[1]]
        middles.append(
            (
                round(left + (box.left + box.width / 2) * scale),
                round(top + (box.top + box.height / 2) * scale),
            )
        )
    return canvas, middles


def found_at(box: Box) -> Found:
    """A detection of a box."""
    return Found(box.left, box.top, box.width, box.height, 1.0)


def boxes_on(faces: list[Face], middles: list[Place], sides: list[int]) -> list[int]:
    """The number of boxes on each face, of about its side and with its middle in theirs."""
    counts = []
    for (x, y), side in zip(middles, sides, strict=True):
        near = [
            face
            for face in faces
            if abs(face.box.left + face.box.width / 2 - x) < side / 4
            and abs(face.box.top + face.box.height / 2 - y) < side / 4
            and 0.6 < face.box.width / side < 1.5
        ]
        counts.append(len(near))
    return counts


def test_finds_all_of_many_small_faces(portraits: list[tuple[ImageArray, Box]]) -> None:
    places = [(200 * column + 20, 200 * row + 30) for row in range(4) for column in range(6)]
    image, middles = collage(portraits, (1200, 800), places, [45] * 24)
    faces = DlibDetector().detect(image)
    assert boxes_on(faces, middles, [45] * 24) == [1] * 24
    assert len(faces) == 24
    assert {face.rotation for face in faces} == {0}


def test_a_small_face_beside_a_large_one(portraits: list[tuple[ImageArray, Box]]) -> None:
    image, middles = collage(portraits, (420, 300), [(10, 10), (300, 150)], [110, 45])
    faces = DlibDetector().detect(image)
    assert boxes_on(faces, middles, [110, 45]) == [1, 1]
    assert len(faces) == 2


def test_a_panorama_is_scanned_at_full_resolution(
    portraits: list[tuple[ImageArray, Box]],
) -> None:
    places = [(2000 * column + 700, 900) for column in range(6)]
    image, middles = collage(portraits, (12_000, 2_000), places, [100] * 6)
    start = time.process_time()
    faces = DlibDetector().detect(image)
    assert time.process_time() - start < 30
    assert boxes_on(faces, middles, [100] * 6) == [1] * 6
    assert len(faces) == 6
    assert DlibDetector().notes(12_000, 2_000) == ()


def test_min_face_asks_for_smaller_and_for_larger_faces_only(
    portraits: list[tuple[ImageArray, Box]],
) -> None:
    image, middles = collage(portraits, (420, 300), [(10, 10), (300, 150)], [110, 28])
    by_default = DlibDetector().detect(image)
    assert boxes_on(by_default, middles, [110, 28]) == [1, 0]
    smaller = load_detector("dlib", min_face=24).detect(image)
    assert boxes_on(smaller, middles, [110, 28]) == [1, 1]
    image, middles = collage(portraits, (420, 300), [(10, 10), (300, 150)], [110, 45])
    larger = load_detector("dlib", min_face=90).detect(image)
    assert boxes_on(larger, middles, [110, 45]) == [1, 0]


def test_a_face_that_the_edge_cuts_off_is_found(portraits: list[tuple[ImageArray, Box]]) -> None:
    found = 0
    for image, box in portraits[:8]:
        cut = round(0.25 * box.width)
        for part in (
            image[:, box.left + cut :],
            image[:, : box.left + box.width - cut],
            image[: box.top + box.height - cut],
        ):
            faces = DlibDetector(thorough=False).detect(part)
            found += len(faces)
            for face in faces:
                assert face.box == face.box.clamped(part.shape[1], part.shape[0])
    assert found >= 20


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_photo_gives_the_faces_of_the_upright_one(
    portraits: list[tuple[ImageArray, Box]], rotation: int
) -> None:
    chips = (CropRecipe("dlib_chip", 150, 150, 0.25), CropRecipe("box", 60, 50, 0.1))
    for image, _ in portraits[::4]:
        (expected,) = DlibDetector().detect(image)
        turned = np.ascontiguousarray(np.rot90(image, rotation // 90))
        ((face,),) = detect_in_all(DlibDetector(), [turned])
        assert expected.rotation == 0
        assert face.rotation == rotation
        height, width = turned.shape[:2]
        back = found_at(face.box).turned(rotation, width, height)
        # Rounding to whole pixels aside.
        assert abs(back.left - expected.box.left) <= 2
        assert abs(back.top - expected.box.top) <= 2
        assert abs(back.width - expected.box.width) <= 2
        assert face.landmarks is not None
        assert expected.landmarks is not None
        # The crop is as good as the upright one: an encoder sees nothing lying.
        arcface = CropRecipe("arcface", 112, 112)
        for recipe in (*chips, arcface):
            (one,), (other,) = (
                crop_faces(*pair, recipe) for pair in ((image, [expected]), (turned, [face]))
            )
            assert np.abs(one.astype(int) - other.astype(int)).mean() < 6
        bare = Face(face.box, face.score, rotation=rotation)
        (crop,) = crop_faces(turned, [bare], chips[0])
        (same,) = crop_faces(turned, [face], chips[0])
        assert np.abs(crop.astype(int) - same.astype(int)).mean() < 4


def test_faces_that_lie_in_several_ways(portraits: list[tuple[ImageArray, Box]]) -> None:
    side = 250
    images = [cv2.resize(image, (side, side)) for image, _ in portraits[:3]]
    row = np.hstack([np.rot90(image, turns) for turns, image in enumerate(images, start=1)])
    faces = DlibDetector().detect(np.ascontiguousarray(row))
    by_place = sorted(faces, key=lambda face: face.box.left)
    assert [face.rotation for face in by_place] == [90, 180, 270]


def test_what_only_the_cnn_finds_is_turned_upright(
    portraits: list[tuple[ImageArray, Box]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the two scans found nothing; the CNN's box is where the face is.
    for step in ("_find_upright", "_find_by_all_filters"):
        monkeypatch.setattr(DlibDetector, step, lambda *_: [])
    for image, box in portraits[:5]:
        for rotation in (0, 90, 180, 270):
            turned = np.ascontiguousarray(np.rot90(image, rotation // 90))
            height, width = image.shape[:2]
            found = found_at(box).turned((360 - rotation) % 360, width, height)
            monkeypatch.setattr(DlibCnnDetector, "find", lambda *_, found=found: [found])
            (face,) = DlibDetector().find(turned)
            assert face.rotation == rotation


def test_a_doubtful_face_is_turned_by_itself_before_the_photo_is(
    portraits: list[tuple[ImageArray, Box]],
) -> None:
    for image, _ in portraits[:8]:
        (face,) = DlibDetector(thorough=False).find(image)
        assert dlib_detector._turns_to_try(image, [replace(face, score=0.4)]) == ()
        on_its_head = np.ascontiguousarray(image[::-1, ::-1])
        # The chin taken for a forehead: a box some way below the face's.
        below = face.turned(180, image.shape[1], image.shape[0])
        below = replace(below, top=below.top + 0.35 * below.height, score=0.6)
        assert dlib_detector._turns_to_try(on_its_head, [below]) == (180,)
        # A face that is found, however doubtful, does not lie on its side.
        assert 90 not in dlib_detector._turns_to_try(image, [replace(face, score=0.2)])
    assert dlib_detector._turns_to_try(image, []) == (180, 90, 270)


def test_what_dlibs_own_filters_find_needs_no_cnn_on_all_of_the_photo(
    portraits: list[tuple[ImageArray, Box]], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = DlibCnnDetector.find

    def find_in_window(self: DlibCnnDetector, image: ImageArray) -> list[Found]:
        assert max(image.shape) < 144
        return find(self, image)

    monkeypatch.setattr(DlibCnnDetector, "find", find_in_window)
    found = 0
    for image, _ in portraits:
        height, width = image.shape[:2]
        for angle in (-40, 40):
            transform = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
            tilted = np.asarray(cv2.warpAffine(image, transform, (width, height)), np.uint8)
            if any(each.score > 0.7 for each in DlibHogDetector().find(tilted)):
                found += 1
                assert DlibDetector().find(tilted)
    assert found > 3
    # As if the second scan confirmed nothing: what dlib's own filters find, the CNN confirms.
    monkeypatch.setattr(DlibDetector, "_find_upright", lambda *_: [])
    for image, box in portraits[::3]:
        (face,) = DlibDetector().find(image)
        assert (face.rotation, round(face.width)) == (0, box.width)


def test_a_detector_that_is_not_thorough_leaves_lying_faces(
    portraits: list[tuple[ImageArray, Box]],
) -> None:
    turned = np.rot90(portraits[0][0])
    assert DlibDetector(thorough=False).detect(turned) == []
    assert len(DlibDetector().detect(turned)) == 1


@pytest.mark.parametrize("seed", [1, 18, 28, 32])
def test_letters_are_no_faces(seed: int) -> None:
    random = np.random.default_rng(seed)
    signs = list("ABDOQRSabdegoqs890&@%?#  ")
    page = np.full((480, 640, 3), 230, np.uint8)
    bottom = 0
    while bottom < page.shape[0]:
        scale, font = float(random.uniform(0.4, 4)), int(random.integers(0, 8))
        bottom += int(26 * scale)
        line = "".join(random.choice(signs, 60))
        thick = max(1, int(scale * random.uniform(1, 3)))
        cv2.putText(page, line, (0, bottom), font, scale, (20, 20, 60), thick)
    assert DlibDetector().detect(page) == []


def test_the_cnn_confirms_what_is_not_sure_and_sees_faces_in_the_dark(
    portraits: list[tuple[ImageArray, Box]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dlib_detector, "_SURE", 10.0)
    detector = DlibDetector(thorough=False)
    for image, _ in portraits[::3]:
        for light in (1.0, 0.1):
            assert len(detector.detect((image * light).astype(np.uint8))) == 1
    monkeypatch.setattr(DlibCnnDetector, "find", lambda *_: [])
    assert detector.detect(portraits[0][0]) == []


def test_a_score_can_be_asked_for(portraits: list[tuple[ImageArray, Box]]) -> None:
    image, _ = portraits[0]
    (face,) = DlibDetector(thorough=False).detect(image)
    above = DlibDetector(min_score=face.score + 0.1, thorough=False)
    assert above.detect(image) == []


def test_what_the_bound_on_the_time_leaves_out_is_told() -> None:
    detector = DlibDetector()
    assert notes_on(detector, 6000, 4000) == notes_on(detector, 250, 250) == ()
    assert notes_on(detector, 0, 0) == ()
    # 24 million pixels at 40 a face: 216 megapixels allow 120.
    (note,) = notes_on(detector, 18_000, 12_000)
    assert "less than 120 pixels" in note
    assert "18000x12000" in note
    (note,) = notes_on(DlibDetector(min_face=20), 6000, 4000)
    assert "less than 40 pixels" in note
    assert notes_on(DlibHogDetector(), 18_000, 12_000) == ()


@pytest.mark.parametrize("min_face", [0, 19, 30.5, True])
def test_a_smallest_face_that_is_none_is_refused(min_face: int) -> None:
    with pytest.raises(InputError, match=r"min_face is .*Received"):
        DlibDetector(min_face=min_face)


def test_settings_that_cannot_be_are_refused() -> None:
    for wrong in (float("nan"), float("inf"), -1.5, "x", None):
        with pytest.raises(InputError, match=rf"min_score is a number, at least -1.*{wrong}"):
            DlibDetector(min_score=cast(Any, wrong))
    with pytest.raises(InputError, match=r"'dlib_hog' has no min_face. Received: 50"):
        load_detector("dlib_hog", min_face=50)


def test_boxes_of_one_face_are_merged_by_hand() -> None:
    best = Found(0, 0, 10, 10, 2.0)
    # 5 columns of 10 shared: 50 of 150 pixels, more than 0.3.
    beside = Found(5, 0, 10, 10, 1.5)
    # 4 columns: 40 of 160, less.
    apart = Found(-6, 0, 10, 10, 1.0)
    # Within the best one, though only 16 of 100 pixels are shared.
    within = Found(3, 3, 4, 4, 1.9)
    assert best_apart([apart, within, beside, best]) == [best, apart]
    # Not the same way up: 4 columns are too much.
    assert best_apart([best, replace(apart, rotation=180)]) == [best]
    assert best_apart([]) == []


@pytest.mark.parametrize(("side", "looks"), [(300, [1.0, 2.0]), (700, [1.0])])
def test_a_photo_that_is_not_enlarged_is_shown_to_the_cnn_once(
    side: int, looks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    find = DlibCnnDetector.find

    def watched(self: DlibCnnDetector, image: ImageArray) -> list[Found]:
        seen.append(self.enlarge)
        return find(self, image)

    monkeypatch.setattr(DlibCnnDetector, "find", watched)
    assert DlibDetector().find(np.full((side, side, 3), 128, np.uint8)) == []
    assert seen == looks
