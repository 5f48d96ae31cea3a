"""What watching gives: the frame, and the faces followed in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.types import Box, ImageArray


@dataclass(frozen=True, eq=False)
class Frame:
    """A picture out of a video.

    Attributes:
        image: RGB, uint8, ``(H, W, 3)``.
        number: Its place among the frames that the source gave, from 0. A live source counts
            those that were passed over too, so that a jump tells how many those were.
        seconds: Since the beginning of the video or, live, since the first frame.
    """

    image: ImageArray
    number: int
    seconds: float


@dataclass(frozen=True, eq=False)
class WatchedFace:
    """A face that is being followed, as it is in one frame.

    Attributes:
        track: The same number for the same face from frame to frame, from 1.
        box: Where it is, in pixels of the frame, clamped to it.
        since: Seconds at which it was first seen.
        name: The enrolled person, or None while unknown.
        similarity: To that person, or to the nearest one where it is unknown; None before the
            face was seen well enough to be encoded.
        is_settled: Whether it was seen well often enough to say who it is. What is not settled
            may be a detector's false alarm and is no unknown person yet.
        embedding: float32 ``(D,)``, of length 1, the mean over the good sights; or None.
        is_missed: Whether the detector did not find it when it last looked, so that its box is
            where it should be by now.
    """

    track: int
    box: Box
    since: float
    name: str | None
    similarity: float | None
    is_settled: bool
    embedding: npt.NDArray[np.float32] | None
    is_missed: bool = False


@dataclass(frozen=True, eq=False)
class WatchedFrame:
    """A frame and the faces followed in it.

    Attributes:
        image: RGB, uint8, ``(H, W, 3)``, as the source gave it.
        number: As in ``Frame``.
        seconds: As in ``Frame``.
        faces: The largest first.
        uncertain: Where else a face may be: found once only so far, or not any more for a moment.
            Whoever hides faces hides these, too.
    """

    image: ImageArray
    number: int
    seconds: float
    faces: tuple[WatchedFace, ...]
    uncertain: tuple[Box, ...] = ()
