"""Embeddings at one byte a number: int8 codes around a shared centre.

Only the direction of an embedding is kept; cosine similarity needs nothing else. A unit vector x
becomes the codes c = round(127 (x - m) / max|x - m|), one byte a number and nothing else: the
centre m is shared by all, and the step s between two codes need not be stored, because x ≈ m + s c
has length 1, which makes s the positive root of

    |c|² s² + 2 (m · c) s + |m|² - 1 = 0.

The similarity of a probe p is then p · m + s (p · c): one matrix product with the codes, which
``face_encode.gallery.search`` does in whole numbers.

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
from face_encode.gallery.distances import unit_length
from face_encode.types import Embeddings

Codes: TypeAlias = npt.NDArray[np.int8]
"""int8, -127..127, shape ``(N, D)``."""

# The largest code; -128 is left out, so that both directions have the same range.
MAX_CODE = 127
# Rows converted to float32 at once: 8 MB of 128 numbers each, enough for a matrix product to use
# all cores.
_BLOCK = 16_384
# Bound on the error of comparing unit vectors in single precision.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Quantizer:
    """The conversion between embeddings and codes.

    Any centre gives correct similarities; the mean of unit embeddings gives the finest steps.

    Attributes:
        centre: float32 ``(D,)``, of length at most 1.
    """

    centre: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        centre = self.centre
        if (
            centre.ndim != 1
            or centre.dtype != np.float32
            # The square of a length of 1 is off by a few roundings. `not <=`, so that NaN is
            # refused.
            or not float(centre.astype(np.float64) @ centre) <= 1 + 1e-5
        ):
            raise InputError(
                "a quantizer's centre is float32 of shape (D,), of length 1 at the most. "
                f"Received: {centre.dtype} {centre.shape}"
            )

    @classmethod
    def fitted_to(cls, batches: Iterable[Embeddings]) -> Quantizer:
        """Fit the quantizer with the finest steps: its centre is the mean direction.

        Args:
            batches: Each float32 ``(N, D)``, of any length; at least one embedding in all.

        Raises:
            InputError: There is no embedding.
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
        """Convert embeddings to codes; what ``dequantize`` returned gives the same codes again.

        Args:
            embeddings: float32 ``(N, D)``, finite and none of length zero.

        Returns:
            int8 ``(N, D)``.
        """
        codes = np.empty(embeddings.shape, np.int8)
        for start in range(0, len(embeddings), _BLOCK):
            offsets = unit_length(embeddings[start : start + _BLOCK]) - self.centre
            widest = np.abs(offsets).max(axis=1, keepdims=True)
            # An embedding at the centre has codes of zero.
            steps = np.where(widest > 0, widest, 1) / MAX_CODE
            codes[start : start + _BLOCK] = np.rint(offsets / steps)
        return codes

    def steps(self, codes: Codes) -> npt.NDArray[np.float32]:
        """Compute the step s of each embedding, float32 ``(N,)``; 0 for codes of zero."""
        steps = np.empty(len(codes), np.float32)
        room = max(0.0, 1 - float(self.centre.astype(np.float64) @ self.centre))
        for start in range(0, len(codes), _BLOCK):
            block = codes[start : start + _BLOCK].astype(np.float32)
            # Whole numbers of at most 127² D, which float32 holds to its seventh digit.
            square = np.einsum("nd,nd->n", block, block).astype(np.float64)
            along = (block @ self.centre).astype(np.float64)
            root = np.sqrt(along**2 + square * room)
            # Of the two ways to write the root, the one that subtracts no nearly equal numbers.
            with np.errstate(divide="ignore", invalid="ignore"):
                roots = np.where(along >= 0, room / (along + root), (root - along) / square)
            steps[start : start + _BLOCK] = np.where(square > 0, roots, 0)
        return steps

    def dequantize(self, codes: Codes) -> Embeddings:
        """Convert codes to embeddings.

        Args:
            codes: int8 ``(N, D)``.

        Returns:
            float32 ``(N, D)``, of length 1.
        """
        steps = self.steps(codes)[:, np.newaxis]
        return np.asarray(codes.astype(np.float32) * steps + self.centre, np.float32)


@dataclass(frozen=True, eq=False)
class Coded:
    """The codes of n embeddings.

    Attributes:
        codes: int8 ``(n, D)``.
        steps: float32 ``(n,)``, the step s of each.
        quantizer: Converts the codes to embeddings.
        reach: Largest distance of a coded embedding from the quantizer's centre.
        blur: Largest distance of a coded embedding from the unit vector that it was made of; 0
            where only the codes exist.
    """

    codes: Codes
    steps: npt.NDArray[np.float32]
    quantizer: Quantizer
    reach: float
    blur: float = 0.0

    @classmethod
    def of(
        cls, embeddings: Embeddings, quantizer: Quantizer | None = None, *, with_blur: bool = False
    ) -> Coded:
        """Quantize embeddings.

        Args:
            embeddings: float32 ``(n, D)`` of any length, n at least 1, none of length zero.
            quantizer: None fits one to them.
            with_blur: Whether the embeddings are kept too, so that ``blur`` is measured.
        """
        quantizer = quantizer or Quantizer.fitted_to([embeddings])
        codes = quantizer.quantize(embeddings)
        steps = quantizer.steps(codes)
        # Whole numbers; einsum takes no memory for their squares.
        squares = np.einsum("nd,nd->n", codes, codes, dtype=np.int32)
        reach = float((np.sqrt(squares) * steps).max(initial=0))
        blur = 0.0
        for start in range(0, len(codes) if with_blur else 0, _BLOCK):
            block = slice(start, start + _BLOCK)
            apart = quantizer.dequantize(codes[block]) - unit_length(embeddings[block])
            blur = max(blur, float(np.linalg.norm(apart, axis=1).max()) + _ROUNDING)
        return cls(codes, steps, quantizer, reach, blur)

    def joined(self, other: Coded) -> Coded:
        """These codes followed by others of the same quantizer."""
        return replace(
            self,
            codes=np.concatenate([self.codes, other.codes]),
            steps=np.concatenate([self.steps, other.steps]),
            reach=max(self.reach, other.reach),
            blur=max(self.blur, other.blur),
        )

    def of_rows(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Coded:
        """The codes of some rows, by a mask or their numbers."""
        return replace(self, codes=self.codes[rows], steps=self.steps[rows])
