"""The default detector: every face by dlib's HOG detector, lying and hard ones too.

A photo is scanned twice. The first scan proposes: a few sizes of face, grey, with small cells, at a
score so low that hardly any face is missed. The second confirms: a window around each proposal,
enlarged or shrunk to the size at which dlib's detector is best, in colour. Together they take about
as long as dlib's detector on the photo as it is, which finds no face of less than 80 pixels, and a
quarter of its time on the enlarged photo.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import cv2
import numpy as np

from face_encode.detectors.alignment import find_landmarks
from face_encode.detectors.base import SMALLEST_SIDE, Found, FramingDetector, best_apart
from face_encode.detectors.dlib_cnn import DlibCnnDetector
from face_encode.detectors.dlib_hog import DlibHogDetector, load_scanner
from face_encode.types import Box, ImageArray, check_count, check_number

# By default faces of 80 pixels and more are looked for in photos of more pixels, of 40 in others.
_LARGE_PHOTO = 4_000_000
_MIN_FACE, _MIN_FACE_OF_LARGE = 40, 80
# Pixels that are scanned at most, in a photo shrunk until the smallest face has 40 pixels: about a
# second of one core.
MAX_SCANNED_PIXELS = 24_000_000

# The first scan. A window of 40 pixels is laid over the photo at a scale where the smallest face
# has 33, then over ever smaller copies.
_WINDOW = 40
_FINEST, _STEP = 0.83, 1.6
_MIN_PROPOSED = -1.87
# Two mixtures of dlib's five filters, one for each side that a face may be turned to, propose
# upright faces as well as the five, in half of the time: of 192 faces of 40 pixels both miss 2,
# with two other windows a megapixel.
_MIXTURES = ((0.2, 0.4, 0, 0.4, 0), (0.2, 0, 0.4, 0, 0.4))
# Around every copy, for faces that the photo's edge cuts off.
_BORDER = 8
# A copy is scanned in pieces, for memory; they overlap by more than a window.
_PIECE, _PIECES_OVERLAP = 1024, 64

# The second scan: a proposed face is brought to this many pixels, so that faces a quarter smaller
# or larger lie between the smallest and the largest of three levels.
_FACE, _CHIP = 98, 144
# How far a face may lie from the middle of its proposal, as a share of its side.
_MAX_SHIFT = 0.3
# Where nothing is found, the photo is turned. Below this score, what was found is turned by itself,
# with this share of its side above it: a face on its head looks somewhat like an upright one, chin
# for forehead, with scores up to 0.9. Of 32 such faces the score then was higher, by 0.5 at least;
# of 45 upright ones lower, by as much. A face on its side does not look like an upright one: in 800
# photos turned by 90 and 270 degrees no upright face was found.
_NOT_ON_ITS_HEAD = 1.0
_ABOVE = 0.25
# Below this score dlib's CNN has to find the face, too, in the window alone. Of 194 pages of
# letters 18 windows scored from -0.15 to 0.61; the CNN gave -0.8 or less to all of 14, and above 0
# to nearly all of 400 faces, also blurred, tilted and turned ones.
_SURE = 0.7
# Its looks at a window: side of the face, side of the window, sizes of face. The first, in 3 ms,
# finds nine faces in ten, the second, in 8 ms, as many as all sizes of a larger window in 15.
_CNN_LOOKS = ((80, 112, 1), (90, 128, 3))
# What it finds in a photo as a whole and scores less than this, it has to find again in a window:
# of four pages of letters with scores up to 0.5 one is left.
_SURE_OF_WHOLE = 0.6
_LOOKS_AGAIN = ((110, 200, 4),)
# A face gains less than this at the second try.
_NEARLY = 0.6
# The boxes, moved and scaled as shares of their side, from which landmarks are compared.
_MOVES = ((0.06, 0, 1), (-0.06, 0, 1), (0, 0.06, 1), (0, -0.06, 1), (0, 0, 1.12), (0, 0, 0.9))
# A face that the CNN found stands as the HOG detector and the landmarks together make the best of
# it: with these weights right in 50 of 50 faces whose eyes or mouths were covered.
_MIN_ANY, _DISAGREEMENT_WEIGHT = -2.5, 5.0

# Pixels a cell, levels, and filters of the two scans.
_SCANNERS = {"proposing": (4, 1, _MIXTURES), "confirming": (8, 3, ())}
_of_thread = threading.local()


@dataclass(frozen=True)
class DlibDetector(FramingDetector):
    """Finds every face that stands upright, and lying or hard ones where there is none.

    Attributes:
        min_face: Side of the smallest face that is looked for, in pixels of the photo, at least 20;
            smaller ones are left out, see ``side_scatter``. None for 40, in photos of more than 4
            megapixels 80, where smaller ones that are found stay.
        min_score: The lowest score of a face. dlib's own bound is 0, at which one face in a hundred
            more is missed. Below 0.7 dlib's CNN has to find the face, too.
        thorough: Whether turned photos, and all of the photo by dlib's CNN, are tried where no
            face is found.
    """

    base_name: ClassVar[str] = "dlib"
    # Each size of its boxes is 6/5 of the one before: of 90 faces 6 got a box one size smaller.
    side_scatter: ClassVar[float] = 0.18

    min_face: int | None = None
    min_score: float = -0.15
    thorough: bool = True

    def __post_init__(self) -> None:
        if self.min_face is not None:
            check_count(self.min_face, "min_face", least=SMALLEST_SIDE)
        check_number(self.min_score, "min_score", -1)

    def find(self, image: ImageArray) -> list[Found]:
        """Find the faces; see ``FramingDetector.find``."""
        height, width = image.shape[:2]
        if min(height, width) < SMALLEST_SIDE:
            return []
        image = np.ascontiguousarray(image)
        found = self._find_upright(image)
        if not self.thorough:
            return best_apart(found)
        found = found or self._find_by_all_filters(image)
        turns = _turns_to_try(image, found)
        for find in (self._find_upright, self._find_by_all_filters):
            found += [each for turn in turns for each in _find_turned(image, turn, find)]
            if found:
                return best_apart(found)
        # Faces of 80 pixels and more in a quarter of the time first, then those of 40.
        looks = [DlibCnnDetector()]
        # A large photo is shrunk to the same size for both looks.
        if height * width < DlibCnnDetector.max_pixels:
            looks.append(DlibCnnDetector(enlarge=2.0))
        for look in looks:
            found = [
                replace(each, rotation=_rotation_of(image, each))
                for each in look.find(image)
                if each.score >= _SURE_OF_WHOLE
                or _cnn_finds(image, each, cv2.BORDER_REFLECT_101, _LOOKS_AGAIN)
            ]
            if found:
                return found
        return []

    def notes(self, width: int, height: int) -> tuple[str, ...]:
        """What is not looked for in a photo of this size; see ``FramingDetector.notes``."""
        if not width * height:
            return ()
        wanted, scale = self._scale(width, height)
        if scale == _WINDOW / wanted:
            return ()
        return (
            f"faces of less than {math.ceil(_WINDOW / scale)} pixels are not looked for: "
            f"a photo of {width}x{height} pixels would take too long",
        )

    def _scale(self, width: int, height: int) -> tuple[int, float]:
        """The smallest face wanted, and the scale at which it, or the smallest possible, has 40."""
        large = width * height > _LARGE_PHOTO
        wanted = self.min_face or (_MIN_FACE_OF_LARGE if large else _MIN_FACE)
        bound = math.sqrt(MAX_SCANNED_PIXELS / (width * height))
        return wanted, min(_WINDOW / wanted, bound)

    def _find_upright(self, image: ImageArray) -> list[Found]:
        """Find the faces that stand upright."""
        _, scale = self._scale(image.shape[1], image.shape[0])
        # What is found does not depend on a bound above the default one.
        bound = min(self.min_score, DlibDetector.min_score)
        proposed = best_apart(_propose(image, scale))
        confirmed = (_confirm(image, each, bound) for each in proposed)
        return [each for each in confirmed if each is not None and each.score >= self.min_score]

    def _find_by_all_filters(self, image: ImageArray) -> list[Found]:
        """Find the faces that stand upright or are tilted, of 80 pixels and more.

        dlib's five filters find some tilted faces that the two mixtures do not propose, and some
        that score too low in the second scan.
        """
        return [
            each
            for each in DlibHogDetector().find(image)
            if each.score >= self.min_score and _cnn_finds(image, each, cv2.BORDER_REFLECT_101)
        ]


def _turns_to_try(image: ImageArray, found: list[Found]) -> tuple[int, ...]:
    """By how much a photo with these upright faces is turned, to find those that lie."""
    best = max(found, key=lambda each: each.score, default=None)
    if best is None:
        return 180, 90, 270
    if best.score < _NOT_ON_ITS_HEAD:
        around = replace(best, top=best.top - _ABOVE * best.height)
        chip, *_ = _cut_chip(image, around, cv2.BORDER_REFLECT_101)
        if _best_in_middle(np.ascontiguousarray(chip[::-1, ::-1]), best.score) is not None:
            return (180,)
    return ()


def _find_turned(
    image: ImageArray, rotation: int, find: Callable[[ImageArray], list[Found]]
) -> list[Found]:
    """Find the faces that stand upright once the photo is turned."""
    turned = np.ascontiguousarray(np.rot90(image, -rotation // 90))
    return [
        replace(each.turned(360 - rotation, turned.shape[1], turned.shape[0]), rotation=rotation)
        for each in find(turned)
    ]


def _propose(image: ImageArray, scale: float) -> Iterator[Found]:
    """Find windows that may be faces, several of each, from the scale of the smallest on."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    scale *= _FINEST
    method = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
    while min(height, width) * scale >= _WINDOW - _BORDER:
        # Each copy is made of the one before: a third of the time.
        size = (round(width * scale), round(height * scale))
        grey = cv2.resize(grey, size, interpolation=method)
        method = cv2.INTER_LINEAR
        border = (_BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REFLECT_101)
        copy = cast(ImageArray, cv2.copyMakeBorder(grey, *border))
        for top in _starts(copy.shape[0]):
            for left in _starts(copy.shape[1]):
                piece = copy[top : top + _PIECE, left : left + _PIECE]
                for found in _run("proposing", piece, _MIN_PROPOSED):
                    yield replace(
                        found,
                        left=found.left + left - _BORDER,
                        top=found.top + top - _BORDER,
                    ).unscaled(scale)
        scale /= _STEP


