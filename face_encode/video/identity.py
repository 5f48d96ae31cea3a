"""Who a face that is followed is, from a few good sights of it.

A face is encoded when it was first seen well, again soon after, and then at growing intervals, or
when it is seen clearly better than before. The mean over the last sights is compared, which is
steadier than any one of them; and a name that was given is kept until the mean has fallen well
below the threshold, so that it does not come and go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from face_encode.types import Match

Embedding = npt.NDArray[np.float32]

# The sights that the mean is taken over.
_SIGHTS_KEPT = 5
# One sight can be like somebody by chance; so many say who it is, or that it is nobody enrolled.
_SIGHTS_TO_NAME = 2
_SIGHTS_TO_BE_UNKNOWN = 3
# In a row, saying the same other name: then another person has taken the place.
_SIGHTS_TO_CHANGE = 2
# A name given is kept while the mean is not farther below the threshold than this share of what
# lies between the threshold and 1.
_HYSTERESIS = 0.25
# Seconds to the second sight; each further interval is so many times longer.
_FIRST_INTERVAL = 0.2
_INTERVAL_GROWTH = 1.6
_LONGEST_INTERVAL = 8.0
# Seconds until a face that was not seen well is tried again.
_RETRY_INTERVAL = 0.12
_LONGEST_RETRY = 1.0
# A sight is taken before its time where the face is so many times larger than in the best one.
_CLEARLY_LARGER = 1.3


@dataclass
class Identity:
    """What the sights of one face tell.

    Attributes:
        name: The person, or None while unknown.
        similarity: Of the mean to that person, or to the nearest; None before the first sight.
        sights: How many there were.
    """

    name: str | None = None
    similarity: float | None = None
    sights: int = 0
    _embeddings: deque[Embedding] = field(default_factory=lambda: deque(maxlen=_SIGHTS_KEPT))
    _other: str | None = None
    _others: int = 0
    _next: float = 0.0
    _interval: float = _FIRST_INTERVAL
    _retry: float = _RETRY_INTERVAL
    _largest: float = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether it can be said who this is, or that it is nobody enrolled."""
        return self.name is not None or self.sights >= _SIGHTS_TO_BE_UNKNOWN

    @property
    def embedding(self) -> Embedding | None:
        """The mean over the last sights, at length 1; None before the first."""
        return _unit(np.mean(self._embeddings, axis=0)) if self._embeddings else None

    def wants_sight(self, seconds: float, side: float) -> bool:
        """Whether the face should be encoded now.

        Args:
            seconds: Of the frame.
            side: Of the face, in pixels.
        """
        better = self.sights > 0 and side > _CLEARLY_LARGER * self._largest
        return seconds >= self._next or better

    def note_failure(self, seconds: float, side: float) -> None:
        """The face was looked at and not seen well; waits longer each time."""
        self._largest = max(self._largest, side)
        self._next = seconds + self._retry
        self._retry = min(self._retry * 1.5, _LONGEST_RETRY)

    def add_sight(self, embedding: Embedding, seconds: float, side: float) -> Embedding:
        """Take a good sight.

        Returns:
            The new mean, float32 ``(D,)``, for the gallery to search.
        """
        self._embeddings.append(_unit(embedding))
        self.sights += 1
        self._largest = max(self._largest, side)
        self._next = seconds + self._interval
        self._interval = min(self._interval * _INTERVAL_GROWTH, _LONGEST_INTERVAL)
        self._retry = _RETRY_INTERVAL
        return _unit(np.mean(self._embeddings, axis=0))

    def judge(self, alone: Match, together: Sequence[Match], threshold: float) -> None:
        """Draw the conclusion from a sight.

        Args:
            alone: The nearest person to this sight.
            together: The people nearest to the mean over the last sights, best first.
            threshold: Similarity from which it counts as that person.
        """
        if self._has_changed(alone, threshold):
            # The former sights were of somebody else; these were not.
            for _ in range(len(self._embeddings) - _SIGHTS_TO_CHANGE):
                self._embeddings.popleft()
            self.name, self.similarity = alone.name, alone.similarity
            return
        nearest = together[0]
        own = next((match for match in together if match.name == self.name), None)
        if nearest.similarity >= threshold and self.sights >= _SIGHTS_TO_NAME:
            self.name, self.similarity = nearest.name, nearest.similarity
        elif own is not None and own.similarity >= threshold - _HYSTERESIS * (1 - threshold):
            self.similarity = own.similarity
        else:
            self.name, self.similarity = None, nearest.similarity

    def _has_changed(self, alone: Match, threshold: float) -> bool:
        """Whether the last sights, each for itself, all say one other person than the name."""
        if alone.similarity < threshold or alone.name == self.name:
            self._other, self._others = None, 0
            return False
        self._others = self._others + 1 if alone.name == self._other else 1
        self._other = alone.name
        return self.name is not None and self._others >= _SIGHTS_TO_CHANGE


def _unit(vector: Embedding) -> Embedding:
    """A vector at length 1."""
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / max(length, np.finfo(np.float32).tiny), np.float32)
