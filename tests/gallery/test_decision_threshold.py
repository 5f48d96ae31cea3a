from __future__ import annotations

from typing import Any

import pytest

from face_encode.errors import InputError
from face_encode.gallery.decision_threshold import DecisionThreshold
from face_encode.gallery.memory import MemoryGallery
from tests.calibrations import BY_HAND
from tests.gallery.common import SIXTEEN, like_faces


@pytest.fixture
def ten() -> MemoryGallery:
    """A gallery of ten photos of two people."""
    gallery = MemoryGallery(SIXTEEN)
    gallery.add(["Ada", "Bo"] * 5, like_faces(10))
    return gallery


def test_without_any_other_it_is_the_encoders(ten: MemoryGallery) -> None:
    threshold = DecisionThreshold()
    assert threshold.of_search(ten, 0.9) == threshold.of_comparison(ten, 0.9) == 0.9
    assert threshold.source(ten) == "encoder"


def test_a_calibrated_gallery_goes_before_the_encoder(ten: MemoryGallery) -> None:
    ten.calibration = BY_HAND
    threshold = DecisionThreshold()
    # By the logarithm of the number enrolled; two photos alone are compared as with one.
    assert threshold.of_search(ten, 0.9) == pytest.approx(0.6)
    assert threshold.of_comparison(ten, 0.9) == 0.5
    assert threshold.source(ten) == "calibration"
    empty = MemoryGallery(SIXTEEN)
    empty.calibration = BY_HAND
    assert threshold.of_search(empty, 0.9) == 0.5


@pytest.mark.parametrize("given", [-1, 0.3, 1.0])
def test_the_one_given_goes_before_all(given: float, ten: MemoryGallery) -> None:
    ten.calibration = BY_HAND
    threshold = DecisionThreshold(given)
    assert threshold.of_search(ten, 0.9) == threshold.of_comparison(ten, 0.9) == given
    assert threshold.source(ten) == "set"


@pytest.mark.parametrize("given", [1.01, -2, float("nan"), "0.5", [0.5], 1j])
def test_one_out_of_range_is_refused(given: Any) -> None:
    with pytest.raises(InputError, match=r"within -1\.\.1\. Received"):
        DecisionThreshold(given)
