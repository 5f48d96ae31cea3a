"""A convolution by minimal filtering (Winograd, 1980), with a third of the multiplications.

A filter of r taps over m + r - 1 values gives m outputs. Seen as the product of two polynomials
it is known by its values at m + r - 1 points, the last of them at infinity, so that m + r - 1
multiplications do instead of m times r; along both sides of a window, the square of that. Source:
Blahut, Fast Algorithms for Signal Processing, 2010, chapter 5; for neural networks, Lavin and
Gray, Fast Algorithms for Convolutional Neural Networks, 2016.

With a stride of 2 it is the same over four times the channels, those of the even and of the odd
rows and columns, with filters of half the taps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided
from numpy.polynomial import polynomial

from face_encode.detectors.mmod.convolution import (
    LARGEST_TILE,
    Geometry,
    blocks,
    by_tiles,
    clear_beyond,
    make_canvas,
    padded,
)
from face_encode.dlib_file import FloatArray

# Small numbers and their inverses keep the rounding errors of single precision small.
_POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FilteringConvolution:
    """For many channels: minimal filtering.

    Attributes:
        geometry: How it lies over a picture.
        weights: Transformed filters, ``(values of a window, channels of a value, out)``.
        bias: ``(out,)``.
        channels: Of the picture.
        before: Transforms a window along one side, ``(values, values)``.
        after: Transforms back to a tile along one side, ``(tile, values)``.
    """

    geometry: Geometry
    weights: FloatArray
    bias: FloatArray
    channels: int
    before: FloatArray
    after: FloatArray

    tile = LARGEST_TILE

    @classmethod
    def of(
        cls, filters: npt.NDArray[np.float64], bias: npt.NDArray[np.float64], geometry: Geometry
    ) -> FilteringConvolution:
        """Make one from filters ``(out, in, rows, columns)`` and biases ``(out,)``."""
        outputs, inputs, taps, _ = filters.shape
        stride = geometry.stride
        phase_taps = -(-taps // stride)
        whole = np.zeros(
            (padded(outputs), padded(inputs), phase_taps * stride, phase_taps * stride)
        )
        whole[:outputs, :inputs, :taps, :taps] = filters
        phases = (
            whole.reshape(*whole.shape[:2], phase_taps, stride, phase_taps, stride)
            .transpose(2, 4, 3, 5, 1, 0)
            .reshape(phase_taps, phase_taps, -1, padded(outputs))
        )
        before, filtering, after = filtering_matrices(cls.tile, phase_taps)
        weights = np.einsum("ai,ijco,bj->abco", filtering, phases, filtering)
        biases = np.zeros(padded(outputs), np.float32)
        biases[:outputs] = bias
        return cls(
            geometry,
            np.ascontiguousarray(weights.reshape(-1, *phases.shape[2:]), np.float32),
            biases,
            padded(inputs),
            before.astype(np.float32),
            after.astype(np.float32),
        )

    @property
    def origin(self) -> int:
        """See ``Step.origin``."""
        return self.geometry.padding

    def canvas(self, height: int, width: int) -> FloatArray:
        """See ``Step.canvas``."""
        window = self.geometry.stride * len(self.before)
        return make_canvas(self.geometry, window, self.tile, (height, width), self.channels)

    def apply(self, canvas: FloatArray, height: int, width: int, target: FloatArray) -> None:
        """See ``Convolution.apply``."""
        tile, values, stride = self.tile, len(self.before), self.geometry.stride
        outputs = [self.geometry.output_length(length) for length in (height, width)]
        rows, columns = (-(-length // tile) for length in outputs)
        down, right, one = canvas.strides
        windows = as_strided(
            canvas,
            (values, values, rows, columns, stride, stride * self.channels),
            (down * stride, right * stride, down * stride * tile, right * stride * tile, down, one),
        )
        tiles = by_tiles(target, rows, columns, tile)
        depth = self.weights.shape[1]
        for block in blocks(rows, columns, values * values * depth):
            part = np.ascontiguousarray(windows[:, :, block[0], block[1]])
            shape = part.shape[2:4]
            part = _along_both_sides(self.before, part.reshape(values, values, -1))
            part = np.matmul(part.reshape(values * values, -1, depth), self.weights)
            part = _along_both_sides(self.after, part.reshape(values, values, -1))
            result = part.reshape(tile, tile, *shape, -1)
            result += self.bias
            np.maximum(result, 0, out=tiles[:, :, block[0], block[1]])
        clear_beyond(target, outputs[0], outputs[1], tile)


def _along_both_sides(matrix: FloatArray, windows: FloatArray) -> FloatArray:
    """Transform windows ``(values, values, N)`` along both of their sides."""
    # The product comes with its sides exchanged, and the second one puts them right.
    exchanged = np.matmul(matrix, windows.swapaxes(0, 1))
    return np.asarray(np.matmul(matrix, exchanged.swapaxes(0, 1)))


def filtering_matrices(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """The three transforms for one side of a window.

    With the values x, a filter f and the matrices B, G and A in the order in which they are
    returned, the outputs ``y[i] = sum(f[j] * x[i + j])`` are ``A @ ((G @ f) * (B @ x))``.

    Args:
        outputs: m.
        taps: r; m + r - 1 is at most 8.

    Returns:
        For the values ``(m + r - 1, m + r - 1)``, for the filter ``(m + r - 1, r)``, and back to
        the outputs ``(m, m + r - 1)``.
    """
    values = outputs + taps - 1
    points = _POINTS[: values - 1]
    before = np.zeros((values, values))
    filtering = np.zeros((values, taps))
    after = np.zeros((outputs, values))
    for index, point in enumerate(points):
        others = [other for other in points if other != point]
        before[index, : values - 1] = polynomial.polyfromroots(others)
        filtering[index] = point ** np.arange(taps) / np.prod(point - np.array(others))
        after[:, index] = point ** np.arange(outputs)
    before[-1] = polynomial.polyfromroots(points)
    filtering[-1, -1] = 1
    after[-1, -1] = 1
    return before, filtering, after
