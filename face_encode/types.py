"""The values that pass between the parts of the package: frozen, and checked when made."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError, shown

ImageArray: TypeAlias = npt.NDArray[np.uint8]
"""RGB, uint8, shape ``(H, W, 3)``; a stack of crops is ``(N, H, W, 3)``."""

Photo: TypeAlias = str | os.PathLike[str] | npt.NDArray[np.uint8]
"""A photo's path, or its pixels: RGB, uint8, shape ``(H, W, 3)``."""

Embeddings: TypeAlias = npt.NDArray[np.float32]
"""float32, shape ``(N, D)``."""

BoundingBox: TypeAlias = dict[str, int]
"""``x`` and ``y`` of the upper left corner, ``width`` and ``height``, in pixels."""


def check_count(value: object, name: str, *, least: int = 1) -> int:
    """Check an argument that counts something.

    Args:
        value: The argument.
        name: Its name, for the message.
        least: The smallest count allowed.

    Raises:
        InputError: No whole number, or below the least.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InputError(f"{name} is a whole number, at least {least}. Received: {shown(value)}")
    return int(value)


def check_counts(**counts: object) -> None:
    """Check several arguments that each count something, or are None.

    Raises:
        InputError: See ``check_count``.
    """
    for name, count in counts.items():
        if count is not None:
            check_count(count, name)


def check_number(
    value: object, name: str, least: float, most: float = math.inf, *, ends: bool = True
) -> float:
    """Check an argument that is a finite number, whole or not.

    Args:
        value: The argument.
        name: Its name, for the message.
        least: The lower bound.
        most: The upper bound.
        ends: Whether the bounds themselves are allowed.

    Raises:
        InputError: No number, NaN, infinite, or out of bounds.
    """
    try:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        number = float(value) if is_number else math.nan  # type: ignore[arg-type]
    except OverflowError:
        number = math.nan
    # False for NaN.
    if math.isfinite(number) and (least <= number <= most if ends else least < number < most):
        return number
    if most < math.inf:
        allowed = f"lies within {least}..{most}" if ends else f"lies between {least} and {most}"
    else:
        allowed = f"is a number, at least {least}" if ends else f"is a number above {least}"
    raise InputError(f"{name} {allowed}. Received: {shown(value)}")


@dataclass(frozen=True, order=True)
class Box:
    """A rectangle in pixels of the original photo.

    Attributes:
        left: First column inside the box.
        top: First row inside the box.
        width: Number of columns, at least 1.
        height: Number of rows, at least 1.
    """

    left: int
    top: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise InputError(
                "a box holds at least one pixel. "
                f"Received: width {self.width}, height {self.height}"
            )

    @property
    def area(self) -> int:
        """Number of pixels inside."""
        return self.width * self.height

    def clamped(self, image_width: int, image_height: int) -> Box:
        """The part of the box that lies inside a photo of the given size, in pixels.

        A box wholly outside becomes the nearest single row, column or pixel of the photo.
        """
        left = min(max(self.left, 0), image_width - 1)
        top = min(max(self.top, 0), image_height - 1)
        right = min(max(self.left + self.width, left + 1), image_width)
        bottom = min(max(self.top + self.height, top + 1), image_height)
        return Box(left, top, right - left, bottom - top)

    def as_dict(self) -> BoundingBox:
        """The box as the plain dict that ``match_image`` returns: x, y, width, height."""
        return {"x": self.left, "y": self.top, "width": self.width, "height": self.height}


@dataclass(frozen=True)
class Quality:
    """How far an embedding can be trusted.

    Attributes:
        value: 0..1: about 1 for a good photo's, about 0 where it is no nearer to the person than a
            stranger's.
        reason: Why it is not to be trusted, such as ``"blurred"``; None where the quality reaches
            the encoder's ``quality_threshold``.
    """

    value: float
    reason: str | None = None

    @property
    def refusal(self) -> str | None:
        """The reason as it stands in a report, with the value; None where there is none."""
        return self.reason and f"not to be trusted: {self.reason} (quality {self.value:.2f})"


@dataclass(frozen=True)
class Liveness:
    """Whether a face is alive, or a copy that somebody holds up.

    Attributes:
        value: 0..1, the higher the likelier alive.
        is_live: Whether the value reaches the bound of who asked.
    """

    value: float
    is_live: bool

    @property
    def refusal(self) -> str | None:
        """Why the face matches nobody, as it stands in a report; None where it is alive."""
        return None if self.is_live else f"not live (liveness {self.value:.2f})"

    def as_dict(self) -> dict[str, Any]:
        """``liveness`` and ``is_live``, as answers tell them."""
        return {"liveness": self.value, "is_live": self.is_live}


@dataclass(frozen=True, eq=False)
class Face:
    """A face found in a photo.

    Attributes:
        box: Where it is, clamped to the photo.
        score: The detector's confidence; higher is surer. Comparable within one detector only.
        landmarks: float32 ``(5, 2)``, x and y in pixels of the original photo, in the order of
            dlib's five-point model (two corners of one eye, two of the other, base of the
            nose), or None where the detector gives none.
        points: float32 ``(5, 2)``, the detector's own five points where it gives them, in pixels
            of the original photo: centres of the eyes, tip of the nose, corners of the mouth; the
            eye and the corner on the left of an upright photo first. None where it gives none.
        rotation: How far the photo has to be turned clockwise for the face to stand upright, in
            degrees: 0, 90, 180 or 270. Box, landmarks and points are in the photo as it is.
        quality: How far its embedding can be trusted; None before it is embedded, and where the
            encoder does not judge its embeddings.
        liveness: Whether it is alive; None where nobody asked.
    """

    box: Box
    score: float
    landmarks: npt.NDArray[np.float32] | None = None
    points: npt.NDArray[np.float32] | None = None
    rotation: int = 0
    quality: Quality | None = None
    liveness: Liveness | None = None

    def __post_init__(self) -> None:
        for name, points in (("landmarks", self.landmarks), ("points", self.points)):
            if points is not None and points.shape != (5, 2):
                raise InputError(f"{name} are an array of shape (5, 2). Received: {points.shape}")
        if self.rotation not in (0, 90, 180, 270):
            raise InputError(
                f"a face's rotation is one of 0, 90, 180, 270. Received: {self.rotation!r}"
            )

    @property
    def is_trusted(self) -> bool:
        """Whether it may be taken for somebody: what was judged, quality and life, suffices."""
        quality, liveness = self.quality, self.liveness
        return (quality is None or quality.reason is None) and (
            liveness is None or liveness.is_live
        )

    @property
    def refusal(self) -> str | None:
        """Why it matches nobody, as it stands in a report; None where it may."""
        if self.quality is not None and self.quality.reason is not None:
            return self.quality.refusal
        return None if self.liveness is None else self.liveness.refusal

    def judgement(self) -> dict[str, Any]:
        """What was judged, as answers tell it.

        Returns:
            ``quality`` and ``quality_reason``, Nones where not judged; and where somebody asked
            for it, ``liveness`` and ``is_live``.
        """
        quality, liveness = self.quality, self.liveness
        told: dict[str, Any] = {
            "quality": quality and quality.value,
            "quality_reason": quality and quality.reason,
        }
        if liveness is not None:
            told |= liveness.as_dict()
        return told


@dataclass(frozen=True)
class Match:
    """A person in the gallery and how near a face is to that person.

    Attributes:
        name: The person's name.
        similarity: Higher is nearer, for every metric; for cosine within -1..1.
    """

    name: str
    similarity: float


@dataclass(frozen=True)
class Identification:
    """The label nearest to a face.

    Attributes:
        matched: Whether the nearest label is near enough and the quality is sufficient; if not,
            the face is unknown.
        label: The nearest label.
        distance: To the label's nearest embedding, by the metric of the search.
        similarity: The same with higher for nearer; for cosine within -1..1.
        bounding_box: ``x``, ``y``, ``width`` and ``height`` in pixels, or None where the whole
            photo was taken as the face.
        quality: 0..1, how far the face can be trusted; None for an encoder that does not judge.
        quality_reason: Why it cannot, such as ``"blurred"``; None if it can.
    """

    matched: bool
    label: str
    distance: float
    similarity: float
    bounding_box: BoundingBox | None
    quality: float | None = None
    quality_reason: str | None = None


class Comparison(NamedTuple):
    """A photo beside embeddings with labels: ``matched, label, distance``.

    Attributes:
        matched: Whether the nearest embedding is near enough and the face can be trusted.
        label: Its label.
        distance: Its distance, by the metric of the search.
    """

    matched: bool
    label: str
    distance: float


CropMethod = Literal["box", "surroundings", "dlib_chip", "arcface", "openface", "stack"]


@dataclass(frozen=True)
class CropRecipe:
    """How a face is cut out of a photo before it is encoded.

    Attributes:
        method: ``"box"``, the detector's box grown by the margin and resized (FaceNet's and the
            original project's way); ``"surroundings"``, the box grown, but shrunk and moved
            as a whole where it would leave the photo; ``"dlib_chip"``, dlib's rotated and padded
            chip; ``"arcface"``, the similarity transform of five points onto ArcFace's frame;
            ``"openface"``, the affine transform of three landmarks onto OpenFace's frame; or
            ``"stack"``, the crops of several recipes one below the other; see ``stacked``.
        height: Rows of the crop.
        width: Columns of the crop.
        margin: For ``"box"`` and ``"surroundings"`` the share of the box added on every side; for
            ``"dlib_chip"`` dlib's ``padding``; for the others the share of the frame added on
            every side.
        parts: The recipes of a stack, at least two; of the others none.
    """

    method: CropMethod
    height: int
    width: int
    margin: float = 0.0
    parts: tuple[CropRecipe, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in (methods := get_args(CropMethod)):
            raise InputError(
                f"crop method is one of {', '.join(map(repr, methods))}. Received: {self.method!r}"
            )
        if (self.method == "stack") != (len(self.parts) > 1):
            raise InputError(
                "a stack of crops has at least two parts, and no other crop has any. "
                f"Received: {self.method!r} of {len(self.parts)} parts"
            )
        if self.parts:
            size = sum(part.height for part in self.parts), max(part.width for part in self.parts)
            if (self.height, self.width) != size:
                raise InputError(
                    "a stack is as high as its parts together and as wide as the widest, "
                    f"{size[0]}x{size[1]}. Received: {self.height}x{self.width}"
                )
        check_count(self.height, "a crop's height")
        check_count(self.width, "a crop's width")
        if self.method in ("dlib_chip", "arcface") and self.height != self.width:
            raise InputError(
                f"an aligned crop is square. Received: height {self.height}, width {self.width}"
            )
        check_number(self.margin, "a crop's margin", 0, 2)

    def __str__(self) -> str:
        return " + ".join(
            f"{part.method} {part.height}x{part.width}" for part in self.parts or (self,)
        )

    @classmethod
    def stacked(cls, parts: Sequence[CropRecipe]) -> CropRecipe:
        """The recipe of several crops of each face, one below the other, for several networks.

        A narrow one lies in the middle of the width, black at its sides, so that the mirror image
        of the whole holds the mirror image of each.
        """
        height, width = sum(part.height for part in parts), max(part.width for part in parts)
        return cls("stack", height, width, parts=tuple(parts))

    def places(self) -> list[tuple[slice, slice]]:
        """Rows and columns of each part of a stack; of another crop, all of it."""
        top, places = 0, []
        for part in self.parts or (self,):
            left = (self.width - part.width) // 2
            places.append((slice(top, top + part.height), slice(left, left + part.width)))
            top += part.height
        return places

    def first_of(self, crops: ImageArray) -> ImageArray:
        """The first part of stacks, ``(N, height, width, 3)``."""
        rows, columns = self.places()[0]
        return crops[:, rows, columns]

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        values = {
            "method": self.method,
            "height": self.height,
            "width": self.width,
            "margin": self.margin,
        }
        return values | ({"parts": [part.as_dict() for part in self.parts]} if self.parts else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CropRecipe:
        """Read what ``as_dict`` gave.

        Raises:
            InputError: A value out of its range.
            TypeError: No such values.
        """
        parts = tuple(cls.from_dict(part) for part in values.get("parts", ()))
        return cls(**{**values, "parts": parts})


@dataclass(frozen=True)
class LeftOut:
    """A photo that was not enrolled.

    Attributes:
        photo: Its path.
        name: The person whose folder it lies in.
        reason: The reason, in words.
    """

    photo: str
    name: str
    reason: str


@dataclass(frozen=True)
class EnrolmentReport:
    """The outcome of an enrolment, photo by photo.

    Attributes:
        enrolled: Number of photos enrolled.
        per_person: Number of photos enrolled for each person, in the order of the names.
        left_out: Every photo that was not enrolled, with its reason.
        reused: Photos of these that were not encoded again, because the gallery held the same
            photo already.
        notes: Remarks on photos that were enrolled, such as several faces in one.
        resumed: Photos that an interrupted run had finished.
        others: Files in the folder that are no photos.
    """

    enrolled: int
    per_person: Mapping[str, int]
    left_out: tuple[LeftOut, ...] = ()
    reused: int = 0
    notes: tuple[str, ...] = field(default=())
    resumed: int = 0
    others: int = 0

    def __str__(self) -> str:
        people = sum(1 for count in self.per_person.values() if count)
        lines = [
            f"{self.enrolled} photos of {people} people enrolled"
            + (f" ({self.reused} unchanged)" if self.reused else "")
            + (f" ({self.resumed} by an interrupted run before)" if self.resumed else "")
            + (f", {len(self.left_out)} left out" if self.left_out else "")
            + (f"; {self.others} other files are no photos" if self.others else "")
        ]
        lines += [f"  left out: {item.photo}: {item.reason}" for item in self.left_out]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
