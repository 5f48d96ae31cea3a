"""Every enrolled photo in turn as a stranger's: what searches of a gallery would find.

Whoever searches is a random *person*, so each person's searches weigh the same in all, however
many photos there are of them: one with hundreds, met by a chance double, must not set the
threshold alone.

The raw material of a calibration: each photo is compared with every photo of other people (an
impostor search) and of its own person (genuine comparisons). Of the impostor similarities only
the tail is kept, because thresholds lie there; ten thousand photos stay below 200 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.metrics.scored_pairs import Scores

Integers: TypeAlias = npt.NDArray[np.intp]

# 50 million comparisons; more photos are sampled, and say little more.
MOST_PHOTOS = 10_000
_BLOCK = 512
_ALL_KEPT = 2_000
_TAIL_SHARE = 0.05
_SAMPLE = 500_000


@dataclass(frozen=True, eq=False)
class Searches:
    """What comparing all photos with each other found.

    Attributes:
        owner: ``(N,)``, which person each photo shows, numbered from 0.
        genuine: float64 ``(K,)``, similarity of every two photos of one person.
        genuine_weights: float64 ``(K,)``: 2 / the person's photos, because the pairs of one
            with many photos grow with their square.
        impostor_sample: float64, similarities of random pairs of photos of different people.
        tail: float64 ``(T,)``, the largest impostor similarities, falling; each pair of photos
            is there twice, as either can be the probe.
        tail_probes: ``(T,)``, the photo that searched.
        tail_entries: ``(T,)``, the photo that it met.
        best: float64 ``(N,)``, each photo's nearest stranger.
        own_best: float64 ``(N,)``, each photo's nearest other photo of the same person;
            ``-inf`` where there is none.
    """

    owner: Integers
    genuine: Scores
    genuine_weights: Scores
    impostor_sample: Scores
    tail: Scores
    tail_probes: Integers
    tail_entries: Integers
    best: Scores
    own_best: Scores

    @property
    def photos(self) -> int:
        """Photos compared."""
        return len(self.owner)

    @property
    def people(self) -> int:
        """People on them."""
        return int(self.owner.max()) + 1

    @property
    def strangers(self) -> Integers:
        """``(N,)``, for each photo how many show other people."""
        return self.photos - np.bincount(self.owner)[self.owner]

    @property
    def weights(self) -> Scores:
        """``(N,)``, what each photo's search counts: a person's photos together 1 / people."""
        return np.asarray(1 / (np.bincount(self.owner)[self.owner] * self.people), np.float64)

    @property
    def comparisons(self) -> int:
        """Pairs of photos of different people, each counted once."""
        return int(self.strangers.sum()) // 2

    @property
    def trials(self) -> int:
        """How many searches of equal weight say as much as these (Kish's effective size)."""
        return round(float(1 / (self.weights**2).sum()))

    def false_alarm_rate(self, threshold: float, enrolled: int) -> float:
        """Expected share of searches that meet a stranger at or above a threshold.

        The gallery is a random one of ``enrolled`` photos of people other than the probe's,
        drawn without replacement: with ``c`` of ``m`` photos above the threshold, none of them
        is in it with probability C(m - c, n) / C(m, n).

        Args:
            threshold: Not below the tail that was kept.
            enrolled: At least 1, at most the fewest strangers that any photo has.
        """
        count = int(np.searchsorted(-self.tail, -threshold, side="right"))
        above = np.bincount(self.tail_probes[:count], minlength=self.photos)
        strangers = self.strangers
        log_factorial = np.append(0.0, np.cumsum(np.log(np.arange(1, self.photos + 1))))
        rest = strangers - above - enrolled
        log_none = (
            log_factorial[strangers - above]
            - log_factorial[np.maximum(rest, 0)]
            - log_factorial[strangers]
            + log_factorial[strangers - enrolled]
        )
        return float(self.weights @ (1 - np.where(rest >= 0, np.exp(log_none), 0.0)))

    def threshold(self, enrolled: int, rate: float) -> float:
        """The lowest threshold whose expected false alarm rate does not exceed a given one."""
        # Bisection over the places in the tail: admitting more of it can only raise the rate.
        admitted, refused = 0, len(self.tail)
        while refused - admitted > 1:
            middle = (admitted + refused) // 2
            if self.false_alarm_rate(float(self.tail[middle]), enrolled) <= rate:
                admitted = middle
            else:
                refused = middle
        # Just above the first similarity that must not be admitted.
        first = 0 if self.false_alarm_rate(float(self.tail[0]), enrolled) > rate else refused
        last = min(first, len(self.tail) - 1)
        return float(np.nextafter(self.tail[last], np.inf))

    def tail_scale(self) -> float:
        """Mean excess of the nearest strangers over their ninth decile: an exponential's scale."""
        order = np.argsort(self.best)
        best, weights = self.best[order], self.weights[order]
        # At least ten searches, where there are so many.
        decile = int(np.searchsorted(np.cumsum(weights), 0.9 - 1e-9))
        first = max(0, min(decile, self.photos - 11))
        return float(np.average(best[first + 1 :] - best[first], weights=weights[first + 1 :]))

    def verification_thresholds(self, rate: float, replicates: int, seed: int) -> Scores:
        """Bootstrap over people of the threshold for one comparison; ``(replicates,)``.

        A pair of photos weighs as often as its two people were drawn, multiplied (Owen, 2007:
        the pigeonhole bootstrap, slightly conservative).
        """
        random = np.random.default_rng(seed)
        sizes = np.bincount(self.owner)
        strangers = self.photos - sizes
        needed = min(len(self.tail), int(8 * rate * self.strangers.sum()) + 1000)
        probes, entries = (
            self.owner[self.tail_probes[:needed]],
            self.owner[self.tail_entries[:needed]],
        )
        results = np.empty(replicates)
        for index in range(replicates):
            drawn = _drawn(random, self.people)
            counts = drawn / (sizes * strangers)
            photos = drawn * sizes
            # A person is no stranger to the other copies of the same person in the sample.
            possible = float((counts * sizes) @ (photos.sum() - photos))
            above = np.cumsum(counts[probes] * drawn[entries])
            place = int(np.searchsorted(above, rate * possible, side="right"))
            results[index] = self.tail[min(place, needed - 1)]
        return results

    def search_thresholds(self, rate: float, replicates: int, seed: int) -> Scores:
        """Bootstrap over people of the threshold for a search of all strangers' photos.

        The people who search are drawn, the gallery stays; ``(replicates,)``.
        """
        random = np.random.default_rng(seed)
        order = np.argsort(-self.best, kind="stable")
        owners, weights = self.owner[order], self.weights[order]
        results = np.empty(replicates)
        for index in range(replicates):
            above = np.cumsum(_drawn(random, self.people)[owners] * weights)
            place = int(np.searchsorted(above, rate * above[-1], side="right"))
            results[index] = self.best[order[min(place, self.photos - 1)]]
        return results


def search_all(
    embeddings: npt.ArrayLike, names: npt.ArrayLike, tail_share: float = 0.0, seed: int = 0
) -> Searches:
    """Compare every photo with every other by cosine.

    Args:
        embeddings: ``(N, D)``, finite, none of length zero. Of more than ``MOST_PHOTOS`` so
            many are drawn at random.
        names: N names, at least two different ones.
        tail_share: Share of the impostor similarities that must be kept at the least.
        seed: Of the random numbers.

    Raises:
        InputError: Wrong shapes or values, or only one person.
    """
    vectors, owner = _checked(embeddings, names)
    random = np.random.default_rng(seed)
    if len(owner) > MOST_PHOTOS:
        chosen = np.sort(random.choice(len(owner), MOST_PHOTOS, replace=False))
        vectors, owner = vectors[chosen], np.unique(owner[chosen], return_inverse=True)[1]
    sample = _impostor_sample(vectors, owner, random)
    floor = -np.inf
    if len(owner) > _ALL_KEPT:
        floor = float(np.quantile(sample, 1 - max(_TAIL_SHARE, tail_share)))
    genuine, weights, tail, probes, entries, best, own_best = [], [], [], [], [], [], []
    sizes = np.bincount(owner)
    for start in range(0, len(owner), _BLOCK):
        block = vectors[start : start + _BLOCK] @ vectors.T
        own = owner[start : start + _BLOCK, None] == owner
        rows, columns = np.nonzero(np.triu(own, start + 1))
        genuine.append(block[rows, columns])
        weights.append(2 / sizes[owner[columns]])
        own_best.append(_nearest_of_own(block, own, start))
        block[own] = -np.inf
        best.append(block.max(axis=1))
        rows, columns = np.nonzero((block >= floor) & ~own)
        tail.append(block[rows, columns])
        probes.append(rows + start)
        entries.append(columns)
    similarities = np.concatenate(tail)
    order = np.argsort(-similarities, kind="stable")
    return Searches(
        owner=owner,
        genuine=np.concatenate(genuine).astype(np.float64),
        genuine_weights=np.concatenate(weights),
        impostor_sample=sample,
        tail=similarities[order].astype(np.float64),
        tail_probes=np.concatenate(probes)[order],
        tail_entries=np.concatenate(entries)[order],
        best=np.concatenate(best).astype(np.float64),
        own_best=np.concatenate(own_best),
    )


def _nearest_of_own(
    similarities: npt.NDArray[np.float32], own: npt.NDArray[np.bool_], start: int
) -> Scores:
    """Each row's nearest photo of the same person but itself; rows begin at photo ``start``."""
    others = np.where(own, similarities, -np.inf).astype(np.float64)
    rows = np.arange(len(others))
    others[rows, start + rows] = -np.inf
    return np.asarray(others.max(axis=1), np.float64)


def unit_length(embeddings: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Embeddings scaled to length 1, float32 ``(N, D)``.

    Raises:
        InputError: Another shape, not finite, or of length zero.
    """
    vectors = np.asarray(embeddings, np.float32)
    if vectors.ndim != 2 or 0 in vectors.shape or not np.isfinite(vectors).all():
        raise InputError(f"embeddings are finite, shape (N, D). Received: {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not lengths.all():
        raise InputError("an embedding of length zero has no direction to compare")
    return np.asarray(vectors / lengths, np.float32)


def _checked(
    embeddings: npt.ArrayLike, names: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], Integers]:
    """Unit vectors, and the number of each one's person."""
    vectors = unit_length(embeddings)
    people, owner = np.unique(np.asarray(names), return_inverse=True)
    if owner.shape != (len(vectors),) or len(people) < 2:
        raise InputError(
            "every embedding has a name, and there are at least two people. "
            f"Received: {len(vectors)} embeddings, names of shape {owner.shape}, "
            f"{len(people)} people"
        )
    return vectors, owner


def _impostor_sample(
    vectors: npt.NDArray[np.float32], owner: Integers, random: np.random.Generator
) -> Scores:
    """Similarities of random pairs of different people, all of them where they are few."""
    count = len(owner)
    if count * (count - 1) // 2 <= _SAMPLE:
        first, second = np.triu_indices(count, 1)
    else:
        first, second = random.integers(0, count, (2, _SAMPLE))
    apart = owner[first] != owner[second]
    first, second = first[apart], second[apart]
    result = np.empty(len(first))
    for start in range(0, len(first), 100_000):
        part = slice(start, start + 100_000)
        result[part] = np.einsum("nd,nd->n", vectors[first[part]], vectors[second[part]])
    return result


def _drawn(random: np.random.Generator, people: int) -> Scores:
    """How often each of so many people is drawn, with replacement."""
    drawn = random.integers(0, people, people)
    return np.bincount(drawn, minlength=people).astype(np.float64)
