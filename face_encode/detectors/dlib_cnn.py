"""dlib's CNN detector, for faces at any angle; its network runs in OpenCV.

The network scores windows of one size by max-margin object detection (King, 2015). It looks at a
picture in ever smaller copies, each 5/6 as large as the one before, which dlib lays out side by
side in one large picture. The network sees across the strips between them: its scores near a border
depend on what lies behind it. For dlib's scores the layout is dlib's, to the pixel. (Copies of a
picture of less than 60 pixels a side can overlap, in dlib too; a face fills a window of 80.)

Sources: ``create_tiled_pyramid`` and ``pyramid_down`` in ``image_transforms/image_pyramid.h``,
``resize_bilinear`` in ``cuda/cpu_dlib.cpp``, ``loss_mmod_`` in ``dnn/loss.h`` and
``test_box_overlap`` in ``image_processing/box_overlap_testing.h`` of dlib.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import SMALLEST_SIDE, Found, FramingDetector, check_scale, scaled
from face_encode.dlib_file import DlibDetectorOptions, DlibLayer, FloatArray, read_dlib_detector
from face_encode.errors import WeightsError
from face_encode.types import ImageArray, check_count
from face_encode.weights import installed_path, read_verified

# From a copy to the next smaller one, and back: its sides, and how far its pixels move.
_STEP = 5 / 6
_STEP_BACK = 6 / 5
_MOVE_BACK = 0.3
# Copies of fewer rows are left out.
_MIN_ROWS = 5
# Pixels between two copies, and around all of them.
_BETWEEN = 10
_AROUND = 11
# dlib divides by 256, not 255.
_PIXEL_SCALE = 1 / 256
# OpenCV runs filters of 3 by 3 with a fifth of the multiplications (Winograd, 1980), larger ones
# with all of them. Cut into such pieces, the network takes 0.14 seconds where it would take 0.23.
_PIECE = 3

# Networks keep what they calculate, up to a hundred megabytes, so that threads cannot share them.
# A new network for each photo would take a quarter longer, for memory from the system.
_of_thread = threading.local()


@dataclass(frozen=True)
class DlibCnnDetector(FramingDetector):
    """Finds faces that the HOG detector misses: turned, tilted, partly covered.

    Attributes:
        max_pixels: Larger photos are shrunk to this many pixels; the network takes about half a
            second of one core a million pixels.
        enlarge: Smaller photos are enlarged by up to this factor on a side.
        copies: At most this many sizes of the photo are looked at, in OpenCV; None for all. With 3
            the largest face that is found has about 115 pixels.
    """

    base_name: ClassVar[str] = "dlib_cnn"

    max_pixels: int = 400_000
    enlarge: float = 1.0
    copies: int | None = None

    def __post_init__(self) -> None:
        check_scale(self.max_pixels, self.enlarge)
        if self.copies is not None:
            check_count(self.copies, "copies")

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces; see ``FramingDetector.find``."""
        smaller, scale = scaled(image, self.max_pixels, self.enlarge)
        if min(smaller.shape[:2]) < SMALLEST_SIDE:
            return []
        # OpenCV 5 reads no networks in the format of Darknet.
        by_dlib = _dlib_has_gpu() or not hasattr(cv2.dnn, "readNetFromDarknet")
        found = find_by_dlib(smaller) if by_dlib else find_by_opencv(smaller, self.copies)
        return [each.unscaled(scale) for each in found]


@functools.cache
def _dlib_has_gpu() -> bool:
    """Whether this dlib was built for a GPU, on which it is faster than any processor."""
    import dlib

    return bool(dlib.DLIB_USE_CUDA) and dlib.cuda.get_num_devices() > 0


def find_by_opencv(image: ImageArray, copies: int | None = None) -> list[Found]:
    """Find the faces by dlib's network in OpenCV, on as many threads as OpenCV is set to."""
    if not hasattr(_of_thread, "finder"):
        _of_thread.finder = FaceFinder.of(*read_dlib_detector(read_verified("dlib_cnn")))
    finder: FaceFinder = _of_thread.finder
    return finder.find(image, copies)


