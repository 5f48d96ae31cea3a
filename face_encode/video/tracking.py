"""Tracking of faces from frame to frame, by the motion of their pixels and by overlapping boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
import numpy.typing as npt

from face_encode.liveness.challenge import Challenge
from face_encode.types import Box, Face, ImageArray
from face_encode.video.frames import UnseenLimit
from face_encode.video.identity import Identity

FloatBox: TypeAlias = npt.NDArray[np.float64]
"""Left, top, width, height; float64 ``(4,)``, so that rounding loses no small steps."""

GreyArray: TypeAlias = npt.NDArray[np.uint8]

# Points on a side of the grid in each box; the box's rim is left out, where the background shows.
_GRID = 5
_RIM = 0.2
# A point that, followed forth and back, ends farther from its start than this is lost, in pixels.
_MAX_RETURN_ERROR = 1.0
_MIN_POINTS = 6
# A face does not grow by more than this from one frame to the next.
_MAX_GROWTH = 1.15
# From this overlap (intersection over union), a detected box belongs to a track.
_MIN_OVERLAP = 0.25
# Two tracks that overlap by more are the same face.
_MAX_OVERLAP = 0.6
# The weight of the detected box in a track's new one; the rest is the expected box, so that the
# detector's jitter does not show.
_DETECTION_WEIGHT = 0.6
# Seconds after the last detection for which a face is shown.
_SHOWN_SECONDS = 0.5
# A face found fewer times than this is not shown yet, and is dropped at its second miss.
_TENTATIVE_FINDS = 3


def as_array(box: Box) -> FloatBox:
    """The box as four numbers."""
    return np.array([box.left, box.top, box.width, box.height], np.float64)


def shrink(image: ImageArray, width: int) -> tuple[ImageArray, float]:
    """Shrink a frame to this width at most; returns it and the scale of its sides."""
    scale = min(1.0, width / image.shape[1])
    if scale == 1:
        return image, 1.0
    size = (width, max(1, round(image.shape[0] * scale)))
    return cast(ImageArray, cv2.resize(image, size, interpolation=cv2.INTER_AREA)), scale


def follow_boxes(
    before: GreyArray, after: GreyArray, boxes: Sequence[FloatBox]
) -> list[FloatBox | None]:
    """Follow boxes from one frame to the next, by the optical flow (Lucas and Kanade) inside them.

    Args:
        before: uint8 ``(H, W)``.
        after: uint8, of the same size.
        boxes: In pixels of the first frame.

    Returns:
        For each box its place in the second frame, or None where too few of its points were found
        again.
    """
    if not boxes:
        return []
    steps = np.linspace(_RIM, 1 - _RIM, _GRID)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    points = np.concatenate([box[:2] + box[2:] * grid for box in boxes])
    starts = points[:, np.newaxis].astype(np.float32)
    flow: Any = cv2.calcOpticalFlowPyrLK
    ends, found, _ = flow(before, after, starts, None, winSize=(15, 15), maxLevel=3)
    returned, found_back, _ = flow(after, before, ends, None, winSize=(15, 15), maxLevel=3)
    errors = np.linalg.norm(returned - starts, axis=2)[:, 0]
    good = (found[:, 0] == 1) & (found_back[:, 0] == 1) & (errors < _MAX_RETURN_ERROR)
    moved: list[FloatBox | None] = []
    for index, box in enumerate(boxes):
        rows = slice(index * _GRID**2, (index + 1) * _GRID**2)
        found_again = good[rows]
        if found_again.sum() < _MIN_POINTS:
            moved.append(None)
        else:
            moved.append(_moved(box, starts[rows, 0][found_again], ends[rows, 0][found_again]))
    return moved


def _moved(
    box: FloatBox, starts: npt.NDArray[np.float32], ends: npt.NDArray[np.float32]
) -> FloatBox:
    """Move a box by its points' median step, and scale it as the distances between them changed."""
    step = np.median(ends - starts, axis=0)
    first, second = np.triu_indices(len(starts), 1)
    before = np.linalg.norm(starts[first] - starts[second], axis=1)
    after = np.linalg.norm(ends[first] - ends[second], axis=1)
    growth = np.clip(np.median(after / before), 1 / _MAX_GROWTH, _MAX_GROWTH)
    size = box[2:] * growth
    return np.concatenate([box[:2] + box[2:] / 2 + step - size / 2, size])


