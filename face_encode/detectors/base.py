"""What a detector is, and what all of them share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import cv2

from face_encode.detectors.alignment import find_landmarks
from face_encode.types import Box, Face, ImageArray

# Nothing smaller than this on a side can hold a face that is worth encoding.
SMALLEST_SIDE = 20


class Detector(Protocol):
    """Finds faces in a photo.

    A detector travels to worker processes, so it holds settings only; what a library has loaded
    for it lives beside it, once a process.
    """

    @property
    def name(self) -> str:
        """What the detector is called."""

    def detect(self, image: ImageArray) -> list[Face]:
        """Find the faces.

        Args:
            image: RGB, uint8, ``(H, W, 3)``, of any size.

        Returns:
            Faces with boxes in pixels of this photo, clamped to it, the largest first.
        """


@dataclass(frozen=True)
class Found:
    """What a library says of a face: a box that may reach out of the photo, and its score."""

    left: float
    top: float
    width: float
    height: float
    score: float

    def reframed(self, right: float, down: float, size: float) -> Found:
        """The square that dlib's detectors would draw around the same face.

        Detectors frame a face differently, one with the forehead, another down to the chin. The
        landmark model, and every crop taken from the box itself, expect dlib's frame: with one
        frame for all, a box means the same whichever detector drew it.

        Args:
            right: How far the centre moves to the right, as a share of the width.
            down: How far it moves down, as a share of the height.
            size: The side of the square, as a share of the mean of width and height.
        """
        side = size * (self.width + self.height) / 2
        centre_x = self.left + self.width * (0.5 + right)
        centre_y = self.top + self.height * (0.5 + down)
        return Found(centre_x - side / 2, centre_y - side / 2, side, side, self.score)

    def unscaled(self, scale: float) -> Found:
        """The same face in the photo that ``scaled`` was given, by the factor that it gave."""
        return Found(
            self.left / scale, self.top / scale, self.width / scale, self.height / scale, self.score
        )


class FramingDetector(ABC):
    """A detector that frames faces, and leaves their landmarks to dlib's model."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What the detector is called."""

    @abstractmethod
    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces, in no order.

        Args:
            image: RGB, uint8, ``(H, W, 3)``, of any size.

        Returns:
            In pixels of this photo, framed as dlib's detectors do.
        """

    def detect(self, image: ImageArray) -> list[Face]:
        """Find the faces; see ``Detector.detect``."""
        return faces_of(image, self.find(image))


def detect_in_all(detector: Detector, images: Sequence[ImageArray]) -> list[list[Face]]:
    """Find the faces in each of some photos.

    The detector looks at all of them before any landmarks are looked for: each of the two has some
    megabytes of its own to go through, and where they take turns at every photo, finds the
    processor's cache full of the other's. That saves one millisecond in sixteen.

    Args:
        detector: Any.
        images: As for ``Detector.detect``; few or small, for all of them are in memory.
    """
    # A subclass with a way of detecting of its own, which leaves faces out for instance, keeps it.
    if (
        not isinstance(detector, FramingDetector)
        or type(detector).detect is not FramingDetector.detect
    ):
        return [detector.detect(image) for image in images]
    found = [detector.find(image) for image in images]
    return [faces_of(image, each) for image, each in zip(images, found, strict=True)]


def scaled(image: ImageArray, max_pixels: int, enlarge: float) -> tuple[ImageArray, float]:
    """Bring a photo to the size at which faces are looked for.

    A detector takes time in proportion to the pixels: a bound on them bounds the time for a
    photo of any size.

    Args:
        image: uint8 ``(H, W, 3)``.
        max_pixels: The bound.
        enlarge: By how much a photo under the bound is enlarged at the most; 1 for never.

    Returns:
        The photo, and the factor between its sides and the original's.
    """
    height, width = image.shape[:2]
    scale = min(enlarge, math.sqrt(max_pixels / (height * width)))
    if scale == 1:
        return image, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cast(ImageArray, cv2.resize(image, size, interpolation=method)), scale


def faces_of(image: ImageArray, found: Iterable[Found]) -> list[Face]:
    """From boxes in a photo to faces with landmarks, the largest first.

    Landmarks are looked for in the photo at full size, from the box as the detector drew it:
    the landmark model was trained on boxes that reach out of the photo where the face does.
    """
    height, width = image.shape[:2]
    faces = []
    for each in found:
        box = Box(
            round(each.left),
            round(each.top),
            max(1, round(each.width)),
            max(1, round(each.height)),
        )
        landmarks = find_landmarks(image, box)
        faces.append(Face(box.clamped(width, height), each.score, landmarks))
    return sorted(faces, key=lambda face: face.box.area, reverse=True)
