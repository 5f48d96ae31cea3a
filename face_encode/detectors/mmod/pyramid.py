"""A picture in ever smaller copies, laid out side by side in one: what the network looks at.

The network sees faces of one size only, so it is given copies of the picture, each 5/6 as large as
the one before. dlib lays them out in one large picture, with a strip between, and its network sees
across that strip: its scores near a border depend on what lies behind it. For the same scores the
layout has to be the same to the pixel. (Copies of a picture of less than 60 pixels a side can lie
on one another, there as here; a face fills a window of 80.) Source: ``create_tiled_pyramid`` and
``pyramid_down`` in ``image_transforms/image_pyramid.h`` and ``resize_image`` in
``image_transforms/interpolation.h``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.dlib_file import FloatArray
from face_encode.types import ImageArray

# From a copy to the next smaller one, and back: its sides, and how far its pixels move.
_STEP = 5 / 6
_STEP_BACK = 6 / 5
_MOVE_BACK = 0.3
# Copies of fewer rows are left out.
_LOWEST = 5
# Pixels between two copies, and around all of them.
_BETWEEN = 10
_AROUND = 11
# dlib divides by 256, not 255.
_PIXEL_SCALE = np.float32(1 / 256)
# dlib calculates four columns at once.
_LANES = 4


@dataclass(frozen=True)
class Tile:
    """Where one copy of the picture lies, in pixels of the large one."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Layout:
    """Where all of them lie.

    Attributes:
        width: Of the large picture.
        height: Of the large picture.
        tiles: The copies, the largest first.
    """

    width: int
    height: int
    tiles: tuple[Tile, ...]

    def to_photo(self, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """From boxes in the large picture to boxes in the original.

        Args:
            boxes: Left, top, right and bottom, ``(N, 4)``; each belongs to the copy that is
                nearest to its middle.

        Returns:
            The same of the original, ``(N, 4)``.
        """
        edges = np.array(
            [
                (tile.left, tile.top, tile.left + tile.width - 1, tile.top + tile.height - 1)
                for tile in self.tiles
            ],
            np.float64,
        )
        # Whole pixels, the way dlib rounds.
        middles = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 + 0.5)
        nearest = np.clip(middles[:, None], edges[None, :, :2], edges[None, :, 2:])
        levels = np.square(nearest - middles[:, None]).sum(axis=2).argmin(axis=1)
        points = boxes - np.tile(edges[levels, :2], 2)
        for level in range(len(self.tiles)):
            below = levels > level
            points[below] = points[below] * _STEP_BACK + _MOVE_BACK
        return points


def lay_out(width: int, height: int) -> Layout:
    """Find the places of all copies of a picture.

    Args:
        width: Of the picture, at least 10 pixels.
        height: Of the picture, at least 10 pixels.
    """
    sizes: list[tuple[int, int]] = []
    wide, high = width, height
    while wide > 0 and (high >= _LOWEST or not sizes):
        sizes.append((wide, high))
        wide, high = math.floor(_STEP * wide), math.floor(_STEP * high)
    total = sum(high + _BETWEEN for _, high in sizes) - 2 * _BETWEEN
    bottom, previous = 0, 0
    for wide, high in sizes:
        # The second column begins where a copy fits beside those that are there. dlib calculates
        # the room for it without a sign, so that less than none is more than enough.
        room = width - previous - _BETWEEN
        if previous and (room < 0 or wide <= room) and 2 * (bottom - height) >= total - height:
            break
        bottom += high + _BETWEEN
        previous = wide
    bottom -= _BETWEEN
    tiles = []
    y = _AROUND
    for wide, high in sizes:
        if y >= bottom + _AROUND:
            break
        tiles.append(Tile(_AROUND, y, wide, high))
        y += high + _BETWEEN
    y -= _BETWEEN
    for wide, high in sizes[len(tiles) :]:
        # Upwards along the right border, until they would lie on the first one.
        tile = Tile(_AROUND + width - wide, y - high, wide, high)
        if tile.top < _AROUND + height:
            break
        tiles.append(tile)
        y -= high + _BETWEEN
    return Layout(width + 2 * _AROUND, bottom + 2 * _AROUND, tuple(tiles))


def draw_pyramid(image: ImageArray, layout: Layout, mean: FloatArray, canvas: FloatArray) -> None:
    """Draw the picture and its copies.

    Args:
        image: uint8 ``(height, width, 3)``, for which the layout was made.
        layout: Where the copies lie.
        mean: The mean colour ``(3,)``, which becomes zero.
        canvas: Float32 zeros, at least ``(layout.height, layout.width, 3)``.
    """
    copy = (image - mean) * _PIXEL_SCALE
    for tile in layout.tiles:
        copy = shrunk(copy, tile.width, tile.height)
        rows = slice(tile.top, tile.top + tile.height)
        canvas[rows, tile.left : tile.left + tile.width] = copy


def shrunk(picture: FloatArray, width: int, height: int) -> FloatArray:
    """Shrink a picture as dlib does: between the four nearest pixels, corner upon corner.

    Args:
        picture: float32 ``(H, W, C)``.
        width: At most W.
        height: At most H.

    Returns:
        float32 ``(height, width, C)``.
    """
    if picture.shape[:2] == (height, width):
        return picture
    rows, vertical = _between(_positions(picture.shape[0], height))
    columns, horizontal = _between(_column_positions(picture.shape[1], width))
    below = np.minimum(rows + 1, picture.shape[0] - 1)
    right = np.minimum(columns + 1, picture.shape[1] - 1)
    # On whole lines, colours side by side: three of them are too few for a loop of their own.
    lines = picture.reshape(picture.shape[0], -1)
    lines = _mixed(lines[rows], lines[below], vertical[:, None])
    picture = lines.reshape(height, *picture.shape[1:])
    mixed = _mixed(
        np.take(picture, columns, axis=1).reshape(height, -1),
        np.take(picture, right, axis=1).reshape(height, -1),
        np.repeat(horizontal, picture.shape[2]),
    )
    return mixed.reshape(height, width, -1)


def _mixed(first: FloatArray, second: FloatArray, share: FloatArray) -> FloatArray:
    """So much of the second, and the rest of the first; both are overwritten."""
    second -= first
    second *= share
    first += second
    return first


def _positions(length: int, count: int) -> npt.NDArray[np.float64]:
    """Where the rows come from: summed up, as dlib does, with its rounding."""
    step = (length - 1) / max(count - 1, 1)
    return np.add.accumulate(np.array([-step, *[step] * count]))[1:]


def _column_positions(length: int, count: int) -> npt.NDArray[np.float64]:
    """Where the columns come from: four at once in single precision, and the rest in double."""
    step = (length - 1) / max(count - 1, 1)
    groups = -(-count // _LANES)
    steps = np.full((groups + 1, _LANES), _LANES * step, np.float32)
    steps[0] = [(lane - _LANES) * step for lane in range(_LANES)]
    sums = np.add.accumulate(steps, axis=0, dtype=np.float32)[1:]
    # Up to the first group of which the last pixel has none to its right.
    whole = int(np.count_nonzero(sums[:, -1].astype(np.int64) + 1 < length))
    start = whole * _LANES
    rest = np.add.accumulate(np.array([-step + start * step, *[step] * (count - start)]))[1:]
    return np.concatenate([sums[:whole].ravel().astype(np.float64), rest])


def _between(positions: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """The pixel before each position, and how far it lies towards the next one."""
    before = positions.astype(np.intp)
    return before, (positions - before).astype(np.float32)
