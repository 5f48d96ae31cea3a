from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation.metrics import (
    RocCurve,
    accuracy_at,
    checked_pairs,
    equal_error_rate,
    error_versus_discard,
    fold_accuracy,
    roc_auc,
    roc_curve,
    smallest_meaningful_far,
    tar_at_far,
    threshold_at_far,
    verification_accuracy,
)
from tests.evaluation.invented import SAME, SCORES, random_pairs


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


def test_in_the_curve_a_face_not_found_is_a_miss_and_no_false_match() -> None:
    curve = roc_curve([0.9, 0.8, np.nan, 0.85, 0.1, np.nan], [1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(curve.true_match_rate, [0, 1 / 3, 1 / 3, 2 / 3, 2 / 3])
    np.testing.assert_allclose(curve.false_match_rate, [0, 0, 1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(curve.thresholds, [np.inf, 0.9, 0.85, 0.8, 0.1])


def test_rates_of_ten_pairs_by_hand() -> None:
    # Of the 25 (same, different) combinations two are lost: 0.6 and 0.5 against 0.7.
    assert roc_auc(SCORES, SAME) == pytest.approx(23 / 25)
    assert tar_at_far(SCORES, SAME, 0) == pytest.approx(0.6)
    assert tar_at_far(SCORES, SAME, 0.2) == 1
    assert tar_at_far(SCORES, SAME, 0.39) == 1
    assert 0.7 < threshold_at_far(SCORES, SAME, 0) <= 0.75
    assert 0.4 < threshold_at_far(SCORES, SAME, 0.2) <= 0.5
    # Misses fall from 0.4 to 0 at a false match rate of 0.2: they meet at 0.2.
    assert equal_error_rate(SCORES, SAME) == pytest.approx(0.2)


def test_the_threshold_keeps_the_rate_although_the_division_is_not_exact() -> None:
    scores = np.arange(1300) / 1300
    same = np.zeros(1300, bool)
    same[:1000] = True
    # 0.01 of 300 different pairs: exactly three may match.
    threshold = threshold_at_far(scores, same, 0.01)
    assert (scores[~same] >= threshold).sum() == 3


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("not_found", [0, 25])
def test_curve_equals_scikit_learn(seed: int, ties: bool, not_found: int) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    scores, same = random_pairs(seed, ties, not_found)
    filled = np.where(np.isnan(scores), -1e6, scores)
    theirs = RocCurve(*sklearn_metrics.roc_curve(same, filled, drop_intermediate=False))
    ours = roc_curve(scores, same)
    size = len(ours.thresholds)
    np.testing.assert_allclose(ours.false_match_rate, theirs.false_match_rate[:size], atol=1e-12)
    np.testing.assert_allclose(ours.true_match_rate, theirs.true_match_rate[:size], atol=1e-12)
    np.testing.assert_allclose(ours.thresholds, theirs.thresholds[:size])
    assert len(theirs.thresholds) - size == (not_found > 0)
    assert roc_auc(scores, same) == pytest.approx(
        sklearn_metrics.roc_auc_score(same, filled), abs=1e-6
    )
    for far in (0.1, 0.03, 0.01):
        within = theirs.false_match_rate <= far
        assert tar_at_far(scores, same, far) == pytest.approx(theirs.true_match_rate[within][-1])
        assert (filled[~same] >= threshold_at_far(scores, same, far)).mean() == pytest.approx(
            theirs.false_match_rate[within][-1]
        )


@pytest.mark.parametrize("ties", [False, True])
def test_equal_error_rate_equals_the_root_on_scikit_learns_curve(ties: bool) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    scores, same = random_pairs(3, ties)
    fpr, tpr, _ = sklearn_metrics.roc_curve(same, scores)
    root = optimize.brentq(lambda x: 1 - x - np.interp(x, fpr, tpr), 0, 1)
    assert equal_error_rate(scores, same) == pytest.approx(root, abs=1e-6)


def test_smallest_meaningful_far_is_ten_false_matches() -> None:
    assert smallest_meaningful_far(10_000) == pytest.approx(1e-3)
    assert smallest_meaningful_far(3) == 1


def test_bad_rates_and_curves_are_refused() -> None:
    with pytest.raises(InputError, match=r"0\.\.1"):
        tar_at_far(SCORES, SAME, 1.5)
    with pytest.raises(InputError, match=r"0\.\.1"):
        threshold_at_far(SCORES, SAME, float("nan"))
    with pytest.raises(InputError, match="at least one pair with a score"):
        threshold_at_far([np.nan, np.nan], [1, 0], 0.1)
    with pytest.raises(InputError, match="at least one pair"):
        smallest_meaningful_far(0)
    with pytest.raises(InputError, match="three arrays"):
        RocCurve(np.zeros(2), np.zeros(2), np.zeros(3))


def test_pairs_become_scores_and_truths() -> None:
    scores, same = checked_pairs([0.5, np.nan, -np.inf, 1], [1, 0, 0, 1])
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.5, -np.inf, -np.inf, 1.0]
    assert same.dtype == np.bool_
    assert same.tolist() == [True, False, False, True]


def test_one_kind_of_pair_is_enough_where_told() -> None:
    assert checked_pairs([0.5], [1], both_kinds=False)[1].tolist() == [True]


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([], [], "N at least 1"),
        ([[0.1]], [[1]], "one shape"),
        ([0.1, 0.2], [1], "one shape"),
        ([0.1, 0.2], [1, 2], "0 and 1"),
        ([0.1, np.inf], [1, 0], "finite"),
        ([0.1, 0.2], [1, 1], "both same and different"),
        (["a", "b"], [1, 0], "numbers"),
    ],
)
def test_bad_pairs_are_refused(scores: Any, same: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked_pairs(scores, same)


def test_the_arrays_given_are_left_as_they_were() -> None:
    scores = np.array([0.9, np.nan, 0.1])
    checked_pairs(scores, [1, 1, 0])
    assert np.isnan(scores[1])


def test_error_versus_discard_is_the_miss_rate_of_what_is_left() -> None:
    # Of the five same pairs the two of the lowest quality, one without a face, are missed.
    scores = [0.9, 0.2, np.nan, 0.3, 0.95, 0.99]
    same = [True, True, True, True, True, False]
    quality = [0.8, 0.3, np.nan, 0.5, 0.9, 0.1]
    shares = [0, 0.2, 0.4, 0.6, 0.79]
    misses = error_versus_discard(scores, same, quality, 0.5, shares)
    assert misses.tolist() == pytest.approx([3 / 5, 2 / 4, 1 / 3, 0, 0])


def test_error_versus_discard_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(InputError, match="each pair has one quality"):
        error_versus_discard([0.5, 0.6], [True, False], [0.5], 0.5)
    with pytest.raises(InputError, match="0 same pairs"):
        error_versus_discard([0.5], [False], [0.5], 0.5)
    with pytest.raises(InputError, match=r"within 0\.\.1"):
        error_versus_discard([0.5], [True], [0.5], 0.5, [1.0])
