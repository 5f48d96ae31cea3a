"""The last convolution: one number a place, of a large filter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from face_encode.detectors.mmod.convolution import (
    LARGEST_PRODUCT,
    Geometry,
    blocks,
    padded,
    whole_tiles,
)
from face_encode.dlib_file import FloatArray


@dataclass(frozen=True, eq=False)
class Scoring:
    """A convolution with one output, which may be below zero.

    Attributes:
        geometry: How it lies over a picture; of stride 1, and as large an output.
        weights: ``(rows * columns of the filter, channels)``.
        bias: What is added to every output.
    """

    geometry: Geometry
    weights: FloatArray
    bias: float

    @classmethod
    def of(cls, filters: FloatArray, bias: FloatArray, geometry: Geometry) -> Scoring:
        """Make one from filters ``(1, in, rows, columns)`` and biases ``(1,)``."""
        _, inputs, taps, _ = filters.shape
        weights = np.zeros((taps * taps, padded(inputs)), np.float32)
        weights[:, :inputs] = filters.reshape(inputs, -1).T
        return cls(geometry, weights, float(bias[0]))

    @property
    def origin(self) -> int:
        """See ``Step.origin``."""
        return 0

    def canvas(self, height: int, width: int) -> FloatArray:
        """See ``Step.canvas``."""
        return np.zeros(
            (whole_tiles(height), whole_tiles(width), self.weights.shape[1]), np.float32
        )

    def apply(self, canvas: FloatArray, height: int, width: int) -> FloatArray:
        """Calculate the output.

        Args:
            canvas: A canvas with a picture on it.
            height: Of the picture.
            width: Of the picture.

        Returns:
            Float32 ``(height, width)``.
        """
        rows, columns, channels = canvas.shape
        taps, padding = self.geometry.taps, self.geometry.padding
        # What each place adds to each of its neighbours, then the sums over the neighbours.
        sums = np.full((rows + taps, columns + taps), self.bias, np.float32)
        for lines, across in blocks(rows, columns, channels, LARGEST_PRODUCT // self.weights.size):
            block = canvas[lines, across]
            parts = np.matmul(self.weights, block.swapaxes(1, 2))
            for index in range(taps * taps):
                top, left = (2 * padding - offset for offset in divmod(index, taps))
                top, left = top + lines.start, left + across.start
                sums[top : top + len(block), left : left + block.shape[1]] += parts[:, index]
        return sums[padding : padding + height, padding : padding + width]
