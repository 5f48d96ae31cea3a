"""A session: one source watched to its end, shown, recorded and told of."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from face_encode.errors import FaceEncodeError, VideoError
from face_encode.watching.appearances import MERGE_SECONDS, Appearance, AppearanceLog
from face_encode.watching.event_file import EventFile
from face_encode.watching.pictures import draw_watched
from face_encode.watching.recording import Recorder
from face_encode.watching.results import Frame
from face_encode.watching.sources import Source
from face_encode.watching.watcher import Watcher
from face_encode.watching.window import Window


@dataclass(frozen=True, eq=False)
class Outlets:
    """Where what is seen goes.

    Attributes:
        window: Shows it, or None.
        recorder: Records it, or None.
        events: Gets the appearances, or None.
        on_appearance: Is called with each appearance, or None.
        blur_unknown: Whether only enrolled people are to be recognised in the pictures.
    """

    window: Window | None = None
    recorder: Recorder | None = None
    events: EventFile | None = None
    on_appearance: Callable[[Appearance], None] | None = None
    blur_unknown: bool = False


@dataclass
class SessionReport:
    """What came of it.

    Attributes:
        source: What was watched.
        frames: How many frames were looked at.
        passed_over: How many of a live source came too fast to be looked at.
        seconds: From the first frame to the last, in the video's own time.
        elapsed: What it took.
        encoded: How many times a face was encoded.
        appearances: In the order in which they ended.
        error: What ended it before its time, or None. All that was recorded until then is kept.
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
        merge_seconds: float = MERGE_SECONDS,
    ) -> None:
        """Take the parts.

        Args:
            source: Whatever is watched.
            watcher: Knows who is in it.
            outlets: Where what is seen goes; None for the report alone.
            max_seconds: The end after so much of the video's own time; None for no such end.
            merge_seconds: Somebody who is away for less than this did not leave.
        """
        self._source = source
        self._watcher = watcher
        self._outlets = Outlets() if outlets is None else outlets
        self._max_seconds = float("inf") if max_seconds is None else max_seconds
        self._log = AppearanceLog(watcher.model.verification_threshold, merge_seconds)
        self._report = SessionReport(source.name)
        self._began_at: datetime | None = None

    def run(self, is_to_end: Callable[[], bool] = lambda: False) -> SessionReport:
        """Watch until the source, the time or somebody ends it.

        Args:
            is_to_end: Asked after every frame, and several times a second while none comes.

        Returns:
            What came of it. A source that was lost, or an outlet that cannot be written to any
            more, is an ``error`` in it, after everything has been finished as at any other end.
        """
        report, began = self._report, time.perf_counter()
        try:
            with self._outlets.recorder or nullcontext():
                self._watch(is_to_end)
        except VideoError as error:
            report.error = report.error or error
        report.elapsed = time.perf_counter() - began
        report.encoded = self._watcher.encoded
        return report

    def _watch(self, is_to_end: Callable[[], bool]) -> None:
        """All frames, and the appearances that are still open after them."""
        try:
            self._take_frames(is_to_end)
        except VideoError as error:
            # Kept here, so that the recording ends well.
            self._report.error = error
        try:
            self._tell(self._log.close())
        except VideoError as error:
            self._report.error = self._report.error or error

    def _take_frames(self, is_to_end: Callable[[], bool]) -> None:
        """The frames, one after the other."""
        last, window = time.monotonic(), self._outlets.window
        for frame in self._source.frames():
            passed = self._report.seconds
            if frame is None:
                # A camera that is gone has no time of its own.
                passed += time.monotonic() - last
            else:
                passed = frame.seconds
                if passed <= self._max_seconds:
                    self._take(frame)
                last = time.monotonic()
            asked = window is not None and window.is_to_end()
            if asked or is_to_end() or passed > self._max_seconds:
                return

    def _take(self, frame: Frame) -> None:
        """One frame: who is in it, and everywhere that it goes."""
        report, outlets = self._report, self._outlets
        if self._source.is_live and self._began_at is None:
            self._began_at = datetime.now(timezone.utc) - timedelta(seconds=frame.seconds)
        watched = self._watcher.look(frame)
        report.frames += 1
        report.passed_over = frame.number + 1 - report.frames
        report.seconds = frame.seconds
        self._tell(self._log.add(watched))
        if outlets.window is not None or outlets.recorder is not None:
            picture = draw_watched(watched, blur_unknown=outlets.blur_unknown)
            if outlets.recorder is not None:
                outlets.recorder.write(picture, frame.seconds)
            if outlets.window is not None:
                outlets.window.show(picture)

    def _tell(self, appearances: list[Appearance]) -> None:
        """Appearances that are over go to the report, the file and whoever asked for them."""
        for each in appearances:
            self._report.appearances.append(each)
            if self._outlets.on_appearance is not None:
                self._outlets.on_appearance(each)
            if self._outlets.events is not None:
                self._outlets.events.write(self._event(each))

    def _event(self, appearance: Appearance) -> dict[str, Any]:
        """An appearance as the file tells it: of a live source also by the clock."""
        event = {"source": self._source.name, **appearance.as_dict()}
        if self._began_at is not None:
            for key, seconds in (("from", appearance.begin), ("to", appearance.end)):
                clock = self._began_at + timedelta(seconds=seconds)
                event[f"{key}_time"] = clock.isoformat(timespec="milliseconds")
        return event
