"""Single-stage detectors: one network gives frames, scores and five points of all faces at once.

Such a network sees faces between two sizes, and some lying ones, whose points it then places as if
they stood upright. What follows from that is here: the sizes at which a photo is looked at, and the
turns that show how a face stands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import SMALLEST_SIDE, scaled
from face_encode.errors import InputError
from face_encode.types import Box, Face, ImageArray, check_count

Rows: TypeAlias = npt.NDArray[np.float32]
"""Detections, float32 ``(N, 16)``: score; how many quarters of a turn clockwise the photo needs for
the face to stand upright; left, top, right and bottom; x and y of the five points of ``Face``."""

_FRAME, _X, _Y, _COORDINATES = slice(2, 6), slice(6, None, 2), slice(7, None, 2), slice(2, None)

# The default ``min_face``: photos above so many pixels, in which small faces are background.
_LARGE_PHOTO_PIXELS, _MIN_FACE, _MIN_FACE_OF_LARGE = 4_000_000, 40, 80
# Photos up to this size are never shrunk: points are the more exact the more pixels they are from.
_UNSHRUNK_PIXELS = 400_000
# Two frames of which one lies in the other by more than this share are one face.
_SAME_FACE = 0.5
# The square in which a doubtful face is turned, and how much larger than the face it is.
_TURNED_SIDE, _TURNED_ROOM = 128, 2.5
# How much surer the network must be of a turned face than of the same upright. Of 300 faces looked
# at in all four turns it was surest of the upright one each time, by 0.03 at least.
_SURER = 0.02


@dataclass(frozen=True)
class SingleStageDetector(ABC):
    """Finds faces by one network, with five points of its own; ``Face.landmarks`` stay None.

    Attributes:
        min_face: Side of the smallest face to find, in pixels of the photo; None for 40 in photos
            up to 4 megapixels and 80 in larger ones.
        min_score: Detections with a lower score are left out; 0 to 1.
        max_pixels: Photos are looked at with this many pixels at most, which bounds the time: in
            a larger one the smallest face that is found is larger than ``min_face``.
        name: The detector's name.
    """

    min_face: int | None = None
    min_score: float = 0.7
    max_pixels: int = 8_000_000
    name: str = ""

    smallest_seen: ClassVar[int]
    """Side of the smallest face that the network sees, in pixels."""
    largest_seen: ClassVar[int]
    """Side of the largest."""
    sure_score: ClassVar[float]
    """Nearly all upright faces have a higher score, and nearly all lying ones a lower."""

    def __post_init__(self) -> None:
        if self.min_face is not None:
            check_count(self.min_face, "min_face")
        if not 0 <= self.min_score <= 1:
            raise InputError(f"min_score is a number from 0 to 1. Received: {self.min_score!r}")

    @abstractmethod
    def predict(self, images: ImageArray) -> list[Rows]:
        """Run the network.

        Args:
            images: uint8 ``(N, H, W, 3)``, RGB.

        Returns:
            The detections in each image, framed as dlib's detectors do, of at least
            ``min_score``; a face may have several.
        """

    def detect(self, image: ImageArray) -> list[Face]:
        """Find the faces; see ``Detector.detect``."""
        height, width = image.shape[:2]
        if min(height, width) < SMALLEST_SIDE:
            return []
        rows = self._search(image)
        if len(rows):
            rows = _distinct(
                np.concatenate([self._upright(image, row[np.newaxis]) for row in rows])
            )
        else:
            rows = _distinct(np.concatenate(list(self._turned(image))))
        faces = [_face(row, width, height) for row in rows]
        return sorted(faces, key=lambda face: face.box.area, reverse=True)

    def _search(self, image: ImageArray) -> Rows:
        """Find the faces of all sizes that stand upright."""
        height, width = image.shape[:2]
        min_face = self.min_face
        if min_face is None:
            is_large = height * width > _LARGE_PHOTO_PIXELS
            min_face = _MIN_FACE_OF_LARGE if is_large else _MIN_FACE
        factor = self.smallest_seen / min_face
        pixels = max(_UNSHRUNK_PIXELS, round(height * width * factor**2))
        smaller, scale = scaled(image, min(self.max_pixels, pixels), max(1.0, factor))
        rows = self._predict_one(smaller, scale)
        # In a square of this side the largest face just fits.
        limit = self.largest_seen**2
        if min(smaller.shape[:2]) > self.largest_seen:
            smaller, again = scaled(smaller, limit, 1.0)
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
        scale = _TURNED_SIDE / side
        corner = np.array([left + right - side, top + bottom - side]) / 2
        transform = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
        size = (_TURNED_SIDE, _TURNED_SIDE)
        square = cast(ImageArray, cv2.warpAffine(image, transform, size))
        turns = np.stack([np.rot90(square, -quarters) for quarters in range(4)])
        best, surest = row, 0.0
        edge = (_TURNED_SIDE - _TURNED_SIDE / _TURNED_ROOM) / 2
        middle = np.array([edge, edge, _TURNED_SIDE - edge, _TURNED_SIDE - edge], np.float32)
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


def _face(row: npt.NDArray[np.float32], width: int, height: int) -> Face:
    """Make a face of a detection; its box is clamped to the photo."""
    left, top, right, bottom = (round(float(side)) for side in row[_FRAME])
    box = Box(left, top, max(1, right - left), max(1, bottom - top)).clamped(width, height)
    points = row[6:].reshape(5, 2).copy()
    return Face(box, float(row[0]), None, points, 90 * int(row[1]))
