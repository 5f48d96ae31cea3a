from __future__ import annotations

import pytest

from face_encode.detectors.mmod.convolution import Geometry
from face_encode.detectors.mmod.direct import DirectConvolution
from tests.detectors.mmod.plain import check


@pytest.mark.parametrize("size", [(5, 5), (8, 30), (41, 14), (60, 301)])
def test_gives_what_its_definition_gives(size: tuple[int, int]) -> None:
    check(DirectConvolution, 3, 16, Geometry(5, 2, 0), size)


def test_any_stride_padding_and_number_of_outputs() -> None:
    check(DirectConvolution, 2, 5, Geometry(3, 1, 1), (9, 10))
