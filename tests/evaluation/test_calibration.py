from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation.calibration import calibrate, fit_logistic, unit_length
from face_encode.gallery.thresholds import Calibration


def invented_people(people: int, photos: int, seed: int = 0, noise: float = 0.6) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(people, 32)), photos, axis=0)
    vectors = 0.5 + centres + noise * random.normal(size=centres.shape)
    return vectors, np.repeat(np.arange(people), photos)


def test_what_was_learnt_survives_json() -> None:
    learnt = calibrate(*invented_people(30, 3), false_match_rate=0.05)
    assert Calibration.from_json(learnt.to_json()) == learnt


def test_strangers_match_at_the_rate_asked_for() -> None:
    vectors, names = invented_people(400, 2, seed=1)
    learnt = calibrate(vectors[:400], names[:400], false_match_rate=0.01)
    others = unit_length(vectors[400:])
    apart = names[400:, None] != names[400:]
    rate = ((others @ others.T)[apart] >= learnt.threshold(1)).mean()
    assert 0.008 < rate < 0.0125


@pytest.mark.parametrize("enrolled", [30, 300])
def test_searches_raise_false_alarms_at_the_rate_asked_for(enrolled: int) -> None:
    vectors, names = invented_people(2400, 1, seed=2)
    vectors = np.concatenate([vectors, invented_people(200, 2, seed=3)[0]])
    names = np.concatenate([names, np.repeat(np.arange(5000, 5200), 2)])
    learnt = calibrate(vectors[2000:], names[2000:], false_match_rate=0.05)
    unit = unit_length(vectors)
    alarms = (unit[1000:2000] @ unit[:enrolled].T).max(axis=1) >= learnt.threshold(enrolled)
    assert 0.02 < alarms.mean() < 0.1


def test_a_rate_too_small_for_the_photos_is_extrapolated_to_the_safe_side() -> None:
    vectors, names = invented_people(100, 2, seed=4)
    ordinary = calibrate(vectors, names, false_match_rate=0.05)
    small = calibrate(vectors, names, false_match_rate=1e-5)
    assert small.extrapolated
    assert not ordinary.extrapolated
    assert small.threshold(100) > ordinary.threshold(100)
    strangers = unit_length(invented_people(3000, 1, seed=5)[0])
    near = (strangers[:1000] @ strangers[1000:1200].T).max(axis=1) >= small.threshold(200)
    assert near.mean() <= 0.001


def test_intervals_hold_the_threshold_and_shrink_with_more_people() -> None:
    few = calibrate(*invented_people(40, 2), false_match_rate=0.05)
    many = calibrate(*invented_people(600, 2), false_match_rate=0.05)

    def inside(value: float, interval: tuple[float, float]) -> bool:
        return interval[0] <= value <= interval[1]

    for learnt in (few, many):
        assert inside(learnt.threshold(1), learnt.verification_interval)
        assert inside(learnt.thresholds[-1], learnt.search_interval)

    def width(interval: tuple[float, float]) -> float:
        return interval[1] - interval[0]

    assert width(many.verification_interval) < width(few.verification_interval) / 2
    assert width(many.search_interval) < width(few.search_interval)


@pytest.mark.parametrize(("enrolled", "noise"), [(1, 1.4), (200, 0.9)])
def test_of_probabilities_as_many_come_true_as_they_say(enrolled: int, noise: float) -> None:
    vectors, names = invented_people(1200, 2, seed=6, noise=noise)
    learnt = calibrate(vectors[:800], names[:800], false_match_rate=0.01)
    unit = unit_length(vectors[800:])
    random = np.random.default_rng(0)
    said, true = [], []
    for person in range(800):
        # Every other search is for somebody who is not enrolled.
        others = random.choice(800, enrolled, replace=False) * 2 + 1
        gallery = np.union1d(others[others != 2 * person + 1][: enrolled - 1], [2 * person + 1])
        if person % 2:
            gallery = others[others != 2 * person + 1]
        similarities = unit[gallery] @ unit[2 * person]
        said.append(float(learnt.probability(similarities.max(initial=-1), enrolled)))
        true.append(len(gallery) > 0 and gallery[similarities.argmax()] == 2 * person + 1)
    said_array, true_array = np.array(said), np.array(true)
    for low, high in ((0.0, 0.3), (0.3, 0.7), (0.7, 1.01)):
        inside = (said_array >= low) & (said_array < high)
        assert inside.sum() > 30
        assert true_array[inside].mean() == pytest.approx(said_array[inside].mean(), abs=0.12)


def two_kinds(seed: int) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    scores = np.concatenate([random.normal(0.9, 0.05, 2000), random.normal(0.8, 0.04, 5000)])
    return scores, np.repeat([True, False], [2000, 5000])


def test_logistic_equals_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    scores, same = two_kinds(0)
    slope, midpoint = fit_logistic(scores, same)
    theirs = linear_model.LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-10)
    theirs.fit((scores[:, None] - 0.83) / 0.06, same)
    # Platt's softened targets pull ours by a trace.
    assert slope == pytest.approx(theirs.coef_[0, 0] / 0.06, rel=0.02)
    expected = 0.83 - 0.06 * theirs.intercept_[0] / theirs.coef_[0, 0]
    assert midpoint == pytest.approx(expected, abs=1e-3)


def test_logistic_weights_count_like_repeats() -> None:
    scores, same = two_kinds(1)
    weights = np.ones(7000)
    weights[:500] = 3
    repeated = fit_logistic(
        np.concatenate([scores, scores[:500], scores[:500]]),
        np.concatenate([same, same[:1000]]),
        np.ones(8000),
    )
    assert fit_logistic(scores, same, weights) == pytest.approx(repeated, rel=1e-3)


def test_logistic_of_separate_kinds_stays_finite() -> None:
    slope, midpoint = fit_logistic([0.9, 0.95, 0.92, 0.1, 0.2, 0.15], [1, 1, 1, 0, 0, 0])
    assert 0 < slope < 1000
    assert 0.2 < midpoint < 0.9


@pytest.mark.parametrize(
    ("people", "photos", "rate", "message"),
    [
        (30, 3, 0.0, "between 0 and 1"),
        (4, 3, 0.1, "at least 5 people"),
        (30, 1, 0.1, "two photos"),
    ],
)
def test_too_little_is_refused(people: int, photos: int, rate: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(*invented_people(people, photos), false_match_rate=rate)


def test_similarities_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(InputError, match="higher between"):
        fit_logistic([0.1, 0.9], [True, False])
    with pytest.raises(InputError, match="both"):
        fit_logistic([0.1, 0.9], [False, False])
