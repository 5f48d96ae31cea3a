from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation import calibration as module
from face_encode.evaluation.calibration import calibrate, fit_logistic, search_all
from face_encode.evaluation.faces import checked_units
from face_encode.gallery.thresholds import Calibration
from tests.evaluation.invented import at_angles


def invented_people(people: int, photos: int, seed: int = 0, noise: float = 0.6) -> tuple[Any, Any]:
    """Embeddings of people: a centre each, photos scattered around it."""
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
    others = checked_units(vectors[400:])
    apart = names[400:, None] != names[400:]
    rate = ((others @ others.T)[apart] >= learnt.threshold(1)).mean()
    assert 0.008 < rate < 0.0125


@pytest.mark.parametrize("enrolled", [30, 300])
def test_searches_raise_false_alarms_at_the_rate_asked_for(enrolled: int) -> None:
    vectors, names = invented_people(2400, 1, seed=2)
    vectors = np.concatenate([vectors, invented_people(200, 2, seed=3)[0]])
    names = np.concatenate([names, np.repeat(np.arange(5000, 5200), 2)])
    learnt = calibrate(vectors[2000:], names[2000:], false_match_rate=0.05)
    unit = checked_units(vectors)
    alarms = (unit[1000:2000] @ unit[:enrolled].T).max(axis=1) >= learnt.threshold(enrolled)
    assert 0.02 < alarms.mean() < 0.1


def test_a_rate_too_small_for_the_photos_is_extrapolated_to_the_safe_side() -> None:
    vectors, names = invented_people(100, 2, seed=4)
    ordinary = calibrate(vectors, names, false_match_rate=0.05)
    small = calibrate(vectors, names, false_match_rate=1e-5)
    assert small.extrapolated
    assert not ordinary.extrapolated
    assert small.threshold(100) > ordinary.threshold(100)
    strangers = checked_units(invented_people(3000, 1, seed=5)[0])
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
    unit = checked_units(vectors[800:])
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


# ann 0 and 10 degrees, bo 30 and 60, cy 90.
VECTORS = at_angles(0, 10, 30, 60, 90)
NAMES = ["ann", "ann", "bo", "bo", "cy"]


def cosine(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def test_five_photos_by_hand() -> None:
    found = search_all(VECTORS, NAMES)
    assert (found.photos, found.people, found.comparisons) == (5, 3, 8)
    np.testing.assert_allclose(np.sort(found.genuine), [cosine(30), cosine(10)], atol=1e-6)
    np.testing.assert_allclose(found.genuine_weights, [1, 1])
    np.testing.assert_allclose(found.best, [cosine(a) for a in (30, 20, 20, 30, 30)], atol=1e-6)
    np.testing.assert_allclose(
        found.own_best, [cosine(10), cosine(10), cosine(30), cosine(30), -np.inf], atol=1e-6
    )
    np.testing.assert_array_equal(found.strangers, [3, 3, 3, 3, 4])
    np.testing.assert_allclose(found.weights, [1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 3])
    # 1 / (4 / 36 + 1 / 9)
    assert found.trials == round(4.5)
    assert len(found.tail) == 16
    np.testing.assert_allclose(found.tail[:2], cosine(20), atol=1e-6)
    assert sorted(found.tail_probes[:2]) == [1, 2]
    assert found.impostor_sample.shape == (8,)


def test_false_alarm_rate_of_one_photo_is_the_false_match_rate() -> None:
    found = search_all(VECTORS, NAMES)
    # At 35 degrees: ann's first photo meets 1 of 3, her second 1 of 3, bo's first 2 of 3, bo's
    # second 1 of 3 and cy 1 of 4.
    # Each person counts a third, however many photos there are.
    expected = ((1 / 3 + 1 / 3) / 2 + (2 / 3 + 1 / 3) / 2 + 1 / 4) / 3
    assert found.false_alarm_rate(cosine(35), 1) == pytest.approx(expected)


@pytest.mark.parametrize("enrolled", [1, 2, 3])
def test_false_alarm_rate_equals_trying_every_gallery(enrolled: int) -> None:
    vectors, names = invented_people(4, 2, seed=3)
    found = search_all(vectors, names)
    unit = checked_units(vectors)
    threshold = float(np.median(found.tail))
    rates = []
    for probe in range(8):
        others = np.flatnonzero(names != names[probe])
        alarms = [
            (unit[list(gallery)] @ unit[probe] >= threshold).any()
            for gallery in itertools.combinations(others, enrolled)
        ]
        rates.append(np.mean(alarms))
    assert found.false_alarm_rate(threshold, enrolled) == pytest.approx(np.mean(rates))


@pytest.mark.parametrize("enrolled", [1, 10, 97])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_the_threshold_is_the_lowest_that_keeps_the_rate(enrolled: int, rate: float) -> None:
    found = search_all(*invented_people(33, 3))
    threshold = found.threshold(min(enrolled, int(found.strangers.min())), rate)
    enrolled = min(enrolled, int(found.strangers.min()))
    assert found.false_alarm_rate(threshold, enrolled) <= rate
    assert found.false_alarm_rate(float(np.nextafter(threshold, -1)), enrolled) > rate


def test_of_many_photos_only_the_tail_is_kept_and_says_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, names = invented_people(60, 5)
    whole = search_all(vectors, names)
    monkeypatch.setattr(module, "_MAX_WITH_WHOLE_TAIL", 100)
    part = search_all(vectors, names)
    assert len(part.tail) < 0.1 * len(whole.tail)
    for enrolled in (1, 10, 200):
        assert part.threshold(enrolled, 0.01) == whole.threshold(enrolled, 0.01)


def test_more_photos_than_the_most_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PHOTOS", 50)
    assert search_all(*invented_people(60, 5)).photos == 50


def test_bootstrapped_thresholds_lie_around_the_threshold() -> None:
    found = search_all(*invented_people(150, 2))
    verification = found.verification_thresholds(0.01, 200, 0)
    assert verification.min() < found.threshold(1, 0.01) < verification.max()
    search = found.search_thresholds(0.1, 200, 0)
    assert search.min() < np.quantile(found.best, 0.9) < search.max()


def test_the_tail_scale_is_the_mean_excess() -> None:
    found = search_all(*invented_people(100, 2))
    decile, *above = np.sort(found.best)[-21:]
    assert found.tail_scale() == pytest.approx(np.mean(above) - decile)


def test_a_person_with_many_photos_does_not_set_the_threshold_alone() -> None:
    vectors, names = invented_people(200, 2)
    even = search_all(vectors, names)
    # One photo two hundred times over, beside a stranger's.
    double = vectors[-1] + 0.01
    crowd = search_all(
        np.concatenate([vectors, np.repeat(double[None], 200, axis=0)]),
        np.concatenate([names, np.full(200, 500)]),
    )
    assert crowd.threshold(1, 0.02) == pytest.approx(even.threshold(1, 0.02), abs=0.03)


@pytest.mark.parametrize(
    ("vectors", "names"),
    [
        (VECTORS, NAMES[:4]),
        (VECTORS, ["ann"] * 5),
        (np.zeros((2, 2)), ["ann", "bo"]),
        (np.full((2, 2), np.nan), ["ann", "bo"]),
        (np.ones(2), ["ann", "bo"]),
    ],
)
def test_nonsense_is_refused(vectors: Any, names: list[str]) -> None:
    with pytest.raises(InputError):
        search_all(vectors, names)
