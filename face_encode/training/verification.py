"""How well embeddings verify people: the numbers before and after training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.errors import DatasetError
from face_encode.evaluation.metrics import (
    accuracy_at,
    roc_auc,
    smallest_meaningful_far,
    tar_at_far,
    threshold_at_far,
    verification_accuracy,
)
from face_encode.gallery.quantization import unit_length
from face_encode.types import Embeddings

# A few people with hundreds of photos would otherwise make up most pairs.
MOST_PAIRS_A_PERSON = 20
MOST_DIFFERENT_PAIRS = 200_000


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of photos to compare, of one person and of two.

    Attributes:
        first: int64 ``(M,)``, rows of the one photo.
        second: int64 ``(M,)``, rows of the other.
        same: boolean ``(M,)``; all pairs of one person come first.
        balanced: How many pairs from the start hold as many of two people as of one: accuracy
            is measured on these, rates at a low false accept rate on all.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    same: npt.NDArray[np.bool_]
    balanced: int

    @classmethod
    def among(cls, people: npt.NDArray[np.int64], seed: int = 0) -> PairSet:
        """Draw pairs: up to 20 a person of one person, and up to 200,000 of two.

        Args:
            people: int ``(N,)``, who is on each photo.
            seed: The same seed gives the same pairs.

        Raises:
            DatasetError: There is no pair of one kind.
        """
        random = np.random.default_rng(seed)
        first: list[int] = []
        second: list[int] = []
        for person in np.unique(people):
            photos = np.flatnonzero(people == person)
            one, other = np.triu_indices(len(photos), 1)
            chosen = random.permutation(len(one))[:MOST_PAIRS_A_PERSON]
            first += photos[one[chosen]].tolist()
            second += photos[other[chosen]].tolist()
        genuine = len(first)
        different = _pairs_of_two(people, random)
        if genuine == 0 or len(different) == 0:
            raise DatasetError(
                "verification compares pairs of one person and pairs of two. "
                f"Received: {genuine} and {len(different)} pairs"
            )
        # Few people with many photos have more pairs of their own than with each other.
        genuine = min(genuine, len(different))
        kept = np.sort(random.permutation(len(first))[:genuine])
        return cls(
            np.concatenate([np.array(first)[kept], different[:, 0]]),
            np.concatenate([np.array(second)[kept], different[:, 1]]),
            np.arange(genuine + len(different)) < genuine,
            balanced=2 * genuine,
        )

    def similarities(self, embeddings: Embeddings) -> npt.NDArray[np.float64]:
        """Cosine similarity of each pair, float64 ``(M,)``, from embeddings ``(N, D)``."""
        unit = unit_length(embeddings)
        products = unit[self.first].astype(np.float64) * unit[self.second]
        return np.asarray(products.sum(axis=1), np.float64)


@dataclass(frozen=True)
class Verification:
    """What a set of pairs says about an encoder.

    Attributes:
        accuracy: Best accuracy of a single threshold, on as many pairs of one person as of two.
        auc: Area under the ROC curve.
        far: The false accept rate that the next is measured at.
        tar_at_far: Share of pairs of one person accepted where so many of two are.
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


def measure(
    embeddings: Embeddings, pairs: PairSet, far: float = 1e-3, threshold: float | None = None
) -> Verification:
    """Measure verification by cosine similarity.

    Args:
        embeddings: float ``(N, D)``, of the photos that the pairs were drawn from.
        pairs: Which to compare.
        far: The false accept rate of interest; where the pairs are too few to speak about it,
            the smallest that they can speak about is taken.
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
        far: The rate wanted; raised to the smallest that the pairs can speak about, which for
            fewer than 20 pairs of two people is a half.
    """
    scores = pairs.similarities(embeddings)
    far = max(far, min(0.5, smallest_meaningful_far(int((~pairs.same).sum()))))
    threshold = threshold_at_far(scores, pairs.same, far)
    return float(np.clip(threshold, -1, 1)), far


def _pairs_of_two(
    people: npt.NDArray[np.int64], random: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Pairs of two people ``(M, 2)`` in random order: all of them, or as many as are taken."""
    count = len(people)
    if count * (count - 1) // 2 <= 2 * MOST_DIFFERENT_PAIRS:
        drawn = random.permutation(np.stack(np.triu_indices(count, 1), axis=1))
    else:
        drawn = random.integers(0, count, (2 * MOST_DIFFERENT_PAIRS, 2))
        drawn = np.unique(np.sort(drawn, axis=1), axis=0)
        drawn = random.permutation(drawn)
    different: npt.NDArray[np.int64] = drawn[people[drawn[:, 0]] != people[drawn[:, 1]]]
    return different[:MOST_DIFFERENT_PAIRS]
