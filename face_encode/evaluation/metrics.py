"""Verification metrics: how well scores separate pairs of one person from pairs of two.

Every function takes plain numpy arrays: ``scores`` ``(N,)``, higher is nearer, and ``same``
``(N,)``, booleans or 0 and 1: whether the pair truly is one person. A pair counts as a match when
its score reaches the threshold. Wrong shapes or values, or only one kind of pair where both are
needed, raise ``face_encode.errors.InputError``.

**A face that was not found.** Its pair has no score: pass NaN (or ``-inf``). Such a pair never
matches, at any threshold. Two strict conventions follow:

* *accuracy* counts it as an error whether the pair is same or different, because the system
  gave no answer (dropping such pairs is how inflated figures are made);
* *rates and curves* follow ISO/IEC 19795-1's generalised rates, which include failures to
  acquire: a same pair is missed, a different pair is not falsely matched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.types import check_number

Scores: TypeAlias = npt.NDArray[np.float64]
Flags: TypeAlias = npt.NDArray[np.bool_]


def checked_pairs(
    scores: npt.ArrayLike, same: npt.ArrayLike, both_kinds: bool = True
) -> tuple[Scores, Flags]:
    """Pairs as float64 scores, ``-inf`` where a face was not found, and boolean truths.

    Args:
        scores: ``(N,)``, finite, NaN or ``-inf``.
        same: ``(N,)`` of booleans, or of the numbers 0 and 1.
        both_kinds: Whether same and different pairs must both be present.

    Raises:
        InputError: Anything else.
    """
    try:
        checked = np.array(scores, np.float64)
        truths = np.asarray(same)
    except (TypeError, ValueError) as error:
        raise InputError(f"scores are numbers, truths booleans: {error}") from error
    if checked.ndim != 1 or checked.shape != truths.shape or len(checked) == 0:
        raise InputError(
            "scores and truths are two arrays of one shape (N,), N at least 1. "
            f"Received: {checked.shape} and {truths.shape}"
        )
    if truths.dtype != np.bool_ and not np.isin(truths, (0, 1)).all():
        raise InputError(f"truths are booleans, or 0 and 1. Received: {np.unique(truths)[:5]}")
    truths = truths.astype(np.bool_)
    if np.isposinf(checked).any():
        raise InputError("a score is finite, or NaN or -inf for no face. Received: inf")
    checked[np.isnan(checked)] = -np.inf
    if both_kinds and (truths.all() or not truths.any()):
        raise InputError(
            "both same and different pairs are needed. "
            f"Received: {truths.sum()} same, {(~truths).sum()} different"
        )
    return checked, truths


# Below this many false matches the rate is mostly chance: the relative error of a count of ten
# is about one third (Doddington's "rule of 30" asks for thirty to come within 30 %).
MIN_FALSE_MATCHES = 10


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
        shapes = {self.false_match_rate.shape, self.true_match_rate.shape, self.thresholds.shape}
        if len(shapes) != 1 or self.thresholds.ndim != 1:
            raise InputError(f"a ROC curve has three arrays of one shape (T,). Received: {shapes}")

    def threshold_that_admits(self, count: int) -> float:
        """A finite threshold that admits exactly the first ``count`` distinct scores.

        Args:
            count: Number of distinct scores that reach the threshold, 0..T-1.

        Raises:
            InputError: No pair has a score.
        """
        if len(self.thresholds) == 1:
            raise InputError("a threshold needs at least one pair with a score. Received: none")
        if count == 0:
            return float(np.nextafter(self.thresholds[1], np.inf))
        if count == len(self.thresholds) - 1:
            return float(self.thresholds[-1])
        middle = (self.thresholds[count] + self.thresholds[count + 1]) / 2
        # Between two neighbouring floats the middle rounds to one of them, maybe the lower.
        return float(middle if middle > self.thresholds[count + 1] else self.thresholds[count])


def roc_curve(scores: npt.ArrayLike, same: npt.ArrayLike) -> RocCurve:
    """Both match rates at every distinct score, without dropping a point.

    Raises:
        InputError: Wrong shapes or values, or only one kind of pair.
    """
    scores, same = checked_pairs(scores, same)
    found = np.isfinite(scores)
    order = np.argsort(-scores[found], kind="stable")
    falling, kinds = scores[found][order], same[found][order]
    # The last of each run of equal scores: a threshold cannot separate equal scores.
    ends = np.flatnonzero(np.append(np.diff(falling) != 0, True))[: len(falling)]
    return RocCurve(
        false_match_rate=np.append(0.0, np.cumsum(~kinds)[ends] / (~same).sum()),
        true_match_rate=np.append(0.0, np.cumsum(kinds)[ends] / same.sum()),
        thresholds=np.append(np.inf, falling[ends]),
    )


def roc_auc(scores: npt.ArrayLike, same: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often a same pair outscores a different one, ties half.

    A pair without a score stands below all others.

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

    Raises:
        InputError: Wrong shapes or values, or only one kind of pair.
    """
    false_match_rate, true_match_rate = _closed(roc_curve(scores, same))
    # Rises from -1 to +1, in every step, because a step adds at least one match.
    excess = false_match_rate - (1 - true_match_rate)
    return float(np.interp(0.0, excess, false_match_rate))


