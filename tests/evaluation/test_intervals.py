from __future__ import annotations

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation.intervals import (
    Interval,
    bootstrap,
    percentile_interval,
    wilson_interval,
)


def test_wilson_intervals_from_the_literature() -> None:
    # Brown, Cai & DasGupta, and the standard textbook case of 0 of 10.
    zero = wilson_interval(0, 10)
    assert zero.lower == 0
    assert zero.upper == pytest.approx(0.2775, abs=1e-4)
    half = wilson_interval(5, 10)
    assert half.lower == pytest.approx(0.2366, abs=1e-4)
    assert half.upper == pytest.approx(0.7634, abs=1e-4)
    every = wilson_interval(10, 10)
    assert every.upper == 1
    assert every.lower == pytest.approx(1 - zero.upper)


def test_wilson_interval_covers_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    events = random.binomial(200, 0.03, 2000)
    covered = np.mean([0.03 in wilson_interval(int(count), 200) for count in events])
    assert 0.93 < covered < 0.985


def test_bootstrap_of_a_mean_has_the_known_standard_error() -> None:
    values = np.random.default_rng(1).normal(size=400)
    means = bootstrap(lambda drawn: values[drawn].mean(), np.arange(400), replicates=2000)
    assert means.shape == (2000, 1)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.1)


def test_bootstrap_draws_whole_people() -> None:
    # Twenty people with ten identical values each: the error is that of 20 values, not 200.
    of_person = np.random.default_rng(2).normal(size=20)
    people = np.repeat([f"p{number}" for number in range(20)], 10)
    values = np.repeat(of_person, 10)
    means = bootstrap(lambda drawn: values[drawn].mean(), people, replicates=2000)
    assert means.std() == pytest.approx(of_person.std() / np.sqrt(20), rel=0.1)


def test_bootstrap_passes_over_samples_without_an_answer_but_not_over_most() -> None:
    def refuse(share: float) -> np.ndarray:
        random = np.random.default_rng(3)

        def statistic(drawn: np.ndarray) -> float:
            if random.random() < share:
                raise InputError("only one kind")
            return 1.0

        return bootstrap(statistic, np.arange(5), replicates=100)

    assert 50 < len(refuse(0.2)) < 100
    with pytest.raises(InputError, match="too few people"):
        refuse(0.9)


def test_percentile_interval_of_a_hundred_and_one_numbers() -> None:
    interval = percentile_interval(np.arange(101.0), 0.9)
    assert interval.lower == pytest.approx(5)
    assert interval.upper == pytest.approx(95)
    assert 6 in interval
    assert 96 not in interval


def test_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match=r"0\.\.trials"):
        wilson_interval(3, 2)
    with pytest.raises(InputError, match="confidence"):
        wilson_interval(1, 2, confidence=95)
    with pytest.raises(InputError, match="lower end"):
        Interval(1, 0)
    with pytest.raises(InputError, match="finite"):
        percentile_interval([np.nan])
    with pytest.raises(InputError, match="clusters"):
        bootstrap(lambda drawn: 0.0, [])
