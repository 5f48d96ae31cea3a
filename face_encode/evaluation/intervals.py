"""Confidence intervals: how far chance alone could have moved a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.types import check_number

Indices: TypeAlias = npt.NDArray[np.intp]
Replicates: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A range that holds the true value with the stated confidence.

    Attributes:
        lower: Its lower end.
        upper: Its upper end.
        confidence: Share of such intervals that hold the true value, 0..1.
    """

    lower: float
    upper: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if not self.lower <= self.upper:
            raise InputError(
                f"an interval's lower end comes first. Received: {self.lower} to {self.upper}"
            )
        check_number(self.confidence, "a confidence", 0, 1, ends=False)

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper

    def percent(self, digits: int = 2) -> str:
        """The ends of an interval of shares, in percent, as text."""
        return f"{100 * self.lower:.{digits}f} to {100 * self.upper:.{digits}f} %"


def wilson_interval(events: int, trials: int, confidence: float = 0.95) -> Interval:
    """Interval of a rate from a count of independent trials (Wilson, 1927).

    Covers about as often as stated down to small counts, zero included, where the usual
    ``p +- 1.96 sqrt(p(1-p)/n)`` fails (Brown, Cai & DasGupta, 2001).

    Args:
        events: Number of trials in which it happened.
        trials: Number of trials, at least 1.
        confidence: 0..1.

    Raises:
        InputError: Counts or confidence out of range.
    """
    if trials < 1 or not 0 <= events <= trials:
        raise InputError(f"events lie within 0..trials. Received: {events} of {trials}")
    check_number(confidence, "a confidence", 0, 1, ends=False)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = events / trials
    centre = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2)) / (1 + z**2 / trials)
    # The formula gives exactly 0 and 1 there; rounding must not leave the rate outside.
    return Interval(
        0.0 if events == 0 else float(centre - half),
        1.0 if events == trials else float(centre + half),
        confidence,
    )


def bootstrap(
    statistic: Callable[[Indices], npt.ArrayLike],
    clusters: npt.ArrayLike,
    replicates: int = 1000,
    seed: int = 0,
) -> Replicates:
    """Recompute a statistic on samples drawn with replacement, whole clusters at a time.

    Photos and pairs of one person resemble each other, so drawing them one by one would make
    an interval too narrow; drawing people keeps that dependence (Bolle, Ratha & Pankanti,
    2004: the subsets bootstrap).

    Args:
        statistic: Takes indices into the items, with repeats; gives a number or ``(K,)``
            numbers. A sample for which it raises ``InputError``, because it happens to
            lack one kind of item, is skipped.
        clusters: ``(N,)``, which cluster (person) each item belongs to.
        replicates: Number of samples.
        seed: The same seed gives the same result.

    Returns:
        float64 ``(R, K)``, R at most ``replicates``.

    Raises:
        InputError: No items, or the statistic failed on more than half of the samples.
    """
    clusters = np.asarray(clusters)
    if clusters.ndim != 1 or len(clusters) == 0 or replicates < 1:
        raise InputError(
            "a bootstrap needs clusters of shape (N,), N at least 1, and at least one sample. "
            f"Received: {clusters.shape}, {replicates} samples"
        )
    _, numbers = np.unique(clusters, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(numbers))[:-1])
    random = np.random.default_rng(seed)
    results = []
    for _ in range(replicates):
        drawn = random.integers(0, len(members), len(members))
        try:
            result = statistic(np.concatenate([members[index] for index in drawn]))
        except InputError:
            continue
        results.append(np.atleast_1d(np.asarray(result, np.float64)))
    if len(results) * 2 < replicates:
        raise InputError(
            "too few people for a bootstrap: most samples lack a kind of pair. "
            f"Received: {len(members)} clusters"
        )
    return np.stack(results)


def percentile_interval(replicates: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """The middle part of bootstrap replicates (Efron, 1981: the percentile interval).

    Args:
        replicates: ``(R,)`` finite numbers.
        confidence: 0..1.

    Raises:
        InputError: No replicates, or not finite.
    """
    replicates = np.asarray(replicates, np.float64)
    if replicates.ndim != 1 or len(replicates) == 0 or not np.isfinite(replicates).all():
        raise InputError(f"replicates are finite, shape (R,). Received: {replicates.shape}")
    check_number(confidence, "a confidence", 0, 1, ends=False)
    lower, upper = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(lower), float(upper), confidence)
