"""Calibration: thresholds for a stated false match rate, and probabilities, from known people.

**A threshold that grows with the gallery.** One comparison with a stranger crosses a threshold
with some small probability; a search makes as many comparisons as photos are enrolled, so a
threshold that is safe between two photos is not safe in a search. The rate asked for here is
*per search*. It is measured, not derived from the textbook's ``1 - (1 - FMR)^N``, which assumes
independent comparisons: every photo in turn searches all photos of *other* people, and the
expected share of false alarms against a random gallery of N of them follows exactly from how
many of them lie above a threshold (a hypergeometric probability). N = 1 is verification.

**Beyond the measured range**, for more photos than there were or rates too small for them, the
tail of the nearest strangers' similarities is continued as an exponential. Similarities are
bounded, so their true tail is lighter and the threshold errs towards fewer false matches.

**A probability.** Platt's logistic curve (1999), learnt twice: from comparisons of two photos,
and from searches, in which the nearest of many strangers is nearer and the same similarity means
less. Between the two the curve is interpolated over the logarithm of the number enrolled. Both
assume even odds, beforehand, that the person is enrolled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.evaluation.faces import checked_units
from face_encode.evaluation.intervals import percentile_interval
from face_encode.evaluation.metrics import MIN_FALSE_MATCHES, Scores, checked_pairs
from face_encode.gallery.thresholds import Calibration, sigmoid
from face_encode.types import Embeddings, check_number

Integers: TypeAlias = npt.NDArray[np.intp]

# 50 million comparisons; of more photos a sample is drawn, which measures nearly as well.
MAX_PHOTOS = 10_000
# Photos compared with all others at once.
_BLOCK = 512
# Of more photos only this share of the impostor similarities is kept, the largest.
_MAX_WITH_WHOLE_TAIL = 2_000
_TAIL_SHARE = 0.05
_IMPOSTOR_SAMPLE = 500_000
_MIN_PEOPLE = 5


@dataclass(frozen=True, eq=False)
class Searches:
    """The similarities of all photos to each other, each photo searching the others.

    Attributes:
        owner: ``(N,)``, the number of the person on each photo, from 0.
        genuine: float64 ``(K,)``, similarity of every two photos of one person.
        genuine_weights: float64 ``(K,)``: 2 / the person's photos, because the pairs of one
            with many photos grow with their square.
        impostor_sample: float64, similarities of random pairs of photos of different people.
        tail: float64 ``(T,)``, the largest impostor similarities, falling; each pair of photos
            is there twice, as either can be the probe.
        tail_probes: ``(T,)``, the photo that searched.
        tail_entries: ``(T,)``, the photo found.
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
        """Number of photos compared."""
        return len(self.owner)

    @property
    def people(self) -> int:
        """Number of people on the photos."""
        return int(self.owner.max()) + 1

    @property
    def strangers(self) -> Integers:
        """``(N,)``, for each photo the number of photos of other people."""
        return self.photos - np.bincount(self.owner)[self.owner]

    @property
    def weights(self) -> Scores:
        """``(N,)``, the weight of each photo's search: a person's photos together 1 / people."""
        return np.asarray(1 / (np.bincount(self.owner)[self.owner] * self.people), np.float64)

    @property
    def comparisons(self) -> int:
        """Number of pairs of photos of different people, each counted once."""
        return int(self.strangers.sum()) // 2

    @property
    def trials(self) -> int:
        """Number of searches of equal weight that measure as well (Kish's effective size)."""
        return round(float(1 / (self.weights**2).sum()))

    def false_alarm_rate(self, threshold: float, enrolled: int) -> float:
        """Expected share of searches that find a stranger at or above a threshold.

        The gallery is a random one of ``enrolled`` photos of people other than the probe's,
        drawn without replacement: with ``c`` of ``m`` photos above the threshold, none of them
        is in it with probability C(m - c, n) / C(m, n).

        Args:
            threshold: Not below the tail that was kept.
            enrolled: At least 1, at most the smallest of ``strangers``.
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
        # At least ten searches, if there are that many.
        decile = int(np.searchsorted(np.cumsum(weights), 0.9 - 1e-9))
        first = max(0, min(decile, self.photos - 11))
        return float(np.average(best[first + 1 :] - best[first], weights=weights[first + 1 :]))

    def verification_thresholds(self, rate: float, replicates: int, seed: int) -> Scores:
        """Bootstrap over people of the threshold for one comparison; ``(replicates,)``.

        A pair of photos weighs the product of the times that its two people were drawn (Owen,
        2007: the pigeonhole bootstrap, slightly conservative).
        """
        random = np.random.default_rng(seed)
        sizes = np.bincount(self.owner)
        strangers = self.photos - sizes
        needed = min(len(self.tail), int(8 * rate * self.strangers.sum()) + 1000)
        probes = self.owner[self.tail_probes[:needed]]
        entries = self.owner[self.tail_entries[:needed]]
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
        embeddings: ``(N, D)``, finite, none of length zero. Of more than ``MAX_PHOTOS`` that
            many are drawn at random.
        names: N names, at least two different ones.
        tail_share: The least share of the impostor similarities to keep.
        seed: Of the random numbers.

    Raises:
        InputError: Wrong shapes or values, or only one person.
    """
    vectors = checked_units(embeddings)
    people, owner = np.unique(np.asarray(names), return_inverse=True)
    if owner.shape != (len(vectors),) or len(people) < 2:
        raise InputError(
            "every embedding has a name, and there are at least two people. "
            f"Received: {len(vectors)} embeddings, names of shape {owner.shape}, "
            f"{len(people)} people"
        )
    random = np.random.default_rng(seed)
    if len(owner) > MAX_PHOTOS:
        chosen = np.sort(random.choice(len(owner), MAX_PHOTOS, replace=False))
        vectors, owner = vectors[chosen], np.unique(owner[chosen], return_inverse=True)[1]
    sample = _impostor_sample(vectors, owner, random)
    floor = -np.inf
    if len(owner) > _MAX_WITH_WHOLE_TAIL:
        floor = float(np.quantile(sample, 1 - max(_TAIL_SHARE, tail_share)))
    genuine, weights, tail, probes, entries, best, own_best = [], [], [], [], [], [], []
    sizes = np.bincount(owner)
    for start in range(0, len(owner), _BLOCK):
        block = vectors[start : start + _BLOCK] @ vectors.T
        own = owner[start : start + _BLOCK, None] == owner
        rows, columns = np.nonzero(np.triu(own, start + 1))
        genuine.append(block[rows, columns])
        weights.append(2 / sizes[owner[columns]])
        others = np.where(own, block, -np.inf)
        np.fill_diagonal(others[:, start:], -np.inf)
        own_best.append(others.max(axis=1))
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
        own_best=np.concatenate(own_best).astype(np.float64),
    )


