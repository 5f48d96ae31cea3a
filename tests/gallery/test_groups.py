from __future__ import annotations

import numpy as np
import pytest

from face_encode.gallery.search import Groups


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 127, 128, 640, 700, 1_281])
def test_each_row_is_in_one_group_and_the_highest_of_each_is_noted(rows: int) -> None:
    groups = Groups(rows, height=256)
    every = np.concatenate([groups.rows_of(np.array([g])) for g in range(groups.count)])
    assert sorted(every.tolist()) == list(range(rows))
    np.testing.assert_array_equal(groups.rows_of(np.arange(groups.count)), every)
    values = np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)
    highest = np.full((groups.count, 3), np.nan, np.float32)
    for start in range(0, rows, 256):
        block = slice(start, min(start + 256, rows))
        groups.note_highest(values[block], block, highest)
    for group in range(groups.count):
        expected = values[groups.rows_of(np.array([group]))].max(axis=0)
        np.testing.assert_array_equal(highest[group], expected)
