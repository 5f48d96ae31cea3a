"""``watch``: live video from Python, frame by frame."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

from face_encode.detectors.base import Detector
from face_encode.detectors.haar import HaarDetector
from face_encode.detectors.registry import load_detector
from face_encode.model import Face_Encode_Model
from face_encode.types import check_count
from face_encode.watching.opening import open_source
from face_encode.watching.results import WatchedFrame
from face_encode.watching.sources import Source
from face_encode.watching.watcher import Watcher, WatchSettings

DEFAULT_DETECTOR = "haar"
# Live, faces of a fifteenth of the frame's height are found: a person at the far end of a room. A
# file waits, so that faces of half that size can be looked for, in four times the time.
LIVE_WIDTH, RECORDED_WIDTH = 640, 1280
_HAAR_SMALLEST = 24
_USUAL_SHAPE = 9 / 16


def watch(
    source: int | str | os.PathLike[str] | Source,
    model: Face_Encode_Model,
    detector: str | Detector | None = None,
    settings: WatchSettings | None = None,
) -> Iterator[WatchedFrame]:
    """Follow and name the faces in a video, a camera or a stream.

    Args:
        source: A webcam's number, an address, the path of a video file, or a source opened by
            ``open_source``.
        model: The encoder and the enrolled people.
        detector: Finds the faces in the frames: the name of a known one, a detector, or None for
            the fastest. The model's own detector only finds those of its photos.
        settings: How much is looked at.

    Yields:
        Each frame with the faces in it. A live source passes over the frames that come while one
        is looked at; a file gives all of them.

    Raises:
        VideoError: The source is not there, is no video, or was lost and did not come back.
        InputError: No such source or detector.

    Example:
        >>> from face_encode import Face_Encode_Model, watch
        >>> model = Face_Encode_Model()
        >>> report = model.fit_dataset("verify_dataset", progress=False)
        >>> for frame in watch("visitors.mp4", model):  # doctest: +SKIP
        ...     print(frame.seconds, [face.name for face in frame.faces])
    """
    opened = open_source(source) if isinstance(source, int | str | os.PathLike) else source
    try:
        watcher = Watcher(model, video_detector(detector, is_live=opened.is_live), settings)
        for frame in opened.frames():
            if frame is not None:
                yield watcher.look(frame)
    finally:
        opened.close()


def video_detector(
    detector: str | Detector | None = None, width: int | None = None, *, is_live: bool = True
) -> Detector:
    """The detector for video.

    Args:
        detector: A name, a detector, or None for the fastest.
        width: Frames are shrunk to about this width before it looks at them; None for what suits
            the source. A detector that has no bound on the pixels looks at them as they are.
        is_live: Whether frames are lost where it takes long.

    Raises:
        InputError: No such detector, or a width below 64.
    """
    chosen: Detector
    if detector is None or detector == DEFAULT_DETECTOR:
        chosen = HaarDetector(smallest=_HAAR_SMALLEST)
        if width is None:
            width = LIVE_WIDTH if is_live else RECORDED_WIDTH
    else:
        chosen = load_detector(detector) if isinstance(detector, str) else detector
    if width is None or not dataclasses.is_dataclass(chosen) or not hasattr(chosen, "max_pixels"):
        return chosen
    check_count(width, "width", least=64)
    changed: Detector = dataclasses.replace(chosen, max_pixels=round(width * width * _USUAL_SHAPE))
    return changed
