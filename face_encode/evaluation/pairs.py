"""Verification on a list of pairs of photos: how often is "same" or "different" right?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.evaluation.faces import central_face, embed_faces, similarities
from face_encode.evaluation.intervals import Indices, Interval, bootstrap, percentile_interval
from face_encode.evaluation.lfw import PairList
from face_encode.metrics.accuracy import fold_accuracy, verification_accuracy
from face_encode.metrics.roc import equal_error_rate, roc_auc, smallest_meaningful_far, tar_at_far
from face_encode.metrics.scored_pairs import Flags, Scores

FALSE_ACCEPT_RATES = (0.1, 0.01, 0.001, 0.0001)
# Without folds of its own, a list is dealt into so many parts to tell how much accuracy varies.
_PARTS = 10


@dataclass(frozen=True)
class VerificationNumbers:
    """What a list of scored pairs says; see :mod:`face_encode.metrics` for the measures.

    Attributes:
        accuracy: With folds, the mean over folds judged by the threshold of the others;
            without, at the best single threshold, which was chosen on the same pairs.
        accuracy_std: Standard deviation over the folds; without folds, over ten parts that the
            pairs are dealt into in turn, at the single threshold.
        auc: Area under the ROC curve.
        eer: Equal error rate.
        tar_at_far: True accept rate at each of ``FALSE_ACCEPT_RATES``; None where there are
            fewer than 10 / rate different pairs.
        threshold: The best single threshold, or with folds the mean of the folds' thresholds.
        intervals: 95 % bootstrap intervals, over people where they are known, under the names
            ``accuracy``, ``auc``, ``eer`` and ``tar_at_far_0.001`` and so on.
    """

    accuracy: float
    accuracy_std: float
    auc: float
    eer: float
    tar_at_far: Mapping[float, float | None]
    threshold: float
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, eq=False)
class PairsResult:
    """A list of pairs, measured.

    Attributes:
        pairs: The list.
        scores: float64 ``(N,)``, NaN where a face was not found.
        numbers: What they say.
        not_found: Every photo without a face, with the reason.
        photos: Number of different photos.
        encoder: The encoder's name.
        detector: The detector's name.
        metric: How embeddings were compared.
        mirrored: Whether the encoder averages a face with its mirror image.
        seconds_a_photo: Wall-clock time, reading, detecting and encoding.
    """

    pairs: PairList
    scores: Scores
    numbers: VerificationNumbers
    not_found: tuple[tuple[str, str], ...]
    photos: int
    encoder: str
    detector: str
    metric: str
    mirrored: bool
    seconds_a_photo: float

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values, as ``evaluate pairs --json`` prints them."""
        numbers = self.numbers
        return {
            "pairs": len(self.pairs),
            "not_found": [photo for photo, _ in self.not_found],
            "accuracy": numbers.accuracy,
            "accuracy_std": numbers.accuracy_std,
            "auc": numbers.auc,
            "eer": numbers.eer,
            "tar_at_far": {str(rate): tar for rate, tar in numbers.tar_at_far.items()},
            "threshold": numbers.threshold,
            "encoder": self.encoder,
            "detector": self.detector,
            "metric": self.metric,
        }


def evaluate_pairs(
    pairs: PairList,
    detector: Detector,
    encoder: Encoder,
    *,
    metric: str = "cosine",
    workers: int | None = None,
    progress: bool = True,
) -> PairsResult:
    """Measure verification on a list of pairs.

    Of each photo the largest face nearest the middle is taken
    (:func:`face_encode.evaluation.faces.central_face`). No pair is dropped: one with a photo
    without a face counts as an error.

    Args:
        pairs: Which photos.
        detector: Finds the faces.
        encoder: Embeds them.
        metric: ``"cosine"`` or ``"euclidean"``.
        workers: Processes that read and detect; None chooses.
        progress: Whether to show a progress bar.

    Raises:
        InputError: Another metric, or only one kind of pair.
    """
    photos = pairs.photos()
    faces = embed_faces(photos, detector, encoder, central_face, workers=workers, progress=progress)
    row_of = {photo: row for row, photo in enumerate(photos)}
    first = faces.embeddings[[row_of[photo] for photo in pairs.photos_a]]
    second = faces.embeddings[[row_of[photo] for photo in pairs.photos_b]]
    scores = similarities(first, second, metric)
    return PairsResult(
        pairs=pairs,
        scores=scores,
        numbers=verification_numbers(scores, pairs),
        not_found=faces.not_found(),
        photos=len(photos),
        encoder=encoder.name,
        detector=detector.name,
        metric=metric,
        mirrored=encoder.contract.mirror,
        seconds_a_photo=faces.seconds_a_photo,
    )


def verification_numbers(
    scores: Scores, pairs: PairList, replicates: int = 1000, seed: int = 0
) -> VerificationNumbers:
    """Everything that scored pairs say, with intervals.

    Args:
        scores: float64 ``(N,)``, higher is nearer; NaN where a face was not found.
        pairs: What is true of them.
        replicates: Bootstrap samples.
        seed: Of the random numbers.

    Raises:
        InputError: Wrong shapes, only one kind of pair, or no face found at all.
    """
    same = pairs.same
    if pairs.folds is None:
        best = verification_accuracy(scores, same)
        accuracy, threshold = best.accuracy, best.threshold
        right = _right(scores, same, np.full(len(scores), threshold))
        deviation = _deviation_of_parts(right, same)
    else:
        folds = fold_accuracy(scores, same, pairs.folds)
        accuracy, deviation = folds.accuracy, folds.standard_deviation
        threshold = float(folds.thresholds.mean())
        numbers = np.unique(pairs.folds, return_inverse=True)[1]
        right = _right(scores, same, folds.thresholds[numbers])
    fewest = smallest_meaningful_far(int((~same).sum()))
    rates = [rate for rate in FALSE_ACCEPT_RATES if rate >= fewest * (1 - 1e-9)]

    def statistics(drawn: Indices) -> list[float]:
        values = scores[drawn], same[drawn]
        return [
            # The threshold is not chosen anew: the interval is that of the accuracy it has.
            float(right[drawn].mean()),
            roc_auc(*values),
            equal_error_rate(*values),
            *(tar_at_far(*values, rate) for rate in rates),
        ]

    samples = bootstrap(statistics, pairs.people, replicates, seed)
    names = ["accuracy", "auc", "eer", *(f"tar_at_far_{rate}" for rate in rates)]
    return VerificationNumbers(
        accuracy=accuracy,
        accuracy_std=deviation,
        auc=roc_auc(scores, same),
        eer=equal_error_rate(scores, same),
        tar_at_far={
            rate: tar_at_far(scores, same, rate) if rate in rates else None
            for rate in FALSE_ACCEPT_RATES
        },
        threshold=threshold,
        intervals={
            name: percentile_interval(samples[:, column]) for column, name in enumerate(names)
        },
    )


def _right(scores: Scores, same: Flags, thresholds: Scores) -> Flags:
    """Whether each pair is sorted right by its threshold; one without a score is not."""
    return np.asarray(((scores >= thresholds) == same) & np.isfinite(scores), np.bool_)


def _deviation_of_parts(right: Flags, same: Flags) -> float:
    """Standard deviation of the accuracy over parts, each with its share of both kinds."""
    part = np.empty(len(right), np.int64)
    for kind in (same, ~same):
        part[kind] = np.arange(kind.sum()) % _PARTS
    accuracies = [right[part == number].mean() for number in np.unique(part)]
    return float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
