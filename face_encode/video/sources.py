"""Sources of frames: video files, webcams and network streams, and the function that opens them."""

from __future__ import annotations

import math
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import SplitResult, urlsplit

import cv2

from face_encode.errors import InputError, VideoError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.types import ImageArray
from face_encode.video.frames import Frame

_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp")
# Assumed where a source states no rate, or an absurd one.
_DEFAULT_FRAMES_PER_SECOND = 25.0
_MAX_FRAMES_PER_SECOND = 240.0
# How long OpenCV waits for a network stream before it counts as lost.
_NETWORK_TIMEOUT_MS = 5_000
# How long the server of a stream that cannot be opened has to say why.
_PROBE_SECONDS = 3.0
# A camera without a new frame gives None this often.
_POLL_SECONDS = 0.25
# A live source without a new frame for so long is told to stand still.
_STALL_SECONDS = 2.0
# A thread inside OpenCV cannot be stopped; after this long it is left behind.
_JOIN_SECONDS = 2.0


class Source(Protocol):
    """A video, a camera or a stream."""

    @property
    def name(self) -> str:
        """A name for messages: the path, or the address without its password."""

    @property
    def is_live(self) -> bool:
        """Whether time goes on while no frame is taken."""

    @property
    def frames_per_second(self) -> float:
        """The rate that the source states."""

    def frames(self) -> Iterator[Frame | None]:
        """The frames, in their order.

        A live source gives None while nothing comes, so that the caller can do other things, and
        passes over frames that were not taken in time.

        Raises:
            VideoError: The source was lost, and did not come back.
        """

    def close(self) -> None:
        """Release the file, camera or connection."""


class _Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that is used here."""

    def isOpened(self) -> bool: ...

    def read(self) -> tuple[bool, Any]: ...

    def get(self, property_number: int) -> float: ...

    def release(self) -> None: ...


def _read_rgb(capture: _Capture) -> ImageArray | None:
    """Read the next frame as RGB; None where there is none."""
    try:
        found, image = capture.read()
    except cv2.error:
        return None
    if not found or image is None:
        return None
    return cast(ImageArray, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _rate_of(capture: _Capture) -> float:
    """The frames a second that a capture states, or the default where that cannot be."""
    stated = capture.get(cv2.CAP_PROP_FPS)
    is_possible = math.isfinite(stated) and 0 < stated <= _MAX_FRAMES_PER_SECOND
    return stated if is_possible else _DEFAULT_FRAMES_PER_SECOND


class RecordedVideo:
    """A video with an end: every frame is taken, however long that takes.

    Attributes:
        name: Its path or address, for messages.
        frames_per_second: The rate that it states.
    """

    is_live = False

    def __init__(self, capture: _Capture, name: str) -> None:
        """Wrap an open ``cv2.VideoCapture``.

        Raises:
            VideoError: OpenCV could not open the video.
        """
        if not capture.isOpened():
            capture.release()
            raise VideoError(f"{name}: no video in a known format, or damaged")
        self.name = name
        self.frames_per_second = _rate_of(capture)
        self._capture = capture

    @classmethod
    def of_file(cls, path: str | os.PathLike[str]) -> RecordedVideo:
        """Open a file.

        Raises:
            VideoError: The file is missing, or no video.
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
        """The frames, with the times that the file states or else counted by its rate.

        Raises:
            VideoError: No frame can be read.
        """
        number, seconds = 0, -1.0
        while (image := _read_rgb(self._capture)) is not None:
            stated = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            # Some containers state no time, NaN, or the same one for every frame.
            if stated > seconds:
                seconds = stated
            else:
                seconds = 0.0 if number == 0 else seconds + 1 / self.frames_per_second
            yield Frame(image, number, seconds)
            number += 1
        if number == 0:
            raise VideoError(f"{self.name}: a video without a single frame that can be read")

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


@dataclass(frozen=True)
class Patience:
    """How long, and how often, a lost camera is retried.

    Attributes:
        first: Seconds until the first retry; each further wait is twice as long,
        longest: up to this.
        in_all: Seconds until it is given up.
    """

    first: float = 0.5
    longest: float = 8.0
    in_all: float = 60.0