def _impostor_sample(vectors: Embeddings, owner: Integers, random: np.random.Generator) -> Scores:
    """Similarities of random pairs of different people, or of all pairs if they are few."""
    count = len(owner)
    if count * (count - 1) // 2 <= _IMPOSTOR_SAMPLE:
        first, second = np.triu_indices(count, 1)
    else:
        first, second = random.integers(0, count, (2, _IMPOSTOR_SAMPLE))
    apart = owner[first] != owner[second]
    first, second = first[apart], second[apart]
    result = np.empty(len(first))
    for start in range(0, len(first), 100_000):
        part = slice(start, start + 100_000)
        result[part] = np.einsum("nd,nd->n", vectors[first[part]], vectors[second[part]])
    return result


def _drawn(random: np.random.Generator, people: int) -> Scores:
    """Draw as many people with replacement: the times that each is drawn, ``(people,)``."""
    drawn = random.integers(0, people, people)
    return np.bincount(drawn, minlength=people).astype(np.float64)


def calibrate(
    embeddings: npt.ArrayLike,
    names: npt.ArrayLike,
    false_match_rate: float = 1e-3,
    replicates: int = 200,
    seed: int = 0,
) -> Calibration:
    """Learn thresholds and probabilities from enrolled people.

    Args:
        embeddings: ``(N, D)``, compared by cosine.
        names: N names, at least five different ones, at least one with two photos.
        false_match_rate: Share of searches for a stranger that may name someone, 0..1.
        replicates: Bootstrap samples, drawn over people, for the intervals.
        seed: Of the random numbers.

    Raises:
        InputError: Wrong shapes or values, or too few people or photos.
    """
    check_number(false_match_rate, "a false match rate", 0, 1, ends=False)
    searches = search_all(embeddings, names, tail_share=4 * false_match_rate, seed=seed)
    if searches.people < _MIN_PEOPLE or len(searches.genuine) == 0:
        raise InputError(
            f"a calibration needs at least {_MIN_PEOPLE} people, and two photos of at least "
            f"one of them. Received: {searches.people} people, {len(searches.genuine)} pairs of "
            "photos of one person"
        )
    # A random gallery cannot hold more than the strangers of the person with the most photos.
    largest = int(searches.strangers.min())
    # Between these the threshold is interpolated over the logarithm of the size, along which it
    # is nearly straight.
    sizes = sorted({min(3**step, largest) for step in range(20)})
    tail_scale = searches.tail_scale()

    def measured(trials: int) -> tuple[float, float]:
        """The rate that this many trials can measure, and the rise of the threshold beyond."""
        rate = max(false_match_rate, min(0.5, MIN_FALSE_MATCHES / trials))
        return rate, tail_scale * math.log(rate / false_match_rate)

    thresholds: list[float] = []
    for size in sizes:
        rate, rise = measured(searches.comparisons if size == 1 else searches.trials)
        # Sampling noise must not let a larger gallery have the lower threshold.
        thresholds.append(max(searches.threshold(size, rate) + rise, *thresholds[-1:], -1.0))
    verification_rate, verification_rise = measured(searches.comparisons)
    search_rate, search_rise = measured(searches.trials)
    verification = searches.verification_thresholds(verification_rate, replicates, seed)
    search = searches.search_thresholds(search_rate, replicates, seed)
    slopes, midpoints = zip(*_curves(searches), strict=True)
    return Calibration(
        false_match_rate=false_match_rate,
        people=searches.people,
        photos=searches.photos,
        enrolled=tuple(sizes),
        thresholds=tuple(thresholds),
        tail_scale=tail_scale,
        slopes=slopes,
        midpoints=midpoints,
        verification_interval=_ends(verification + verification_rise),
        search_interval=_ends(search + search_rise),
        extrapolated=search_rate > false_match_rate,
    )


