"""Sources of frames: video files, webcams and network streams, and the function that opens them."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import SplitResult, urlsplit

import cv2

from face_encode.errors import InputError, VideoError, WrongPasswordError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.types import ImageArray
from face_encode.video.frames import Frame

_LOG = logging.getLogger(__name__)

_SCHEMES = ("rtsp", "rtsps", "http", "https", "rtmp")
# Assumed where a source states no rate, or an absurd one.
_DEFAULT_FRAMES_PER_SECOND = 25.0
_MAX_FRAMES_PER_SECOND = 240.0
# It is told of a recorded video that it lacks more than this share of its frames, where it lacks so
# many seconds of its length too: some state a rate that the frames do not keep.
_MISSING_SHARE, _MISSING_SECONDS = 0.1, 1.0
# How long OpenCV waits for a network stream before it counts as lost.
_NETWORK_TIMEOUT_MS = 5_000
# How long the server of a stream that cannot be opened has to say why.
_PROBE_SECONDS = 3.0
# A camera without a new frame gives None this often.
_POLL_SECONDS = 0.25
# A live source without a new frame for so long is told to stand still.
STALL_SECONDS = 2.0
# Many cameras shut out for a while who sends a wrong password again and again.
PASSWORD_SECONDS = 60.0
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
        # Asked for now: of a connection that is lost later, nothing is known any more. NaN, 0 or
        # below where a container does not know.
        self._stated_frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._stated_rate = capture.get(cv2.CAP_PROP_FPS)

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
        # No error: the frames that a trimmed video hides are stated as well.
        if self._breaks_off(number, seconds):
            _LOG.warning(
                "%s: has %.0f frames by what it states, of which %d were read: it is trimmed, "
                "damaged or cut off, or its connection was lost",
                self.name,
                self._stated_frames,
                number,
            )

    def _breaks_off(self, number: int, seconds: float) -> bool:
        """Whether this many frames, the last one at this time, are clearly not all."""
        stated, rate = self._stated_frames, self._stated_rate
        if not (stated > 0 and rate > 0):
            return False
        length = stated / rate
        missing = max(_MISSING_SECONDS, _MISSING_SHARE * length)
        return number < (1 - _MISSING_SHARE) * stated and seconds < length - missing

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
        trouble: Why it is lost, as far as is known; None while it is connected.
    """

    is_live = True

    def __init__(
        self,
        open_again: Callable[[], _Capture],
        name: str,
        *,
        first: _Capture | None = None,
        why_not: Callable[[str], VideoError] | None = None,
        patience: Patience | None = None,
        report: Callable[[str], None] | None = None,
        turn: AbstractContextManager[object] | None = None,
        interval: float = 0.0,
    ) -> None:
        """Open it.

        Args:
            open_again: Opens the capture; called again after every loss.
            name: A name for messages.
            first: The capture, where it is open already.
            why_not: From the name to the error that says why it cannot be opened.
            patience: How a lost camera is retried.
            report: Called with a line of text when the camera is lost, stands still or is back;
                also from another thread.
            turn: Held from the moment a frame is taken until the next one is asked for.
            interval: Seconds from one frame to the next, at least.

        Raises:
            VideoError: It cannot be opened.
        """
        self.name = name
        self.losses = 0
        self.trouble: VideoError | None = None
        self._open_again = open_again
        self._why_not = why_not or (lambda name: VideoError(f"{name}: no such camera"))
        self._turn = nullcontext() if turn is None else turn
        self._interval = interval
        self._patience = Patience() if patience is None else patience
        self._report = (lambda text: None) if report is None else report
        capture = open_again() if first is None else first
        if not capture.isOpened():
            capture.release()
            raise self._why_not(name)
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
                is_there = self._newest is not None
                is_lost = not self._thread.is_alive()
            if is_there:
                if is_still:
                    self._report(f"{self.name}: gives pictures again")
                with self._turn:
                    # Only now: while others had their turns, a newer one may have come.
                    newest, taken = self._take(), time.monotonic()
                    began = newest.seconds if began is None else began
                    yield replace(newest, seconds=newest.seconds - began)
                last, is_still = time.monotonic(), False
                self._stopping.wait(max(0.0, taken + self._interval - last))
            elif is_lost:
                raise VideoError(
                    f"{self.name}: lost, and not back after {self._patience.in_all:g} seconds"
                )
            else:
                if not is_still and time.monotonic() - last > STALL_SECONDS:
                    self._report(f"{self.name}: no picture for {STALL_SECONDS:g} seconds")
                    is_still = True
                yield None

    def _take(self) -> Frame:
        """Take the newest frame, which is there."""
        with self._news:
            newest, self._newest = self._newest, None
        assert newest is not None
        return newest

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
        self.trouble = VideoError(f"{self.name}: lost; trying again")
        self._report(str(self.trouble))
        lost_at, wait = time.monotonic(), self._patience.first
        while time.monotonic() - lost_at < self._patience.in_all and not self._stopping.wait(wait):
            wait = min(2 * wait, self._patience.longest)
            capture = self._open_again()
            if capture.isOpened():
                away = time.monotonic() - lost_at
                self._report(f"{self.name}: back after {away:.1f} seconds")
                self.trouble = None
                return capture
            capture.release()
            why = self._why_not(self.name)
            if str(why) != str(self.trouble):
                self._report(str(why))
            self.trouble = why
            if isinstance(why, WrongPasswordError):
                wait = max(wait, PASSWORD_SECONDS)
        return None