def threshold_at_far(scores: npt.ArrayLike, same: npt.ArrayLike, far: float) -> float:
    """The lowest threshold whose false match rate does not exceed ``far``, 0..1.

    Returns:
        A finite threshold, mid-way to the next score below it.

    Raises:
        InputError: Wrong shapes or values, only one kind of pair, or no face found at all.
    """
    curve, point = _curve_at_far(scores, same, far)
    return curve.threshold_that_admits(point)


def tar_at_far(scores: npt.ArrayLike, same: npt.ArrayLike, far: float) -> float:
    """Share of same pairs that match when at most a share ``far`` of different ones may, 0..1.

    No interpolation: the value is that of a threshold that exists. See
    ``smallest_meaningful_far`` for how small ``far`` may sensibly be.

    Raises:
        InputError: Wrong shapes or values, or only one kind of pair.
    """
    curve, point = _curve_at_far(scores, same, far)
    return float(curve.true_match_rate[point])


def smallest_meaningful_far(different_pairs: int) -> float:
    """The smallest false match rate that this many different pairs can measure: 10 / n.

    Raises:
        InputError: Not at least one different pair.
    """
    if different_pairs < 1:
        raise InputError(f"a rate needs at least one pair. Received: {different_pairs}")
    return min(1.0, MIN_FALSE_MATCHES / different_pairs)


def _closed(curve: RocCurve) -> tuple[Scores, Scores]:
    """The rates with the corner (1, 1) at the end, which faces not found keep the curve from."""
    if curve.false_match_rate[-1] == 1 and curve.true_match_rate[-1] == 1:
        return curve.false_match_rate, curve.true_match_rate
    return np.append(curve.false_match_rate, 1.0), np.append(curve.true_match_rate, 1.0)


def _curve_at_far(scores: npt.ArrayLike, same: npt.ArrayLike, far: float) -> tuple[RocCurve, int]:
    """The curve, and its last point whose false match rate does not exceed ``far``."""
    check_number(far, "a false match rate", 0, 1)
    curve = roc_curve(scores, same)
    different = np.count_nonzero(~np.asarray(same, np.bool_))
    # In whole pairs, so that 3 of 300 is not above 0.01 by a rounding error.
    false_matches = np.rint(curve.false_match_rate * different)
    allowed = np.floor(far * different + 1e-6)
    return curve, int(np.searchsorted(false_matches, allowed, side="right")) - 1


@dataclass(frozen=True)
class BestThreshold:
    """The single threshold that judges the most pairs right.

    Attributes:
        accuracy: Share of all pairs judged right at the threshold, 0..1.
        threshold: Score from which a pair counts as one person; finite.
    """

    accuracy: float
    threshold: float


@dataclass(frozen=True, eq=False)
class FoldAccuracy:
    """Accuracy with every fold judged by a threshold chosen on the other folds.

    Attributes:
        accuracy: Mean of the folds' accuracies, 0..1.
        standard_deviation: Of the folds' accuracies (divisor folds - 1). LFW's "standard error
            of the mean" is this divided by the square root of the number of folds.
        per_fold: float64 ``(F,)``, each fold's accuracy, in ascending order of fold number.
        thresholds: float64 ``(F,)``, the threshold that each fold was judged by.
    """

    accuracy: float
    standard_deviation: float
    per_fold: Scores
    thresholds: Scores


