"""Where frames come from: what a source is, video files, and the one function that opens any."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import cv2

from face_encode.errors import InputError, VideoError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.types import ImageArray
from face_encode.watching.results import Frame

SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp")
# Where a source does not say how many frames a second it has, or says nonsense.
USUAL_FRAMES_PER_SECOND = 25.0
_LARGEST_FRAMES_PER_SECOND = 240.0

Report: TypeAlias = Callable[[str], None]
"""Takes what a source has to say while it runs, such as that a camera is gone."""


class Source(Protocol):
    """A video, a camera or a stream."""

    @property
    def name(self) -> str:
        """What it is called; of an address, without the password in it."""

    @property
    def is_live(self) -> bool:
        """Whether it goes on whether its frames are taken or not."""

    @property
    def frames_per_second(self) -> float:
        """How many frames a second it says it has."""

    def frames(self) -> Iterator[Frame | None]:
        """The frames, in their order.

        A live source gives None where nothing came for a while, so that whoever waits can look
        after other things, and passes over frames that were not taken in time.

        Raises:
            VideoError: It was lost, and did not come back.
        """

    def close(self) -> None:
        """Let go of it."""


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that is used here."""

    def isOpened(self) -> bool:
        """Whether there is anything to read."""

    def read(self) -> tuple[bool, Any]:
        """The next frame in BGR, where there is one."""

    def get(self, property_number: int) -> float:
        """A property; 0 where it is unknown."""

    def release(self) -> None:
        """Let go of it."""


class RecordedVideo:
    """A video with an end: every frame of it is taken, however long that takes."""

    is_live = False

    def __init__(self, capture: Capture, name: str) -> None:
        """Take what OpenCV opened.

        Raises:
            VideoError: OpenCV could not open it.
        """
        if not capture.isOpened():
            capture.release()
            raise VideoError(f"{name}: no video in a known format, or damaged")
        self.name = name
        self.frames_per_second = frames_per_second_of(capture)
        self._capture = capture

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> RecordedVideo:
        """Open a file.

        Raises:
            VideoError: Missing, or no video.
            InputError: No path.
        """
        path = as_path(path)
        try:
            with open_regular(path):
                pass
        except OSError as error:
            raise VideoError(f"{path}: {reason_of(error)}") from error
        return cls(cv2.VideoCapture(os.fspath(path)), os.fspath(path))

    def frames(self) -> Iterator[Frame | None]:
        """The frames; their time is what the file says, or else counted; see ``Source.frames``.

        Raises:
            VideoError: There is not one in it.
        """
        number, seconds = 0, -1.0
        while True:
            image = read_rgb(self._capture)
            if image is None:
                break
            told = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            # Some containers tell no time, or the same one over and over.
            if not told > seconds:
                told = 0.0 if number == 0 else seconds + 1 / self.frames_per_second
            seconds = told
            yield Frame(image, number, seconds)
            number += 1
        if number == 0:
            raise VideoError(f"{self.name}: a video without a single frame that can be read")

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()


def read_rgb(capture: Capture) -> ImageArray | None:
    """The next frame as RGB, or None where there is none."""
    try:
        found, image = capture.read()
    except cv2.error:
        return None
    if not found or image is None:
        return None
    return cast(ImageArray, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def frames_per_second_of(capture: Capture) -> float:
    """What a source says, where that can be."""
    told = capture.get(cv2.CAP_PROP_FPS)
    believable = math.isfinite(told) and 0 < told <= _LARGEST_FRAMES_PER_SECOND
    return told if believable else USUAL_FRAMES_PER_SECOND


def has_end(capture: Capture) -> bool:
    """Whether OpenCV knows how many frames there are: a video at an address, not a stream."""
    return capture.isOpened() and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0


def without_password(address: str) -> str:
    """An address as it may be shown: what stands between ``user:`` and ``@`` is left out."""
    return re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:***@", address)


def is_address(text: str) -> bool:
    """Whether a text is an address rather than a file."""
    return "://" in text


def check_address(address: str) -> None:
    """Refuse an address that is not one of a stream.

    Raises:
        InputError: Another scheme, or no host.
    """
    try:
        parts = urlsplit(address)
        is_good = parts.scheme.lower() in SCHEMES and bool(parts.hostname)
    except ValueError:
        is_good = False
    if not is_good:
        raise InputError(
            f"an address begins with one of {', '.join(f'{each}://' for each in SCHEMES)} and a "
            f"host. Received: {without_password(address)!r}"
        )
