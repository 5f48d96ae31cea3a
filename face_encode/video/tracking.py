"""Faces followed from frame to frame, by where they are: which box belongs to which face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.types import Box, Face, ImageArray
from face_encode.video.identity import Identity

FloatBox: TypeAlias = npt.NDArray[np.float64]
"""Left, top, width, height; float64 ``(4,)``, so that small steps are not lost in rounding."""

GreyArray: TypeAlias = npt.NDArray[np.uint8]

# Points a side of the grid in each box; its rim is left out, since the background shows there.
_GRID = 5
_RIM = 0.2
# A point that, followed forth and back, ends farther from its start than this has been lost.
_LARGEST_RETURN_ERROR = 1.0
_FEWEST_POINTS = 6
# A face does not grow by more than this from one frame to the next.
_LARGEST_GROWTH = 1.15


def as_array(box: Box) -> FloatBox:
    """A box as four numbers."""
    return np.array([box.left, box.top, box.width, box.height], np.float64)


def shrink(image: ImageArray, width: int) -> tuple[ImageArray, float]:
    """A frame no wider than this, and the factor between its sides and the original's."""
    scale = min(1.0, width / image.shape[1])
    if scale == 1:
        return image, 1.0
    size = (width, max(1, round(image.shape[0] * scale)))
    return cast(ImageArray, cv2.resize(image, size, interpolation=cv2.INTER_AREA)), scale


def as_grey(image: ImageArray) -> GreyArray:
    """The brightness, uint8 ``(H, W)``."""
    return cast(GreyArray, cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))


def follow_boxes(
    before: GreyArray, after: GreyArray, boxes: Sequence[FloatBox]
) -> list[FloatBox | None]:
    """Where boxes went between two frames.

    Args:
        before: uint8 ``(H, W)``.
        after: The same size.
        boxes: In pixels of the first.

    Returns:
        A box each in pixels of the second, or None where too few of its points were found again.
    """
    if not boxes:
        return []
    starts = np.concatenate([_grid(box) for box in boxes])[:, np.newaxis].astype(np.float32)
    flow: Any = cv2.calcOpticalFlowPyrLK
    ends, found, _ = flow(before, after, starts, None, winSize=(15, 15), maxLevel=3)
    returned, found_back, _ = flow(after, before, ends, None, winSize=(15, 15), maxLevel=3)
    errors = np.linalg.norm(returned - starts, axis=2)[:, 0]
    good = (found[:, 0] == 1) & (found_back[:, 0] == 1) & (errors < _LARGEST_RETURN_ERROR)
    moved: list[FloatBox | None] = []
    for index, box in enumerate(boxes):
        rows = slice(index * _GRID**2, (index + 1) * _GRID**2)
        kept = good[rows]
        if kept.sum() < _FEWEST_POINTS:
            moved.append(None)
            continue
        moved.append(_moved(box, starts[rows, 0][kept], ends[rows, 0][kept]))
    return moved


def _grid(box: FloatBox) -> npt.NDArray[np.float64]:
    """Points spread over the inner part of a box, ``(_GRID ** 2, 2)``."""
    steps = np.linspace(_RIM, 1 - _RIM, _GRID)
    across, down = np.meshgrid(box[0] + box[2] * steps, box[1] + box[3] * steps)
    return np.stack([across.ravel(), down.ravel()], axis=1)


def _moved(
    box: FloatBox, starts: npt.NDArray[np.float32], ends: npt.NDArray[np.float32]
) -> FloatBox:
    """The box after the median step of its points, grown as the distances between them grew."""
    step = np.median(ends - starts, axis=0)
    first, second = np.triu_indices(len(starts), 1)
    before = np.linalg.norm(starts[first] - starts[second], axis=1)
    after = np.linalg.norm(ends[first] - ends[second], axis=1)
    growth = np.clip(np.median(after / before), 1 / _LARGEST_GROWTH, _LARGEST_GROWTH)
    width, height = box[2] * growth, box[3] * growth
    left = box[0] + box[2] / 2 + step[0] - width / 2
    top = box[1] + box[3] / 2 + step[1] - height / 2
    return np.array([left, top, width, height])


# A box found belongs to a face followed from this overlap (intersection over union) on.
_LEAST_OVERLAP = 0.25
# Two faces followed that overlap by more are one.
_DOUBLED_OVERLAP = 0.6
# The share of a box found in the new place; the rest is where the face was expected, so that a
# detector's trembling is not seen.
_TRUST_IN_FOUND = 0.6
# Seconds after a face was last found: until then it is still shown, and still kept in mind.
_SHOWN_SECONDS = 0.5
_KEPT_SECONDS = 1.5
# A face that was found fewer times than this is not worth waiting for.
_TENTATIVE_FINDS = 3


