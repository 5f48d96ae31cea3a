from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation.metrics import checked_pairs


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