class Camera:
    """A webcam or network stream: gives the newest frame, and reconnects after a loss.

    A thread takes every frame as it comes and keeps only the last one: frames that come faster
    than they are taken are passed over, so that the picture never lags behind.

    Attributes:
        name: Its number or address, for messages.
        frames_per_second: The rate that it states; fewer frames may be taken.
        losses: How many times it was lost.
    """

    is_live = True

    def __init__(
        self,
        open_again: Callable[[], _Capture],
        name: str,
        *,
        first: _Capture | None = None,
        why_not: Callable[[], str] = lambda: "no such camera",
        patience: Patience | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Open it.

        Args:
            open_again: Opens the capture; called again after every loss.
            name: A name for messages.
            first: The capture, where it is open already.
            why_not: Says why it cannot be opened.
            patience: How a lost camera is retried.
            report: Called with a line of text when the camera is lost, stands still or is back;
                also from another thread.

        Raises:
            VideoError: It cannot be opened.
        """
        self.name = name
        self.losses = 0
        self._open_again = open_again
        self._patience = Patience() if patience is None else patience
        self._report = (lambda text: None) if report is None else report
        capture = open_again() if first is None else first
        if not capture.isOpened():
            capture.release()
            raise VideoError(f"{name}: {why_not()}")
        self.frames_per_second = _rate_of(capture)
        self._news = threading.Condition()
        # Its seconds are the clock's, until they are counted from the first frame.
        self._newest: Frame | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._read_on, args=(capture,), name=f"camera {name}", daemon=True
        )
        self._thread.start()

    def frames(self) -> Iterator[Frame | None]:
        """The newest frame each time; see ``Source.frames``.

        Raises:
            VideoError: The camera was lost and did not come back in time.
        """
        began: float | None = None
        last, is_still = time.monotonic(), False
        while not self._stopping.is_set():
            with self._news:
                if self._newest is None:
                    self._news.wait(_POLL_SECONDS)
                newest, self._newest = self._newest, None
                is_lost = not self._thread.is_alive()
            if newest is not None:
                began = newest.seconds if began is None else began
                if is_still:
                    self._report(f"{self.name}: gives pictures again")
                yield replace(newest, seconds=newest.seconds - began)
                last, is_still = time.monotonic(), False
            elif is_lost:
                raise VideoError(
                    f"{self.name}: lost, and not back after {self._patience.in_all:g} seconds"
                )
            else:
                if not is_still and time.monotonic() - last > _STALL_SECONDS:
                    self._report(f"{self.name}: no picture for {_STALL_SECONDS:g} seconds")
                    is_still = True
                yield None

    def close(self) -> None:
        """Stop the thread, which releases the camera."""
        self._stopping.set()
        self._thread.join(_JOIN_SECONDS)

    def _read_on(self, capture: _Capture) -> None:
        """Read frames until stopped or lost for good; what the thread runs."""
        opened: _Capture | None = capture
        number = 0
        while opened is not None:
            image = None if self._stopping.is_set() else _read_rgb(opened)
            if image is None:
                opened.release()
                opened = self._reconnect()
                continue
            with self._news:
                self._newest = Frame(
                    image, number, time.monotonic(), taken_at=datetime.now(timezone.utc)
                )
                self._news.notify_all()
            number += 1

    def _reconnect(self) -> _Capture | None:
        """Retry at growing intervals; None if the camera stays away or the thread is stopped."""
        if self._stopping.is_set():
            return None
        self.losses += 1
        self._report(f"{self.name}: lost; trying again")
        lost_at, wait = time.monotonic(), self._patience.first
        while time.monotonic() - lost_at < self._patience.in_all and not self._stopping.wait(wait):
            wait = min(2 * wait, self._patience.longest)
            capture = self._open_again()
            if capture.isOpened():
                away = time.monotonic() - lost_at
                self._report(f"{self.name}: back after {away:.1f} seconds")
                return capture
            capture.release()
        return None


def open_source(
    source: int | str | os.PathLike[str],
    *,
    patience: Patience | None = None,
    report: Callable[[str], None] | None = None,
) -> Source:
    """Open a webcam, a network stream or a video file.

    Args:
        source: A webcam's number, from 0, also as text; an address (``rtsp://``, ``http://`` …);
            or the path of a video file. A video file at an address is read like a local one:
            every frame.
        patience: How a lost camera is retried.
        report: Called with a line of text when a camera is lost, stands still or is back; also from
            another thread.

    Raises:
        VideoError: The source cannot be opened, or is no video.
        InputError: Not a number, address or path.
    """
    if isinstance(source, bool) or not isinstance(source, int | str | os.PathLike):
        raise InputError(
            "a source is a webcam's number, an address or the path of a video file. "
            f"Received: {type(source).__name__}"
        )
    address = source if isinstance(source, int) else os.fsdecode(source)
    if isinstance(address, str) and address.isascii() and address.isdigit():
        address = int(address)
    is_network = False
    if isinstance(address, int):
        if address < 0:
            raise InputError(f"a webcam's number is 0 or more. Received: {address}")
        name = f"camera {address}"
    elif "://" in address:
        _check_address(address)
        name, is_network = without_password(address), True
    elif address.startswith("/dev/"):
        # Linux lists webcams as files, but reading one as a video file would never end.
        name = address
    else:
        return RecordedVideo.of_file(address)
    first = _open_capture(address)
    # OpenCV counts the frames of a video at an address, but not of a stream.
    if is_network and first.isOpened() and first.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return RecordedVideo(first, name)
    again = partial(_open_capture, address)
    why_not = partial(_why_not, address) if is_network else lambda: "no such camera, or in use"
    return Camera(again, name, first=first, why_not=why_not, patience=patience, report=report)


def _open_capture(address: int | str) -> _Capture:
    """Open a webcam by its number or device file, or a network stream."""
    if isinstance(address, int) or "://" not in address:
        return cv2.VideoCapture(address)
    timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    settings = [number for each in timeouts for number in (each, _NETWORK_TIMEOUT_MS)]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, settings)


def _why_not(address: int | str) -> str:
    """Ask a stream's server why it gives no video: FFmpeg keeps that to itself."""
    parts = urlsplit(str(address))
    host, scheme = parts.hostname or "", parts.scheme.lower()
    is_encrypted = scheme in ("rtsps", "https")
    port = parts.port or {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}.get(scheme, 1935)
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as connection:
            if scheme == "rtmp":
                return "its server answers, but gives no video in a known format at this address"
            if is_encrypted:
                connection = ssl.create_default_context().wrap_socket(
                    connection, server_hostname=host
                )
            connection.settimeout(_PROBE_SECONDS)
            connection.sendall(_question(parts))
            status = connection.recv(64).split(b" ")
    except UnicodeError:
        return f"{host} is no name that a host can have"
    except ssl.SSLError as error:
        return f"no encrypted connection to {host}:{port}: {error.reason}"
    except OSError as error:
        return f"{host}:{port} does not answer: {reason_of(error)}"
    code = status[1][:3].decode("ascii", "replace") if len(status) > 1 else ""
    if code == "401":
        if parts.username is not None:
            return "the server asks for name and password (401), and refuses those given"
        return f"the server asks for name and password (401): {scheme}://NAME:PASSWORD@{host}"
    if code == "403":
        return "access is refused (403)"
    if code == "404":
        return f"{host}:{port} has no stream of this path (404)"
    return "its server answers, but gives no video in a known format at this address"


def _question(parts: SplitResult) -> bytes:
    """A request for a stream's description.

    It goes without the password of the address, which nobody but FFmpeg sends, as the server asks.
    """
    host, path = parts.netloc.rpartition("@")[2], parts.path or "/"
    if parts.query:
        path += f"?{parts.query}"
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close"]
    if parts.scheme.lower().startswith("rtsp"):
        lines = [f"DESCRIBE {parts.scheme}://{host}{path} RTSP/1.0", "CSeq: 1"]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def without_password(address: str) -> str:
    """Replace the password in an address, between ``user:`` and ``@``, by asterisks."""
    return re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:***@", address)


def _check_address(address: str) -> None:
    """Refuse an address with another scheme, or without a host."""
    try:
        parts = urlsplit(address)
        # Reading a port that is none raises.
        is_good = parts.scheme.lower() in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise InputError(
            f"an address begins with one of {', '.join(f'{each}://' for each in _SCHEMES)} and a "
            f"host, and a port is 1 to 65535. Received: {without_password(address)!r}"
        )
