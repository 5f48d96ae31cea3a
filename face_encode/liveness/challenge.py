"""A challenge that a flat copy of a face cannot meet: turn your head, so that the nose moves.

Eyes and the corners of the mouth lie about in one plane, the tip of the nose before it. Where a
head turns, the nose moves against that plane; where a photo or a screen is turned, it does not: any
view of a plane is a homography of any other (Hartley and Zisserman, 2004).
"""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.floating[Any]]
"""Float ``(5, 2)``, as ``Face.points``: eyes, tip of the nose, corners of the mouth."""

# The nose's tip lies about half a distance of the eyes before their plane with the mouth: 20 to 25
# degrees move it by so much. In 60 photos that were turned like a sheet in the hand, by 30 degrees,
# neither YuNet nor RetinaFace found it moved by more than 0.17.
MIN_SHIFT = 0.2
# Sights in a row that show the head turned, so that no single mistake of the detector does.
_TURNED_SIGHTS = 3
# The first sights, of which the median is the head as it stood.
_FIRST_SIGHTS = 5
_NOSE, _PLANE = 2, [0, 1, 3, 4]

SECONDS_TO_TURN = 10.0
"""Time to meet a challenge; then another begins."""


def nose_shift(before: Points, after: Points) -> float:
    """How far the nose has moved against the plane of eyes and mouth.

    Args:
        before: The points of a face.
        after: Those of the same face in another picture.

    Returns:
        The move along the line of the eyes, in distances of the eyes, towards the right of the
        picture; about 0 for a flat copy, however it was moved and turned, NaN where the four points
        span no plane.
    """
    # In the frame of the eyes: the one on the left at (0, 0), the other at (1, 0).
    places = []
    for points in (before, after):
        spot = np.asarray(points, np.float64) @ (1, 1j)
        places.append((spot - spot[0]) / (spot[1] - spot[0]) if spot[1] != spot[0] else spot * 0)
    first, second = (
        np.stack([place.real, place.imag], axis=1).astype(np.float32) for place in places
    )
    if min(abs(cv2.contourArea(each[[0, 1, 4, 3]])) for each in (first, second)) < 0.05:
        return float("nan")
    transform = cv2.getPerspectiveTransform(second[_PLANE], first[_PLANE])
    moved = cv2.perspectiveTransform(second[np.newaxis, [_NOSE]], transform)[0, 0]
    return float(moved[0] - first[_NOSE, 0])


class Challenge:
    """Asks one face to turn to a side chosen at random, and tells when it has.

    Attributes:
        is_met: Whether the head has turned as asked.
    """

    def __init__(self, generator: random.Random | None = None) -> None:
        """Choose a side; the generator is the system's own where none is given."""
        self._generator = random.SystemRandom() if generator is None else generator
        self.is_met = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._to_left = self._generator.random() < 0.5
        self._first: list[Points] = []
        self._turned = 0
        self._began: float | None = None

    @property
    def words(self) -> str:
        """What the person is to do, in words."""
        return f"turn your head {'left' if self._to_left else 'right'}"

    def see(self, points: Points, seconds: float) -> None:
        """Take a sight of the face, in a picture that is not mirrored, and its time."""
        if self.is_met:
            return
        if self._began is None:
            self._began = seconds
        if seconds - self._began > SECONDS_TO_TURN:
            # A recording that once turned the right way is asked again, at random.
            self._begin_anew()
            self._began = seconds
        if len(self._first) < _FIRST_SIGHTS:
            self._first.append(points)
            return
        shift = nose_shift(np.median(self._first, axis=0), points)
        # Who turns to the left moves the nose to the right of a picture that is not mirrored.
        self._turned = self._turned + 1 if shift * (1 if self._to_left else -1) > MIN_SHIFT else 0
        self.is_met = self._turned >= _TURNED_SIGHTS
