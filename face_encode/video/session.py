"""A session: one source watched to its end, with appearances, events, recording and window."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import FaceEncodeError, VideoError
from face_encode.files import (
    as_path,
    check_writable,
    for_owner,
    make_private_folder,
    reason_of,
)
from face_encode.video.frames import Frame, WatchedFace, WatchedFrame
from face_encode.video.output import Recorder, Window, draw_watched
from face_encode.video.sources import Source
from face_encode.video.watcher import Watcher

# An absence shorter than this does not end an appearance.
MERGE_SECONDS = 2.0
# Appearances of unknown people that are shorter than this are not reported.
_MIN_UNKNOWN_SECONDS = 1.0


@dataclass(frozen=True)
class Appearance:
    """A person's stay in front of the camera.

    Attributes:
        name: The person, or None for somebody who is not enrolled.
        begin: Seconds at which the face was first seen.
        end: Seconds at which it was last seen.
        best_similarity: The highest; of an unknown person, to the nearest enrolled one, or None
            where nobody is enrolled.
    """

    name: str | None
    begin: float
    end: float
    best_similarity: float | None

    def as_dict(self) -> dict[str, Any]:
        """The appearance as plain JSON values."""
        best = self.best_similarity
        return {
            "name": self.name,
            "from": round(self.begin, 3),
            "to": round(self.end, 3),
            "best_similarity": None if best is None else round(best, 4),
        }


@dataclass(eq=False)
class _Open:
    """An appearance that has not ended.

    Attributes:
        tracks: Numbers of the tracks that it consists of.
        embedding: The latest, by which an unknown person is recognised again.
    """

    name: str | None
    begin: float
    end: float
    best: float | None
    tracks: set[int] = field(default_factory=set)
    embedding: npt.NDArray[np.float32] | None = None


class AppearanceLog:
    """Turns the faces of successive frames into appearances.

    A face that is recognised only after a while was that person from the beginning. Unknown people
    are told apart by their embeddings.
    """

    def __init__(self, threshold: float, merge_seconds: float = MERGE_SECONDS) -> None:
        """Begin without appearances.

        Args:
            threshold: Similarity from which two unknown faces are the same person.
            merge_seconds: An absence shorter than this does not end an appearance.
        """
        self._threshold = threshold
        self._merge_seconds = merge_seconds
        self._open: list[_Open] = []

    def add(self, frame: WatchedFrame) -> list[Appearance]:
        """Add the faces of the next frame.

        Returns:
            The appearances that have ended, in the order in which they began.
        """
        for face in frame.faces:
            if face.is_settled and not face.is_missed:
                self._add_face(face, frame.seconds)
        over = [each for each in self._open if frame.seconds - each.end > self._merge_seconds]
        return self._end(over)

    def close(self) -> list[Appearance]:
        """End all appearances, and return them in the order in which they began."""
        return self._end(self._open)

    def _end(self, over: list[_Open]) -> list[Appearance]:
        """Remove these appearances; returns those worth reporting."""
        self._open = [each for each in self._open if each not in over]
        return [
            Appearance(each.name, each.begin, each.end, each.best)
            for each in sorted(over, key=lambda each: each.begin)
            if each.name is not None or each.end - each.begin >= _MIN_UNKNOWN_SECONDS
        ]

    def _add_face(self, face: WatchedFace, seconds: float) -> None:
        """Continue the face's appearance, or begin one."""
        # A track that had another name before became this person only now.
        changed = any(
            each.name not in (None, face.name) for each in self._open if face.track in each.tracks
        )
        begin = seconds if changed else face.since
        own = next((each for each in self._open if self._belongs(face, each)), None)
        if own is None:
            own = _Open(face.name, begin, seconds, face.similarity)
            self._open.append(own)
        if face.name is not None and face.track not in own.tracks:
            # Until now, this track may have been counted as an unknown person.
            for each in self._open:
                if each.name is None:
                    each.tracks.discard(face.track)
            self._open = [each for each in self._open if each.tracks or each.name is not None]
            own.begin = min(own.begin, begin)
        own.tracks.add(face.track)
        own.end = seconds
        if face.similarity is not None and (own.best is None or face.similarity > own.best):
            own.best = face.similarity
        own.embedding = face.embedding

    def _belongs(self, face: WatchedFace, appearance: _Open) -> bool:
        """Whether a face continues an appearance."""
        if face.name is not None or appearance.name is not None:
            return appearance.name == face.name
        if face.track in appearance.tracks:
            return True
        if face.embedding is None or appearance.embedding is None:
            return False
        return float(face.embedding @ appearance.embedding) >= self._threshold


