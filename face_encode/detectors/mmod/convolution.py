"""What the convolutions of the network share: how they lie over a picture, and its canvas.

The picture is cut into windows, each of which gives a tile of the output; some windows at a time,
so many that they stay in the processor's cache. Each convolution writes into the canvas of the
next one, which has zeros around the picture. Nothing is kept between two calls, so that threads
can share a convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided

from face_encode.dlib_file import FloatArray

# Outputs on a side of the largest tile; a canvas has room for whole ones.
LARGEST_TILE = 4
# Of the windows that are worked on at once: half a megabyte.
FLOATS_AT_ONCE = 100_000
# A product of more multiplications is shared out to all cores by OpenBLAS. That takes small ones
# longer, and many times as long where the other cores are busy: its threads wait by spinning.
LARGEST_PRODUCT = 2**18
# Products of matrices are fastest in multiples of this many columns.
_LANES = 16


def padded(channels: int) -> int:
    """With how many channels so many are kept; the others are zero."""
    return -(-channels // _LANES) * _LANES


@dataclass(frozen=True)
class Geometry:
    """How a convolution lies over a picture.

    Attributes:
        taps: Rows, and columns, of the filters.
        stride: From one output to the next, pixels.
        padding: Zeros around the picture, pixels.
    """

    taps: int
    stride: int
    padding: int

    def output_length(self, length: int) -> int:
        """How many outputs there are along so many pixels, of which one is enough for a filter."""
        return (length + 2 * self.padding - self.taps) // self.stride + 1


class Step(Protocol):
    """What takes a picture on a canvas."""

    @property
    def geometry(self) -> Geometry:
        """How it lies over the picture."""

    @property
    def origin(self) -> int:
        """Row, and column, of the canvas in which the picture begins."""

    def canvas(self, height: int, width: int) -> FloatArray:
        """Zeros ``(rows, columns, channels)``, with room for a picture of this size."""


class Convolution(Step, Protocol):
    """A convolution with the scale and shift behind it, and what is below zero cut off."""

    def apply(self, canvas: FloatArray, height: int, width: int, target: FloatArray) -> None:
        """Write the output.

        Args:
            canvas: A canvas with a picture on it.
            height: Of the picture.
            width: Of the picture.
            target: Where the output belongs, ``(rows, columns, channels)``, with room for whole
                tiles. Where they reach beyond the output, it is zero afterwards.
        """


def make_canvas(
    geometry: Geometry, window: int, tile: int, size: tuple[int, int], channels: int
) -> FloatArray:
    """Zeros for a picture of this size, all of its windows, and whole tiles written to it."""
    lengths = []
    for length in size:
        tiles = -(-geometry.output_length(length) // tile)
        windows = (tiles - 1) * tile * geometry.stride + window
        lengths.append(max(windows, geometry.padding + whole_tiles(length)))
    return np.zeros((*lengths, channels), np.float32)


def whole_tiles(length: int) -> int:
    """The length, made a multiple of the largest tile."""
    return -(-length // LARGEST_TILE) * LARGEST_TILE


def blocks(
    rows: int, columns: int, floats: int, widest: int | None = None
) -> list[tuple[slice, slice]]:
    """Cut a field of windows into blocks that fit into the cache.

    Args:
        rows: Of windows.
        columns: Of windows.
        floats: That a window takes.
        widest: The most columns of a block, if not as many as fit.
    """
    at_once = max(1, FLOATS_AT_ONCE // floats)
    across = min(at_once, widest or at_once)
    # As even as it goes: the last one is no narrow strip.
    across = -(-columns // -(-columns // across))
    down = max(1, at_once // across)
    return [
        (slice(top, min(top + down, rows)), slice(left, min(left + across, columns)))
        for top in range(0, rows, down)
        for left in range(0, columns, across)
    ]


def by_tiles(target: FloatArray, rows: int, columns: int, tile: int) -> FloatArray:
    """A target by the place within its tiles: ``(tile, tile, rows, columns, channels)``."""
    down, right, one = target.strides
    return as_strided(
        target,
        (tile, tile, rows, columns, target.shape[2]),
        (down, right, down * tile, right * tile, one),
    )


def clear_beyond(target: FloatArray, height: int, width: int, tile: int) -> None:
    """Clear what whole tiles have written beyond the output."""
    rows, columns = -(-height // tile) * tile, -(-width // tile) * tile
    target[height:rows, :columns] = 0
    target[:rows, width:columns] = 0
