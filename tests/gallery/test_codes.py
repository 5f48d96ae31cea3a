from __future__ import annotations

import numpy as np

from face_encode.gallery.quantization import Coded, Quantizer, unit_length
from tests.gallery.common import like_faces


def test_reach_and_blur_are_the_farthest_of_all() -> None:
    rows = like_faces(70_000, size=8)
    coded = Coded.of(rows).blurred_from(rows)
    stand_for = coded.quantizer.dequantize(coded.codes).astype(np.float64)
    reach = np.linalg.norm(stand_for - coded.quantizer.centre, axis=1).max()
    np.testing.assert_allclose(coded.reach, reach, rtol=1e-5)
    blur = np.linalg.norm(stand_for - unit_length(rows), axis=1).max()
    assert blur <= coded.blur <= blur + 2e-5


def test_others_join_by_the_same_quantizer_and_rows_can_be_taken() -> None:
    first = Coded.of(like_faces(30))
    second = Coded.of(like_faces(20, seed=1), first.quantizer)
    joined = first.joined(second)
    np.testing.assert_array_equal(joined.codes[30:], second.codes)
    assert joined.reach == max(first.reach, second.reach)
    taken = joined.of_rows(np.arange(50) >= 30)
    np.testing.assert_array_equal(taken.codes, second.codes)
    np.testing.assert_array_equal(taken.steps, second.steps)


def test_around_zero_the_reach_is_one() -> None:
    coded = Coded.of(np.array([(3, 4), (0, -2)], np.float32), Quantizer(np.zeros(2, np.float32)))
    np.testing.assert_allclose(coded.reach, 1, rtol=1e-6)
    assert coded.blur == 0
