"""The calibration of a gallery: a threshold that grows with its size, and probabilities.

``face_encode.evaluation.calibration.calibrate`` computes the values from people whose names are
known, and a gallery stores them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError, shown
from face_encode.types import check_number

CALIBRATION_VERSION = 1
# JSON has lists only; these are tuples.
_PAIRS_AND_LISTS = (
    "enrolled",
    "thresholds",
    "slopes",
    "midpoints",
    "verification_interval",
    "search_interval",
)


@dataclass(frozen=True)
class Calibration:
    """Thresholds and probabilities computed from people whose names are known.

    Attributes:
        false_match_rate: The requested rate: share of searches for a stranger that may name
            someone; for a comparison of two photos, of comparisons.
        people: Number of people in the calibration data.
        photos: Number of their photos.
        enrolled: Rising numbers of enrolled photos, from 1.
        thresholds: The threshold for each of ``enrolled``.
        tail_scale: Rise of the threshold for each e-fold growth of the number enrolled beyond the
            last of ``enrolled``; 0 or more.
        slopes: Slopes of the log-odds over the similarity, above 0: for one enrolled photo, and
            for the largest number of ``enrolled``.
        midpoints: The similarities at which the odds are even, for the same two.
        verification_interval: 95 % confidence interval of the threshold for one enrolled photo.
        search_interval: The same for the largest number of ``enrolled``.
        extrapolated: Whether the rate is smaller than the photos can show, so that the
            thresholds depend on the assumed shape of the tail.
    """

    false_match_rate: float
    people: int
    photos: int
    enrolled: tuple[int, ...]
    thresholds: tuple[float, ...]
    tail_scale: float
    slopes: tuple[float, float]
    midpoints: tuple[float, float]
    verification_interval: tuple[float, float]
    search_interval: tuple[float, float]
    extrapolated: bool

    def __post_init__(self) -> None:
        counts = (self.people, self.photos, *self.enrolled)
        pairs = (self.slopes, self.midpoints, self.verification_interval, self.search_interval)
        values = (self.false_match_rate, self.tail_scale, *self.thresholds, *sum(pairs, ()))
        if (
            not all(type(each) is int and 0 <= each < 2**53 for each in counts)
            # The comparison is false for NaN, and exact for whole numbers beyond floats.
            or not all(isinstance(each, int | float) and abs(each) < 1e300 for each in values)
            or any(len(pair) != 2 for pair in pairs)
            or type(self.extrapolated) is not bool
        ):
            raise InputError(f"a calibration holds finite numbers. Received: {shown(asdict(self))}")
        check_number(self.false_match_rate, "a false match rate", 0, 1, ends=False)
        if (
            len(self.enrolled) != len(self.thresholds)
            or not self.enrolled
            or self.enrolled[0] != 1
            or any(np.diff(self.enrolled) <= 0)
            or any(np.diff(self.thresholds) < 0)
        ):
            raise InputError(
                "thresholds rise with the number enrolled, from 1. "
                f"Received: {self.enrolled}, {self.thresholds}"
            )
        if self.tail_scale < 0 or min(self.slopes) <= 0:
            raise InputError(
                "a tail is not negative, and nearer faces are likelier the same. "
                f"Received: tail {self.tail_scale}, slopes {self.slopes}"
            )

    def threshold(self, enrolled: int = 1) -> float:
        """Similarity from which a search names someone.

        Args:
            enrolled: Photos in the gallery; 1 for a comparison of two photos.

        Raises:
            InputError: ``enrolled`` is below 1.
        """
        _check_enrolled(enrolled)
        known = np.log(self.enrolled)
        within = float(np.interp(math.log(enrolled), known, self.thresholds))
        beyond = max(0.0, math.log(enrolled) - float(known[-1]))
        return within + self.tail_scale * beyond

    def probability(self, similarity: npt.ArrayLike, enrolled: int = 1) -> npt.NDArray[np.float64]:
        """Probability that a face and the nearest person found for it are one, 0..1.

        The prior probability that the person is enrolled is one half.

        Args:
            similarity: Similarity to the nearest person; any shape.
            enrolled: Photos that were searched; 1 for a comparison of two photos.

        Returns:
            float64 of the same shape.

        Raises:
            InputError: ``enrolled`` is below 1.
        """
        _check_enrolled(enrolled)
        largest = math.log(self.enrolled[-1])
        share = min(1.0, math.log(enrolled) / largest) if largest else 0.0
        slope = self.slopes[0] + share * (self.slopes[1] - self.slopes[0])
        midpoint = self.midpoints[0] + share * (self.midpoints[1] - self.midpoints[0])
        beyond = self.tail_scale * max(0.0, math.log(enrolled) - largest)
        return sigmoid(slope * (np.asarray(similarity, np.float64) - midpoint - beyond))

    def to_json(self) -> str:
        """The calibration as text, to be stored in a gallery."""
        return json.dumps({"calibration_version": CALIBRATION_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Calibration:
        """Read the text back.

        Raises:
            InputError: The text is damaged, or written by a later release.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            version = values.pop("calibration_version")
            if version != CALIBRATION_VERSION:
                raise InputError(
                    f"this release reads calibrations of version {CALIBRATION_VERSION}. "
                    f"Received: version {shown(version)}"
                )
            for name in _PAIRS_AND_LISTS:
                values[name] = tuple(values[name])
            return cls(**values)
        except InputError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"the calibration is damaged: {error}") from error


def check_threshold(given: float | None) -> float | None:
    """Check a cosine threshold; None stays None.

    Raises:
        InputError: It is not a number within -1..1.
    """
    return None if given is None else check_number(given, "a cosine threshold", -1, 1)


def thresholds_to_json(thresholds: Mapping[str, float]) -> str:
    """Thresholds of people as text, to be stored with them."""
    return json.dumps(dict(thresholds), ensure_ascii=False, sort_keys=True)


def thresholds_from_json(text: str | bytes, people: Collection[str]) -> dict[str, float]:
    """Read the text back.

    Raises:
        InputError: The text is damaged, or of others than these people.
    """
    try:
        values = json.loads(text)
        if not values.keys() <= set(people):
            raise InputError("thresholds are of people who are enrolled; one is not")
        for value in values.values():
            if check_threshold(value) is None:
                raise InputError("a person's threshold is a number; one is not")
        return {name: float(value) for name, value in values.items()}
    except (AttributeError, ValueError, RecursionError) as error:
        raise InputError(f"the thresholds of people are damaged: {error}") from error


def sigmoid(log_odds: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The probability of log-odds, without overflow at either end; any shape."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(log_odds, np.float64))), np.float64)


def _check_enrolled(enrolled: int) -> None:
    """Refuse an empty gallery."""
    if enrolled < 1:
        raise InputError(f"a search needs at least one enrolled photo. Received: {enrolled}")
