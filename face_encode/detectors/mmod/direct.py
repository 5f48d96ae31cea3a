"""A convolution as it is written down: the pixels of each window times the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from face_encode.detectors.mmod.convolution import (
    LARGEST_PRODUCT,
    Geometry,
    blocks,
    by_tiles,
    clear_beyond,
    make_canvas,
    padded,
)
from face_encode.dlib_file import FloatArray


@dataclass(frozen=True, eq=False)
class DirectConvolution:
    """For few channels: the product of the window's pixels and the weights.

    Attributes:
        geometry: How it lies over a picture.
        weights: ``(pixels of a window, outputs of a tile)``.
        bias: One for each output of a tile.
        channels: Of the picture.
    """

    geometry: Geometry
    weights: FloatArray
    bias: FloatArray
    channels: int

    # Two by two outputs at once share most of their pixels.
    tile = 2

    @property
    def window(self) -> int:
        """Rows, and columns, of the window that gives a tile."""
        return self.geometry.stride * (self.tile - 1) + self.geometry.taps

    @classmethod
    def of(
        cls, filters: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], geometry: Geometry
    ) -> DirectConvolution:
        """Make one from filters ``(out, in, rows, columns)`` and biases ``(out,)``."""
        outputs, inputs, taps, _ = filters.shape
        stride, tile = geometry.stride, cls.tile
        window = stride * (tile - 1) + taps
        weights = np.zeros((window, window, inputs, tile, tile, padded(outputs)))
        for row in range(tile):
            for column in range(tile):
                top, left = row * stride, column * stride
                weights[top : top + taps, left : left + taps, :, row, column, :outputs] = (
                    filters.transpose(2, 3, 1, 0)
                )
        biases = np.zeros((tile, tile, padded(outputs)))
        biases[:, :, :outputs] = bias
        return cls(
            geometry,
            weights.reshape(window * window * inputs, -1).astype(np.float32),
            biases.ravel().astype(np.float32),
            inputs,
        )

    @property
    def origin(self) -> int:
        """See ``Step.origin``."""
        return self.geometry.padding

    def canvas(self, height: int, width: int) -> FloatArray:
        """See ``Step.canvas``."""
        return make_canvas(self.geometry, self.window, self.tile, (height, width), self.channels)

    def apply(self, canvas: FloatArray, height: int, width: int, target: FloatArray) -> None:
        """See ``Convolution.apply``."""
        tile, window = self.tile, self.window
        outputs = [self.geometry.output_length(length) for length in (height, width)]
        rows, columns = (-(-length // tile) for length in outputs)
        down, right, one = canvas.strides
        step = self.geometry.stride * tile
        windows = as_strided(
            canvas,
            (rows, columns, window, window * self.channels),
            (down * step, right * step, down, one),
        )
        tiles = by_tiles(target, rows, columns, tile)
        pixels = len(self.weights)
        for block in blocks(rows, columns, pixels, LARGEST_PRODUCT // self.weights.size):
            part = np.ascontiguousarray(windows[block])
            # One product a row of windows.
            result = np.matmul(part.reshape(*part.shape[:2], pixels), self.weights)
            result += self.bias
            by_place = result.reshape(*part.shape[:2], tile, tile, -1).transpose(2, 3, 0, 1, 4)
            np.maximum(by_place, 0, out=tiles[:, :, block[0], block[1]])
        clear_beyond(target, outputs[0], outputs[1], tile)
