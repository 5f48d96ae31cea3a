"""Accuracy: the share of pairs that a threshold sorts right, and the best threshold for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.metrics.roc import roc_curve
from face_encode.metrics.scored_pairs import Scores, checked_pairs


@dataclass(frozen=True)
class BestThreshold:
    """The single threshold that sorts the most pairs right.

    Attributes:
        accuracy: Share of all pairs sorted right at the threshold, 0..1.
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
    bound; :func:`fold_accuracy` gives the honest figure.

    Args:
        scores: ``(N,)``, higher is nearer; NaN or ``-inf`` where a face was not found, which
            counts as an error on same and on different pairs alike.
        same: ``(N,)`` of booleans (or 0 and 1).

    Returns:
        The accuracy and the threshold, mid-way between two neighbouring scores. Of several
        equally good thresholds the highest is taken: it makes the fewest false matches.

    Raises:
        InputError: Wrong shapes or values, only one kind of pair, or no face found at all.
    """
    scores, same = checked_pairs(scores, same)
    found = np.isfinite(scores)
    if not found.any():
        raise InputError("a threshold needs at least one pair with a score. Received: none")
    curve = roc_curve(scores, same)
    matched_same = curve.true_match_rate * same.sum()
    matched_different = curve.false_match_rate * (~same).sum()
    right = np.rint(matched_same + (~same & found).sum() - matched_different)
    best = int(np.argmax(right))
    return BestThreshold(
        accuracy=float(right[best] / len(scores)),
        threshold=curve.threshold_that_admits(best),
    )


def accuracy_at(scores: npt.ArrayLike, same: npt.ArrayLike, threshold: float) -> float:
    """Share of pairs that a given threshold sorts right, 0..1.

    Args:
        scores: As for :func:`verification_accuracy`; a pair without a score is an error.
        same: ``(N,)`` of booleans.
        threshold: Score from which a pair counts as one person.

    Raises:
        InputError: Wrong shapes or values.
    """
    scores, same = checked_pairs(scores, same, both_kinds=False)
    return float(np.mean(((scores >= threshold) == same) & np.isfinite(scores)))


def fold_accuracy(scores: npt.ArrayLike, same: npt.ArrayLike, folds: npt.ArrayLike) -> FoldAccuracy:
    """Accuracy by cross-validation: each fold judged by the best threshold of the others.

    LFW's View 2 protocol (Huang, Ramesh, Berg & Learned-Miller, 2007).

    Args:
        scores: As for :func:`verification_accuracy`.
        same: ``(N,)`` of booleans.
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
