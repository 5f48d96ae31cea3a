"""Single-stage detectors: one network gives frames, scores and five points of all faces at once.

Such a network sees faces between two sizes, and some lying ones, whose points it then places as if
they stood upright. What follows from that is here: the sizes at which a photo is looked at, and the
turns that show how a face stands.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import SMALLEST_SIDE, Found, FramingDetector, scaled
from face_encode.types import ImageArray, check_count, check_number

Rows: TypeAlias = npt.NDArray[np.float32]
"""Detections, float32 ``(N, 16)``: score; how many quarters of a turn clockwise the photo needs for
the face to stand upright; left, top, right and bottom; x and y of the five points of ``Face``."""

STRIDE = 32
"""The largest stride of the networks."""

_FRAME, _X, _Y, _COORDINATES = slice(2, 6), slice(6, None, 2), slice(7, None, 2), slice(2, None)

# The default ``min_face``: photos above so many pixels, in which small faces are background.
_LARGE_PHOTO_PIXELS, _MIN_FACE, _MIN_FACE_OF_LARGE = 4_000_000, 40, 80
# Two frames of which one lies in the other by more than this share are one face.
_SAME_FACE = 0.5
# How much larger than a doubtful face the square is in which the face is turned.
_TURNED_ROOM = 2.5
# How much surer the network must be of a turned face than of the same upright. Of 300 faces looked
# at in all four turns YuNet was surest of the upright one each time, by 0.03 at least.
_SURER = 0.01


@dataclass(frozen=True, eq=False)
class Detections:
    """What a network found in some images of one size, in their pixels.

    Attributes:
        images: int ``(N,)``, the image of each detection.
        scores: float ``(N,)``, 0 to 1.
        centres: float ``(N, 2)``, x and y of the frame's centre.
        sizes: float ``(N, 2)``, its width and height.
        points: float ``(N, 5, 2)``, in the order of ``Face.points``.
    """

    images: npt.NDArray[np.intp]
    scores: npt.NDArray[np.float32]
    centres: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.float32]
    points: npt.NDArray[np.float32]

    @classmethod
    def joined(cls, levels: Sequence[Detections]) -> Detections:
        """Put the detections of a network's levels together."""
        names = [each.name for each in fields(cls)]
        return cls(*(np.concatenate([getattr(each, name) for each in levels]) for name in names))


