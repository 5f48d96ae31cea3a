from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.evaluation.metrics import fold_accuracy, verification_accuracy
from face_encode.evaluation.pairs import PairList, verification_numbers


def scored_pairs(count: int, folds: int | None, seed: int = 0) -> tuple[Any, PairList]:
    """Scores that overlap a little, and pairs that they may be of."""
    random = np.random.default_rng(seed)
    same = np.arange(count) % 2 == 0
    scores = random.normal(np.where(same, 0.95, 0.8), 0.04)
    photos = tuple(Path(f"{number}.jpg") for number in range(count))
    fold_of = None if folds is None else np.arange(count) * folds // count
    people = tuple(f"person {number % 300}" for number in range(count))
    return scores, PairList(photos, photos, same, fold_of, people)


def test_without_folds_the_threshold_is_the_best_single_one() -> None:
    scores, pairs = scored_pairs(2200, None)
    numbers = verification_numbers(scores, pairs, replicates=50)
    best = verification_accuracy(scores, pairs.same)
    assert (numbers.accuracy, numbers.threshold) == (best.accuracy, best.threshold)
    # A binomial over 220 pairs has this deviation.
    expected = np.sqrt(best.accuracy * (1 - best.accuracy) / 220)
    assert numbers.accuracy_std == pytest.approx(expected, rel=0.6)


def test_with_folds_the_threshold_is_that_of_the_other_folds() -> None:
    scores, pairs = scored_pairs(2000, 10)
    numbers = verification_numbers(scores, pairs, replicates=50)
    assert pairs.folds is not None
    folds = fold_accuracy(scores, pairs.same, pairs.folds)
    assert numbers.accuracy == folds.accuracy
    assert numbers.accuracy_std == folds.standard_deviation
    assert numbers.threshold == pytest.approx(folds.thresholds.mean())
    assert numbers.accuracy in numbers.intervals["accuracy"]


def test_rates_are_given_where_there_are_different_pairs_enough() -> None:
    numbers = verification_numbers(*scored_pairs(2000, None), replicates=20)
    assert [rate for rate, tar in numbers.tar_at_far.items() if tar is not None] == [0.1, 0.01]
    assert set(numbers.intervals) == {
        "accuracy",
        "auc",
        "eer",
        "tar_at_far_0.1",
        "tar_at_far_0.01",
    }


def test_intervals_hold_the_numbers_and_a_face_not_found_lowers_them() -> None:
    scores, pairs = scored_pairs(2000, None)
    whole = verification_numbers(scores, pairs, replicates=200)
    for name in ("auc", "eer"):
        assert getattr(whole, name) in whole.intervals[name]
    scores[:40] = np.nan
    holed = verification_numbers(scores, pairs, replicates=20)
    # Forty pairs of 2,000 more are wrong, but for those that were wrong before.
    assert whole.accuracy - 0.021 < holed.accuracy < whole.accuracy - 0.017
    assert holed.auc < whole.auc
    assert holed.eer > whole.eer


def test_keys_of_the_json_are_text() -> None:
    numbers = verification_numbers(*scored_pairs(400, None), replicates=20)
    text = json.dumps({str(rate): tar for rate, tar in numbers.tar_at_far.items()})
    assert json.loads(text)["0.0001"] is None
    assert set(json.loads(text)) == {"0.1", "0.01", "0.001", "0.0001"}
