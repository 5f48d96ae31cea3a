from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.gallery.thresholds import Calibration, check_threshold
from tests.gallery.calibrations import BY_HAND


def test_the_threshold_grows_with_the_logarithm_of_the_number_enrolled() -> None:
    assert BY_HAND.threshold() == 0.5
    assert BY_HAND.threshold(10) == pytest.approx(0.6)
    assert BY_HAND.threshold(100) == pytest.approx(0.7)
    assert BY_HAND.threshold(272) == pytest.approx(0.7 + 0.1 * math.log(2.72))


def test_the_probability_is_a_half_at_the_midpoint_which_moves_with_the_gallery() -> None:
    assert BY_HAND.probability(0.5) == pytest.approx(0.5)
    # A slope of 20 over 0.1: odds of e^2; in the larger gallery 40 over 0.1: e^4.
    assert BY_HAND.probability(0.6) == pytest.approx(math.e**2 / (1 + math.e**2))
    assert BY_HAND.probability(0.8, enrolled=100) == pytest.approx(math.e**4 / (1 + math.e**4))
    assert BY_HAND.probability(0.6, enrolled=10) == pytest.approx(0.5)
    beyond = 0.7 + 0.1 * math.log(2.72)
    assert BY_HAND.probability(beyond, enrolled=272) == pytest.approx(0.5)
    np.testing.assert_allclose(BY_HAND.probability([[-90.0, 90.0]]), [[0, 1]])


def test_json_and_back() -> None:
    assert Calibration.from_json(BY_HAND.to_json()) == BY_HAND


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", BY_HAND.to_json().replace(": 1,", ": 2,", 1), '{"x": NaN}'),
        "[" * 99_999,
        BY_HAND.to_json().replace(": 1,", f": {'[' * 500}{']' * 500},", 1),
        BY_HAND.to_json().replace("[0.5", "[1" + "0" * 400),
        BY_HAND.to_json().replace("[0.5", "[1" + "0" * 5000),
        BY_HAND.to_json().replace("[0.5", "[NaN"),
        BY_HAND.to_json().replace("[0.5", '["a"'),
        BY_HAND.to_json().replace("[0.5", "[[0.5]"),
        BY_HAND.to_json().replace("[0.5", "[0.5, null"),
    ],
)
def test_damaged_json_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Calibration.from_json(text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "change",
    [
        {"false_match_rate": 0.0},
        {"enrolled": (2, 100)},
        {"enrolled": ()},
        {"thresholds": (0.7, 0.5)},
        {"thresholds": (0.7,)},
        {"tail_scale": -0.1},
        {"slopes": (20.0, 0.0)},
        {"slopes": (20.0,)},
        {"slopes": (20.0, math.inf)},
        {"midpoints": (math.nan, 0.5)},
        {"search_interval": (0.1, 10**400)},
        {"people": 10**30},
        {"photos": 3.5},
        {"extrapolated": 1},
    ],
)
def test_an_impossible_calibration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        dataclasses.replace(BY_HAND, **change)


def test_an_empty_gallery_is_refused() -> None:
    with pytest.raises(InputError, match="at least one enrolled"):
        BY_HAND.threshold(0)
    with pytest.raises(InputError, match="at least one enrolled"):
        BY_HAND.probability(0.5, enrolled=0)


@pytest.mark.parametrize("given", [-1, 0.3, 1.0])
def test_a_threshold_within_the_range_is_taken(given: float) -> None:
    assert check_threshold(given) == given
    assert check_threshold(None) is None


@pytest.mark.parametrize("given", [1.01, -2, float("nan"), "0.5", [0.5], 1j])
def test_a_threshold_out_of_range_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"within -1\.\.1\. Received"):
        check_threshold(given)
