"""Convolutions as they are defined, to compare with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from face_encode.detectors.mmod.convolution import Geometry, padded, whole_tiles
from face_encode.detectors.mmod.direct import DirectConvolution
from face_encode.detectors.mmod.filtering import FilteringConvolution

Array = npt.NDArray[np.float64]


def convolved(picture: Array, filters: Array, bias: Array, geometry: Geometry) -> Array:
    """From ``(height, width, in)`` by ``(out, in, rows, columns)`` to ``(.., .., out)``."""
    side = (geometry.padding, geometry.padding)
    around = np.pad(picture, (side, side, (0, 0)))
    windows = sliding_window_view(around, filters.shape[2:], axis=(0, 1))
    windows = windows[:: geometry.stride, :: geometry.stride]
    return np.asarray(np.einsum("hwirc,oirc->hwo", windows, filters) + bias)


def check(
    kind: type[DirectConvolution] | type[FilteringConvolution],
    channels: int,
    outputs: int,
    geometry: Geometry,
    size: tuple[int, int],
) -> None:
    """Compare a convolution with its definition, and look at what is around the output."""
    random = np.random.default_rng(1)
    filters = random.normal(size=(outputs, channels, geometry.taps, geometry.taps))
    bias = random.normal(size=outputs)
    picture = random.normal(size=(*size, channels))
    expected = np.maximum(convolved(picture, filters, bias, geometry), 0)
    step = kind.of(filters, bias, geometry)
    canvas = step.canvas(*size)
    start = step.origin
    canvas[start : start + size[0], start : start + size[1], :channels] = picture
    height, width = expected.shape[:2]
    target = np.full((whole_tiles(height), whole_tiles(width), padded(outputs)), 7, np.float32)
    step.apply(canvas, *size, target)
    error = np.abs(target[:height, :width, :outputs] - expected).max()
    assert error < 2e-5 * np.abs(expected).max()
    # What is beyond is cleared, or was never written.
    assert set(np.unique(target[:height, :width, outputs:])) <= {0}
    assert set(np.unique(target[height:])) <= {0, 7}
    assert not target[height : -(-height // step.tile) * step.tile, :width].any()
    assert not target[:height, width : -(-width // step.tile) * step.tile].any()
