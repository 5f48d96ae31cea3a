"""The ROC curve, and what is read off it: area, equal error rate, rates and thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.metrics.scored_pairs import Flags, Scores, checked_pairs

# Below this many false matches the rate is mostly chance: the relative error of a count of ten
# is about one third (Doddington's "rule of 30" asks for thirty to come within 30 %).
FEWEST_FALSE_MATCHES = 10


@dataclass(frozen=True, eq=False)
class RocCurve:
    """True against false match rate at every threshold that makes a difference.

    Attributes:
        false_match_rate: float64 ``(T,)``, rising from 0: share of different pairs that match.
        true_match_rate: float64 ``(T,)``, rising from 0: share of same pairs that match. It
            ends below 1 where faces were not found.
        thresholds: float64 ``(T,)``, falling: ``inf``, then every distinct score.
    """

    false_match_rate: Scores
    true_match_rate: Scores
    thresholds: Scores

    def __post_init__(self) -> None:
        """Check that the three run in step."""
        shapes = {self.false_match_rate.shape, self.true_match_rate.shape, self.thresholds.shape}
        if len(shapes) != 1 or self.thresholds.ndim != 1:
            raise InputError(f"a ROC curve has three arrays of one shape (T,). Received: {shapes}")

    def threshold_that_admits(self, count: int) -> float:
        """A finite threshold that admits exactly the first ``count`` distinct scores.

        Args:
            count: How many of the distinct scores, of which there is at least one, reach the
                threshold.
        """
        if count == 0:
            return float(np.nextafter(self.thresholds[1], np.inf))
        if count == len(self.thresholds) - 1:
            return float(self.thresholds[-1])
        middle = (self.thresholds[count] + self.thresholds[count + 1]) / 2
        # Between two neighbouring floats the middle rounds to one of them, maybe the lower.
        return float(middle if middle > self.thresholds[count + 1] else self.thresholds[count])


def roc_curve(scores: npt.ArrayLike, same: npt.ArrayLike) -> RocCurve:
    """Both match rates at every distinct score, without dropping a point.

    Args:
        scores: ``(N,)``, higher is nearer; NaN or ``-inf`` where a face was not found, a pair which
            never matches.
        same: ``(N,)`` of booleans, with both kinds among them.

    Raises:
        InputError: Wrong shapes or values, or only one kind of pair.
    """
    scores, same = checked_pairs(scores, same)
    found = np.isfinite(scores)
    order = np.argsort(-scores[found], kind="stable")
    falling, kinds = scores[found][order], same[found][order]
    # The last place of each run of equal scores: a threshold cannot part equal scores.
    ends = np.flatnonzero(np.append(np.diff(falling) != 0, True))[: len(falling)]
    return RocCurve(
        false_match_rate=np.append(0.0, np.cumsum(~kinds)[ends] / (~same).sum()),
        true_match_rate=np.append(0.0, np.cumsum(kinds)[ends] / same.sum()),
        thresholds=np.append(np.inf, falling[ends]),
    )


def roc_auc(scores: npt.ArrayLike, same: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often a same pair outscores a different one, ties half.

    Args:
        scores: As for :func:`roc_curve`; a pair without a score stands below all others.
        same: ``(N,)`` of booleans, with both kinds among them.

    Raises:
        InputError: Wrong shapes or values, or only one kind of pair.
    """
    false_match_rate, true_match_rate = _closed(roc_curve(scores, same))
    widths = np.diff(false_match_rate)
    return float(np.sum(widths * (true_match_rate[1:] + true_match_rate[:-1]) / 2))


def equal_error_rate(scores: npt.ArrayLike, same: npt.ArrayLike) -> float:
    """The rate at which false matches and misses are equally frequent, 0..1.

    The point where the ROC curve, its points joined by straight lines, crosses the diagonal
    on which the false match rate equals the miss rate.

    Args:
        scores: As for :func:`roc_curve`.
        same: ``(N,)`` of booleans, with both kinds among them.

    Raises:
        InputError: Wrong shapes or values, or only one kind of pair.
    """
    false_match_rate, true_match_rate = _closed(roc_curve(scores, same))
    # Rises from -1 to +1, in every step, because a step adds at least one match.
    excess = false_match_rate - (1 - true_match_rate)
    return float(np.interp(0.0, excess, false_match_rate))


def threshold_at_far(scores: npt.ArrayLike, same: npt.ArrayLike, far: float) -> float:
    """The lowest threshold whose false match rate does not exceed a given one.

    Args:
        scores: As for :func:`roc_curve`.
        same: ``(N,)`` of booleans, with both kinds among them.
        far: The false match rate allowed, 0..1.

    Returns:
        A finite threshold, mid-way to the next score below it.

    Raises:
        InputError: Wrong shapes or values, only one kind of pair, or no face found at all.
    """
    scores, same = checked_pairs(scores, same)
    curve = roc_curve(scores, same)
    if len(curve.thresholds) == 1:
        raise InputError("a threshold needs at least one pair with a score. Received: none")
    return curve.threshold_that_admits(_point_at_far(curve, same, far))


def tar_at_far(scores: npt.ArrayLike, same: npt.ArrayLike, far: float) -> float:
    """Share of same pairs that match when no more than a share ``far`` of different ones may.

    No interpolation: the value is that of a threshold that exists. See
    :func:`smallest_meaningful_far` for how small ``far`` may sensibly be.

    Args:
        scores: As for :func:`roc_curve`.
        same: ``(N,)`` of booleans, with both kinds among them.
        far: The false match rate allowed, 0..1.

    Raises:
        InputError: Wrong shapes or values, or only one kind of pair.
    """
    scores, same = checked_pairs(scores, same)
    curve = roc_curve(scores, same)
    return float(curve.true_match_rate[_point_at_far(curve, same, far)])


def smallest_meaningful_far(different_pairs: int) -> float:
    """The smallest false match rate that so many different pairs can speak about: 10 / n.

    Raises:
        InputError: Not at least one different pair.
    """
    if different_pairs < 1:
        raise InputError(f"a rate needs at least one pair. Received: {different_pairs}")
    return min(1.0, FEWEST_FALSE_MATCHES / different_pairs)


def _closed(curve: RocCurve) -> tuple[Scores, Scores]:
    """The rates with the corner (1, 1) at the end, where faces not found keep them from it."""
    if curve.false_match_rate[-1] == 1 and curve.true_match_rate[-1] == 1:
        return curve.false_match_rate, curve.true_match_rate
    return np.append(curve.false_match_rate, 1.0), np.append(curve.true_match_rate, 1.0)


def _point_at_far(curve: RocCurve, same: Flags, far: float) -> int:
    """Index of the curve's last point whose false match rate does not exceed ``far``."""
    if not 0 <= far <= 1:
        raise InputError(f"a false match rate lies within 0..1. Received: {far}")
    # In whole pairs, so that 3 of 300 is not above 0.01 by a rounding error.
    false_matches = np.rint(curve.false_match_rate * (~same).sum())
    allowed = np.floor(far * (~same).sum() + 1e-6)
    return int(np.searchsorted(false_matches, allowed, side="right")) - 1
