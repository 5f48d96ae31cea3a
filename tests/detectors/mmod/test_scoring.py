from __future__ import annotations

import numpy as np
import pytest

from face_encode.detectors.mmod.convolution import Geometry
from face_encode.detectors.mmod.scoring import Scoring
from tests.detectors.mmod.plain import convolved


@pytest.mark.parametrize("size", [(1, 1), (2, 30), (31, 9)])
def test_gives_what_its_definition_gives(size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    filters, bias = random.normal(size=(1, 45, 9, 9)), random.normal(size=1)
    picture = random.normal(size=(*size, 45))
    geometry = Geometry(9, 1, 4)
    step = Scoring.of(filters.astype(np.float32), bias.astype(np.float32), geometry)
    canvas = step.canvas(*size)
    canvas[: size[0], : size[1], :45] = picture
    expected = convolved(picture, filters, bias, geometry)[:, :, 0]
    np.testing.assert_allclose(step.apply(canvas, *size), expected, atol=1e-3)
