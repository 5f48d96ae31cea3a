"""The frames of a video, and the faces followed in them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median

import numpy as np
import numpy.typing as npt

from face_encode.attributes.answers import Attributes
from face_encode.gallery.unknown import Sight
from face_encode.types import Box, ImageArray

# A face that was not seen for longer has left.
UNSEEN_SECONDS = 1.5
# Where the frames themselves come seldom, so many of them may pass without it.
_UNSEEN_FRAMES = 3
# The usual time between frames is the median of the last ones, from so many on.
_INTERVALS, _ENOUGH_INTERVALS = 9, 5


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture out of a video.

    Attributes:
        image: RGB, uint8, ``(H, W, 3)``.
        number: Position among the source's frames, from 0. A live source counts the frames it
            passed over too, so that a jump shows how many they were.
        seconds: Since the beginning of the video or, live, since the first frame.
        taken_at: The wall's clock when the frame came, in UTC; None for a recorded video.
    """

    image: ImageArray
    number: int
    seconds: float
    taken_at: datetime | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class WatchedFace:
    """A face that is being followed, as it is in one frame.

    Attributes:
        track: The same number for the same face from frame to frame, from 1.
        box: In pixels of the frame, clamped to it.
        since: Seconds at which the face was first seen.
        name: The enrolled person, or None while unknown.
        similarity: To that person, or to the nearest one where the face is unknown; None before
            the face was seen well enough to be encoded.
        is_settled: Whether the face was seen well often enough to name it or call it unknown. An
            unsettled face may be the detector's false alarm.
        embedding: float32 ``(D,)``, of length 1, the mean over the good sights; or None.
        is_missed: Whether the detector's last run did not find the face, so that its box is an
            estimate.
        liveness: 0..1, how far the face is alive, the mean over the last good sights of the newest
            one's person; None where nobody asked, or before the first.
        is_live: Whether that suffices; what does not has no name.
        challenge: What the person is still to do before the name is told, in words; None where
            nobody asked, or it is done.
        attributes: Age, gender and expression over the last good sights; None before the first,
            and where nobody asked for them.
        sight: The best sight so far, by which a stranger is known again; None for who is enrolled,
            also before they have turned their head, for what is not alive, and where nobody asked.
    """

    track: int
    box: Box
    since: float
    name: str | None
    similarity: float | None
    is_settled: bool
    embedding: npt.NDArray[np.float32] | None
    is_missed: bool = False
    liveness: float | None = None
    is_live: bool | None = None
    challenge: str | None = None
    attributes: Attributes | None = None
    sight: Sight | None = None


@dataclass(frozen=True, eq=False)
class WatchedFrame(Frame):
    """A frame of the source and the faces followed in it.

    Attributes:
        faces: The largest first.
        uncertain: Boxes of possible further faces: found only once so far, or not found for a
            moment. Blurring covers these too.
    """

    faces: tuple[WatchedFace, ...]
    uncertain: tuple[Box, ...] = ()


class UnseenLimit:
    """How long a face may be unseen until it counts as gone.

    That is a fixed time, also across a break in which no frame comes; three usual intervals between
    frames, where a slow camera or a slow detector makes them longer.
    """

    def __init__(self, seconds: float = UNSEEN_SECONDS) -> None:
        """Begin without a frame; ``seconds`` is the fixed time."""
        self._seconds = seconds
        self._intervals: deque[float] = deque(maxlen=_INTERVALS)
        self._last: float | None = None

    def after(self, frame_seconds: float) -> float:
        """The seconds, at a frame of this time."""
        allowed = self.seconds
        if self._last is not None:
            self._intervals.append(frame_seconds - self._last)
        self._last = frame_seconds
        return allowed

    @property
    def seconds(self) -> float:
        """The seconds, by the frames until now."""
        if len(self._intervals) < _ENOUGH_INTERVALS:
            return self._seconds
        return max(self._seconds, _UNSEEN_FRAMES * median(self._intervals))