def find_by_dlib(image: ImageArray) -> list[Found]:
    """Find the faces by dlib itself, which takes some ten times as long without a GPU."""
    if not hasattr(_of_thread, "dlib"):
        import dlib

        _of_thread.dlib = dlib.cnn_face_detection_model_v1(str(installed_path("dlib_cnn")))
    return [
        Found(
            each.rect.left(),
            each.rect.top(),
            each.rect.width(),
            each.rect.height(),
            float(each.confidence),
        )
        for each in _of_thread.dlib(image, 0)
    ]


@dataclass(frozen=True, eq=False)
class FaceFinder:
    """dlib's network, for one thread at a time.

    Attributes:
        mean: The mean colour, RGB, ``(3,)``.
        stages: The network in the order of execution; the last stage has one output, the score.
        stride: From the middle of a window to the middle of the next one, pixels.
        first: The row, and column, in the middle of the first window.
        options: How scores become boxes.
    """

    mean: FloatArray
    stages: tuple[_Stage, ...]
    stride: int
    first: int
    options: DlibDetectorOptions

    @classmethod
    def of(cls, options: DlibDetectorOptions, layers: Sequence[DlibLayer]) -> FaceFinder:
        """Make one of what ``read_dlib_detector`` gives.

        Raises:
            WeightsError: Not the layers of such a network.
        """
        kinds = [layer.kind for layer in layers]
        if kinds != ["input", *["con", "affine", "relu"] * ((len(kinds) - 2) // 3), "con"]:
            raise WeightsError(
                "a detector's network is an input, then con, affine and relu any number of "
                f"times, then con. Received: {', '.join(kinds)}"
            )
        stride, first = 1, 0
        for layer in layers[1::3]:
            rows, columns, down, right, above, before = layer.sizes
            if rows != columns or down != right or above != before:
                raise WeightsError(
                    "a detector's filters are as wide as high, in the same steps both ways. "
                    f"Received: {layer.sizes}"
                )
            first += stride * (rows // 2 - above)
            stride *= down
        return cls(layers[0].weights[0], tuple(_write_stages(layers)), stride, first, options)

    def find(self, image: ImageArray, copies: int | None = None) -> list[Found]:
        """Find the faces.

        Args:
            image: RGB, uint8, ``(height, width, 3)``, at least 10 pixels a side.
            copies: How many copies of it are looked at; None for all.

        Returns:
            The same as dlib gives with all copies, the highest score first.
        """
        layout = _lay_out(image.shape[1], image.shape[0], copies)
        scores = self.scores(_draw_pyramid(image, layout, self.mean))
        rows, columns = np.nonzero(scores > 0)
        scores = scores[rows, columns]
        middles = np.stack([columns, rows], axis=1) * float(self.stride) + self.first
        # From the middle of the first pixel to the middle of the last one.
        reach = np.array([self.options.width - 1, self.options.height - 1]) / 2
        boxes = layout.to_photo(np.concatenate([middles - reach, middles + reach], axis=1))
        # Whole pixels, halves away from zero.
        edges = np.trunc(boxes + np.copysign(0.5, boxes)).astype(np.int64)
        found = []
        for index in _best_apart(edges, scores, self.options):
            left, top, right, bottom = map(float, edges[index])
            found.append(Found(left, top, right - left + 1, bottom - top + 1, float(scores[index])))
        return found

    def scores(self, picture: FloatArray) -> FloatArray:
        """Score every window of a picture ``(3, height, width)``; faces score above 0."""
        for stage in self.stages:
            picture = stage.apply(picture)
        return np.asarray(picture[0])


@dataclass(frozen=True, eq=False)
class _Stage:
    """Convolutions that OpenCV runs one behind the other, up to one whose filters are cut.

    The pieces of its filters are filters of their own, whose outputs add up, each moved by where
    the piece was.

    Attributes:
        network: The convolutions.
        pieces: Down, and across, of a filter of the last convolution.
        spare: Rows, and columns, that a piece gives more than a whole filter.
        relu: Whether sums below zero become zero.
    """

    network: cv2.dnn.Net
    pieces: int
    spare: int
    relu: bool

    def apply(self, picture: FloatArray) -> FloatArray:
        """From a picture ``(channels, height, width)`` to the outputs ``(out, rows, columns)``."""
        self.network.setInput(picture[None])
        output = self.network.forward()[0]
        parts = output.reshape(self.pieces, self.pieces, -1, *output.shape[1:])
        rows, columns = (length - self.spare for length in output.shape[1:])
        total = np.zeros((parts.shape[2], rows, columns), np.float32)
        for down, across in np.ndindex(self.pieces, self.pieces):
            top, left = down * _PIECE, across * _PIECE
            total += parts[down, across, :, top : top + rows, left : left + columns]
        return np.maximum(total, 0, out=total) if self.relu else total


def _write_stages(layers: Sequence[DlibLayer]) -> Iterator[_Stage]:
    """Write a file's layers in the format of Darknet, scales and shifts folded into the filters.

    Of the formats that OpenCV reads, Darknet's takes the fewest lines: sections of text, and the
    weights as they are.
    """
    graph, weights = "", []
    for layer, affine in zip(layers[1::3], [*layers[2:-1:3], None], strict=True):
        filters, bias = layer.weights
        if affine is not None:
            scale, shift = affine.weights
            filters, bias = filters * scale[:, None, None, None], bias * scale + shift
        outputs, inputs, taps, _ = filters.shape
        stride, padding = layer.sizes[2], layer.sizes[4]
        pieces, side = (-(-taps // _PIECE), _PIECE) if stride == 1 else (1, taps)
        ahead = pieces * side - taps
        cut = np.pad(filters, ((0, 0), (0, 0), (ahead, 0), (ahead, 0)))
        cut = cut.reshape(outputs, inputs, pieces, side, pieces, side).transpose(2, 4, 0, 1, 3, 5)
        biases = np.zeros((pieces**2, outputs))
        biases[0] = bias
        graph = graph or f"[net]\nwidth=100\nheight=100\nchannels={inputs}\n"
        whole = pieces == 1 and affine is not None
        graph += (
            f"[convolutional]\nfilters={pieces**2 * outputs}\nsize={side}\nstride={stride}\n"
            f"padding={padding + ahead}\nactivation={'relu' if whole else 'linear'}\n"
        )
        weights += [biases.ravel(), cut.ravel()]
        if whole:
            continue
        # Four numbers about the training come first.
        content = np.concatenate([np.zeros(4), *weights]).astype("<f4").view(np.uint8)
        network = cv2.dnn.readNetFromDarknet(np.frombuffer(graph.encode(), np.uint8), content)
        yield _Stage(network, pieces, ahead + (pieces - 1) * side, affine is not None)
        graph, weights = "", []


@dataclass(frozen=True)
class _Tile:
    """Where one copy of the picture lies, in pixels of the large one."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class _Layout:
    """Where all copies lie.

    Attributes:
        width: Of the large picture.
        height: Of the large picture.
        tiles: The copies, the largest first.
    """

    width: int
    height: int
    tiles: tuple[_Tile, ...]

    def to_photo(self, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """From boxes in the large picture to boxes in the original.

        Args:
            boxes: Left, top, right and bottom, ``(N, 4)``; each belongs to the copy that is
                nearest to its middle.

        Returns:
            The same of the original, ``(N, 4)``.
        """
        corners = np.array([(tile.left, tile.top) for tile in self.tiles])
        last = corners + [(tile.width - 1, tile.height - 1) for tile in self.tiles]
        # Whole pixels, the way dlib rounds.
        middles = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 + 0.5)[:, None]
        distances = np.square(np.clip(middles, corners, last) - middles).sum(axis=2)
        levels = distances.argmin(axis=1)
        points: npt.NDArray[np.float64] = boxes - np.tile(corners[levels], 2)
        for level in range(len(self.tiles)):
            below = levels > level
            points[below] = points[below] * _STEP_BACK + _MOVE_BACK
        return points


def _lay_out(width: int, height: int, copies: int | None = None) -> _Layout:
    """Find the places of the copies of a picture of at least 10 pixels a side."""
    sizes: list[tuple[int, int]] = []
    wide, high = width, height
    while wide > 0 and (high >= _MIN_ROWS or not sizes) and len(sizes) != copies:
        sizes.append((wide, high))
        wide, high = math.floor(_STEP * wide), math.floor(_STEP * high)
    total = sum(high + _BETWEEN for _, high in sizes) - 2 * _BETWEEN
    tiles: list[_Tile] = []
    top = _AROUND
    for wide, high in sizes:
        # The second column begins where a copy fits beside those that are there. dlib calculates
        # the room for it without a sign, so that less than none is more than enough.
        room = width - tiles[-1].width - _BETWEEN if tiles else 0
        enough = room < 0 or wide <= room
        if tiles and enough and 2 * (top - _AROUND - height) >= total - height:
            break
        tiles.append(_Tile(_AROUND, top, wide, high))
        top += high + _BETWEEN
    bottom = top - _BETWEEN
    top = bottom
    for wide, high in sizes[len(tiles) :]:
        # Upwards along the right border, until they would lie on the first one.
        top -= high
        if top < _AROUND + height:
            break
        tiles.append(_Tile(_AROUND + width - wide, top, wide, high))
        top -= _BETWEEN
    return _Layout(width + 2 * _AROUND, bottom + _AROUND, tuple(tiles))


def _draw_pyramid(image: ImageArray, layout: _Layout, mean: FloatArray) -> FloatArray:
    """Draw the picture and its copies: ``(3, height, width)``, the mean colour zero."""
    large = np.zeros((3, layout.height, layout.width), np.float32)
    copy = cv2.dnn.blobFromImage(image, _PIXEL_SCALE, mean=mean.tolist())[0]
    for tile in layout.tiles:
        copy = _shrunk(copy, tile.height, tile.width)
        rows = slice(tile.top, tile.top + tile.height)
        large[:, rows, tile.left : tile.left + tile.width] = copy
    return large


def _shrunk(picture: FloatArray, height: int, width: int) -> FloatArray:
    """Shrink a picture ``(3, H, W)`` as dlib does: between the nearest pixels, corner on corner."""
    for axis, length in ((1, height), (2, width)):
        positions = np.linspace(0, picture.shape[axis] - 1, length)
        before = positions.astype(np.intp)
        after = np.minimum(before + 1, picture.shape[axis] - 1)
        share = (positions - before).astype(np.float32)
        first, second = picture.take(before, axis), picture.take(after, axis)
        second -= first
        second *= share[:, None] if axis == 1 else share
        second += first
        picture = second
    return picture


def _best_apart(
    edges: npt.NDArray[np.int64], scores: FloatArray, options: DlibDetectorOptions
) -> list[int]:
    """Choose the boxes that overlap none with a higher score, the highest score first.

    Args:
        edges: First and last column and row of each box: left, top, right, bottom, ``(N, 4)``.
        scores: ``(N,)``.
        options: How much of an overlap is too much.

    Returns:
        Indices of the chosen boxes.
    """
    left_over = np.argsort(-scores, kind="stable")
    chosen = []
    while len(left_over):
        best, others = edges[left_over[0]], edges[left_over]
        chosen.append(int(left_over[0]))
        upper, lower = np.maximum(best, others), np.minimum(best, others)
        shared = _area(upper[:, :2], lower[:, 2:])
        # The smallest box round both, not their union.
        around = _area(lower[:, :2], upper[:, 2:])
        smaller = np.minimum(_area(best[:2], best[2:]), _area(others[:, :2], others[:, 2:]))
        apart = (shared <= options.largest_overlap * around) & (
            shared <= options.largest_cover * smaller
        )
        left_over = left_over[apart]
    return chosen


def _area(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pixels from the first to the last row and column; none where the last comes first."""
    return np.asarray(np.maximum(last - first + 1, 0).prod(axis=-1), np.int64)