def open_source(
    source: int | str | os.PathLike[str],
    *,
    name: str | None = None,
    patience: Patience | None = None,
    report: Callable[[str], None] | None = None,
    turn: AbstractContextManager[object] | None = None,
    interval: float = 0.0,
) -> Source:
    """Open a webcam, a network stream or a video file.

    Args:
        source: A webcam's number, from 0, also as text; an address (``rtsp://``, ``http://`` …);
            or the path of a video file. A video file at an address is read like a local one:
            every frame.
        name: A camera's name in messages and events, in the place of its number or address.
        patience: How a lost camera is retried.
        report: Called with a line of text when a camera is lost, stands still or is back; also from
            another thread.
        turn: Held while somebody works on a camera's frame; cameras that share it take turns.
        interval: Seconds from one frame of a camera to the next, at least; frames that come faster
            are passed over.

    Raises:
        VideoError: The source cannot be opened, or is no video. Where its server asks for another
            name or password, a ``WrongPasswordError``.
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
        shown = f"camera {address}"
    elif "://" in address:
        check_address(address)
        shown, is_network = without_password(address), True
    elif address.startswith("/dev/"):
        # Linux lists webcams as files, but reading one as a video file would never end.
        shown = address
    else:
        return RecordedVideo.of_file(address)
    first = _open_capture(address)
    # OpenCV counts the frames of a video at an address, but not of a stream.
    if is_network and first.isOpened() and first.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        return RecordedVideo(first, name or shown)
    return Camera(
        partial(_open_capture, address),
        name or shown,
        first=first,
        why_not=partial(_why_not, address) if is_network else _no_webcam,
        patience=patience,
        report=report,
        turn=turn,
        interval=interval,
    )


def _open_capture(address: int | str) -> _Capture:
    """Open a webcam by its number or device file, or a network stream."""
    if isinstance(address, int) or "://" not in address:
        return cv2.VideoCapture(address)
    timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    settings = [number for each in timeouts for number in (each, _NETWORK_TIMEOUT_MS)]
    return cv2.VideoCapture(address, cv2.CAP_FFMPEG, settings)


def _no_webcam(name: str) -> VideoError:
    """The error where a webcam cannot be opened."""
    return VideoError(f"{name}: no such camera, or in use")


def _why_not(address: int | str, name: str) -> VideoError:
    """Ask a stream's server why it gives no video: FFmpeg keeps that to itself."""
    parts = urlsplit(str(address))
    host, scheme = parts.hostname or "", parts.scheme.lower()
    is_encrypted = scheme in ("rtsps", "https")
    port = parts.port or {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}.get(scheme, 1935)
    no_video = "its server answers, but gives no video in a known format at this address"
    try:
        with socket.create_connection((host, port), _PROBE_SECONDS) as connection:
            if scheme == "rtmp":
                return VideoError(f"{name}: {no_video}")
            if is_encrypted:
                connection = ssl.create_default_context().wrap_socket(
                    connection, server_hostname=host
                )
            connection.settimeout(_PROBE_SECONDS)
            connection.sendall(_question(parts))
            status = connection.recv(64).split(b" ")
    except UnicodeError:
        return VideoError(f"{name}: {host} is no name that a host can have")
    except ssl.SSLError as error:
        return VideoError(f"{name}: no encrypted connection to {host}:{port}: {error.reason}")
    except OSError as error:
        return VideoError(f"{name}: {host}:{port} does not answer: {reason_of(error)}")
    code = status[1][:3].decode("ascii", "replace") if len(status) > 1 else ""
    asks = f"{name}: the server asks for name and password (401)"
    if code == "401" and parts.username is not None:
        return WrongPasswordError(f"{asks}, and refuses those given")
    reasons = {
        "401": WrongPasswordError(f"{asks}: {scheme}://NAME:PASSWORD@{host}"),
        "403": VideoError(f"{name}: access is refused (403)"),
        "404": VideoError(f"{name}: {host}:{port} has no stream of this path (404)"),
    }
    return reasons.get(code) or VideoError(f"{name}: {no_video}")


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
    """Leave out where an address may hold a password.

    That between ``user:`` and the last ``@`` becomes asterisks, and so do the values of a query
    that are not a number of one or two digits, by which a recorder tells its cameras apart. ``#``
    and what follows is cut off.
    """
    place, _, query = address.partition("#")[0].partition("?")
    if "@" in query and "/" not in place.partition("://")[2]:
        # The ? may be one of a password that begins before it.
        return f"{place.partition('://')[0]}://***"
    place = re.sub(r"(?<=://)([^/:]*):.*@", r"\1:***@", place)
    # What is not NAME=VALUE may be a value, too.
    parts = [re.sub(r"^[^=]*$|(?<==)(?![0-9]{1,2}$).*", "***", part) for part in query.split("&")]
    return f"{place}?{'&'.join(parts)}" if query else place


def check_address(address: str) -> None:
    """Refuse an address with another scheme, or without a host.

    Raises:
        InputError: The address is none of a stream.
    """
    received = repr(without_password(address))
    try:
        parts = urlsplit(address)
        # Reading a port that is none raises.
        is_good = parts.port != 0 and parts.scheme.lower() in _SCHEMES and bool(parts.hostname)
    except ValueError:
        is_good = False
        # A / or # in a password ends the address before its @, and nobody knows where it began.
        received = "another address, not repeated here, because it may hold a password"
    if not is_good:
        raise InputError(
            f"an address begins with one of {', '.join(f'{each}://' for each in _SCHEMES)} and a "
            "host, and a port is 1 to 65535; a /, ? or # in a password is written %2F, %3F or "
            f"%23. Received: {received}"
        )
