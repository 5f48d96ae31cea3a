"""Learning what a similarity means: thresholds for a stated rate, and probabilities.

**A threshold that grows with the gallery.** One comparison with a stranger crosses a threshold
with some small probability; a search makes as many comparisons as photos are enrolled, so a
threshold that is safe between two photos is not safe in a search. The rate asked for here is
*per search*. It is measured, not derived from the textbook's ``1 - (1 - FMR)^N``, which takes
comparisons for independent: every photo in turn searches all photos of *other* people, and the
expected share of false alarms against a random gallery of N of them follows exactly from how
many of them lie above a threshold (a hypergeometric probability). N = 1 is verification.

**Beyond what was measured**, for more photos than there were or rates too small for them, the
tail of the nearest strangers' similarities is taken for exponential. Similarities are bounded,
so their true tail is lighter and the threshold errs towards fewer false matches.

**A probability.** Platt's logistic curve (1999), learnt twice: from comparisons of two photos,
and from searches, in which the nearest of many strangers is nearer and the same similarity means
less. Between the two the curve is interpolated over the logarithm of the number enrolled. Both
take it for as likely as not, beforehand, that the person is there to be found.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.evaluation.intervals import percentile_interval
from face_encode.evaluation.searches import Searches, search_all
from face_encode.gallery.thresholds import Calibration, sigmoid
from face_encode.metrics.roc import FEWEST_FALSE_MATCHES
from face_encode.metrics.scored_pairs import checked_pairs

_FEWEST_PEOPLE = 5


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
    if not 0 < false_match_rate < 1:
        raise InputError(f"a false match rate lies between 0 and 1. Received: {false_match_rate}")
    searches = search_all(embeddings, names, tail_share=4 * false_match_rate, seed=seed)
    if searches.people < _FEWEST_PEOPLE or len(searches.genuine) == 0:
        raise InputError(
            f"a calibration needs at least {_FEWEST_PEOPLE} people, and two photos of at least "
            f"one of them. Received: {searches.people} people, {len(searches.genuine)} pairs of "
            "photos of one person"
        )
    # No random gallery can hold more than the strangers of whoever has the most photos.
    largest = int(searches.strangers.min())
    # Between these the threshold is interpolated over the logarithm of the size, along which it
    # is nearly straight.
    sizes = sorted({min(3**step, largest) for step in range(20)})
    tail_scale = searches.tail_scale()

    def measured(trials: int) -> tuple[float, float]:
        """The rate that so many trials can show, and what the threshold still rises from it."""
        rate = max(false_match_rate, min(0.5, FEWEST_FALSE_MATCHES / trials))
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