def _starts(length: int) -> range:
    """Where the pieces of a side begin."""
    return range(0, max(1, length - _PIECES_OVERLAP), _PIECE - _PIECES_OVERLAP)


def _confirm(image: ImageArray, proposed: Found, min_score: float) -> Found | None:
    """Find the face in the middle of a proposed window, as dlib's detector frames it."""
    # Of faces that the photo's edge cuts off, some are found beside a mirrored edge, some beside a
    # black one; and some tilted ones only after the first try has moved the box.
    for border in (cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT):
        chip, left, top, scale = _cut_chip(image, proposed, border)
        best = _best_in_middle(chip, min_score - _NEARLY)
        if best is None:
            break
        proposed = best.unscaled(scale)
        proposed = replace(proposed, left=proposed.left + left, top=proposed.top + top)
        if best.score >= min_score:
            # What the CNN refuses is not tried again: letters then reach 0.87.
            return proposed if best.score >= _SURE or _cnn_finds(image, proposed, border) else None
    return None


def _rotation_of(image: ImageArray, found: Found) -> int:
    """How far the photo has to be turned for a face that the CNN found to stand upright."""
    chip, *_ = _cut_chip(image, found, cv2.BORDER_REFLECT_101)
    start = (_CHIP - _FACE) / 2
    middle = Found(start, start, _FACE, _FACE, 0)
    trust = {}
    for rotation in (0, 90, 180, 270):
        turned = np.ascontiguousarray(np.rot90(chip, -rotation // 90))
        best = _best_in_middle(turned, _MIN_ANY)
        score = _MIN_ANY if best is None else best.score
        trust[rotation] = score - _DISAGREEMENT_WEIGHT * _disagreement(turned, middle)
    return max(trust, key=trust.__getitem__)


def _cut_chip(
    image: ImageArray, found: Found, border: int, face: int = _FACE, chip_side: int = _CHIP
) -> tuple[ImageArray, int, int, float]:
    """Cut out a box and what surrounds it, by default at the size of the second scan.

    Args:
        image: The photo.
        found: The box.
        border: OpenCV's kind of border, beyond the photo's edge.
        face: Side of the box in the chip, pixels.
        chip_side: Side of the chip, pixels.

    Returns:
        uint8 ``(chip_side, chip_side, 3)``; the left and top of it in the photo; its scale.
    """
    side = max(1, round(found.width * chip_side / face))
    left = round(found.left + (found.width - side) / 2)
    top = round(found.top + (found.height - side) / 2)
    inside = Box(left, top, side, side).clamped(image.shape[1], image.shape[0])
    rows = slice(inside.top, inside.top + inside.height)
    part = image[rows, inside.left : inside.left + inside.width]
    above, before = inside.top - top, inside.left - left
    below, after = side - inside.height - above, side - inside.width - before
    if above or before or below or after:
        part = np.asarray(cv2.copyMakeBorder(part, above, below, before, after, border), np.uint8)
    method = cv2.INTER_AREA if side > 2 * chip_side else cv2.INTER_LINEAR
    chip = cast(ImageArray, cv2.resize(part, (chip_side, chip_side), interpolation=method))
    return chip, left, top, chip_side / side


def _best_in_middle(chip: ImageArray, min_score: float) -> Found | None:
    """Find the face in the middle of a chip that has the highest score."""
    return max(
        (
            found
            for found in _run("confirming", chip, min_score)
            if abs(found.left + found.width / 2 - _CHIP / 2) < _MAX_SHIFT * _FACE
            and abs(found.top + found.height / 2 - _CHIP / 2) < _MAX_SHIFT * _FACE
        ),
        key=lambda found: found.score,
        default=None,
    )


def _cnn_finds(
    image: ImageArray,
    found: Found,
    border: int,
    looks: tuple[tuple[int, int, int], ...] = _CNN_LOOKS,
) -> bool:
    """Whether dlib's CNN finds the same face: letters have a face's gradients, not its look."""
    for face, side, copies in looks:
        window, *_ = _cut_chip(image, found, border, face, side)
        # Unlike gradients, what the network sees depends on the light.
        bright = cv2.normalize(window, np.empty_like(window), 0, 255, cv2.NORM_MINMAX)
        if any(
            abs(each.left + each.width / 2 - side / 2) < _MAX_SHIFT * face
            and abs(each.top + each.height / 2 - side / 2) < _MAX_SHIFT * face
            for each in DlibCnnDetector(copies=copies).find(np.asarray(bright, np.uint8))
        ):
            return True
    return False


def _disagreement(chip: ImageArray, found: Found) -> float:
    """How far landmarks from moved boxes lie from each other, in distances between the eyes.

    A face holds its landmarks in their places; on anything else they follow the box.
    """
    points = []
    for right, down, size in ((0, 0, 1), *_MOVES):
        side = found.width * size
        left = found.left + found.width * (0.5 + right) - side / 2
        top = found.top + found.height * (0.5 + down) - side / 2
        points.append(find_landmarks(chip, Box(round(left), round(top), round(side), round(side))))
    between_eyes = max(1.0, float(np.linalg.norm(points[0][0] - points[0][2])))
    moved = np.linalg.norm(np.array(points[1:]) - points[0], axis=-1)
    return float(moved.mean()) / between_eyes


def _run(name: str, image: ImageArray, min_score: float) -> list[Found]:
    """Scan a picture by this thread's detector of that name; see ``load_scanner``.

    dlib releases Python's lock, and one detector used by two threads corrupts its memory.
    """
    if not hasattr(_of_thread, name):
        setattr(_of_thread, name, load_scanner(*_SCANNERS[name]))
    scanner: Any = getattr(_of_thread, name)
    boxes, scores, _ = scanner.run(np.ascontiguousarray(image), 0, min_score)
    return [
        Found(box.left(), box.top(), box.width(), box.height(), float(score))
        for box, score in zip(boxes, scores, strict=True)
    ]
