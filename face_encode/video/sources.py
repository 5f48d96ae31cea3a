"""Where frames come from: what a source is, video files, and the one function that opens any."""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias, cast
from urllib.parse import urlsplit

import cv2

from face_encode.errors import InputError, VideoError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.types import ImageArray
from face_encode.video.frames import Frame

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


OpenCapture: TypeAlias = Callable[[], Capture]

# How long OpenCV waits for a network stream before it counts as lost.
_NETWORK_TIMEOUT_MS = 5_000
# Whoever waits for a frame looks up this often.
_LOOK_UP_SECONDS = 0.25
# A thread inside OpenCV cannot be stopped; it is left behind where it does not come back by then.
_FAREWELL_SECONDS = 2.0


@dataclass(frozen=True)
class Patience:
    """How a camera that is gone is waited for.

    Attributes:
        first: Seconds before it is tried again; each further wait is twice as long,
        longest: up to this.
        in_all: Seconds after which it is given up.
    """

    first: float = 0.5
    longest: float = 8.0
    in_all: float = 60.0


def open_capture(address: int | str) -> Capture:
    """Open a webcam by its number or device file, or a network stream."""
    if isinstance(address, str) and "://" in address:
        timeouts = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            _NETWORK_TIMEOUT_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            _NETWORK_TIMEOUT_MS,
        ]
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, timeouts)
    return cv2.VideoCapture(address)


class Camera:
    """A webcam or network stream; gives the newest frame, and comes back when it was lost.

    A thread of its own takes every frame as it comes and keeps the last one only: frames that
    come faster than they are looked at are passed over, so that what is seen never lags behind.

    Attributes:
        name: What it is called.
        frames_per_second: What it says; the frames that are looked at may be fewer.
        losses: How many times it was lost.
    """

    is_live = True

    def __init__(
        self,
        open_again: OpenCapture,
        name: str,
        *,
        first: Capture | None = None,
        patience: Patience | None = None,
        report: Report | None = None,
    ) -> None:
        """Open it.

        Args:
            open_again: Opens it; called again whenever it is lost.
            name: What it is called in messages.
            first: The capture, where it has been opened already.
            patience: How it is waited for.
            report: Is told when it is lost and when it is back, from another thread.

        Raises:
            VideoError: It is not there to begin with.
        """
        self.name = name
        self.losses = 0
        self._open_again = open_again
        self._patience = Patience() if patience is None else patience
        self._report: Report = (lambda text: None) if report is None else report
        capture = open_again() if first is None else first
        if not capture.isOpened():
            capture.release()
            raise VideoError(f"{name}: no such camera or stream, or it does not answer")
        self.frames_per_second = frames_per_second_of(capture)
        self._news = threading.Condition()
        self._newest: tuple[ImageArray, int, float] | None = None
        self._given_up = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._read_on, args=(capture,), name=f"camera {name}", daemon=True
        )
        self._thread.start()

    def frames(self) -> Iterator[Frame | None]:
        """The newest frame each time; see ``Source.frames``.

        Raises:
            VideoError: It was lost and did not come back in time.
        """
        taken = -1
        began: float | None = None
        while not self._stopping.is_set():
            with self._news:
                if not self._is_news(taken):
                    self._news.wait(_LOOK_UP_SECONDS)
                newest, given_up = self._newest, self._given_up
            if newest is not None and newest[1] > taken:
                image, taken, at = newest
                began = at if began is None else began
                yield Frame(image, taken, at - began)
            elif given_up:
                raise VideoError(
                    f"{self.name}: lost, and not back after {self._patience.in_all:g} seconds"
                )
            else:
                yield None

    def close(self) -> None:
        """Let go of it."""
        self._stopping.set()
        self._thread.join(_FAREWELL_SECONDS)

    def _is_news(self, taken: int) -> bool:
        """Whether there is something that has not been taken."""
        return self._given_up or (self._newest is not None and self._newest[1] > taken)

    def _read_on(self, capture: Capture) -> None:
        """What the thread does: read, and open again when there is nothing more to read."""
        number = 0
        opened: Capture | None = capture
        while opened is not None and not self._stopping.is_set():
            image = read_rgb(opened)
            if image is not None:
                with self._news:
                    self._newest = (image, number, time.monotonic())
                    self._news.notify_all()
                number += 1
                continue
            opened.release()
            if not self._stopping.is_set():
                self.losses += 1
                opened = self._wait_for_it()
        if opened is not None:
            opened.release()
        with self._news:
            self._given_up = True
            self._news.notify_all()

    def _wait_for_it(self) -> Capture | None:
        """Try again and again, less and less often; None where it was given up."""
        lost_at, wait = time.monotonic(), self._patience.first
        self._report(f"{self.name}: lost; trying again")
        while time.monotonic() - lost_at < self._patience.in_all:
            if self._stopping.wait(wait):
                return None
            wait = min(2 * wait, self._patience.longest)
            capture = self._open_again()
            if capture.isOpened():
                away = time.monotonic() - lost_at
                self._report(f"{self.name}: back after {away:.1f} seconds")
                return capture
            capture.release()
        return None


def display_name(address: int | str) -> str:
    """What a camera is called: ``camera 0``, or its address without the password."""
    return f"camera {address}" if isinstance(address, int) else without_password(address)


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
