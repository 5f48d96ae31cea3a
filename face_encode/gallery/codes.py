"""Embeddings as int8 codes, with what a search has to know of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from face_encode.quantization import Codes, Quantizer, unit_length
from face_encode.types import Embeddings

# Rows compared with their codes at once: 16 MB of 128 float32 each.
_BLOCK = 32_768
# What comparing in single precision may miss, of differences of vectors of length 1.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Coded:
    """The codes of n embeddings.

    Attributes:
        codes: int8 ``(n, D)``.
        steps: float32 ``(n,)``, the step of each; see :mod:`face_encode.quantization`.
        quantizer: What they stand for.
        reach: How far what they stand for is from the quantizer's centre, at the most.
        blur: How far what they stand for is from the embeddings, brought to length 1, that they
            were made of, at the most; 0 where the codes are all that there is.
    """

    codes: Codes
    steps: npt.NDArray[np.float32]
    quantizer: Quantizer
    reach: float
    blur: float = 0.0

    @classmethod
    def of(cls, embeddings: Embeddings, quantizer: Quantizer | None = None) -> Coded:
        """The codes of embeddings, float32 ``(n, D)`` with n at least 1, none of length zero.

        Args:
            embeddings: Of any length.
            quantizer: None takes the finest for them.
        """
        quantizer = quantizer or Quantizer.fitted_to([embeddings])
        codes = quantizer.quantize(embeddings)
        steps = quantizer.steps(codes)
        return cls(codes, steps, quantizer, farthest(codes, steps))

    def blurred_from(self, embeddings: Embeddings) -> Coded:
        """The same codes, with how far they are from the embeddings that they were made of."""
        blur = 0.0
        for start in range(0, len(embeddings), _BLOCK):
            block = slice(start, start + _BLOCK)
            apart = self.quantizer.dequantize(self.codes[block]) - unit_length(embeddings[block])
            blur = max(blur, float(np.linalg.norm(apart, axis=1).max()))
        return replace(self, blur=blur + _ROUNDING)

    def joined(self, other: Coded) -> Coded:
        """With the codes of others behind these, by the same quantizer."""
        return replace(
            self,
            codes=np.concatenate([self.codes, other.codes]),
            steps=np.concatenate([self.steps, other.steps]),
            reach=max(self.reach, other.reach),
            blur=max(self.blur, other.blur),
        )

    def of_rows(self, rows: npt.NDArray[np.bool_]) -> Coded:
        """The codes of some rows."""
        return replace(self, codes=self.codes[rows], steps=self.steps[rows])


def farthest(codes: Codes, steps: npt.NDArray[np.float32]) -> float:
    """How far from their quantizer's centre the embeddings of codes lie at the most."""
    # Whole numbers; einsum takes no memory for their squares.
    squares = np.einsum("nd,nd->n", codes, codes, dtype=np.int32)
    return float((np.sqrt(squares) * steps).max(initial=0))
