from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation import searches as module
from face_encode.evaluation.calibration import search_all, unit_length


def at_angles(*degrees: float) -> Any:
    """Unit vectors in the plane: the cosine of two is that of the angle between them."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


# ann 0 and 10 degrees, bo 30 and 60, cy 90.
VECTORS = at_angles(0, 10, 30, 60, 90)
NAMES = ["ann", "ann", "bo", "bo", "cy"]


def cosine(degrees: float) -> float:
    return float(np.cos(np.deg2rad(degrees)))


def invented_people(people: int, photos: int, seed: int = 0) -> tuple[Any, Any]:
    """Embeddings of people: a centre each, photos scattered around it."""
    random = np.random.default_rng(seed)
    centres = np.repeat(random.normal(size=(people, 32)), photos, axis=0)
    vectors = 0.5 + centres + 0.6 * random.normal(size=centres.shape)
    return vectors, np.repeat(np.arange(people), photos)


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
    unit = unit_length(vectors)
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
    monkeypatch.setattr(module, "_ALL_KEPT", 100)
    part = search_all(vectors, names)
    assert len(part.tail) < 0.1 * len(whole.tail)
    for enrolled in (1, 10, 200):
        assert part.threshold(enrolled, 0.01) == whole.threshold(enrolled, 0.01)


def test_more_photos_than_the_most_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PHOTOS", 50)
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
