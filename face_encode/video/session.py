"""A session: one source watched to its end, shown, recorded and told of."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import FaceEncodeError, VideoError
from face_encode.files import as_path, check_writable, reason_of
from face_encode.video.frames import Frame, WatchedFace, WatchedFrame
from face_encode.video.output import Recorder, Window, draw_watched
from face_encode.video.sources import Source
from face_encode.video.watcher import Watcher

# Somebody who is away for less than this did not leave.
MERGE_SECONDS = 2.0
# A face of nobody enrolled that was there for less than this is not told of.
_UNKNOWN_SECONDS = 1.0


@dataclass(frozen=True)
class Appearance:
    """Somebody was there.

    Attributes:
        name: The person, or None for somebody who is not enrolled.
        begin: Seconds at which the face was first seen.
        end: Seconds at which it was last seen.
        best_similarity: The highest; of an unknown one, to the nearest person, or None where
            nobody is enrolled.
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


@dataclass
class _Open:
    """An appearance that may go on.

    Attributes:
        tracks: The faces followed that it is made of.
        embedding: Of an unknown one, to tell it by when it comes back.
    """

    name: str | None
    begin: float
    end: float
    best: float | None
    tracks: set[int] = field(default_factory=set)
    embedding: npt.NDArray[np.float32] | None = None


class AppearanceLog:
    """Makes appearances out of the faces in one frame after the other.

    A face that is recognised only after a while was that person from the beginning. Of people who
    are not enrolled one is told from the other by their embeddings.
    """

    def __init__(self, threshold: float, merge_seconds: float = MERGE_SECONDS) -> None:
        """Begin empty.

        Args:
            threshold: Similarity from which two unknown faces are the same one.
            merge_seconds: A gap shorter than this does not end an appearance.
        """
        self._threshold = threshold
        self._merge_seconds = merge_seconds
        self._open: list[_Open] = []

    def add(self, frame: WatchedFrame) -> list[Appearance]:
        """Take the next frame.

        Returns:
            The appearances that ended, too long ago for the person to be still there.
        """
        for face in frame.faces:
            if face.is_settled and not face.is_missed:
                self._add_face(face, frame.seconds)
        over = [each for each in self._open if frame.seconds - each.end > self._merge_seconds]
        self._open = [each for each in self._open if each not in over]
        return _told(over)

    def close(self) -> list[Appearance]:
        """End all: there are no more frames."""
        over, self._open = self._open, []
        return _told(over)

    def _add_face(self, face: WatchedFace, seconds: float) -> None:
        """Continue the appearance that a face belongs to, or begin one."""
        mine = next((each for each in self._open if self._is_of(each, face)), None)
        if mine is None:
            mine = _Open(face.name, self._begin_of(face, seconds), seconds, face.similarity)
            self._open.append(mine)
        if face.name is not None and face.track not in mine.tracks:
            self._take_back_unknown(face)
            mine.begin = min(mine.begin, self._begin_of(face, seconds))
        mine.tracks.add(face.track)
        mine.end = seconds
        if face.similarity is not None and (mine.best is None or face.similarity > mine.best):
            mine.best = face.similarity
        mine.embedding = face.embedding

    def _is_of(self, appearance: _Open, face: WatchedFace) -> bool:
        """Whether a face continues an appearance."""
        if face.name is not None or appearance.name is not None:
            return appearance.name == face.name
        if face.track in appearance.tracks:
            return True
        if face.embedding is None or appearance.embedding is None:
            return False
        return float(face.embedding @ appearance.embedding) >= self._threshold

    def _begin_of(self, face: WatchedFace, seconds: float) -> float:
        """Since when the face is there as who it is now.

        A face followed that was told as another person before became this one just now.
        """
        others = [each for each in self._open if face.track in each.tracks and each.name]
        return seconds if any(each.name != face.name for each in others) else face.since

    def _take_back_unknown(self, face: WatchedFace) -> None:
        """The unknown one that this face was held for is known now, and was nobody else."""
        for each in self._open:
            if each.name is None:
                each.tracks.discard(face.track)
        self._open = [each for each in self._open if each.tracks or each.name is not None]


def _told(over: Iterable[_Open]) -> list[Appearance]:
    """The appearances worth telling, in the order in which they began."""
    worth = [
        each for each in over if each.name is not None or each.end - each.begin >= _UNKNOWN_SECONDS
    ]
    return [
        Appearance(each.name, each.begin, each.end, each.best)
        for each in sorted(worth, key=lambda each: each.begin)
    ]


class EventFile:
    """Appends lines, each whole and at once, so that a kill at any point leaves none cut off."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, to go on where it ends.

        Raises:
            VideoError: It cannot be written to.
        """
        self._path: Path = as_path(path)
        check_writable(self._path, VideoError)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
            )
            if self._ends_within_a_line():
                self._append(b"\n")
        except OSError as error:
            raise VideoError(f"cannot write {self._path}: {reason_of(error)}") from error

    def write(self, event: Mapping[str, Any]) -> None:
        """Append an event.

        Raises:
            VideoError: It cannot be written.
        """
        try:
            self._append(json.dumps(event, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise VideoError(f"cannot write {self._path}: {reason_of(error)}") from error

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def _append(self, line: bytes) -> None:
        """One call to the operating system: it appends all of a short line, or nothing."""
        written = os.write(self._handle, line)
        if written < len(line):
            raise OSError(None, "the disk is full")

    def _ends_within_a_line(self) -> bool:
        """Whether somebody else's writing was cut off."""
        size = os.fstat(self._handle).st_size
        if size == 0:
            return False
        os.lseek(self._handle, size - 1, os.SEEK_SET)
        return os.read(self._handle, 1) != b"\n"


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
