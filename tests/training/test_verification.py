"""Pairs and the numbers drawn from them."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from face_encode.errors import DatasetError
from face_encode.training.verification import PairSet, calibrate, measure


def test_pairs_are_of_the_kind_they_say_and_half_and_half_at_the_start() -> None:
    people = np.repeat(np.arange(30), 3)
    pairs = PairSet.among(people)
    np.testing.assert_array_equal(people[pairs.first] == people[pairs.second], pairs.same)
    assert pairs.balanced == 2 * 90
    assert pairs.same[:90].all()
    assert not pairs.same[90:].any()
    assert len(pairs.same) == 90 + (90 * 89 // 2 - 90)
    keys = {tuple(sorted(pair)) for pair in zip(pairs.first, pairs.second, strict=True)}
    assert len(keys) == len(pairs.same)


def test_a_person_with_many_photos_does_not_rule() -> None:
    people = np.array([0] * 50 + [1, 1, 2, 2])
    pairs = PairSet.among(people)
    of_first = people[pairs.first[pairs.same]] == 0
    assert of_first.sum() <= 20


def test_a_person_with_thousands_of_photos_takes_little_memory() -> None:
    people = np.array([0] * 20_000 + [1, 1, 2, 2])
    tracemalloc.start()
    try:
        pairs = PairSet.among(people)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(people[pairs.first] == people[pairs.second], pairs.same)


def test_data_without_both_kinds_of_pairs_is_refused() -> None:
    for people in ([0, 1, 2], [0, 0, 0]):
        with pytest.raises(DatasetError, match="Received"):
            PairSet.among(np.array(people))


def test_measures_of_a_perfect_and_of_a_blind_encoder() -> None:
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(100), 4)
    pairs = PairSet.among(people)
    own = random.normal(size=(100, 64)).astype(np.float32)
    perfect = measure(own[people], pairs, far=1e-3, threshold=0.9)
    assert (perfect.accuracy, perfect.auc, perfect.tar_at_far) == (1, 1, 1)
    assert perfect.accuracy_at_threshold == 1
    blind = measure(random.normal(size=(400, 64)).astype(np.float32), pairs, threshold=1.0)
    assert blind.accuracy < 0.56
    assert abs(blind.auc - 0.5) < 0.05
    assert blind.accuracy_at_threshold == 0.5
    assert perfect.standard_error == 0
    assert blind.standard_error == pytest.approx(0.5 / np.sqrt(1200), rel=0.05)


def test_the_threshold_keeps_the_rate_that_it_was_calibrated_for() -> None:
    random = np.random.default_rng(1)
    people = np.repeat(np.arange(200), 3)
    embeddings = random.normal(size=(600, 16)).astype(np.float32)
    pairs = PairSet.among(people)
    threshold, rate = calibrate(embeddings, pairs, far=0.01)
    assert rate == 0.01
    strangers = pairs.similarities(embeddings)[~pairs.same]
    assert np.mean(strangers >= threshold) == pytest.approx(0.01, rel=0.02)


def test_few_pairs_calibrate_only_what_they_can_speak_about() -> None:
    people = np.repeat(np.arange(10), 2)
    embeddings = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    _, rate = calibrate(embeddings, PairSet.among(people), far=1e-6)
    # 20 photos have 180 pairs of two people, and ten of those are the fewest to count.
    assert rate == pytest.approx(10 / 180)