@dataclass(frozen=True)
class SingleStageDetector(FramingDetector):
    """Finds faces by one network, with five points of its own beside dlib's landmarks.

    Attributes:
        min_face: As for ``DlibDetector``.
        min_score: Detections with a lower score are left out; 0 to 1.
        max_pixels: Photos are looked at with this many pixels at most, which bounds the time: in
            a larger one the smallest face that is found is larger than ``min_face``.
    """

    gives_points: ClassVar[bool] = True

    min_face: int | None = None
    min_score: float = 0.7
    max_pixels: int = 8_000_000

    smallest_seen: ClassVar[int]
    """Side of the smallest face that the network sees, in pixels."""
    largest_seen: ClassVar[int]
    """Side of the largest."""
    sure_score: ClassVar[float]
    """Nearly all upright faces have a higher score, and nearly all lying ones a lower."""
    unshrunk_pixels: ClassVar[int]
    """Photos are not shrunk below so many pixels: points are the more exact the more there are."""
    turned_side: ClassVar[int]
    """Side of the square in which a doubtful face is turned, in pixels."""
    frame: ClassVar[tuple[float, float, float]]
    """From the network's frame to dlib's: as ``Found.reframed`` takes it."""

    def __post_init__(self) -> None:
        if self.min_face is not None:
            check_count(self.min_face, "min_face", least=SMALLEST_SIDE)
        check_count(self.max_pixels, "max_pixels", least=SMALLEST_SIDE**2)
        check_number(self.min_score, "min_score", 0, 1)

    @abstractmethod
    def run(self, images: ImageArray) -> Detections:
        """Run the network.

        Args:
            images: uint8 ``(N, H, W, 3)``, RGB; H and W are whole multiples of ``STRIDE``.

        Returns:
            The detections of at least ``min_score``; a face may have several.
        """

    def predict(self, images: ImageArray) -> list[Rows]:
        """Run the network on images of any one size.

        Args:
            images: uint8 ``(N, H, W, 3)``, RGB.

        Returns:
            The detections in each image, framed as dlib's detectors do.
        """
        # Networks that join their levels by upsampling ask for whole steps of the largest stride.
        count, height, width, _ = images.shape
        padded = np.zeros(
            (count, *(side + -side % STRIDE for side in (height, width)), 3), np.uint8
        )
        padded[:, :height, :width] = images
        found = self.run(padded)
        right, down, size = self.frame
        centres = found.centres + found.sizes * (right, down)
        half = size * found.sizes.mean(axis=1, keepdims=True) / 2
        columns = [
            found.scores[:, np.newaxis],
            np.zeros((len(found.scores), 1)),
            centres - half,
            centres + half,
            found.points.reshape(-1, 10),
        ]
        rows = np.concatenate(columns, axis=1).astype(np.float32)
        return [rows[found.images == index] for index in range(len(images))]

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces; see ``FramingDetector.find``."""
        if min(image.shape[:2]) < SMALLEST_SIDE:
            return []
        rows = self._search(image)
        if len(rows):
            rows = _distinct(
                np.concatenate([self._upright(image, row[np.newaxis]) for row in rows])
            )
        else:
            rows = _distinct(np.concatenate(list(self._turned(image))))
        return [_found(row) for row in rows]

    def notes(self, width: int, height: int) -> tuple[str, ...]:
        """What is not looked for in a photo of this size, in words, so that time stays bounded."""
        wanted, pixels = self._looked_at(width, height)
        if pixels <= self.max_pixels:
            return ()
        smallest = math.ceil(wanted * math.sqrt(pixels / self.max_pixels))
        return (
            f"faces of less than {smallest} pixels are not looked for: "
            f"a photo of {width}x{height} pixels would take too long",
        )

    def _looked_at(self, width: int, height: int) -> tuple[int, int]:
        """The smallest face wanted, and the number of pixels in which the network just sees it."""
        is_large = width * height > _LARGE_PHOTO_PIXELS
        wanted = self.min_face or (_MIN_FACE_OF_LARGE if is_large else _MIN_FACE)
        return wanted, round(width * height * (self.smallest_seen / wanted) ** 2)

    def _search(self, image: ImageArray) -> Rows:
        """Find the faces of all sizes that stand upright."""
        height, width = image.shape[:2]
        wanted, pixels = self._looked_at(width, height)
        pixels = min(self.max_pixels, max(self.unshrunk_pixels, pixels))
        smaller, scale = scaled(image, pixels, max(1.0, self.smallest_seen / wanted))
        rows = self._predict_one(smaller, scale)
        if min(smaller.shape[:2]) > self.largest_seen:
            smaller, again = scaled(smaller, self.largest_seen**2, 1.0)
            rows = np.concatenate([rows, self._predict_one(smaller, scale * again)])
        return _distinct(rows)

    def _predict_one(self, image: ImageArray, scale: float) -> Rows:
        """Run the network on one photo that was scaled; give the places in the photo itself."""
        (rows,) = self.predict(image[np.newaxis])
        rows[:, _COORDINATES] /= scale
        return rows

    def _turned(self, image: ImageArray) -> Iterator[Rows]:
        """Find the faces that stand upright once the photo is turned, turn by turn."""
        for quarters in (1, 2, 3):
            turned = np.ascontiguousarray(np.rot90(image, -quarters))
            yield _turned_back(self._search(turned), quarters, turned)

    def _upright(self, image: ImageArray, row: Rows) -> Rows:
        """Look at a doubtful face in all turns, and take the one that the network is surest of."""
        if row[0, 0] >= self.sure_score:
            return row
        left, top, right, bottom = row[0, _FRAME]
        side = max(right - left, bottom - top) * _TURNED_ROOM
        scale = self.turned_side / side
        corner = np.array([left + right - side, top + bottom - side]) / 2
        transform = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
        size = (self.turned_side, self.turned_side)
        square = cast(ImageArray, cv2.warpAffine(image, transform, size))
        turns = np.stack([np.rot90(square, -quarters) for quarters in range(4)])
        best, surest = row, 0.0
        first = self.turned_side * (1 - 1 / _TURNED_ROOM) / 2
        last = self.turned_side - first
        middle = np.array([first, first, last, last], np.float32)
        for quarters, found in enumerate(self.predict(turns)):
            # The face itself, no other one beside it.
            found = found[_overlaps(middle, found)]
            if not len(found):
                continue
            candidate = found[found[:, 0].argmax()][np.newaxis]
            if quarters == 0:
                surest = candidate[0, 0] + _SURER
            elif candidate[0, 0] > max(surest, row[0, 0]):
                surest = candidate[0, 0]
                best = _turned_back(candidate, quarters, square)
                best[:, _COORDINATES] = best[:, _COORDINATES] / scale + np.tile(corner, 7)
        return best


def _distinct(rows: Rows) -> Rows:
    """Leave the surest of the detections of each face."""
    rows = rows[np.argsort(-rows[:, 0], kind="stable")]
    chosen = []
    while len(rows):
        chosen.append(rows[:1])
        rows = rows[1:][~_overlaps(rows[0, _FRAME], rows[1:])]
    return np.concatenate(chosen) if chosen else rows


def _overlaps(frame: npt.NDArray[np.float32], rows: Rows) -> npt.NDArray[np.bool_]:
    """Which detections are of the face in a frame."""
    frames = rows[:, _FRAME]
    sides = np.minimum(frame[2:], frames[:, 2:]) - np.maximum(frame[:2], frames[:, :2])
    shared = np.maximum(sides, 0).prod(axis=1)
    smaller = np.minimum((frame[2:] - frame[:2]).prod(), (frames[:, 2:] - frames[:, :2]).prod(1))
    return np.asarray(shared > _SAME_FACE * smaller)


def _turned_back(rows: Rows, quarters: int, turned: ImageArray) -> Rows:
    """Move detections in a photo that was turned clockwise to their places in the photo itself."""
    rows = rows.copy()
    rows[:, 1] = quarters
    height, width = turned.shape[:2]
    for _ in range(quarters):
        left, top, right, bottom = rows[:, _FRAME].T
        rows[:, _FRAME] = np.stack([top, width - right, bottom, width - left], axis=1)
        rows[:, _X], rows[:, _Y] = rows[:, _Y].copy(), width - 1 - rows[:, _X]
        height, width = width, height
    return rows


def _found(row: npt.NDArray[np.float32]) -> Found:
    """Make a detection of a row, its box in whole pixels."""
    left, top, right, bottom = np.rint(row[_FRAME]).tolist()
    points = row[6:].reshape(5, 2).copy()
    return Found(left, top, right - left, bottom - top, float(row[0]), 90 * int(row[1]), points)
