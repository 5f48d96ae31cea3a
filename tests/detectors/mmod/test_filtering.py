from __future__ import annotations

import numpy as np
import pytest

from face_encode.detectors.mmod.convolution import Geometry
from face_encode.detectors.mmod.filtering import FilteringConvolution, filtering_matrices
from tests.detectors.mmod.plain import check


@pytest.mark.parametrize(("outputs", "taps"), [(1, 2), (2, 3), (4, 3), (4, 5)])
def test_the_matrices_give_what_the_filter_gives(outputs: int, taps: int) -> None:
    random = np.random.default_rng(1)
    values, taken = random.normal(size=outputs + taps - 1), random.normal(size=taps)
    before, filtering, after = filtering_matrices(outputs, taps)
    assert len(before) == len(values)
    received = after @ ((filtering @ taken) * (before @ values))
    np.testing.assert_allclose(received, np.correlate(values, taken, "valid"), atol=1e-12)


@pytest.mark.parametrize("size", [(5, 5), (8, 30), (41, 14), (60, 301)])
@pytest.mark.parametrize("channels", [16, 32])
def test_every_other_pixel(channels: int, size: tuple[int, int]) -> None:
    check(FilteringConvolution, channels, 32, Geometry(5, 2, 0), size)


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (5, 9), (33, 70)])
@pytest.mark.parametrize("channels", [32, 45])
def test_every_pixel_with_zeros_around(channels: int, size: tuple[int, int]) -> None:
    check(FilteringConvolution, channels, 45, Geometry(5, 1, 2), size)
