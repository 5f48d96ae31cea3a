from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from face_encode.calibration import Calibration
from face_encode.errors import InputError
from face_encode.evaluation.calibration import calibrate, fit_logistic
from face_encode.evaluation.searches import unit_length


def invented_people(people: int, photos: int, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(people, 32)), photos, axis=0)
    vectors = 0.5 + centres + 0.6 * random.normal(size=centres.shape)
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


def test_logistic_equals_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    genuine, impostor = random.normal(0.9, 0.05, 2000), random.normal(0.8, 0.04, 5000)
    slope, intercept = fit_logistic(genuine, impostor)
    theirs = linear_model.LogisticRegression(C=np.inf, class_weight="balanced", tol=1e-10)
    scores = np.concatenate([genuine, impostor])[:, None]
    theirs.fit((scores - 0.83) / 0.06, np.repeat([1, 0], [2000, 5000]))
    expected = theirs.coef_[0, 0] / 0.06
    # Platt's softened targets pull ours by a trace.
    assert slope == pytest.approx(expected, rel=0.02)
    assert -intercept / slope == pytest.approx(0.83 - theirs.intercept_[0] / expected, abs=1e-3)


def test_logistic_weights_count_like_repeats() -> None:
    random = np.random.default_rng(1)
    genuine, impostor = random.normal(1, 1, 1000), random.normal(0, 1, 1000)
    weighted = fit_logistic(genuine, impostor, np.repeat([3.0, 1.0], 500))
    repeated = fit_logistic(np.concatenate([genuine, genuine[:500], genuine[:500]]), impostor)
    assert weighted == pytest.approx(repeated, rel=1e-2)


def test_logistic_of_separate_kinds_stays_finite() -> None:
    slope, intercept = fit_logistic([0.9, 0.95, 0.92], [0.1, 0.2, 0.15])
    assert 0 < slope < 1000
    assert math.isfinite(intercept)


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
    with pytest.raises(InputError, match="higher on average"):
        fit_logistic([0.1], [0.9])
    with pytest.raises(InputError, match="both kinds"):
        fit_logistic([], [0.9])
