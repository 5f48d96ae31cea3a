from __future__ import annotations

import numpy as np
import pytest

from face_encode.detectors.mmod.convolution import Geometry, blocks, make_canvas, padded


def test_channels_are_kept_in_sixteens() -> None:
    assert [padded(channels) for channels in (1, 16, 17, 45)] == [16, 16, 32, 48]


@pytest.mark.parametrize(
    ("geometry", "length", "expected"),
    [(Geometry(5, 2, 0), 5, 1), (Geometry(5, 2, 0), 8, 2), (Geometry(5, 1, 2), 8, 8)],
)
def test_outputs_along_a_side(geometry: Geometry, length: int, expected: int) -> None:
    assert geometry.output_length(length) == expected


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (50, 7), (40, 90)])
@pytest.mark.parametrize("floats", [147, 3_000, 1_000_000])
def test_blocks_take_every_window_once_and_fit_into_the_cache(
    shape: tuple[int, int], floats: int
) -> None:
    field = np.zeros(shape, np.int64)
    for block in blocks(*shape, floats):
        field[block] += 1
        assert field[block].size == 1 or field[block].size * floats <= 100_000
    assert (field == 1).all()


@pytest.mark.parametrize("widest", [1, 27, 500])
def test_blocks_are_no_wider_than_allowed(widest: int) -> None:
    field = np.zeros((9, 130), np.int64)
    for block in blocks(9, 130, 147, widest):
        field[block] += 1
        assert field[block].shape[1] <= widest
    assert (field == 1).all()


def test_a_canvas_has_room_for_the_picture_and_for_whole_tiles() -> None:
    canvas = make_canvas(Geometry(5, 1, 2), 8, 4, (9, 4), 16)
    assert canvas.shape == (16, 8, 16)
    assert not canvas.any()
