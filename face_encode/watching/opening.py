"""The one function that opens a source, whatever it is."""

from __future__ import annotations

import os
from functools import partial

from face_encode.errors import InputError, VideoError
from face_encode.watching.cameras import Camera, Patience, display_name, open_capture
from face_encode.watching.sources import (
    RecordedVideo,
    Report,
    Source,
    check_address,
    has_end,
    is_address,
)

# Linux calls its webcams by files; to open one as a video file would wait for ever.
_DEVICE = "/dev/"


def open_source(
    source: int | str | os.PathLike[str],
    *,
    patience: Patience | None = None,
    report: Report | None = None,
) -> Source:
    """Open a webcam, a network stream or a video file.

    Args:
        source: A webcam's number, from 0, also as text; an address (``rtsp://``, ``http://`` …);
            or the path of a video file. A video file at an address, which has an end, is read as
            a file is: every frame of it.
        patience: How a camera that is lost is waited for.
        report: Is told when a camera is lost and when it is back, from another thread.

    Raises:
        VideoError: It is not there, or no video.
        InputError: None of these.
    """
    if isinstance(source, bool) or not isinstance(source, int | str | os.PathLike):
        raise InputError(
            "a source is a webcam's number, an address or the path of a video file. "
            f"Received: {type(source).__name__}"
        )
    text = source if isinstance(source, int) else os.fspath(source)
    if isinstance(text, str) and text.isascii() and text.isdigit():
        text = int(text)
    if isinstance(text, int) and text < 0:
        raise InputError(f"a webcam's number is 0 or more. Received: {text}")
    if isinstance(text, str) and not is_address(text) and not text.startswith(_DEVICE):
        return RecordedVideo.of_file(text)
    if isinstance(text, str) and is_address(text):
        check_address(text)
    name = display_name(text)
    first = open_capture(text)
    if not first.isOpened():
        first.release()
        raise VideoError(f"{name}: no such camera or stream, or it does not answer")
    if isinstance(text, str) and is_address(text) and has_end(first):
        return RecordedVideo(first, name)
    return Camera(partial(open_capture, text), name, first=first, patience=patience, report=report)
