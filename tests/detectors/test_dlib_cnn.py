"""dlib's network in OpenCV finds what dlib finds, with the same scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from face_encode.detectors import dlib_cnn
from face_encode.detectors.base import Found
from face_encode.detectors.dlib_cnn import (
    DlibCnnDetector,
    FaceFinder,
    find_by_dlib,
    find_by_opencv,
)
from face_encode.dlib_file import DlibDetectorOptions, DlibLayer, read_dlib_detector
from face_encode.errors import WeightsError
from face_encode.photos.reading import read_image
from face_encode.types import ImageArray
from face_encode.weights import installed_path

Array = npt.NDArray[np.float64]

OPTIONS = DlibDetectorOptions(80, 80, largest_overlap=0.5, largest_cover=0.9)


def check_the_same(image: ImageArray) -> int:
    """Compare with dlib, and return the number of faces."""
    expected = find_by_dlib(image)
    found = find_by_opencv(image)
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


@pytest.fixture(scope="module")
def layers() -> list[DlibLayer]:
    return read_dlib_detector(installed_path("dlib_cnn").read_bytes())[1]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


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


def test_a_face_is_found_where_it_was_put(people_photos: list[Path]) -> None:
    photo = cv2.resize(read_image(people_photos[0]), (160, 160), interpolation=cv2.INTER_AREA)
    image = np.full((240, 420, 3), 128, np.uint8)
    image[60:220, 20:180] = photo
    (first,) = find_by_opencv(image)
    image = np.roll(image, (-40, 200), axis=(0, 1))
    (second,) = find_by_opencv(image)
    assert abs(second.left - first.left - 200) <= 8
    assert abs(second.top - first.top + 40) <= 8
    assert 60 < first.width == first.height < 160
    assert 20 < first.left < 180 - first.width / 2


def test_the_best_face_comes_first(people_photos: list[Path]) -> None:
    photos = [cv2.resize(read_image(path), (150, 150)) for path in people_photos[:8:4]]
    found = find_by_opencv(np.asarray(np.concatenate(photos, axis=1), np.uint8))
    assert len(found) == 2
    assert found[0].score > found[1].score > 0


def test_a_picture_leaves_nothing_behind_for_the_next_one(photo: ImageArray) -> None:
    before = find_by_opencv(photo)
    find_by_opencv(np.full((31, 400, 3), 255, np.uint8))
    assert find_by_opencv(photo) == before


def test_few_copies_find_small_faces_only(photo: ImageArray) -> None:
    (face,) = DlibCnnDetector().find(photo)
    scale = 85 / face.width
    for times, wanted in ((1, 1), (2, 0)):
        size = (round(times * scale * photo.shape[1]), round(times * scale * photo.shape[0]))
        resized = np.asarray(cv2.resize(photo, size), np.uint8)
        assert len(DlibCnnDetector().find(resized)) == 1
        found = DlibCnnDetector(copies=1).find(resized)
        assert len(found) == wanted
        for each in found:
            assert abs(each.width - 80) <= 1
            assert abs(each.left - scale * face.left) < 20


def test_threads_find_what_one_finds(people_photos: list[Path]) -> None:
    images = [read_image(path)[::2, ::2].copy() for path in people_photos[:2]]
    alone = [find_by_opencv(image) for image in images]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(find_by_opencv, images * 4))
    assert together == alone * 4


def test_one_core_is_used_where_opencv_has_one_thread(one_thread: None) -> None:
    image = np.zeros((400, 500, 3), np.uint8)
    find_by_opencv(image)
    of_thread, of_process = time.thread_time(), time.process_time()
    for _ in range(3):
        find_by_opencv(image)
    of_thread, of_process = time.thread_time() - of_thread, time.process_time() - of_process
    assert of_process < 1.25 * of_thread


@pytest.mark.parametrize("reason", ["a dlib with a GPU", "an OpenCV without Darknet"])
def test_dlib_is_asked_itself(
    photo: ImageArray, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    own = DlibCnnDetector().detect(photo)
    asked = []

    def find(image: ImageArray) -> list[Found]:
        asked.append(image.shape)
        return find_by_dlib(image)

    monkeypatch.setattr(dlib_cnn, "find_by_dlib", find)
    if reason == "a dlib with a GPU":
        monkeypatch.setattr(dlib_cnn, "_dlib_has_gpu", lambda: True)
    else:
        monkeypatch.delattr(cv2.dnn, "readNetFromDarknet")
    (face,) = DlibCnnDetector().detect(photo)
    assert asked == [photo.shape]
    assert face.box == own[0].box


def convolved(picture: Array, filters: Array, bias: Array, sizes: tuple[int, ...]) -> Array:
    """A convolution as it is defined, from ``(in, height, width)`` to ``(out, .., ..)``."""
    stride, padding = sizes[2], sizes[4]
    around = np.pad(picture, ((0, 0), (padding, padding), (padding, padding)))
    windows = sliding_window_view(around, filters.shape[2:], axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    return np.asarray(np.einsum("ihwrc,oirc->ohw", windows, filters) + bias[:, None, None])


def run_plainly(layers: list[DlibLayer], picture: Array) -> Array:
    """Layer by layer, as they stand in the file."""
    for layer in layers[1:]:
        weights = [part.astype(np.float64) for part in layer.weights]
        if layer.kind == "con":
            picture = convolved(picture, weights[0], weights[1], layer.sizes)
        elif layer.kind == "affine":
            picture = picture * weights[0][:, None, None] + weights[1][:, None, None]
        else:
            picture = np.maximum(picture, 0)
    return np.asarray(picture[0])


@pytest.mark.parametrize("size", [(42, 90), (131, 115)])
def test_scores_are_those_of_the_layers_one_by_one(
    layers: list[DlibLayer], size: tuple[int, int]
) -> None:
    picture = np.random.default_rng(1).uniform(-0.5, 0.5, (3, *size))
    received = FaceFinder.of(OPTIONS, layers).scores(picture.astype(np.float32))
    np.testing.assert_allclose(received, run_plainly(layers, picture), atol=1e-4)


@pytest.mark.parametrize("size", [(13, 30), (41, 17), (60, 301)])
@pytest.mark.parametrize(
    "shapes",
    [
        # Channels, taps, stride and padding of each convolution.
        [(16, 5, 2, 0), (1, 9, 1, 4)],
        [(5, 3, 1, 1), (45, 5, 1, 2), (1, 1, 1, 0)],
        [(7, 5, 1, 0), (3, 7, 2, 3), (1, 3, 1, 1)],
        [(4, 5, 1, 1), (2, 4, 1, 1), (1, 5, 2, 2)],
    ],
)
def test_any_filters_strides_and_paddings(
    shapes: list[tuple[int, int, int, int]], size: tuple[int, int]
) -> None:
    random = np.random.default_rng(1)

    def numbers(*shape: int) -> npt.NDArray[np.float32]:
        return random.normal(size=shape).astype(np.float32)

    layers, inputs = [DlibLayer("input", (numbers(3),))], 3
    for channels, taps, stride, padding in shapes:
        filters = numbers(channels, inputs, taps, taps)
        sizes = (taps, taps, stride, stride, padding, padding)
        layers.append(DlibLayer("con", (filters, numbers(channels)), sizes))
        if channels > 1:
            affine = DlibLayer("affine", (numbers(channels), numbers(channels)))
            layers += [affine, DlibLayer("relu")]
        inputs = channels
    picture = numbers(3, *size)
    expected = run_plainly(layers, picture.astype(np.float64))
    received = FaceFinder.of(OPTIONS, layers).scores(picture)
    assert received.shape == expected.shape
    assert np.abs(received - expected).max() < 2e-5 * np.abs(expected).max()


def test_the_middle_of_a_window(layers: list[DlibLayer]) -> None:
    # Three times every other pixel, beginning at the third: 2 (2 (2 x + 2) + 2) + 2.
    finder = FaceFinder.of(OPTIONS, layers)
    assert (finder.first, finder.stride) == (14, 8)


def test_other_layers_are_refused(layers: list[DlibLayer]) -> None:
    with pytest.raises(WeightsError, match=r"Received: input, con, affine, relu, .*affine"):
        FaceFinder.of(OPTIONS, layers[:-1])


def test_filters_that_are_not_square_are_refused(layers: list[DlibLayer]) -> None:
    oblong = replace(layers[1], sizes=(5, 3, 2, 2, 0, 0))
    with pytest.raises(WeightsError, match=r"as wide as high.*Received: \(5, 3, 2, 2, 0, 0\)"):
        FaceFinder.of(OPTIONS, [layers[0], oblong, *layers[2:]])


def test_another_file_is_refused() -> None:
    with pytest.raises(WeightsError, match="not a dlib network"):
        read_dlib_detector(installed_path("dlib_resnet").read_bytes())


def test_the_layout_by_hand() -> None:
    # 20, 16, 13, 10, 8, 6 and 5 rows, of which the last two have no place under the first one.
    layout = dlib_cnn._lay_out(40, 20)
    places = [(tile.left, tile.top, tile.width, tile.height) for tile in layout.tiles]
    assert places[:3] == [(11, 11, 40, 20), (11, 41, 33, 16), (11, 67, 27, 13)]
    assert layout.width == 62
    for tile in layout.tiles:
        assert tile.left + tile.width <= layout.width - 11
        assert tile.top + tile.height <= layout.height - 11


@pytest.mark.parametrize("size", [(60, 20), (500, 500), (333, 1000), (1000, 333), (2000, 22)])
def test_copies_do_not_touch_each_other(size: tuple[int, int]) -> None:
    layout = dlib_cnn._lay_out(*size)
    used = np.zeros((layout.height, layout.width), np.int64)
    for tile in layout.tiles:
        used[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert used.max() == 1
    assert used.sum() == sum(tile.width * tile.height for tile in layout.tiles)
    assert used.mean() > 0.1


def test_the_mean_colour_becomes_zero_and_colours_are_divided_by_256() -> None:
    image = np.full((30, 40, 3), (100, 120, 140), np.uint8)
    layout = dlib_cnn._lay_out(40, 30)
    large = dlib_cnn._draw_pyramid(image, layout, np.array([100, 110, 150], np.float32))
    assert large.shape == (3, layout.height, layout.width)
    for tile in layout.tiles:
        copy = large[:, tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        expected = np.reshape([0, 10 / 256, -10 / 256], (3, 1, 1))
        np.testing.assert_allclose(copy, np.broadcast_to(expected, copy.shape))
    assert np.count_nonzero(large[1]) == sum(t.width * t.height for t in layout.tiles)


def test_shrinking_keeps_corners_and_straight_lines() -> None:
    # Between the pixels of a plane lie points of the same plane.
    rows, columns = np.mgrid[0:47, 0:61].astype(np.float32)
    small = dlib_cnn._shrunk(np.stack([rows, columns, rows + 2 * columns]), 39, 50)
    assert small.shape == (3, 39, 50)
    np.testing.assert_allclose(small[0, :, 0], np.linspace(0, 46, 39), atol=1e-4)
    np.testing.assert_allclose(small[1, 0], np.linspace(0, 60, 50), atol=1e-4)
    np.testing.assert_allclose(small[2], small[0] + 2 * small[1], atol=1e-4)


def test_boxes_come_back_to_the_photo() -> None:
    layout = dlib_cnn._lay_out(300, 200)
    first, second = layout.tiles[:2]
    boxes = np.array(
        [
            [first.left + 10, first.top + 20, first.left + 90, first.top + 100],
            [second.left + 10, second.top + 20, second.left + 90, second.top + 100],
            # Beyond the border: of the copy that is nearest to the middle.
            [-60, -60, 20, 20],
        ],
        np.float64,
    )
    expected = np.array(
        [
            [10, 20, 90, 100],
            [10 * 1.2 + 0.3, 20 * 1.2 + 0.3, 90 * 1.2 + 0.3, 100 * 1.2 + 0.3],
            [-71, -71, 9, 9],
        ],
        np.float64,
    )
    np.testing.assert_allclose(layout.to_photo(boxes), expected)


@pytest.mark.parametrize(
    ("other", "dropped"),
    [
        ([0, 0, 9, 9], True),
        # 60 pixels of the 140 around both.
        ([4, 0, 13, 9], False),
        # 80 of 120.
        ([2, 0, 11, 9], True),
        # A corner only, of one pixel; and a neighbour.
        ([9, 9, 20, 20], False),
        ([10, 0, 19, 9], False),
        # Small, but wholly within.
        ([1, 1, 3, 3], True),
    ],
)
def test_overlaps_by_hand(other: list[int], dropped: bool) -> None:
    scores = np.array([0.9, 0.5], np.float32)
    chosen = dlib_cnn._best_apart(np.array([[0, 0, 9, 9], other]), scores, OPTIONS)
    assert chosen == ([0] if dropped else [0, 1])


def test_the_area_around_both_counts_not_their_union() -> None:
    # Moved along the diagonal: 64 shared pixels are 47 % of the union, 44 % of what is around.
    options = DlibDetectorOptions(80, 80, largest_overlap=0.45, largest_cover=1.0)
    edges, scores = np.array([[0, 0, 9, 9], [2, 2, 11, 11]]), np.array([0.9, 0.5], np.float32)
    assert dlib_cnn._best_apart(edges, scores, options) == [0, 1]


def test_the_best_of_each_group_is_chosen_first() -> None:
    edges = np.array([[0, 0, 9, 9], [50, 50, 59, 59], [1, 0, 10, 9], [51, 50, 60, 59]])
    scores = np.array([0.5, 0.9, 0.7, 0.1], np.float32)
    assert dlib_cnn._best_apart(edges, scores, OPTIONS) == [1, 2]
    assert dlib_cnn._best_apart(edges[:0], scores[:0], OPTIONS) == []
