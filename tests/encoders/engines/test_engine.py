from __future__ import annotations

import numpy as np
import pytest

from face_encode.encoders.engines.engine import IMAGES_A_PIECE, pieces_of


@pytest.mark.parametrize("count", [1, 2, 3, 4, 23, 24, 25, 50])
def test_the_pieces_of_a_batch_are_in_order_and_small(count: int) -> None:
    images = np.zeros((count, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    pieces = pieces_of(images, 3)
    assert np.array_equal(np.concatenate(pieces), images)
    assert max(map(len, pieces)) <= IMAGES_A_PIECE
    assert len(pieces) >= min(3, count) - 1