def fit_logistic(
    scores: npt.ArrayLike, same: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> tuple[float, float]:
    """Platt's curve (1999): log-odds of "same" as a straight line over the similarity.

    Platt's softened targets keep the curve finite where the two kinds do not overlap.

    Args:
        scores: ``(N,)``, finite.
        same: bool ``(N,)``, both kinds among them.
        weights: ``(N,)``, relative weights, above 0; where not given, both kinds weigh the same
            in all.

    Returns:
        Slope of the log-odds, and the score at which the odds are even.

    Raises:
        InputError: Nothing of one kind, or the same faces are not the nearer ones on average.
    """
    x, truth = checked_pairs(scores, same)
    counts = np.where(truth, truth.sum(), (~truth).sum())
    weight = 0.5 / counts if weights is None else np.asarray(weights, np.float64)
    weight = weight / weight.sum()
    if np.average(x[truth], weights=weight[truth]) <= np.average(x[~truth], weights=weight[~truth]):
        raise InputError(
            "probabilities need similarities that are higher between photos of one person than "
            "between people. Received: the other way round"
        )
    centre = float(np.average(x, weights=weight))
    spread = math.sqrt(float(np.average((x - centre) ** 2, weights=weight)))
    design = np.stack([(x - centre) / spread, np.ones_like(x)], axis=1)
    target = np.where(truth, (counts + 1) / (counts + 2), 1 / (counts + 2))
    line = np.zeros(2)
    for _ in range(100):
        chance = sigmoid(design @ line)
        gradient = design.T @ (weight * (target - chance))
        curvature = (design * (weight * chance * (1 - chance))[:, None]).T @ design
        # A trace of damping: far from the overlap the curve is flat and Newton overshoots.
        step = np.linalg.solve(curvature + 1e-6 * np.eye(2), gradient)
        line = line + step
        if np.abs(step).max() < 1e-10:
            break
    return float(line[0] / spread), float(centre - spread * line[1] / line[0])


def _curves(searches: Searches) -> tuple[tuple[float, float], tuple[float, float]]:
    """Slope and midpoint for comparisons of two photos, and for searches of all of them."""
    genuine, impostor = searches.genuine, searches.impostor_sample
    share = searches.genuine_weights / (2 * searches.genuine_weights.sum())
    comparison = fit_logistic(
        np.concatenate([genuine, impostor]),
        np.repeat([True, False], [len(genuine), len(impostor)]),
        np.concatenate([share, np.full(len(impostor), 0.5 / len(impostor))]),
    )
    # Each photo searches twice: with its person enrolled, and as a stranger.
    enrolled = np.isfinite(searches.own_best)
    own, stranger = searches.own_best[enrolled], searches.best[enrolled]
    weights = searches.weights
    search = fit_logistic(
        np.concatenate([np.maximum(own, stranger), searches.best]),
        np.concatenate([own >= stranger, np.zeros(searches.photos, bool)]),
        np.concatenate([weights[enrolled] / weights[enrolled].sum(), weights]),
    )
    return comparison, search


def _ends(replicates: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The ends of the replicates' middle 95 %."""
    interval = percentile_interval(replicates)
    return interval.lower, interval.upper
