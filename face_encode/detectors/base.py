"""The protocol of a detector, and what detectors share: scaling, framing, landmarks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import cv2

from face_encode.detectors.alignment import find_landmarks
from face_encode.types import Box, Face, ImageArray

# A photo with a smaller side holds no face that is worth encoding.
SMALLEST_SIDE = 20


class Detector(Protocol):
    """Finds faces in a photo.

    A detector is sent to worker processes, so it holds settings only; what a library loads for it
    lives in its module, once a process.
    """

    @property
    def name(self) -> str:
        """The detector's name."""

    def detect(self, image: ImageArray) -> list[Face]:
        """Find the faces.

        Args:
            image: RGB, uint8, ``(H, W, 3)``, of any size.

        Returns:
            Faces with boxes in pixels of this photo, clamped to it, the largest first.
        """


@dataclass(frozen=True)
class Found:
    """A detection as a library gives it: a box that may reach out of the photo, and a score."""

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
        """Undo ``scaled``: the same face in the photo that it was given.

        Args:
            scale: The factor that ``scaled`` returned.
        """
        return Found(
            self.left / scale, self.top / scale, self.width / scale, self.height / scale, self.score
        )


class FramingDetector(ABC):
    """A detector that frames faces, and leaves their landmarks to dlib's model."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The detector's name."""

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

    All photos go through the detector before landmarks are looked for in any: the two models are
    some megabytes each, and taking turns at every photo they would empty the processor's cache for
    each other. That saves one millisecond in sixteen.

    Args:
        detector: Finds the faces.
        images: As for ``Detector.detect``; all of them are in memory, so few or small ones.
    """
    # A subclass that overrides ``detect``, to leave faces out for instance, is used as it is.
    if (
        not isinstance(detector, FramingDetector)
        or type(detector).detect is not FramingDetector.detect
    ):
        return [detector.detect(image) for image in images]
    found = [detector.find(image) for image in images]
    return [faces_of(image, each) for image, each in zip(images, found, strict=True)]


def scaled(image: ImageArray, max_pixels: int, enlarge: float) -> tuple[ImageArray, float]:
    """Resize a photo to the size at which a detector looks for faces.

    A detector's time grows with the pixels, so a bound on them bounds the time.

    Args:
        image: uint8 ``(H, W, 3)``.
        max_pixels: The bound.
        enlarge: The largest factor by which a photo under the bound is enlarged; 1 for never.

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
    """Turn detections into faces with landmarks, the largest first.

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