class EventFile:
    """Appends lines of JSON to a file, each in one call to the operating system.

    A kill between two calls leaves only whole lines. A kill within one may cut its line off at a
    page of memory; the next ``EventFile`` begins a new line then.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, to append to it; folders above it are made.

        Raises:
            VideoError: The file cannot be written.
        """
        self._path: Path = as_path(path)
        check_writable(self._path, VideoError)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        with self._refusals():
            make_private_folder(self._path.parent)
            self._handle = for_owner(self._path, flags)
            if os.fstat(self._handle).st_size > 0:
                os.lseek(self._handle, -1, os.SEEK_END)
                if os.read(self._handle, 1) != b"\n":
                    os.write(self._handle, b"\n")

    def write(self, event: Mapping[str, Any]) -> None:
        """Append an event.

        Raises:
            VideoError: The file cannot be written.
        """
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        with self._refusals():
            if os.write(self._handle, line) < len(line):
                raise OSError(None, "the disk is full")

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise the operating system's refusals as a ``VideoError``."""
        try:
            yield
        except OSError as error:
            raise VideoError(f"cannot write {self._path}: {reason_of(error)}") from error


@dataclass(frozen=True, eq=False)
class Outlets:
    """The outputs of a session.

    Attributes:
        window: Shows the frames, or None.
        recorder: Records the frames, or None.
        events: Gets a line for each appearance, or None.
        on_appearance: Called with each appearance when it has ended, or None.
        blur_unknown: Whether to blur every face but those of enrolled people.
    """

    window: Window | None = None
    recorder: Recorder | None = None
    events: EventFile | None = None
    on_appearance: Callable[[Appearance], None] | None = None
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
        merge_seconds: float = MERGE_SECONDS,
    ) -> None:
        """Connect a source, a watcher and the outputs.

        Args:
            source: The video, camera or stream.
            watcher: Follows and names the faces.
            outlets: The outputs; None for the report alone.
            max_seconds: Stop after this much of the video's own time; None for no limit.
            merge_seconds: An absence shorter than this does not end an appearance.
        """
        self._source = source
        self._watcher = watcher
        self._outlets = Outlets() if outlets is None else outlets
        self._max_seconds = float("inf") if max_seconds is None else max_seconds
        self._log = AppearanceLog(watcher.model.verification_threshold, merge_seconds)
        self._report = SessionReport(source.name)
        self._began_at: datetime | None = None

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> SessionReport:
        """Watch until the source ends, the time is over or somebody stops it.

        Args:
            should_stop: Called after every frame, and several times a second while none comes.

        Returns:
            The outcome. A lost source or an output that cannot be written is its ``error``; the
            recording and the events are finished as after any other end.
        """
        began = time.perf_counter()
        with self._errors_reported(), self._outlets.recorder or nullcontext():
            # Inside the recorder's block, so that a lost source does not discard the recording.
            with self._errors_reported():
                self._process_frames(should_stop)
            with self._errors_reported():
                self._publish(self._log.close())
        self._report.elapsed = time.perf_counter() - began
        self._report.encoded = self._watcher.encoded
        return self._report

    @contextmanager
    def _errors_reported(self) -> Iterator[None]:
        """Store the first ``VideoError`` in the report."""
        try:
            yield
        except VideoError as error:
            self._report.error = self._report.error or error

    def _process_frames(self, should_stop: Callable[[], bool]) -> None:
        """Process the frames until one of the ends."""
        last, window = time.monotonic(), self._outlets.window
        for frame in self._source.frames():
            if frame is None:
                # The video's own time stands still while a camera is lost.
                seconds = self._report.seconds + time.monotonic() - last
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
        if self._source.is_live and self._began_at is None:
            self._began_at = datetime.now(timezone.utc) - timedelta(seconds=frame.seconds)
        watched = self._watcher.look(frame)
        report.frames += 1
        report.passed_over = frame.number + 1 - report.frames
        report.seconds = frame.seconds
        self._publish(self._log.add(watched))
        if outlets.window is not None or outlets.recorder is not None:
            picture = draw_watched(watched, blur_unknown=outlets.blur_unknown)
            if outlets.recorder is not None:
                outlets.recorder.write(picture, frame.seconds)
            if outlets.window is not None:
                outlets.window.show(picture)

    def _publish(self, appearances: list[Appearance]) -> None:
        """Pass ended appearances to the report, the callback and the event file."""
        for each in appearances:
            self._report.appearances.append(each)
            if self._outlets.on_appearance is not None:
                self._outlets.on_appearance(each)
            if self._outlets.events is None:
                continue
            event = {"source": self._source.name, **each.as_dict()}
            if self._began_at is not None:
                for key, seconds in (("from", each.begin), ("to", each.end)):
                    clock = self._began_at + timedelta(seconds=seconds)
                    event[f"{key}_time"] = clock.isoformat(timespec="milliseconds")
            self._outlets.events.write(event)
