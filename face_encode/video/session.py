"""A session: one source watched to its end, with events, recording and window."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from face_encode.detectors.alignment import make_portrait
from face_encode.errors import FaceEncodeError, VideoError
from face_encode.types import Face, ImageArray
from face_encode.video.events import EventSink
from face_encode.video.frames import UNSEEN_SECONDS, Frame, WatchedFrame
from face_encode.video.output import Recorder, Window, draw_watched
from face_encode.video.presence import Appearance, AppearanceLog, PresenceEvent, Strangers
from face_encode.video.sources import Source
from face_encode.video.watcher import Watcher


@dataclass(frozen=True, eq=False)
class Outlets:
    """The outputs of a session.

    Attributes:
        window: Shows the frames, or None.
        recorder: Records the frames, or None.
        events: Each gets every event.
        event_crops: Whether events of somebody who is there carry the face, as a JPEG in base64.
        on_event: Called with each event of a person, or None.
        on_lost_event: Called with the reason, once for each event that not all outlets took, and
            the session goes on; None where that ends it.
        on_frame: Called with each frame and the faces in it, or None.
        blur_unknown: Whether to blur every face but those of enrolled people.
    """

    window: Window | None = None
    recorder: Recorder | None = None
    events: Sequence[EventSink] = ()
    event_crops: bool = False
    on_event: Callable[[PresenceEvent], None] | None = None
    on_lost_event: Callable[[VideoError], None] | None = None
    on_frame: Callable[[WatchedFrame], None] | None = None
    blur_unknown: bool = False


@dataclass
class SessionReport:
    """The outcome of a session.

    Attributes:
        source: The source's name.
        frames: Number of frames processed.
        passed_over: Frames of a live source that came too fast to be processed.
        seconds: Time of the last frame, in the video's own time.
        elapsed: Seconds that the session took.
        encoded: Number of times that a face was encoded.
        appearances: In the order in which they ended.
        error: The error that ended the session early, or None. Everything recorded until then is
            on disk.
    """

    source: str
    frames: int = 0
    passed_over: int = 0
    seconds: float = 0.0
    elapsed: float = 0.0
    encoded: int = 0
    appearances: list[Appearance] = field(default_factory=list)
    error: FaceEncodeError | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "source": self.source,
            "frames": self.frames,
            "passed_over": self.passed_over,
            "seconds": round(self.seconds, 3),
            "elapsed_seconds": round(self.elapsed, 3),
            "encoded": self.encoded,
            "appearances": [each.as_dict() for each in self.appearances],
            "error": None if self.error is None else str(self.error),
        }


class Session:
    """One source, from its first frame to the end."""

    def __init__(
        self,
        source: Source,
        watcher: Watcher,
        outlets: Outlets | None = None,
        *,
        max_seconds: float | None = None,
        unseen_seconds: float = UNSEEN_SECONDS,
        strangers: Strangers | None = None,
        keeps_appearances: bool = True,
    ) -> None:
        """Connect a source, a watcher and the outputs.

        Args:
            source: The video, camera or stream.
            watcher: Follows and names the faces.
            outlets: The outputs; None for the report alone.
            max_seconds: Stop after this much of the video's own time; None for no limit.
            unseen_seconds: An absence shorter than this does not end an appearance.
            strangers: Where unknown people are known again; the watcher keeps sights for that.
            keeps_appearances: Whether the report holds them; False for a session without an end.
        """
        self._source = source
        self._watcher = watcher
        self._outlets = Outlets() if outlets is None else outlets
        self._max_seconds = float("inf") if max_seconds is None else max_seconds
        self._keeps_appearances = keeps_appearances
        threshold = watcher.model.verification_threshold
        self._log = AppearanceLog(threshold, unseen_seconds, strangers)
        self._report = SessionReport(source.name)

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> SessionReport:
        """Watch until the source ends, the time is over or somebody stops it.

        Args:
            should_stop: Called after every frame, and several times a second while none comes.

        Returns:
            The outcome. A lost source, a gallery that cannot be read or an output that cannot be
            written is its ``error``; the recording and the events are finished as after any other
            end.
        """
        began = time.perf_counter()
        with self._errors_reported(), self._outlets.recorder or nullcontext():
            # Inside the recorder's block, so that a lost source does not discard the recording.
            with self._errors_reported():
                self._write({"event": "started", **_clock()})
                self._process_frames(should_stop)
            with self._errors_reported():
                self._publish(self._log.close())
            with self._errors_reported():
                error = self._report.error
                stopped = {"event": "stopped", **_clock(), "error": error and str(error)}
                self._write(stopped)
        self._report.elapsed = time.perf_counter() - began
        self._report.encoded = self._watcher.encoded
        return self._report

    @contextmanager
    def _errors_reported(self) -> Iterator[None]:
        """Store the first error of ours in the report: a gallery may be lost as a camera is."""
        try:
            yield
        except FaceEncodeError as error:
            self._report.error = self._report.error or error

    def _process_frames(self, should_stop: Callable[[], bool]) -> None:
        """Process the frames until one of the ends."""
        last, window = time.monotonic(), self._outlets.window
        for frame in self._source.frames():
            if frame is None:
                # The video's own time stands still while a camera is lost; whoever was there is
                # not seen meanwhile.
                seconds = self._report.seconds + time.monotonic() - last
                if self._report.frames:
                    self._publish(self._log.wait(seconds))
            else:
                seconds = frame.seconds
                if seconds <= self._max_seconds:
                    self._process(frame)
                last = time.monotonic()
            is_closed = window is not None and window.should_close()
            if is_closed or should_stop() or seconds > self._max_seconds:
                return

    def _process(self, frame: Frame) -> None:
        """Name the faces of one frame, and feed the outputs."""
        report, outlets = self._report, self._outlets
        watched = self._watcher.look(frame)
        report.frames += 1
        report.passed_over = frame.number + 1 - report.frames
        report.seconds = frame.seconds
        self._publish(self._log.add(watched), frame.image)
        if outlets.on_frame is not None:
            outlets.on_frame(watched)
        if outlets.window is not None or outlets.recorder is not None:
            picture = draw_watched(watched, blur_unknown=outlets.blur_unknown)
            if outlets.recorder is not None:
                outlets.recorder.write(picture, frame.seconds)
            if outlets.window is not None:
                outlets.window.show(picture)

    def _publish(self, events: Sequence[PresenceEvent], image: ImageArray | None = None) -> None:
        """Pass events to the report, the callback and the outlets."""
        told = []
        for each in events:
            if each.kind == "left" and each.continued_as is None and self._keeps_appearances:
                self._report.appearances.append(each.appearance)
            if self._outlets.on_event is not None:
                self._outlets.on_event(each)
            event = each.as_dict()
            if self._outlets.event_crops and each.face is not None and image is not None:
                crop = make_portrait(image, Face(each.face.box, 1.0))
                event["crop"] = base64.b64encode(crop).decode()
            told.append(event)
        self._write(*told)

    def _write(self, *events: Mapping[str, Any]) -> None:
        """Write all events to all outlets, also where one of them fails."""
        failed: list[VideoError] = []
        for event in events:
            problems: list[VideoError] = []
            for sink in self._outlets.events:
                try:
                    sink.write({"source": self._source.name, **event})
                except VideoError as error:
                    problems.append(error)
            failed += problems[:1]
        for problem in failed:
            if self._outlets.on_lost_event is None:
                raise problem
            self._outlets.on_lost_event(problem)


def _clock() -> dict[str, str]:
    """The wall's clock, in UTC."""
    return {"time": datetime.now(timezone.utc).isoformat(timespec="milliseconds")}