@dataclass(eq=False)
class Track:
    """A face that is being followed.

    Attributes:
        number: From 1, never reused.
        face: The last detection.
        box: The current place, in pixels of the frame.
        since: Seconds at which the detector first found the face.
        found_at: Seconds at which it last found the face.
        finds: Number of detections.
        misses: Detector runs in a row that did not find the face.
        velocity: Pixels a second, ``(2,)``: moves the box when its points are lost.
        identity: Who the face is.
        challenge: What it is to do before it is named, where that is asked.
        met_by: The embedding of who met it, float32 ``(D,)``; None while nobody has.
        others: The last good sights in a row that show somebody else than who met it.
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
    challenge: Challenge = field(default_factory=Challenge)
    met_by: npt.NDArray[np.float32] | None = None
    others: int = 0

    @property
    def has_turned(self) -> bool:
        """Whether the challenge was met, by who is there now."""
        return self.met_by is not None and not self.others

    def is_shown(self, seconds: float) -> bool:
        """Whether the face was found often enough, and recently."""
        return self.finds >= _TENTATIVE_FINDS and seconds - self.found_at <= _SHOWN_SECONDS


class Tracker:
    """The tracks of one video.

    Attributes:
        tracks: The oldest first.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._count = 0
        self._seconds = 0.0
        self._unseen = UnseenLimit()

    def drop_unseen(self, seconds: float) -> None:
        """Drop the tracks that were not found for too long before the next frame.

        Before anything is compared with them: whoever is there after a break has come anew.

        Args:
            seconds: Time of that frame.
        """
        allowed = self._unseen.after(seconds)
        self.tracks = [track for track in self.tracks if seconds - track.found_at <= allowed]

    def move(self, moved: Sequence[FloatBox | None], seconds: float) -> None:
        """Move the tracks to the next frame.

        Args:
            moved: A box for each track, or None to extrapolate from its velocity.
            seconds: Time of that frame.
        """
        elapsed = max(seconds - self._seconds, 1e-3)
        self._seconds = seconds
        for track, box in zip(self.tracks, moved, strict=True):
            if box is None:
                track.box = track.box + np.append(track.velocity * elapsed, (0, 0))
                # A face that is not seen slows down.
                track.velocity = track.velocity * 0.8
            else:
                step = _centre(box) - _centre(track.box)
                track.velocity = 0.7 * track.velocity + 0.3 * step / elapsed
                track.box = box

    def find(self, faces: Sequence[Face], seconds: float, size: tuple[int, int]) -> None:
        """Assign detections to tracks, begin tracks for the rest, and drop the lost ones.

        The pairs with the largest overlap are assigned first.

        Args:
            faces: The detections, in pixels of the frame.
            seconds: Time of the frame.
            size: Width and height of the frame.
        """
        boxes = [as_array(face.box) for face in faces]
        overlaps = overlap_of_all([track.box for track in self.tracks], boxes)
        free = set(range(len(boxes)))
        waiting = set(range(len(self.tracks)))
        for flat in np.argsort(-overlaps, axis=None):
            row, column = divmod(int(flat), len(boxes))
            if overlaps[row, column] < _MIN_OVERLAP:
                break
            if row in waiting and column in free:
                waiting.remove(row)
                free.remove(column)
                track = self.tracks[row]
                track.face, track.found_at, track.misses = faces[column], seconds, 0
                track.finds += 1
                expected = (1 - _DETECTION_WEIGHT) * track.box
                track.box = _DETECTION_WEIGHT * boxes[column] + expected
        for row in waiting:
            self.tracks[row].misses += 1
        for column in sorted(free):
            self._count += 1
            self.tracks.append(Track(self._count, faces[column], boxes[column], seconds, seconds))
        self._drop_lost(size)

    def _drop_lost(self, size: tuple[int, int]) -> None:
        """Drop tracks that were found too seldom, left the picture, or double a longer one."""
        remaining: list[Track] = []
        for track in sorted(self.tracks, key=lambda each: (-each.finds, each.number)):
            centre = _centre(track.box)
            inside = 0 <= centre[0] < size[0] and 0 <= centre[1] < size[1]
            tentative = track.finds < _TENTATIVE_FINDS and track.misses > 1
            others = overlap_of_all([track.box], [other.box for other in remaining])
            doubled = bool((others > _MAX_OVERLAP).any())
            if inside and not tentative and not doubled:
                remaining.append(track)
        self.tracks = sorted(remaining, key=lambda each: each.number)


def overlap_of_all(
    first: Sequence[FloatBox], second: Sequence[FloatBox]
) -> npt.NDArray[np.float64]:
    """Intersection over union of all pairs, ``(len(first), len(second))``."""
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
