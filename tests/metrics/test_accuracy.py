from __future__ import annotations

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation.metrics import accuracy_at, fold_accuracy, verification_accuracy
from tests.metrics.invented_pairs import SAME, SCORES, random_pairs


def test_the_best_threshold_of_ten_pairs_makes_one_error() -> None:
    best = verification_accuracy(SCORES, SAME)
    assert best.accuracy == 0.9
    assert best.threshold == pytest.approx((0.5 + 0.4) / 2)


def test_of_equally_good_thresholds_the_highest_is_taken() -> None:
    best = verification_accuracy([0.9, 0.5, 0.6, 0.1], [1, 1, 0, 0])
    assert best.accuracy == 0.75
    assert best.threshold == pytest.approx(0.75)


def test_equal_scores_cannot_be_parted() -> None:
    assert verification_accuracy([0.5, 0.5, 0.5, 0.5], [1, 1, 1, 0]).accuracy == 0.75
    assert verification_accuracy([0.5, 0.5, 0.5, 0.5], [1, 0, 0, 0]).accuracy == 0.75


def test_the_threshold_reproduces_its_accuracy_between_neighbouring_floats() -> None:
    low = np.float64(0.8)
    high = np.nextafter(low, 1)
    best = verification_accuracy([high, low], [1, 0])
    assert best.accuracy == 1
    assert low < best.threshold <= high


@pytest.mark.parametrize("missing", [np.nan, -np.inf])
def test_a_face_not_found_is_an_error_on_both_kinds_of_pair(missing: float) -> None:
    scores = [0.9, 0.8, missing, 0.2, 0.1, missing]
    same = [1, 1, 1, 0, 0, 0]
    assert verification_accuracy(scores, same).accuracy == pytest.approx(4 / 6)
    assert accuracy_at(scores, same, 0.5) == pytest.approx(4 / 6)
    assert accuracy_at(scores, same, -np.inf) == pytest.approx(2 / 6)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("not_found", [0, 25])
def test_best_accuracy_equals_trying_every_threshold(ties: bool, not_found: int) -> None:
    scores, same = random_pairs(4, ties, not_found)
    tried = [accuracy_at(scores, same, t) for t in [*scores[~np.isnan(scores)], 99.0]]
    best = verification_accuracy(scores, same)
    assert best.accuracy == pytest.approx(max(tried), abs=1e-12)
    assert accuracy_at(scores, same, best.threshold) == pytest.approx(best.accuracy, abs=1e-12)


def test_each_fold_is_judged_by_the_threshold_of_the_others() -> None:
    # Alone, fold 1 would choose a threshold within 0.2..0.4 and make no error.
    scores = [0.9, 0.5, 0.4, 0.2]
    same = [1, 0, 1, 0]
    result = fold_accuracy(scores, same, [0, 0, 1, 1])
    np.testing.assert_allclose(result.thresholds, [0.3, 0.7])
    np.testing.assert_allclose(result.per_fold, [0.5, 0.5])
    assert result.accuracy == 0.5
    assert result.standard_deviation == 0


def test_fold_deviation_divides_by_one_less_than_the_folds() -> None:
    scores = [0.9, 0.1, 0.9, 0.1, 0.1, 0.9]
    same = [1, 0, 1, 0, 1, 0]
    result = fold_accuracy(scores, same, [0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(result.per_fold, [0.5, 0.5, 0.0])
    assert result.standard_deviation == pytest.approx(
        np.sqrt((2 * (1 / 6) ** 2 + (1 / 3) ** 2) / 2)
    )


def test_pairs_without_a_score_and_bad_folds_are_refused() -> None:
    with pytest.raises(InputError, match="at least one pair with a score"):
        verification_accuracy([np.nan, np.nan], [1, 0])
    with pytest.raises(InputError, match="at least 2 folds"):
        fold_accuracy(SCORES, SAME, np.zeros(10))
    with pytest.raises(InputError, match="every pair has a fold"):
        fold_accuracy(SCORES, SAME, np.zeros(9))
