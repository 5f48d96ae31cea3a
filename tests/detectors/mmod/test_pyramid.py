from __future__ import annotations

import numpy as np
import pytest

from face_encode.detectors.mmod.pyramid import Tile, draw_pyramid, lay_out, shrunk


def test_the_layout_by_hand() -> None:
    # 20, 16, 13, 10, 8, 6 and 5 rows, of which the last two have no place under the first one.
    layout = lay_out(40, 20)
    assert layout.tiles[:3] == (Tile(11, 11, 40, 20), Tile(11, 41, 33, 16), Tile(11, 67, 27, 13))
    assert layout.width == 62
    for tile in layout.tiles:
        assert tile.left + tile.width <= layout.width - 11
        assert tile.top + tile.height <= layout.height - 11


@pytest.mark.parametrize("size", [(60, 20), (500, 500), (333, 1000), (1000, 333), (2000, 22)])
def test_copies_do_not_touch_each_other(size: tuple[int, int]) -> None:
    layout = lay_out(*size)
    used = np.zeros((layout.height, layout.width), np.int64)
    for tile in layout.tiles:
        used[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert used.max() == 1
    assert used.sum() == sum(tile.width * tile.height for tile in layout.tiles)
    assert used.mean() > 0.1


def test_the_mean_colour_becomes_zero_and_colours_are_divided_by_256() -> None:
    image = np.full((30, 40, 3), (100, 120, 140), np.uint8)
    layout = lay_out(40, 30)
    canvas = np.zeros((layout.height + 3, layout.width + 5, 3), np.float32)
    draw_pyramid(image, layout, np.array([100, 110, 150], np.float32), canvas)
    for tile in layout.tiles:
        copy = canvas[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        np.testing.assert_allclose(copy, np.broadcast_to([0, 10 / 256, -10 / 256], copy.shape))
    assert np.count_nonzero(canvas[:, :, 1]) == sum(t.width * t.height for t in layout.tiles)


def test_shrinking_keeps_corners_and_straight_lines() -> None:
    # Between the pixels of a plane lie points of the same plane.
    rows, columns = np.mgrid[0:47, 0:61].astype(np.float32)
    picture = np.stack([rows, columns, rows + 2 * columns], axis=2)
    small = shrunk(picture, 50, 39)
    assert small.shape == (39, 50, 3)
    np.testing.assert_allclose(small[:, 0, 0], np.linspace(0, 46, 39), atol=1e-4)
    np.testing.assert_allclose(small[0, :, 1], np.linspace(0, 60, 50), atol=1e-4)
    np.testing.assert_allclose(small[:, :, 2], small[:, :, 0] + 2 * small[:, :, 1], atol=1e-4)


def test_boxes_come_back_to_the_photo() -> None:
    layout = lay_out(300, 200)
    first, second = layout.tiles[:2]
    boxes = np.array(
        [
            [first.left + 10, first.top + 20, first.left + 90, first.top + 100],
            [second.left + 10, second.top + 20, second.left + 90, second.top + 100],
            # Beyond the border: of the copy that is nearest to the middle.
            [-60, -60, 20, 20],
        ],
        np.float64,
    )
    expected = np.array(
        [
            [10, 20, 90, 100],
            [10 * 1.2 + 0.3, 20 * 1.2 + 0.3, 90 * 1.2 + 0.3, 100 * 1.2 + 0.3],
            [-71, -71, 9, 9],
        ],
        np.float64,
    )
    np.testing.assert_allclose(layout.to_photo(boxes), expected)
