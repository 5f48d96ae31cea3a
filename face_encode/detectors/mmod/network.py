"""The network: from a large picture to a score for each window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.detectors.mmod.convolution import Convolution, Geometry, Step
from face_encode.detectors.mmod.direct import DirectConvolution
from face_encode.detectors.mmod.filtering import FilteringConvolution
from face_encode.detectors.mmod.scoring import Scoring
from face_encode.dlib_file import DlibLayer, FloatArray
from face_encode.errors import WeightsError


@dataclass(frozen=True, eq=False)
class Network:
    """Convolutions one behind the other; holds weights only, so that threads can share it.

    Attributes:
        mean: The mean colour, RGB, ``(3,)``.
        convolutions: All but the last.
        scoring: The last.
    """

    mean: FloatArray
    convolutions: tuple[Convolution, ...]
    scoring: Scoring

    @classmethod
    def of(cls, layers: Sequence[DlibLayer]) -> Network:
        """Make one of a file's layers, each with the scale and shift behind it folded in.

        Raises:
            WeightsError: Not the layers of such a network.
        """
        kinds = [layer.kind for layer in layers]
        if kinds != ["input", *["con", "affine", "relu"] * ((len(kinds) - 2) // 3), "con"]:
            raise WeightsError(
                "a detector's network is an input, then con, affine and relu any number of "
                f"times, then con. Received: {', '.join(kinds)}"
            )
        convolutions: list[Convolution] = []
        for convolution, affine in zip(layers[1:-1:3], layers[2:-1:3], strict=True):
            filters, bias = (part.astype(np.float64) for part in convolution.weights)
            scale, shift = (part.astype(np.float64) for part in affine.weights)
            kind = FilteringConvolution if convolutions else DirectConvolution
            filters *= scale[:, None, None, None]
            convolutions.append(kind.of(filters, bias * scale + shift, _geometry(convolution)))
        last, offset = layers[-1].weights
        scoring = Scoring.of(last, offset, _geometry(layers[-1]))
        return cls(layers[0].weights[0], tuple(convolutions), scoring)

    def canvas(self, height: int, width: int) -> FloatArray:
        """Zeros for a picture of this size, which belongs into the corner at the top left."""
        return self.convolutions[0].canvas(height, width)

    def scores(self, canvas: FloatArray, height: int, width: int) -> FloatArray:
        """Score every window.

        Args:
            canvas: The picture on its canvas, its mean colour taken off, divided by 256.
            height: Of the picture.
            width: Of the picture.

        Returns:
            Float32 ``(rows, columns)``, larger than 0 where a face is; see ``middle`` for where.
        """
        steps: tuple[Step, ...] = (*self.convolutions[1:], self.scoring)
        for convolution, following in zip(self.convolutions, steps, strict=True):
            rows, columns = map(convolution.geometry.output_length, (height, width))
            target = following.canvas(rows, columns)
            start = following.origin
            convolution.apply(canvas, height, width, target[start:, start:])
            canvas, height, width = target, rows, columns
        return self.scoring.apply(canvas, height, width)

    def middle(self, position: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The pixel of the picture in the middle of a window, from its row or column."""
        for step in (self.scoring, *reversed(self.convolutions)):
            geometry = step.geometry
            position = position * geometry.stride + (geometry.taps // 2 - geometry.padding)
        return position


def _geometry(convolution: DlibLayer) -> Geometry:
    """What the file says of a convolution; all of a detector's are square."""
    rows, columns, down, right, above, before = convolution.sizes
    if rows != columns or down != right or above != before:
        raise WeightsError(
            "a detector's filters are as wide as high, in the same steps both ways. "
            f"Received: {convolution.sizes}"
        )
    return Geometry(rows, down, above)
