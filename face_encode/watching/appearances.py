"""Appearances: who was there from when to when, one entry a person and appearance."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.watching.results import WatchedFace, WatchedFrame

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
