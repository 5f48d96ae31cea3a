"""Who a followed face is, decided from a few good sights of it.

A face is encoded when it is first seen well, soon again, and then at growing intervals, or when it
is seen clearly better than before. The mean over the last sights is compared, which is steadier
than one sight; and a name stays until the mean has fallen well below the threshold, so that it
does not flicker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from face_encode.gallery.distances import unit_length
from face_encode.gallery.unknown import Sight
from face_encode.types import Match

Embedding = npt.NDArray[np.float32]

# The mean is taken over the last sights.
_MEAN_SIGHTS = 5
# One sight can resemble somebody by chance.
_SIGHTS_TO_NAME = 2
_SIGHTS_TO_BE_UNKNOWN = 3
# In a row, all nearest to the same other person: then that person has taken the face's place.
_SIGHTS_TO_CHANGE = 2
# A name stays while the mean is below the threshold by at most this share of the way from the
# threshold to 1.
_HYSTERESIS = 0.25
# Seconds from the first sight to the second; each further interval is longer by this factor.
_FIRST_INTERVAL = 0.2
_INTERVAL_GROWTH = 1.6
_MAX_INTERVAL = 8.0
# Seconds until a face that was not seen well is retried, and the growth of that.
_FIRST_RETRY = 0.12
_RETRY_GROWTH = 1.5
_MAX_RETRY = 1.0
# A sight is taken early where the face is larger than in the best sight by this factor.
_CLEARLY_LARGER = 1.3


class _Seen(NamedTuple):
    """A good sight: its embedding, at length 1, and its liveness, 0..1, where that was judged."""

    embedding: Embedding
    liveness: float | None


@dataclass
class Identity:
    """The name of one face, and the sights that it rests on.

    Attributes:
        name: The person, or None while unknown.
        similarity: Of the mean to that person, or to the nearest; None before the first sight.
        nearest: The person of whom ``similarity`` tells, whether named or not.
        sights: Number of sights so far.
        best: The sight of the highest quality, where sights are kept.
    """

    name: str | None = None
    similarity: float | None = None
    nearest: str | None = None
    sights: int = 0
    best: Sight | None = None
    _answers: deque[Embedding] = field(default_factory=lambda: deque(maxlen=_MEAN_SIGHTS))
    _seen: deque[_Seen] = field(default_factory=lambda: deque(maxlen=_MEAN_SIGHTS))
    _other: str | None = None
    _others: int = 0
    _next: float = 0.0
    _interval: float = _FIRST_INTERVAL
    _retry: float = _FIRST_RETRY
    _largest: float = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether the sights suffice to name the face, or to call it unknown."""
        return self.name is not None or self.sights >= _SIGHTS_TO_BE_UNKNOWN

    @property
    def embedding(self) -> Embedding | None:
        """The mean over the last sights, at length 1; None before the first sight."""
        return self._mean() if self._seen else None

    def liveness(self, same_person: float) -> float | None:
        """The mean over the last sights that show the person of the newest one.

        What a live person showed does not count for a photo that is held up in the same place.

        Args:
            same_person: Cosine similarity from which two sights count as of one person.

        Returns:
            0..1; None before the first sight, and where liveness was not judged.
        """
        if not self._seen:
            return None
        newest = self._seen[-1]
        values = [
            seen.liveness
            for seen in self._seen
            if seen.liveness is not None
            and (seen is newest or seen.embedding @ newest.embedding >= same_person)
        ]
        return float(np.mean(values)) if values else None

    def look_again(self) -> None:
        """Take the next sight as soon as there is one."""
        self._next = 0.0

    @property
    def answers(self) -> Embedding | None:
        """The mean of the attributes' rows of the last sights that show them well, or None."""
        return np.mean(self._answers, axis=0) if self._answers else None

    def add_answers(self, answers: Embedding) -> None:
        """Add the row that a network of attributes gave for a sight which it trusts."""
        self._answers.append(answers)

    def wants_sight(self, seconds: float, side: float) -> bool:
        """Whether the face should be encoded now.

        Args:
            seconds: Time of the frame.
            side: Width of the face, in pixels.
        """
        is_larger = self.sights > 0 and side > _CLEARLY_LARGER * self._largest
        return seconds >= self._next or is_larger

    def note_failure(self, seconds: float, side: float) -> None:
        """Wait for the next try, longer each time: the face was not seen well."""
        self._largest = max(self._largest, side)
        self._next = seconds + self._retry
        self._retry = min(self._retry * _RETRY_GROWTH, _MAX_RETRY)

    def add_sight(
        self, embedding: Embedding, seconds: float, side: float, liveness: float | None = None
    ) -> Embedding:
        """Add a good sight.

        Args:
            embedding: float32 ``(D,)``.
            seconds: Time of the frame.
            side: Width of the face, in pixels.
            liveness: 0..1, where it was judged.

        Returns:
            The new mean, float32 ``(D,)``, for the gallery to search.
        """
        self._seen.append(_Seen(unit_length(embedding), liveness))
        self.sights += 1
        self._largest = max(self._largest, side)
        self._next = seconds + self._interval
        self._interval = min(self._interval * _INTERVAL_GROWTH, _MAX_INTERVAL)
        self._retry = _FIRST_RETRY
        return self._mean()

    def judge(
        self, alone: Match, together: Sequence[Match], threshold_of: Callable[[str], float]
    ) -> None:
        """Update the name after a sight.

        Args:
            alone: The person nearest to this sight.
            together: The people nearest to the mean over the last sights, best first.
            threshold_of: Gives the similarity from which a face counts as the person of a name.
        """
        if self._has_changed(alone, threshold_of):
            # The earlier sights were of somebody else.
            for _ in range(len(self._seen) - _SIGHTS_TO_CHANGE):
                self._seen.popleft()
            self._answers.clear()
            self.name, self.similarity, self.best = alone.name, alone.similarity, None
            self.nearest = alone.name
            return
        self.judge_again(together, threshold_of)

    def judge_again(self, together: Sequence[Match], threshold_of: Callable[[str], float]) -> None:
        """Update the name by the same sights, since the people enrolled may have changed.

        Args:
            together: As for ``judge``; nobody where nobody is enrolled.
            threshold_of: As for ``judge``.
        """
        if not together:
            self.name, self.similarity, self.nearest = None, None, None
            return
        nearest = together[0]
        own = next((match for match in together if match.name == self.name), None)
        if nearest.similarity >= threshold_of(nearest.name) and self.sights >= _SIGHTS_TO_NAME:
            self.name, self.similarity = nearest.name, nearest.similarity
        elif own is not None and own.similarity >= _lowest(threshold_of(own.name)):
            self.similarity = own.similarity
        else:
            self.name, self.similarity = None, nearest.similarity
        self.nearest = self.name or nearest.name

    def _mean(self) -> Embedding:
        """The mean over the last sights, of which there is one at least, at length 1."""
        return unit_length(np.mean([seen.embedding for seen in self._seen], axis=0))

    def _has_changed(self, alone: Match, threshold_of: Callable[[str], float]) -> bool:
        """Whether the last sights, each alone, all name one other person."""
        if alone.similarity < threshold_of(alone.name) or alone.name == self.name:
            self._other, self._others = None, 0
            return False
        self._others = self._others + 1 if alone.name == self._other else 1
        self._other = alone.name
        return self.name is not None and self._others >= _SIGHTS_TO_CHANGE


def _lowest(threshold: float) -> float:
    """The similarity down to which a name stays."""
    return threshold - _HYSTERESIS * (1 - threshold)
