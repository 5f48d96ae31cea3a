"""YuNet beside OpenCV, which runs the same file, and on a network made here, worked out by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper, numpy_helper

from face_encode.detectors import yunet
from face_encode.detectors.alignment import find_landmarks, landmarks_of
from face_encode.detectors.registry import load_detector
from face_encode.detectors.single_stage import Detections
from face_encode.detectors.yunet import YunetDetector
from face_encode.errors import InputError, WeightsError
from face_encode.photos.reading import read_image
from face_encode.types import Box, ImageArray
from face_encode.weights import KNOWN_WEIGHTS, cache_folder
from tests.conftest import place_weights
from tests.loopback import Served, serving

Points = npt.NDArray[np.float32]


@pytest.fixture
def nothing_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    yunet._session.cache_clear()
    yield
    yunet._session.cache_clear()


@pytest.fixture
def detector(public_weights: Path) -> YunetDetector:
    place_weights("yunet", public_weights)
    return YunetDetector()


@pytest.fixture(scope="module")
def photo(people_photos: list[Path]) -> ImageArray:
    return read_image(people_photos[0])


def write_white_finder() -> bytes:
    """A network with YuNet's ends: a cell of stride 8 that is white all over is a face.

    Its frame is 32 wide and 48 high about the cell's centre; its points lie 0 to 4 cells right of
    the cell's corner.
    """
    nodes, arrays, outputs = [], [], []

    def add(kind: str, source: str, result: str, *names: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, [source, *names], [result], **attributes))
        return result

    def array(name: str, values: object) -> str:
        arrays.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    frame = [0.5, 0.5, np.log(4), np.log(6)]
    points = np.stack([np.arange(5), np.zeros(5)], axis=1).ravel()
    for end, kernel, bias in (
        ("cls", np.full((1, 3), 1 / 3), [-235.0]),
        ("obj", np.zeros((1, 3)), [20.0]),
        ("bbox", np.zeros((4, 3)), frame),
        ("kps", np.zeros((10, 3)), points),
    ):
        kernel = np.asarray(kernel, np.float32)[:, :, np.newaxis, np.newaxis]
        weights = array(f"{end}_kernel", kernel)
        shape = array(f"{end}_shape", np.array([1, -1, len(kernel)], np.int64))
        for stride in (8, 16, 32):
            name = f"{end}_{stride}"
            # At the larger strides no cell is white enough.
            values = np.asarray(bias, np.float32) - (999 if stride > 8 and end == "cls" else 0)
            cells = add(
                "AveragePool",
                "input",
                f"{name}_cells",
                kernel_shape=[stride] * 2,
                strides=[stride] * 2,
            )
            found = add("Conv", cells, f"{name}_found", weights, array(f"{name}_bias", values))
            found = add("Transpose", found, f"{name}_last", perm=[0, 2, 3, 1])
            is_score = end in ("cls", "obj")
            found = add("Reshape", found, f"{name}_rows" if is_score else name, shape)
            if is_score:
                add("Sigmoid", found, name)
            size = [1, (640 // stride) ** 2, len(kernel)]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, size))
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    graph = helper.make_graph(nodes, "white", [source], outputs, arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    return bytes(model.SerializeToString())


@pytest.mark.usefixtures("nothing_loaded")
def test_the_weights_are_fetched_at_the_first_use_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_white_finder()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Served(content, cut_after=[len(content) // 2])) as served:
        digest = hashlib.sha256(content).hexdigest()
        known = replace(KNOWN_WEIGHTS["yunet"], url=served.url, sha256=digest)
        monkeypatch.setitem(KNOWN_WEIGHTS, "yunet", known)
        photo = np.zeros((100, 150, 3), np.uint8)
        photo[40:48, 64:72] = 255
        (face,) = load_detector("yunet").detect(photo)
    # The frame: 32x48 about (68, 44), moved by 0.03 and 0.07 of it; side 0.96 of the mean.
    centre_x, centre_y, half = 68 + 0.03 * 32, 44 + 0.07 * 48, 0.96 * 40 / 2
    left, top = round(centre_x - half), round(centre_y - half)
    right, bottom = round(centre_x + half), round(centre_y + half)
    assert face.box == Box(left, top, right - left, bottom - top)
    assert face.points is not None
    np.testing.assert_allclose(face.points, [(64 + 8 * n, 40) for n in range(5)])
    # No server any more.
    yunet._session.cache_clear()
    assert len(load_detector("yunet").detect(photo)) == 1


@pytest.mark.usefixtures("nothing_loaded")
def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving(Served(write_white_finder())) as served:
        known = replace(KNOWN_WEIGHTS["yunet"], url=served.url)
        monkeypatch.setitem(KNOWN_WEIGHTS, "yunet", known)
        with pytest.raises(WeightsError, match=r"'yunet'.*8f2383e4.*Received"):
            load_detector("yunet").detect(np.zeros((100, 100, 3), np.uint8))
    assert not list(cache_folder().glob("*.onnx"))


@pytest.mark.parametrize(
    "settings",
    [{"min_face": 0}, {"min_face": 4.5}, {"min_score": 2}, {"min_score": None}, {"min_score": "x"}],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"min_(face is a whole|score lies within).*Received"):
        YunetDetector(**settings)


def test_what_the_bound_on_time_leaves_out_is_noted() -> None:
    detector = YunetDetector()
    assert detector.notes(12_000, 2_000) == ()
    # 200 megapixels, where faces of 80 pixels are seen in 18 megapixels, and 8 are looked at.
    (note,) = detector.notes(20_000, 10_000)
    assert note.startswith("faces of less than 120 pixels are not looked for")
    assert YunetDetector(min_face=120).notes(20_000, 10_000) == ()


@pytest.mark.parametrize(
    ("side", "min_face", "seen"), [(150, None, 160), (250, None, 192), (250, 20, 320)]
)
def test_a_photo_is_looked_at_as_its_smallest_face_asks(
    monkeypatch: pytest.MonkeyPatch, side: int, min_face: int | None, seen: int
) -> None:
    shapes = []

    def run(self: YunetDetector, images: ImageArray) -> Detections:
        shapes.append(images.shape)
        none = np.zeros((0, 2), np.float32)
        return Detections(np.zeros(0, np.intp), none[:, 0], none, none, none.reshape(0, 5, 2))

    monkeypatch.setattr(YunetDetector, "run", run)
    YunetDetector(min_face=min_face).find(np.zeros((side, side, 3), np.uint8))
    # As it is, and in three turns, since no face was found.
    assert shapes == [(1, seen, seen, 3)] * 4


@pytest.mark.data
def test_faces_are_those_of_opencv(detector: YunetDetector, people_photos: list[Path]) -> None:
    path = cache_folder() / KNOWN_WEIGHTS["yunet"].file
    original = cv2.FaceDetectorYN.create(str(path), "", (1, 1), score_threshold=0.7)
    for path in people_photos[:8]:
        image = read_image(path)
        height, width = image.shape[:2]
        original.setInputSize((width, height))
        _, (row,) = original.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        # Faces of the network's smallest size are sought in the photo as it is.
        (face,) = replace(detector, min_face=24).detect(image)
        assert face.points is not None
        np.testing.assert_allclose(face.points, row[4:14].reshape(5, 2), atol=1e-3)
        assert face.score == pytest.approx(row[14], abs=1e-5)


def turned_points(face_points: Points, width: int) -> Points:
    """Where points lie once the photo is turned by a quarter against the clock."""
    return np.stack([face_points[:, 1], width - 1 - face_points[:, 0]], axis=1)


@pytest.mark.data
def test_a_lying_face_has_its_rotation_and_its_points_turned(
    detector: YunetDetector, people_photos: list[Path]
) -> None:
    for path in people_photos[:6]:
        turned = read_image(path)
        (upright,) = detector.detect(turned)
        assert upright.points is not None
        # The detector's own points, and dlib's landmarks from its box.
        expected = [upright.points, landmarks_of(turned, upright)]
        eyes = np.linalg.norm(upright.points[0] - upright.points[1])
        for quarters in (1, 2, 3):
            expected = [turned_points(points, turned.shape[1]) for points in expected]
            turned = np.ascontiguousarray(np.rot90(turned))
            (face,) = detector.detect(turned)
            assert face.rotation == 90 * quarters
            assert face.points is not None
            received = [face.points, landmarks_of(turned, face)]
            for points, places in zip(received, expected, strict=True):
                assert np.linalg.norm(points - places, axis=1).mean() < 0.15 * eyes


def test_landmarks_of_a_turned_face_are_the_turned_landmarks(photo: ImageArray) -> None:
    (face,) = load_detector("dlib_hog").detect(photo)
    box, points, turned = face.box, face.landmarks, photo
    assert points is not None
    for rotation in (90, 180, 270):
        box = Box(box.top, turned.shape[1] - box.left - box.width, box.height, box.width)
        points = turned_points(points, turned.shape[1])
        turned = np.rot90(turned)
        np.testing.assert_array_equal(find_landmarks(turned, box, rotation), points)


def paste(photo: ImageArray, side: int, canvas: ImageArray, left: int, top: int) -> None:
    """Put a photo of one person into another photo, its face of about this side."""
    (face,) = load_detector("dlib_hog").detect(photo)
    scale = side / face.box.width
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=method)
    canvas[top : top + len(small), left : left + small.shape[1]] = small


@pytest.mark.data
@pytest.mark.parametrize(
    ("shape", "sides"),
    [((1200, 800), (40, 64)), ((4000, 6000), (80, 160)), ((2000, 12000), (80, 600))],
)
def test_every_face_of_a_large_photo_is_found(
    detector: YunetDetector,
    people_photos: list[Path],
    shape: tuple[int, int],
    sides: tuple[int, int],
) -> None:
    canvas = np.full((*shape, 3), 128, np.uint8)
    places = []
    step = 3 * sides[1]
    for index in range(12):
        row, column = divmod(index, shape[1] // step)
        if (row + 1) * step > shape[0]:
            break
        side = sides[index % 2]
        paste(read_image(people_photos[index]), side, canvas, column * step, row * step)
        places.append((column * step, row * step))
    faces = detector.detect(canvas)
    found = {(face.box.left // step * step, face.box.top // step * step) for face in faces}
    assert found == set(places)
    assert len(faces) == len(places)


@pytest.mark.data
def test_a_face_that_fills_a_large_photo_is_found(
    detector: YunetDetector, people_photos: list[Path]
) -> None:
    canvas = np.full((3000, 4000, 3), 128, np.uint8)
    image = read_image(people_photos[0])
    scale = 3000 / len(image)
    enlarged = cv2.resize(image, None, fx=scale, fy=scale)
    canvas[:, : enlarged.shape[1]] = enlarged[:, :4000]
    (face,) = detector.detect(canvas)
    (expected,) = detector.detect(image)
    assert face.box.width / scale == pytest.approx(expected.box.width, rel=0.15)
