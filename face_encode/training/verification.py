"""How well embeddings verify people: the numbers before and after training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from face_encode.encoders.contract import EncoderContract
from face_encode.errors import DatasetError
from face_encode.evaluation.metrics import (
    accuracy_at,
    roc_auc,
    smallest_meaningful_far,
    tar_at_far,
    threshold_at_far,
    verification_accuracy,
)
from face_encode.gallery.distances import unit_length
from face_encode.types import Embeddings

# A few people with hundreds of photos would otherwise make up most pairs.
_MAX_PAIRS_A_PERSON = 20
# Who has more has millions of pairs, of which those few are drawn.
_MAX_PHOTOS_A_PERSON = 1_000
_MAX_STRANGER_PAIRS = 200_000


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of photos to compare, of one person and of two.

    Attributes:
        first: int64 ``(M,)``, rows of the first photos.
        second: int64 ``(M,)``, rows of the second photos.
        same: boolean ``(M,)``; all pairs of one person come first.
        balanced: Number of pairs from the start of which half are of one person: accuracy is
            measured on these, rates at a low false accept rate on all.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    balanced: int

    @classmethod
    def among(cls, people: npt.NDArray[np.int64], seed: int = 0) -> PairSet:
        """Draw up to 20 pairs of each of the people ``(N,)``, and up to 200,000 of two people.

        Raises:
            DatasetError: There is no pair of one kind.
        """
        random = np.random.default_rng(seed)
        parts = [np.empty((0, 2), np.int64)]
        for person in np.unique(people):
            photos = np.flatnonzero(people == person)
            if len(photos) > _MAX_PHOTOS_A_PERSON:
                photos = random.permutation(photos)[:_MAX_PHOTOS_A_PERSON]
            pairs_of_person = np.stack(np.triu_indices(len(photos), 1), axis=1)
            chosen = random.permutation(len(pairs_of_person))[:_MAX_PAIRS_A_PERSON]
            parts.append(photos[pairs_of_person[chosen]])
        genuine, strangers = np.concatenate(parts), _stranger_pairs(people, random)
        if len(genuine) == 0 or len(strangers) == 0:
            raise DatasetError(
                "verification compares pairs of one person and pairs of two. "
                f"Received: {len(genuine)} and {len(strangers)} pairs"
            )
        # Few people with many photos have more pairs of their own than with each other.
        count = min(len(genuine), len(strangers))
        kept = np.sort(random.permutation(len(genuine))[:count])
        pairs = np.concatenate([genuine[kept], strangers])
        return cls(pairs[:, 0], pairs[:, 1], np.arange(len(pairs)) < count, balanced=2 * count)

    def similarities(self, embeddings: Embeddings) -> npt.NDArray[np.float64]:
        """Cosine similarity of each pair, float64 ``(M,)``, from embeddings ``(N, D)``."""
        unit = unit_length(embeddings)
        products = unit[self.first].astype(np.float64) * unit[self.second]
        return np.asarray(products.sum(axis=1), np.float64)


@dataclass(frozen=True)
class Verification:
    """Verification measured on a set of pairs.

    Attributes:
        accuracy: Best accuracy of a single threshold, on as many pairs of one person as of two.
        auc: Area under the ROC curve.
        far: The false accept rate that ``tar_at_far`` is measured at.
        tar_at_far: True accept rate, the share of pairs of one person accepted, at that rate.
        pairs: Number of pairs that the accuracy is measured on.
        accuracy_at_threshold: Accuracy at a threshold that was chosen on other people; None
            where none was given.
    """

    accuracy: float
    auc: float
    far: float
    tar_at_far: float
    pairs: int
    accuracy_at_threshold: float | None = None

    @property
    def standard_error(self) -> float:
        """Standard error of the accuracy, as that of a share of independent pairs."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / self.pairs))

    def as_judged(self) -> dict[str, float]:
        """The numbers that an epoch is judged by and logged with; ``score`` is the accuracy."""
        return {
            "score": self.accuracy,
            "validation_auc": self.auc,
            "validation_tar": self.tar_at_far,
            "standard_error": self.standard_error,
        }


def measure(
    embeddings: Embeddings, pairs: PairSet, far: float = 1e-3, threshold: float | None = None
) -> Verification:
    """Measure verification by cosine similarity.

    Args:
        embeddings: float ``(N, D)``, of the photos that the pairs were drawn from.
        pairs: Pairs to compare.
        far: The false accept rate of interest, raised to the smallest that this number of pairs
            can measure.
        threshold: A cosine similarity to measure the accuracy at as well.
    """
    scores = pairs.similarities(embeddings)
    far = max(far, smallest_meaningful_far(int((~pairs.same).sum())))
    head = slice(pairs.balanced)
    return Verification(
        accuracy=verification_accuracy(scores[head], pairs.same[head]).accuracy,
        auc=roc_auc(scores, pairs.same),
        far=far,
        tar_at_far=tar_at_far(scores, pairs.same, far),
        pairs=pairs.balanced,
        accuracy_at_threshold=(
            None if threshold is None else accuracy_at(scores[head], pairs.same[head], threshold)
        ),
    )


def calibrate(embeddings: Embeddings, pairs: PairSet, far: float) -> tuple[float, float]:
    """The cosine threshold for a false accept rate, and the rate that it was found at.

    Args:
        embeddings: float ``(N, D)``.
        pairs: Pairs of people that nothing was trained on.
        far: The rate wanted, raised to the smallest that this number of pairs can measure; fewer
            than 20 pairs of two people give a half.
    """
    scores = pairs.similarities(embeddings)
    far = max(far, min(0.5, smallest_meaningful_far(int((~pairs.same).sum()))))
    threshold = threshold_at_far(scores, pairs.same, far)
    return float(np.clip(threshold, -1, 1)), far


def with_thresholds(
    contract: EncoderContract, embeddings: Embeddings, pairs: PairSet, far: float
) -> EncoderContract:
    """A contract with what ``calibrate`` and the spread of strangers give, of these embeddings."""
    threshold, rate = calibrate(embeddings, pairs, far)
    # A tenth of the rate too, where this number of pairs can measure it.
    finer, finer_rate = calibrate(embeddings, pairs, rate / 10)
    return replace(
        contract,
        threshold=threshold,
        false_match_rate=rate,
        thresholds=((finer_rate, finer),) if finer_rate < rate else (),
        # A contract has no spread of 0, as of a network that embeds all alike.
        spread=float(pairs.similarities(embeddings)[~pairs.same].std()) or None,
    )


def _stranger_pairs(
    people: npt.NDArray[np.int64], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Pairs of two people ``(M, 2)`` in random order; all of them, or the most that are taken."""
    count = len(people)
    if count * (count - 1) // 2 <= 2 * _MAX_STRANGER_PAIRS:
        pairs = np.stack(np.triu_indices(count, 1), axis=1)
    else:
        pairs = random.integers(0, count, (2 * _MAX_STRANGER_PAIRS, 2))
        pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    pairs = random.permutation(pairs)
    strangers: npt.NDArray[np.int64] = pairs[people[pairs[:, 0]] != people[pairs[:, 1]]]
    return strangers[:_MAX_STRANGER_PAIRS]
