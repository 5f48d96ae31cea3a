"""Several cameras at once, on one detector and one encoder in turns."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, TypeAlias

import cv2

from face_encode.attributes.network import AttributeNetwork
from face_encode.detectors.base import Detector
from face_encode.errors import FaceEncodeError, InputError, VideoError, WrongPasswordError
from face_encode.gallery.database import DatabaseGallery
from face_encode.model import Face_Encode_Model
from face_encode.types import Box
from face_encode.video.events import EventSink
from face_encode.video.frames import WatchedFrame
from face_encode.video.output import draw_watched
from face_encode.video.presence import PresenceEvent, Strangers
from face_encode.video.session import Outlets, Session
from face_encode.video.sources import (
    PASSWORD_SECONDS,
    STALL_SECONDS,
    Camera,
    Patience,
    check_address,
    open_source,
)
from face_encode.video.tracking import shrink
from face_encode.video.watcher import Watcher, WatchSettings

State: TypeAlias = Literal["connecting", "live", "stalled", "lost", "wrong-password", "failed"]

# A camera that cannot be opened is retried after this long, then after twice as long each time.
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
# More frames a second tell no more about who is there.
_MAX_RATE = 10.0
# The frames a second are counted over this time.
_RATE_SECONDS = 5.0
_RECENT_EVENTS = 500
_JPEG_QUALITY = 80
# A camera that is just being opened keeps its thread for some seconds.
_JOIN_SECONDS = 10.0

_LOG = logging.getLogger(__name__)


def check_camera(name: str, source: str) -> None:
    """Refuse a source that is no camera: a webcam's number, its device file, or an address.

    Raises:
        InputError: The source is something else. The message does not repeat it, because it may
            hold a password.
    """
    try:
        if "://" in source:
            check_address(source)
        elif not (source.isascii() and source.isdigit()) and not source.startswith("/dev/"):
            raise InputError("a video file, or nothing that is known")
    except InputError:
        raise InputError(
            f"the camera {name!r} is a webcam's number, its file /dev/video…, or an address that "
            "begins with rtsp://, rtsps://, http://, https:// or rtmp:// and a host. Received: "
            "something else, not repeated here, because it may hold a password"
        ) from None


class Turns:
    """A lock that is handed on in the order in which it was asked for.

    Who asks again waits for all who asked before: of several cameras with a new frame, each gets
    one turn before any gets a second one, however fast it is.
    """

    def __init__(self) -> None:
        self._news = threading.Condition()
        # The first has the turn.
        self._queue: deque[object] = deque()

    def __enter__(self) -> None:
        own = object()
        with self._news:
            self._queue.append(own)
            self._news.wait_for(lambda: self._queue[0] is own)

    def __exit__(self, *error: object) -> None:
        with self._news:
            self._queue.popleft()
            self._news.notify_all()


class _RecentEvents:
    """Keeps the last events of all cameras, numbered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Higher than all numbers of an earlier run, so that a reader misses nothing of a new one.
        self._number = time.time_ns() // 1_000_000
        self._events: deque[dict[str, Any]] = deque(maxlen=_RECENT_EVENTS)

    def write(self, event: Mapping[str, Any]) -> None:
        """Keep an event, without its picture."""
        kept = {key: value for key, value in event.items() if key != "crop"}
        with self._lock:
            self._number += 1
            self._events.append({"number": self._number, **kept})

    def close(self) -> None:
        """Nothing to finish."""

    def since(self, number: int, count: int) -> list[dict[str, Any]]:
        """The events after the one of a number, at most the last so-and-so many."""
        with self._lock:
            # Where the clock was set back between two runs, the reader's number is above all.
            after = number if number <= self._number else 0
            return [event for event in self._events if event["number"] > after][-count:]