def verification_accuracy(scores: npt.ArrayLike, same: npt.ArrayLike) -> BestThreshold:
    """Best accuracy that a single threshold reaches, searched over all distinct scores.

    The threshold is chosen on the pairs that it is judged by, so the accuracy is an upper
    bound; ``fold_accuracy`` gives the honest figure.

    Returns:
        The accuracy and the threshold, mid-way between two neighbouring scores. Of several
        equally good thresholds the highest is taken: it makes the fewest false matches.

    Raises:
        InputError: Wrong shapes or values, only one kind of pair, or no face found at all.
    """
    scores, same = checked_pairs(scores, same)
    curve = roc_curve(scores, same)
    matched_same = curve.true_match_rate * same.sum()
    matched_different = curve.false_match_rate * (~same).sum()
    right = np.rint(matched_same + (~same & np.isfinite(scores)).sum() - matched_different)
    best = int(np.argmax(right))
    return BestThreshold(
        accuracy=float(right[best] / len(scores)), threshold=curve.threshold_that_admits(best)
    )


def judged_right(scores: Scores, same: Flags, threshold: float | Scores) -> Flags:
    """Whether each pair is judged right; a pair without a score never is.

    Args:
        scores: float64 ``(N,)``.
        same: bool ``(N,)``.
        threshold: For all pairs, or ``(N,)``, one a pair.
    """
    return np.asarray(((scores >= threshold) == same) & np.isfinite(scores), np.bool_)


def accuracy_at(scores: npt.ArrayLike, same: npt.ArrayLike, threshold: float) -> float:
    """Share of pairs that a given threshold judges right, 0..1.

    Raises:
        InputError: Wrong shapes or values.
    """
    return float(judged_right(*checked_pairs(scores, same, both_kinds=False), threshold).mean())


def fold_accuracy(scores: npt.ArrayLike, same: npt.ArrayLike, folds: npt.ArrayLike) -> FoldAccuracy:
    """Accuracy by cross-validation: each fold judged by the best threshold of the others.

    LFW's View 2 protocol (Huang, Ramesh, Berg & Learned-Miller, 2007).

    Args:
        scores: ``(N,)``.
        same: ``(N,)``.
        folds: ``(N,)`` of fold numbers, at least two different ones.

    Raises:
        InputError: Wrong shapes or values, one fold only, or folds without both kinds of pair
            in the rest.
    """
    scores, same = checked_pairs(scores, same)
    folds = np.asarray(folds)
    if folds.shape != scores.shape:
        raise InputError(f"every pair has a fold. Received: {scores.shape} and {folds.shape}")
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise InputError(f"cross-validation takes at least 2 folds. Received: {len(numbers)}")
    thresholds = np.empty(len(numbers))
    per_fold = np.empty(len(numbers))
    for index, number in enumerate(numbers):
        held_out = folds == number
        thresholds[index] = verification_accuracy(scores[~held_out], same[~held_out]).threshold
        per_fold[index] = accuracy_at(scores[held_out], same[held_out], thresholds[index])
    return FoldAccuracy(float(per_fold.mean()), float(per_fold.std(ddof=1)), per_fold, thresholds)


def error_versus_discard(
    scores: npt.ArrayLike,
    same: npt.ArrayLike,
    quality: npt.ArrayLike,
    threshold: float,
    shares: npt.ArrayLike = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2),
) -> Scores:
    """Miss rate as the pairs of the lowest quality are discarded (Grother and Tabassi, 2007).

    A quality that tells which embeddings are to be trusted makes the rate fall; one that says
    nothing leaves it where it is.

    Args:
        scores: ``(N,)``; NaN where a face was not found.
        same: ``(N,)``.
        quality: ``(N,)``, the lower one of a pair's two photos; NaN where a face was not found,
            which is discarded first.
        threshold: Score from which a pair matches.
        shares: Shares of the same pairs to discard, within 0..1 (exclusive).

    Returns:
        float64, for each share the miss rate of the same pairs that are left.

    Raises:
        InputError: Unequal shapes, no same pair, or a share out of range.
    """
    checked, truths = checked_pairs(scores, same, both_kinds=False)
    qualities = np.asarray(quality, np.float64)
    discarded = np.asarray(shares, np.float64)
    if qualities.shape != checked.shape or not truths.any():
        raise InputError(
            f"each pair has one quality, and some pairs are the same person's. Received: "
            f"{checked.shape} scores, {qualities.shape} qualities, {truths.sum()} same pairs"
        )
    if not ((discarded >= 0) & (discarded < 1)).all():
        raise InputError(f"a share to discard lies within 0..1. Received: {discarded}")
    order = np.argsort(np.nan_to_num(qualities[truths], nan=-np.inf), kind="stable")
    missed = (checked[truths] < threshold)[order]
    first = np.floor(discarded * len(missed) + 1e-9).astype(np.int64)
    left = missed[::-1].cumsum()[::-1]
    return np.asarray(left[first] / (len(missed) - first), np.float64)
