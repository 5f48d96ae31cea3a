"""The protocol of a detector, and what detectors share: scaling, framing, landmarks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, Protocol, cast

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.detectors.alignment import find_landmarks
from face_encode.types import Box, Face, ImageArray, check_count, check_number

# A photo with a smaller side holds no face that is worth encoding.
SMALLEST_SIDE = 20
# Two boxes are of one face where they share more of both together, or of the smaller one.
_MAX_OVERLAP = 0.3
_MAX_COVER = 0.6
# The second for boxes of faces that do not stand the same way up, of which one is a mistake.
_MAX_COVER_TURNED = 0.15


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
    """A detection as a library gives it: a box that may reach out of the photo, and a score.

    ``rotation`` and ``points`` are those of ``Face``; the box is in the photo as it is. A detection
    with points is in the photo's own pixels: the methods below move the box alone.
    """

    left: float
    top: float
    width: float
    height: float
    score: float
    rotation: int = 0
    points: npt.NDArray[np.float32] | None = field(default=None, compare=False)

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
        return replace(
            self,
            left=self.left / scale,
            top=self.top / scale,
            width=self.width / scale,
            height=self.height / scale,
        )

    def turned(self, rotation: int, width: float, height: float) -> Found:
        """The same box after the photo is turned clockwise.

        Args:
            rotation: 0, 90, 180 or 270 degrees.
            width: The photo's, before the turn.
            height: The photo's.
        """
        left, top, wide, high = self.left, self.top, self.width, self.height
        for _ in range(rotation // 90):
            left, top, wide, high = height - top - high, left, high, wide
            width, height = height, width
        return replace(self, left=left, top=top, width=wide, height=high)


class FramingDetector(ABC):
    """A detector that frames faces, and leaves their landmarks to dlib's model."""

    gives_points: ClassVar[bool] = False

    base_name: ClassVar[str]
    """The detector's name with its default settings."""

    side_scatter: ClassVar[float] = 0.1
    """By what share the box of a face of exactly ``min_face`` pixels may be smaller. Measured on 90
    faces of a known side, asked for by that side: 0.10 with RetinaFace, 0.03 with YuNet."""

    @property
    def name(self) -> str:
        """The detector's name, with the settings that are not the default's.

        Work that was begun, and what is kept of photos, is that of one name: faces that were found
        with other settings are not mixed with it.
        """
        settings: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        changed = [
            f"{each.name}={getattr(self, each.name)}"
            for each in settings
            if getattr(self, each.name) != each.default
        ]
        return f"{self.base_name}({', '.join(changed)})" if changed else self.base_name

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
        return faces_of(image, self.large_enough(self.find(image)))

    def large_enough(self, found: list[Found]) -> list[Found]:
        """Leave out faces below the ``min_face`` that was set, if any.

        A detector also comes across smaller faces: by what it tries where it finds nothing, or as
        it enlarges small photos. What counts is the whole box, not the part inside the photo.
        """
        min_face: int | None = getattr(self, "min_face", None)
        if min_face is None:
            return found
        least = min_face * (1 - self.side_scatter)
        return [each for each in found if max(each.width, each.height) >= least]

    def notes(self, width: int, height: int) -> tuple[str, ...]:
        """What is not looked for in a photo of this size, in words, so that time stays bounded."""
        return ()


def gives_points(detector: Detector) -> bool:
    """Whether a detector gives points of its own; those that frame faces alone give none."""
    return bool(getattr(detector, "gives_points", True))


def notes_on(detector: Detector, width: int, height: int) -> tuple[str, ...]:
    """A detector's notes on photos of a size; one without a method for them gives none."""
    notes: Callable[[int, int], tuple[str, ...]] | None = getattr(detector, "notes", None)
    return () if notes is None else notes(width, height)


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
    found = [detector.large_enough(detector.find(image)) for image in images]
    return [faces_of(image, each) for image, each in zip(images, found, strict=True)]


def check_scale(max_pixels: object, enlarge: object) -> None:
    """Check what ``scaled`` takes.

    Raises:
        InputError: No count from the smallest photo's on, or no number from 1 on.
    """
    check_count(max_pixels, "max_pixels", least=SMALLEST_SIDE**2)
    check_number(enlarge, "enlarge", 1)


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


def best_apart(found: Iterable[Found]) -> list[Found]:
    """Leave out each detection that covers the same face as one with a higher score.

    Args:
        found: Detections of one photo, in any order.

    Returns:
        The others, the highest score first.
    """
    ordered = sorted(found, key=lambda each: each.score, reverse=True)
    if len(ordered) < 2:
        return ordered
    first = np.array([(each.left, each.top) for each in ordered])
    last = first + np.array([(each.width, each.height) for each in ordered])
    rotations = np.array([each.rotation for each in ordered])
    waiting, chosen = np.arange(len(ordered)), []
    while len(waiting):
        best = waiting[0]
        chosen.append(ordered[best])
        shared, area, areas = (
            np.maximum(upper - lower, 0).prod(axis=-1)
            for lower, upper in (
                (np.maximum(first[best], first[waiting]), np.minimum(last[best], last[waiting])),
                (first[best], last[best]),
                (first[waiting], last[waiting]),
            )
        )
        apart = shared <= _MAX_OVERLAP * (area + areas - shared)
        alike = rotations[waiting] == rotations[best]
        cover = np.where(alike, _MAX_COVER, _MAX_COVER_TURNED)
        apart &= shared <= cover * np.minimum(area, areas)
        apart[0] = False
        waiting = waiting[apart]
    return chosen


def faces_of(image: ImageArray, found: Iterable[Found]) -> list[Face]:
    """Turn detections into faces with landmarks, the largest first.

    Landmarks are looked for in the photo at full size, turned until the face stands upright, from
    the box as the detector drew it: the landmark model was trained on boxes that reach out of the
    photo where the face does.
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
        landmarks = find_landmarks(image, box, each.rotation)
        clamped = box.clamped(width, height)
        faces.append(Face(clamped, each.score, landmarks, each.points, each.rotation))
    return sorted(faces, key=lambda face: face.box.area, reverse=True)
