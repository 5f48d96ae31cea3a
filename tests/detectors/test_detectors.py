"""One contract, held by every detector of the table."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from face_encode.detectors import base as module
from face_encode.detectors.alignment import landmarks_of
from face_encode.detectors.base import (
    Detector,
    Found,
    FramingDetector,
    detect_in_all,
    faces_of,
    scaled,
)
from face_encode.detectors.dlib_cnn import DlibCnnDetector
from face_encode.detectors.dlib_detector import DlibDetector
from face_encode.detectors.dlib_hog import DlibHogDetector
from face_encode.detectors.haar import HaarDetector
from face_encode.detectors.mtcnn import MtcnnDetector
from face_encode.detectors.registry import (
    DEFAULT_DETECTOR,
    KNOWN_DETECTORS,
    load_detector,
)
from face_encode.detectors.single_stage import Detections
from face_encode.detectors.yunet import YunetDetector
from face_encode.errors import InputError
from face_encode.photos.reading import read_image
from face_encode.types import Face, ImageArray
from tests.conftest import place_weights


@pytest.fixture(
    params=[
        pytest.param(name, marks=[pytest.mark.data] if known.weights else [])
        for name, known in sorted(KNOWN_DETECTORS.items())
    ]
)
def detector(request: pytest.FixtureRequest) -> Detector:
    weights = KNOWN_DETECTORS[request.param].weights
    if weights is not None:
        place_weights(weights, request.getfixturevalue("public_weights"))
    return load_detector(request.param)


@pytest.fixture(scope="module")
def photo(people_photos: list[Path]) -> ImageArray:
    return read_image(people_photos[0])


def overlap(a: Face, b: Face) -> float:
    """Intersection over union of two boxes."""
    left, top = max(a.box.left, b.box.left), max(a.box.top, b.box.top)
    right = min(a.box.left + a.box.width, b.box.left + b.box.width)
    bottom = min(a.box.top + a.box.height, b.box.top + b.box.height)
    shared = max(0, right - left) * max(0, bottom - top)
    return shared / (a.box.area + b.box.area - shared)


def test_finds_the_one_face(detector: Detector, photo: ImageArray) -> None:
    (face,) = detector.detect(photo)
    (expected,) = DlibHogDetector().detect(photo)
    assert overlap(face, expected) > 0.4
    # The landmarks lie on the face, and the nose below the eyes.
    landmarks = landmarks_of(photo, face)
    assert (landmarks[:, 0] >= face.box.left).all()
    assert landmarks[4, 1] > landmarks[:4, 1].max()


def test_gives_the_largest_first_and_boxes_within_the_photo(
    detector: Detector, photo: ImageArray
) -> None:
    height, width = photo.shape[:2]
    larger = cv2.resize(photo, (width * 3 // 2, height * 3 // 2))
    canvas = np.full((larger.shape[0], width + larger.shape[1], 3), 128, np.uint8)
    canvas[:height, :width] = photo
    canvas[:, width:] = larger
    faces = detector.detect(canvas)
    assert len(faces) == 2
    assert faces[0].box.area > faces[1].box.area
    assert faces[0].box.left > faces[1].box.left
    for face in faces:
        assert face.box == face.box.clamped(canvas.shape[1], canvas.shape[0])


def test_clamps_the_box_of_a_face_at_the_edge(detector: Detector, photo: ImageArray) -> None:
    (whole,) = DlibHogDetector().detect(photo)
    cut = np.ascontiguousarray(photo[whole.box.top + whole.box.height // 8 :])
    for face in detector.detect(cut):
        assert face.box == face.box.clamped(cut.shape[1], cut.shape[0])


@pytest.mark.parametrize("shape", [(1, 1, 3), (19, 400, 3), (3, 5000, 3), (200, 200, 3)])
def test_finds_nothing_where_there_is_nothing(
    detector: Detector, shape: tuple[int, int, int]
) -> None:
    assert detector.detect(np.full(shape, 200, np.uint8)) == []


def test_travels_to_another_process(detector: Detector, photo: ImageArray) -> None:
    travelled = pickle.loads(pickle.dumps(detector))
    assert [face.box for face in travelled.detect(photo)] == [
        face.box for face in detector.detect(photo)
    ]


def test_faces_are_what_the_types_promise(detector: Detector, photo: ImageArray) -> None:
    (face,) = detector.detect(photo)
    assert all(type(side) is int for side in vars(face.box).values())
    assert type(face.score) is float
    assert np.isfinite(face.score)
    # dlib's landmarks, or points of the detector's own.
    given = [each for each in (face.landmarks, face.points) if each is not None]
    assert given
    for points in given:
        assert points.shape == (5, 2)
        assert points.dtype == np.float32
    assert face.rotation == 0


def test_frames_and_landmarks_are_those_of_dlib(
    detector: Detector, people_photos: list[Path]
) -> None:
    hog = DlibHogDetector()
    sizes, moves, misplaced = [], [], []
    for path in people_photos[:4]:
        image = read_image(path)
        (expected,), (face,) = hog.detect(image), detector.detect(image)
        side = expected.box.width
        sizes.append(face.box.width / side)
        moves.append((face.box.left + face.box.width / 2 - expected.box.left - side / 2) / side)
        assert expected.landmarks is not None
        apart = np.linalg.norm(landmarks_of(image, face) - expected.landmarks, axis=1).mean()
        between_eyes = np.linalg.norm(expected.landmarks[0] - expected.landmarks[2])
        misplaced.append(apart / between_eyes)
    assert 0.75 < np.mean(sizes) < 1.25
    assert abs(np.mean(moves)) < 0.1
    assert np.mean(misplaced) < 0.04


def test_a_grey_photo_does_as_well(detector: Detector, photo: ImageArray) -> None:
    grey = cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)
    (face,) = detector.detect(np.repeat(grey[:, :, np.newaxis], 3, axis=2))
    (expected,) = detector.detect(photo)
    assert overlap(face, expected) > 0.6


def test_a_photo_that_was_turned_by_its_camera(
    detector: Detector, photo: ImageArray, tmp_path: Path
) -> None:
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(photo)))
    exif = turned.getexif()
    exif[0x0112] = 6  # "turn by 90 degrees clockwise to show"
    path = tmp_path / "turned.png"
    turned.save(path, exif=exif)
    (face,) = detector.detect(read_image(path))
    (expected,) = detector.detect(photo)
    assert face.box == expected.box


def test_any_memory_layout_gives_the_same(detector: Detector, photo: ImageArray) -> None:
    view = np.asfortranarray(photo)
    view.setflags(write=False)
    assert [face.box for face in detector.detect(view)] == [
        face.box for face in detector.detect(photo)
    ]


@pytest.mark.parametrize("name", ["dlib_hog", "haar", "mtcnn"])
def test_a_panorama_is_looked_at_whole(name: str, photo: ImageArray) -> None:
    # 24 megapixels; the others share the bound on the pixels, and would take seconds.
    height, width = photo.shape[:2]
    panorama = np.full((3000, 8000, 3), 128, np.uint8)
    panorama[-height * 6 :, -width * 6 :] = cv2.resize(photo, (width * 6, height * 6))
    start = time.perf_counter()
    faces = load_detector(name).detect(panorama)
    assert time.perf_counter() - start < 60
    assert faces[0].box.left > 8000 - width * 6
    assert faces[0].box.width > width


def test_reframed_by_hand() -> None:
    found = Found(10, 20, 40, 60, 1.5).reframed(right=0.25, down=0.5, size=0.8)
    # Centre (30, 50), moved by 10 and 30; side 0.8 times the mean of 40 and 60.
    assert found == Found(20, 60, 40, 40, 1.5)


def test_a_large_photo_takes_bounded_time_and_gives_boxes_of_the_original(
    photo: ImageArray,
) -> None:
    detector = DlibHogDetector()
    factor = 4000 / photo.shape[1]
    large = cv2.resize(photo, None, fx=factor, fy=factor)
    # Of the processor, which other programs do not add to.
    start = time.process_time()
    faces = detector.detect(np.asarray(large, np.uint8))
    seconds = time.process_time() - start
    (expected,) = detector.detect(photo)
    assert faces
    np.testing.assert_allclose(faces[0].box.width / factor, expected.box.width, rtol=0.25)
    # Unshrunk, 16 megapixels and more take ten times as long as the bound of two.
    bounded, _ = scaled(np.asarray(large, np.uint8), detector.max_pixels, 1.0)
    start = time.process_time()
    detector.detect(bounded)
    assert seconds < 5 * (time.process_time() - start) + 0.5


def test_the_default_finds_what_the_fast_one_misses(photo: ImageArray) -> None:
    (face,) = DlibHogDetector().detect(photo)
    scale = 42 / face.box.width
    smaller = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = smaller.astype(np.uint8)
    assert DlibHogDetector().detect(small) == []
    (found,) = load_detector().detect(small)
    centre = (found.box.left + found.box.width / 2) / scale
    assert abs(centre - (face.box.left + face.box.width / 2)) < face.box.width / 4


def test_many_photos_give_the_faces_of_each(detector: Detector, people_photos: list[Path]) -> None:
    photos = [read_image(path) for path in people_photos[:2]]
    photos.insert(1, np.zeros((90, 120, 3), np.uint8))
    alone = [detector.detect(photo) for photo in photos]
    together = detect_in_all(detector, photos)
    assert [len(faces) for faces in together] == [1, 0, 1]
    for one, other in zip(alone, together, strict=True):
        assert [face.box for face in one] == [face.box for face in other]
        for face, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(face.landmarks, same.landmarks)
    assert detect_in_all(detector, []) == []


class OneFace(YunetDetector):
    """A single-stage detector whose network sees one upright face in any photo."""

    def run(self, images: ImageArray) -> Detections:
        ones = np.ones((len(images), 2), np.float32)
        points = np.tile(ones[:, np.newaxis], (1, 5, 1))
        return Detections(np.arange(len(images)), ones[:, 0], 60 * ones, 50 * ones, 55 * points)


@pytest.mark.parametrize("kind", [DlibHogDetector, OneFace])
def test_all_photos_are_looked_at_before_any_landmarks(
    kind: type[FramingDetector], photo: ImageArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def find(detector: FramingDetector, image: ImageArray) -> list[Found]:
        order.append("find")
        return original(detector, image)

    def recorded(image: ImageArray, found: list[Found]) -> list[Face]:
        order.append("landmarks")
        return faces_of(image, found)

    original = kind.find
    monkeypatch.setattr(kind, "find", find)
    monkeypatch.setattr(module, "faces_of", recorded)
    assert [len(faces) for faces in detect_in_all(kind(), [photo, photo])] == [1, 1]
    assert order == ["find", "find", "landmarks", "landmarks"]


def test_a_detector_that_leaves_faces_out_leaves_them_out_of_many_photos(photo: ImageArray) -> None:
    class Choosy(DlibHogDetector):
        def detect(self, image: ImageArray) -> list[Face]:
            return [face for face in super().detect(image) if face.box.width > 1_000]

    assert detect_in_all(Choosy(), [photo]) == [[]]


@pytest.mark.parametrize("name", sorted(KNOWN_DETECTORS))
def test_the_name_tells_other_settings_apart(name: str) -> None:
    detector: Any = load_detector(name)
    assert detector.name == name
    assert fields(detector)
    for each in fields(detector):
        default: Any = each.default
        value = not default if isinstance(default, bool) else 3 if default is None else 2 * default
        # Twice the default is not always allowed, and never used here.
        changed = copy(detector)
        object.__setattr__(changed, each.name, value)
        assert changed.name == f"{name}({each.name}={value})"


@pytest.mark.parametrize("kind", [DlibHogDetector, DlibCnnDetector, HaarDetector, MtcnnDetector])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_pixels": 0}, "max_pixels is a whole number, at least 400"),
        ({"max_pixels": 1e6}, "max_pixels is a whole number, at least 400"),
        ({"enlarge": 0}, "enlarge is a number, at least 1"),
        ({"enlarge": "x"}, "enlarge is a number, at least 1"),
    ],
)
def test_sizes_without_sense_are_refused(
    kind: Callable[..., Detector], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=rf"{message}.*Received"):
        kind(**settings)


def test_names_with_settings() -> None:
    assert load_detector("yunet", min_face=150).name == "yunet(min_face=150)"
    assert load_detector("dlib", min_face=30) == DlibDetector(min_face=30)
    changed = DlibDetector(min_score=0.5, thorough=False)
    assert changed.name == "dlib(min_score=0.5, thorough=False)"

    class Plain(FramingDetector):
        base_name = "plain"

        def find(self, image: ImageArray) -> list[Found]:
            return []

    assert Plain().name == "plain"


@pytest.mark.parametrize("kind", [DlibDetector, OneFace])
def test_faces_below_min_face_are_left_out(
    kind: type[DlibDetector | OneFace], photo: ImageArray
) -> None:
    # dlib finds the face by what it tries where there is nothing, the network in any photo.
    (face,) = kind().detect(photo)
    side = face.box.width
    for least, count in ((side, 1), (2 * side, 0)):
        detector = kind(min_face=least)
        assert len(detector.find(photo)) == 1
        assert len(detector.detect(photo)) == count
        assert [len(faces) for faces in detect_in_all(detector, [photo, photo])] == [count] * 2


@pytest.mark.parametrize("name", ["dlib", pytest.param("yunet", marks=pytest.mark.data)])
def test_a_face_of_exactly_min_face_is_found(
    name: str, people_photos: list[Path], request: pytest.FixtureRequest
) -> None:
    if name == "yunet":
        place_weights(name, request.getfixturevalue("public_weights"))
    for path in people_photos:
        image = read_image(path)
        (face,) = load_detector(name).detect(image)
        (again,) = load_detector(name, min_face=face.box.width).detect(image)
        assert overlap(face, again) > 0.6


def test_a_face_that_the_edge_cuts_off_counts_with_its_whole_box() -> None:
    cut = OneFace(min_face=50).detect(np.zeros((80, 60, 3), np.uint8))
    # A box of 48 pixels about (62, 64).
    assert [(face.box.width, face.box.height) for face in cut] == [(22, 40)]


def test_an_unknown_detector_is_told_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"dlib_hog.*Received: 'eyes'"):
        load_detector("eyes")


def test_the_default_is_dlib() -> None:
    assert load_detector().name == DEFAULT_DETECTOR == "dlib"


@pytest.mark.parametrize(
    ("shape", "max_pixels", "enlarge", "scale"),
    [
        ((100, 100), 10_000, 1.0, 1.0),
        ((200, 200), 10_000, 1.0, 0.5),
        ((50, 50), 10_000, 2.0, 2.0),
        ((50, 50), 5_625, 2.0, 1.5),
        ((50, 50), 10_000, 1.0, 1.0),
    ],
)
def test_scaled(shape: tuple[int, int], max_pixels: int, enlarge: float, scale: float) -> None:
    image, received = scaled(np.zeros((*shape, 3), np.uint8), max_pixels, enlarge)
    assert received == pytest.approx(scale)
    assert image.shape[:2] == (round(shape[0] * scale), round(shape[1] * scale))


def test_threads_find_the_same_faces_as_one(detector: Detector, people_photos: list[Path]) -> None:
    # A library that lets go of Python's lock and keeps what it calculates ends the process here.
    photos = [read_image(path) for path in people_photos[:2]]
    alone = [[face.box for face in detector.detect(photo)] for photo in photos]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(detector.detect, photos * 3))
    assert [[face.box for face in faces] for faces in together] == alone * 3