@dataclass(eq=False)
class Track:
    """A face that is being followed.

    Attributes:
        number: From 1, never used again.
        face: As it was last found.
        box: Where it is by now, in pixels of the frame.
        since: Seconds at which it was first found.
        found_at: Seconds at which it was last found.
        finds: How many times it was found.
        misses: How many times in a row it was looked for and not found.
        velocity: Pixels a second, ``(2,)``: carries it on where its points are lost.
        identity: Who it is.
    """

    number: int
    face: Face
    box: FloatBox
    since: float
    found_at: float
    finds: int = 1
    misses: int = 0
    velocity: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    identity: Identity = field(default_factory=Identity)

    def is_shown(self, seconds: float) -> bool:
        """Whether it was found not long ago, and more than once."""
        return self.finds >= _TENTATIVE_FINDS and seconds - self.found_at <= _SHOWN_SECONDS


class Tracker:
    """Keeps the faces that are followed.

    Attributes:
        tracks: All of them, the oldest first.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self.tracks: list[Track] = []
        self._count = 0
        self._seconds = 0.0

    def move(self, moved: Sequence[FloatBox | None], seconds: float) -> None:
        """Take the faces to where the next frame shows them.

        Args:
            moved: A box a track, or None where only its former motion can tell.
            seconds: Of that frame.
        """
        elapsed = max(seconds - self._seconds, 1e-3)
        self._seconds = seconds
        for track, box in zip(self.tracks, moved, strict=True):
            if box is None:
                track.box = track.box.copy()
                track.box[:2] += track.velocity * elapsed
                # Nothing goes on for ever unseen.
                track.velocity = track.velocity * 0.8
            else:
                step = _centre(box) - _centre(track.box)
                track.velocity = 0.7 * track.velocity + 0.3 * step / elapsed
                track.box = box

    def find(self, faces: Sequence[Face], seconds: float, size: tuple[int, int]) -> None:
        """Take what a detector found: continue the faces, begin new ones, give up lost ones.

        The pairs of the largest overlap come together first.

        Args:
            faces: What it found, in pixels of the frame.
            seconds: Of the frame.
            size: Its width and height.
        """
        boxes = [as_array(face.box) for face in faces]
        overlaps = overlap_of_all([track.box for track in self.tracks], boxes)
        free = set(range(len(boxes)))
        waiting = set(range(len(self.tracks)))
        for flat in np.argsort(-overlaps, axis=None):
            row, column = divmod(int(flat), len(boxes))
            if overlaps[row, column] < _LEAST_OVERLAP:
                break
            if row in waiting and column in free:
                waiting.remove(row)
                free.remove(column)
                _continue(self.tracks[row], faces[column], seconds)
        for row in waiting:
            self.tracks[row].misses += 1
        for column in sorted(free):
            self._count += 1
            begun = Track(self._count, faces[column], boxes[column], seconds, seconds)
            self.tracks.append(begun)
        self._give_up(seconds, size)

    def _give_up(self, seconds: float, size: tuple[int, int]) -> None:
        """Let go of what has been lost for long, has left the picture, or is followed twice."""
        kept: list[Track] = []
        for track in sorted(self.tracks, key=lambda each: (-each.finds, each.number)):
            centre = _centre(track.box)
            inside = 0 <= centre[0] < size[0] and 0 <= centre[1] < size[1]
            tentative = track.finds < _TENTATIVE_FINDS and track.misses > 1
            lost = seconds - track.found_at > _KEPT_SECONDS
            others = overlap_of_all([track.box], [other.box for other in kept])
            doubled = bool((others > _DOUBLED_OVERLAP).any())
            if inside and not tentative and not lost and not doubled:
                kept.append(track)
        self.tracks = sorted(kept, key=lambda each: each.number)


def overlap_of_all(
    first: Sequence[FloatBox], second: Sequence[FloatBox]
) -> npt.NDArray[np.float64]:
    """Intersection over union of each box with each, ``(len(first), len(second))``."""
    a = np.array(first, np.float64).reshape(-1, 1, 4)
    b = np.array(second, np.float64).reshape(1, -1, 4)
    corner = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    sides = np.maximum(corner - np.maximum(a[..., :2], b[..., :2]), 0)
    shared = sides.prod(axis=-1)
    union = a[..., 2:].prod(axis=-1) + b[..., 2:].prod(axis=-1) - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


def _centre(box: FloatBox) -> npt.NDArray[np.float64]:
    """The middle of a box, x and y."""
    return np.asarray(box[:2] + box[2:] / 2)


def _continue(track: Track, face: Face, seconds: float) -> None:
    """The face was found again."""
    track.face = face
    track.box = _TRUST_IN_FOUND * as_array(face.box) + (1 - _TRUST_IN_FOUND) * track.box
    track.found_at = seconds
    track.finds += 1
    track.misses = 0
