"""Live sources: webcams and network streams, which go on whether anyone looks or not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import cv2

from face_encode.errors import VideoError
from face_encode.types import ImageArray
from face_encode.watching.results import Frame
from face_encode.watching.sources import (
    Capture,
    Report,
    frames_per_second_of,
    read_rgb,
    without_password,
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