class Cameras:
    """Watches several cameras until it is closed, whatever becomes of them.

    Each camera is read in a thread of its own, and only its newest frame counts. The frames go
    through one detector and one encoder: of the cameras that have a new frame, each has its turn. A
    camera that is away, still or refuses is retried without end, and holds up no other.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        model: Face_Encode_Model,
        detector: Detector,
        *,
        settings: WatchSettings | None = None,
        attributes: AttributeNetwork | None = None,
        sinks: Mapping[str, Sequence[EventSink]] | None = None,
        event_crops: bool = False,
        keep_days: float = 0.0,
        report: Callable[[str], None] | None = None,
    ) -> None:
        """Begin to watch.

        Args:
            sources: Name of each camera -> a webcam's number, its device file, or an address.
            model: The encoder, the threshold and the enrolled people.
            detector: Finds the faces in all of them.
            settings: The amount of work done for each frame.
            attributes: Tells age, gender and expression in the events; None where nobody asks.
            sinks: Name of each camera -> what gets its events, the same for several of them or
                not. Closing it is left to who opened it.
            event_crops: Whether events carry the face, as a JPEG in base64.
            keep_days: For how many days the gallery, if it is a database, knows strangers again.
            report: Called with a line of text when something becomes of a camera; from other
                threads.

        Raises:
            InputError: A source is no camera.
        """
        for name, source in sources.items():
            check_camera(name, source)
        self._turns, self._recent = Turns(), _RecentEvents()
        self._stopping = threading.Event()
        self._cameras: dict[str, _WatchedCamera] = {}

        gallery, settings = model.gallery, settings or WatchSettings()
        unknown = gallery.unknown if isinstance(gallery, DatabaseGallery) and keep_days else None
        if unknown is not None and not unknown.can_keep:
            unknown = None
        settings = replace(settings, keep_sights=unknown is not None)

        def new_session(source: Camera, outlets: Outlets) -> Session:
            with self._turns:
                watcher = Watcher(model, detector, settings, attributes)
            strangers = None
            if unknown is not None:
                strangers = Strangers(unknown, model.threshold, source.name, keep_days, report)
            return Session(source, watcher, outlets, strangers=strangers, keeps_appearances=False)

        for name, source in sources.items():
            own = [*(sinks or {}).get(name, ()), self._recent]
            outlets = Outlets(events=own, event_crops=event_crops)
            self._cameras[name] = _WatchedCamera(
                name, source, new_session, outlets, self._turns, self._stopping, report
            )

    def states(self) -> list[dict[str, Any]]:
        """What the cameras do and show, in the order in which they were given.

        Returns:
            Plain JSON values for each camera: ``name``; ``state`` (connecting, live, stalled, lost,
            wrong-password or failed), ``since`` when, and ``detail`` in words; the
            ``frames_per_second`` that were looked at; ``people`` who are there, as in the events;
            ``lost_events``, how many could not be written since the start; and of the newest frame
            ``width``, ``height`` and ``faces``.
        """
        return [camera.state() for camera in self._cameras.values()]

    def picture(self, name: str, width: int, annotated: bool) -> bytes | None:
        """The newest frame of a camera as a JPEG.

        Args:
            name: The camera.
            width: Shrink the frame to this width at most.
            annotated: Whether to draw the faces and their names.

        Returns:
            None where the camera gives no pictures at present.
        """
        return self._cameras[name].picture(width, annotated)

    def events(self, since: int, count: int) -> list[dict[str, Any]]:
        """The last events of all cameras, each with its ``number``.

        Args:
            since: Only events after the one of this number; all, where it is above every number:
                then it is of an earlier run, before the clock was set back.
            count: At most this many, the newest.
        """
        return self._recent.since(since, count)

    def close(self) -> None:
        """Stop watching: whoever is there has left, and the cameras are released."""
        self._stopping.set()
        for camera in self._cameras.values():
            camera.join()


class _WatchedCamera:
    """One of the cameras: its thread, its state and its newest frame."""

    def __init__(
        self,
        name: str,
        source: str,
        new_session: Callable[[Camera, Outlets], Session],
        outlets: Outlets,
        turns: Turns,
        stopping: threading.Event,
        report: Callable[[str], None] | None,
    ) -> None:
        self._name, self._source, self._new_session = name, source, new_session
        self._outlets = replace(
            outlets,
            on_event=self._see_event,
            on_lost_event=self._lose_event,
            on_frame=self._see_frame,
        )
        self._turns, self._stopping = turns, stopping
        self._report = (lambda text: None) if report is None else report
        self._lock = threading.Lock()
        self._state: State = "connecting"
        self._since, self._detail = datetime.now(timezone.utc), ""
        self._frame: WatchedFrame | None = None
        # When the last frames were looked at, by the clock that nobody sets.
        self._looked: deque[float] = deque(maxlen=round(_RATE_SECONDS * 240))
        self._people: dict[str, dict[str, Any]] = {}
        self._lost_events, self._loss = 0, ""
        self._thread = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended, which was asked to."""
        self._thread.join(_JOIN_SECONDS)

    def state(self) -> dict[str, Any]:
        """See ``Cameras.states``."""
        now = time.monotonic()
        with self._lock:
            frame = self._frame if self._state == "live" else None
            looked = sum(now - each <= _RATE_SECONDS for each in self._looked)
            return {
                "name": self._name,
                "state": self._state,
                "since": self._since.isoformat(timespec="milliseconds"),
                "detail": self._detail,
                "frames_per_second": round(looked / _RATE_SECONDS, 1),
                "people": list(self._people.values()),
                "lost_events": self._lost_events,
                "width": None if frame is None else frame.image.shape[1],
                "height": None if frame is None else frame.image.shape[0],
                "faces": [
                    {
                        "name": face.name,
                        "similarity": face.similarity,
                        "is_settled": face.is_settled,
                        "is_live": face.is_live,
                        "bounding_box": face.box.as_dict(),
                    }
                    for face in (() if frame is None else frame.faces)
                ],
            }

    def picture(self, width: int, annotated: bool) -> bytes | None:
        """See ``Cameras.picture``."""
        with self._lock:
            frame = self._frame if self._state == "live" else None
        if frame is None:
            return None
        image, scale = shrink(frame.image, width)
        if annotated:
            faces = (replace(face, box=_scaled(face.box, scale)) for face in frame.faces)
            image = draw_watched(replace(frame, image=image, faces=tuple(faces), uncertain=()))
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
        return jpeg.tobytes()

    def _run(self) -> None:
        """Watch the camera, again and again; what the thread runs."""
        wait = _FIRST_WAIT
        while not self._stopping.is_set():
            wait = self._watch(wait)
            with self._lock:
                self._looked.clear()
                # Also where a fault has kept it from being told that they left.
                self._people.clear()
            self._stopping.wait(wait)

    def _watch(self, wait: float) -> float:
        """Watch from the opening of the camera to its end.

        What is lost later is retried by the source itself, without end. So it ends where the camera
        cannot be opened, the gallery or an output cannot be used, or all are to stop.

        Returns:
            The seconds to wait until the next time; ``wait`` are those of the last time.
        """
        try:
            source = open_source(
                self._source,
                name=self._name,
                patience=Patience(in_all=math.inf),
                report=self._report,
                turn=self._turns,
                interval=1 / _MAX_RATE,
            )
            with closing(source):
                if not isinstance(source, Camera):
                    raise VideoError(f"{self._name}: a video with an end is no camera")
                opened = time.monotonic()
                session = self._new_session(source, self._outlets)
                error = session.run(lambda: self._should_stop(source, opened)).error
        except WrongPasswordError as problem:
            self._fail("wrong-password", problem)
            return PASSWORD_SECONDS
        except VideoError as problem:
            self._fail("lost", problem)
        # A fault in one of the libraries ends neither this camera for good nor the others.
        except Exception as problem:
            _LOG.exception("watching the camera %s failed", self._name)
            self._fail("failed", problem)
        else:
            if error is not None:
                self._fail("failed", error)
        return _FIRST_WAIT if self._looked else min(2 * wait, _LONGEST_WAIT)

    def _should_stop(self, source: Camera, opened: float) -> bool:
        """Note how the camera is; called after every frame, and while none comes."""
        trouble = source.trouble
        unseen = time.monotonic() - (self._looked[-1] if self._looked else opened)
        if trouble is not None:
            is_refused = isinstance(trouble, WrongPasswordError)
            self._note("wrong-password" if is_refused else "lost", self._words(trouble))
        elif unseen > STALL_SECONDS:
            since = datetime.now(timezone.utc) - timedelta(seconds=unseen)
            self._note("stalled", "connected, and gives no picture", since)
        elif self._looked:
            self._note("live", "")
        return self._stopping.is_set()

    def _fail(self, state: State, problem: Exception) -> None:
        """Note and report why the camera cannot be watched at present."""
        words = self._words(problem)
        if words != self._detail:
            self._report(f"{self._name}: {words}")
        self._note(state, words)

    def _words(self, problem: Exception) -> str:
        """A problem in words, without the camera's name before them."""
        if not isinstance(problem, FaceEncodeError):
            return "an error inside the program; its log says more"
        return str(problem).removeprefix(f"{self._name}: ")

    def _note(self, state: State, detail: str, since: datetime | None = None) -> None:
        """Note the state."""
        with self._lock:
            if state != self._state:
                self._state, self._since = state, since or datetime.now(timezone.utc)
            self._detail = detail

    def _see_frame(self, frame: WatchedFrame) -> None:
        """Keep the newest frame."""
        with self._lock:
            self._frame = frame
            self._looked.append(time.monotonic())

    def _see_event(self, event: PresenceEvent) -> None:
        """Keep up with who is there."""
        stay = event.appearance
        with self._lock:
            if event.kind == "left":
                self._people.pop(stay.id, None)
            else:
                since = stay.began_at and stay.began_at.isoformat(timespec="milliseconds")
                person = {"id": stay.id, "name": stay.name, "unknown": stay.unknown, "since": since}
                self._people[stay.id] = person

    def _lose_event(self, problem: VideoError) -> None:
        """Count an event that could not be written, and tell why where that is new."""
        words = self._words(problem)
        with self._lock:
            self._lost_events += 1
            is_new, self._loss = words != self._loss, words
        if is_new:
            self._report(f"{self._name}: events are lost: {words}")


def _scaled(box: Box, scale: float) -> Box:
    """A box of a frame in the frame shrunk."""
    sides = (box.left, box.top, box.width, box.height)
    return Box(*(round(scale * side) for side in sides))
