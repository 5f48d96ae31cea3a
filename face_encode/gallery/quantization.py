"""Embeddings of one byte a number: int8 codes around a shared centre.

Only an embedding's direction is kept, for that is all that cosine similarity looks at. A unit
vector x becomes the codes c = round(127 (x - m) / max|x - m|), one byte a number and nothing else:
the centre m is shared by all, and the step s between two codes need not be kept, because
x ≈ m + s c has length 1, which makes s the positive root of

    |c|² s² + 2 (m · c) s + |m|² - 1 = 0.

The similarity of a probe p is then p · m + s (p · c): one matrix product with the codes, which
:mod:`face_encode.gallery.search` does in whole numbers.

Why a centre: embeddings of faces share a large mean (strangers' cosine is about 0.8 for
``dlib_resnet``), and 255 steps around it are finer than around zero; docs/embeddings.md has the
errors. With the centre at zero this is the usual symmetric quantisation with a scale for each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.types import Embeddings

Codes: TypeAlias = npt.NDArray[np.int8]
"""int8, -127..127, shape ``(N, D)``."""

# The largest code; -128 is left out, so that both directions have the same room.
_LARGEST = 127
# Rows widened at once: 8 MB of 128 float32 each, enough for a matrix product to take all cores.
_BLOCK = 16_384


def unit_length(embeddings: Embeddings) -> Embeddings:
    """The rows brought to length 1, float32 ``(N, D)``; a row of zeros stays one."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


@dataclass(frozen=True, eq=False)
class Quantizer:
    """The way between embeddings and their codes.

    Any centre gives right similarities; the mean of unit embeddings gives the finest.

    Attributes:
        centre: float32 ``(D,)``, of length 1 at the most.
    """

    centre: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check the centre."""
        centre = self.centre
        if (
            centre.ndim != 1
            or centre.dtype != np.float32
            # The square of a length of 1 is off by some roundings.
            or not float(centre.astype(np.float64) @ centre) <= 1 + 1e-5
        ):
            raise InputError(
                "a quantizer's centre is float32 of shape (D,), of length 1 at the most. "
                f"Received: {centre.dtype} {centre.shape}"
            )

    @classmethod
    def fitted_to(cls, batches: Iterable[Embeddings]) -> Quantizer:
        """The quantizer that is finest for such embeddings: centred on their mean direction.

        Args:
            batches: Each float32 ``(N, D)``, of any length; at least one embedding in all.

        Raises:
            InputError: None at all.
        """
        total, count = np.zeros(1, np.float64), 0
        for batch in batches:
            for start in range(0, len(batch), _BLOCK):
                units = unit_length(batch[start : start + _BLOCK])
                total = total + units.sum(axis=0, dtype=np.float64)
            count += len(batch)
        if not count:
            raise InputError("a mean direction takes at least one embedding. Received: none")
        return cls((total / count).astype(np.float32))

    def quantize(self, embeddings: Embeddings) -> Codes:
        """Give the codes; of what ``dequantize`` gave, the same codes again.

        Args:
            embeddings: float32 ``(N, D)``, finite and none of length zero.

        Returns:
            int8 ``(N, D)``.
        """
        codes = np.empty(embeddings.shape, np.int8)
        for start in range(0, len(embeddings), _BLOCK):
            offsets = unit_length(embeddings[start : start + _BLOCK]) - self.centre
            widest = np.abs(offsets).max(axis=1, keepdims=True)
            # An embedding that lies on the centre has codes of zero.
            steps = np.where(widest > 0, widest, 1) / _LARGEST
            codes[start : start + _BLOCK] = np.rint(offsets / steps)
        return codes

    def steps(self, codes: Codes) -> npt.NDArray[np.float32]:
        """The step s of each embedding, float32 ``(N,)``; 0 for codes of zero."""
        steps = np.empty(len(codes), np.float32)
        room = max(0.0, 1 - float(self.centre.astype(np.float64) @ self.centre))
        for start in range(0, len(codes), _BLOCK):
            block = codes[start : start + _BLOCK].astype(np.float32)
            # Whole numbers of at most 127² D, which float32 holds to its seventh digit.
            square = np.einsum("nd,nd->n", block, block).astype(np.float64)
            along = (block @ self.centre).astype(np.float64)
            root = np.sqrt(along**2 + square * room)
            # Of the two ways to write the root the one that subtracts no nearly equal numbers.
            with np.errstate(divide="ignore", invalid="ignore"):
                roots = np.where(along >= 0, room / (along + root), (root - along) / square)
            steps[start : start + _BLOCK] = np.where(square > 0, roots, 0)
        return steps

    def dequantize(self, codes: Codes) -> Embeddings:
        """Give the embeddings that the codes stand for.

        Args:
            codes: int8 ``(N, D)``.

        Returns:
            float32 ``(N, D)``, of length 1.
        """
        steps = self.steps(codes)[:, np.newaxis]
        return np.asarray(codes.astype(np.float32) * steps + self.centre, np.float32)


# Rows compared with their codes at once: 16 MB of 128 float32 each.
_BLOCK_OF_CODES = 32_768
# What comparing in single precision may miss, of differences of vectors of length 1.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Coded:
    """The codes of n embeddings.

    Attributes:
        codes: int8 ``(n, D)``.
        steps: float32 ``(n,)``, the step of each; see :mod:`face_encode.gallery.quantization`.
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
        for start in range(0, len(embeddings), _BLOCK_OF_CODES):
            block = slice(start, start + _BLOCK_OF_CODES)
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
