"""How near the enrolled are to some probes: roughly for all of them, exactly where asked.

A search first looks at everybody by a matrix product in single precision, or in whole numbers
where embeddings are kept as codes, and then calculates anew, in double precision, for the few who
may be the nearest. For that it has to know how far off the rough answer can be, its *slack*:

*float32.* A product of D terms summed in any order is off by at most ``D u |p| |x|``, with u =
2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1).

*int8.* The probe p, of length 1, is rounded to whole numbers too: p = t q + e with q within
-127..127 and t = max|p| / 127. A row stands for m + s c (see :mod:`face_encode.quantization`), and

    p · m + s (p · c) = p · m + s t (q · c) + s (e · c),

where q · c is a product of whole numbers without any rounding, and the last term, which is left
out, is at most ``|e|`` times the largest ``s |c|``, the gallery's reach (Cauchy and Schwarz).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from face_encode.distances import Metric
from face_encode.errors import GalleryError
from face_encode.gallery.enrolled import Enrolled
from face_encode.types import Embeddings

# What one rounding to float32 is off by, of a number's size.
_UNIT_ROUNDOFF = 2.0**-24
# Roundings beside those of the product itself: of lengths, sums and quotients; with room to spare.
_FURTHER_ROUNDINGS = 16
_LARGEST_CODE = 127


class Similarities(Protocol):
    """The similarities of m probes and the enrolled, higher is nearer.

    Attributes:
        slack: float64 ``(m,)``, how far a rough similarity is from the exact one at the most.
        is_threaded: Whether ``rough`` takes all cores by itself.
    """

    slack: npt.NDArray[np.float64]
    is_threaded: bool

    def rough(self, rows: slice) -> npt.NDArray[np.float32]:
        """Of a run of r rows and all probes, float32 ``(r, m)``, to within the slack."""

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Of some rows and one probe, rounded once; the same for the same row, wherever it is."""


def similarities_of(enrolled: Enrolled, probes: Embeddings, metric: Metric) -> Similarities:
    """The similarities of probes, float32 ``(m, D)``, finite, by a gallery's metric."""
    if metric == "euclidean":
        return _Euclidean(enrolled, probes)
    return _OfCodes(enrolled, probes) if enrolled.is_int8 else _Cosine(enrolled, probes)


class _Cosine:
    """By the cosine of the angle; the rows are float32 of any length."""

    is_threaded = True

    def __init__(self, enrolled: Enrolled, probes: Embeddings) -> None:
        self._enrolled = enrolled
        self._units = _unit_length(probes)
        self._columns = _columns(self._units)
        rounding = (probes.shape[1] + _FURTHER_ROUNDINGS) * _UNIT_ROUNDOFF
        self.slack = np.full(len(probes), rounding)

    def rough(self, rows: slice) -> npt.NDArray[np.float32]:
        products = self._enrolled.rows[rows] @ self._columns
        result = np.asarray(products, np.float32).reshape(len(products), -1)
        result /= self._enrolled.scales[rows, np.newaxis]
        return result

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        found = self._enrolled.rows[rows].astype(np.float64)
        lengths = np.sqrt((found**2).sum(axis=1))
        return _cosines((found * self._units[probe]).sum(axis=1) / lengths)


class _Euclidean:
    """By minus the distance of the embeddings as they are."""

    is_threaded = True

    def __init__(self, enrolled: Enrolled, probes: Embeddings) -> None:
        self._enrolled = enrolled
        self._probes = probes.astype(np.float64)
        self._columns = _columns(self._probes)
        lengths = np.sqrt((self._probes**2).sum(axis=1))
        self._squares = (lengths**2).astype(np.float32)
        largest = float(enrolled.scales.max(initial=0))
        rounding = 2 * (probes.shape[1] + _FURTHER_ROUNDINGS) * _UNIT_ROUNDOFF
        # Of the square; a root is off by the root of that at the most, which it is near zero.
        self.slack = np.sqrt(rounding * (lengths + largest) ** 2)

    def rough(self, rows: slice) -> npt.NDArray[np.float32]:
        products = self._enrolled.rows[rows] @ self._columns
        result = np.asarray(products, np.float32).reshape(len(products), -1)
        result *= -2
        result += self._squares
        result += self._enrolled.scales[rows, np.newaxis] ** 2
        np.maximum(result, 0, out=result)
        np.sqrt(result, out=result)
        return np.negative(result, out=result)

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        apart = self._enrolled.rows[rows] - self._probes[probe]
        return (-np.sqrt((apart**2).sum(axis=1))).astype(np.float32)


class _OfCodes:
    """By the cosine of the angle; the rows are codes."""

    # Its kernel takes one core, and leaves Python's other threads alone meanwhile.
    is_threaded = False

    def __init__(self, enrolled: Enrolled, probes: Embeddings) -> None:
        import numkong

        if enrolled.quantizer is None:
            raise GalleryError("int8 embeddings without a centre stand for nothing")
        self._product = numkong.dots_packed
        self._enrolled = enrolled
        self._units = _unit_length(probes)
        self._centre = enrolled.quantizer.centre.astype(np.float64)
        # A probe of zeros, which has no direction, is as far from everybody.
        widest = np.abs(self._units).max(axis=1, keepdims=True)
        steps = np.where(widest > 0, widest, 1) / _LARGEST_CODE
        codes = np.rint(self._units / steps)
        left_out = self._units - codes * steps
        self._packed = numkong.dots_pack(codes.astype(np.int8))
        self._steps = steps[:, 0].astype(np.float32)
        self._offsets = (self._units @ self._centre).astype(np.float32)
        # The products with the centre and with the codes are both below 2.
        rounding = _FURTHER_ROUNDINGS * _UNIT_ROUNDOFF * 4
        self.slack = np.sqrt((left_out**2).sum(axis=1)) * enrolled.reach + rounding

    def rough(self, rows: slice) -> npt.NDArray[np.float32]:
        products = np.asarray(self._product(self._enrolled.rows[rows], self._packed))
        result = products.astype(np.float32)
        result *= self._enrolled.scales[rows, np.newaxis]
        result *= self._steps
        result += self._offsets
        return result

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        unit = self._units[probe]
        codes = self._enrolled.rows[rows].astype(np.float64)
        along = (codes * unit).sum(axis=1) * self._enrolled.scales[rows]
        return _cosines(along + unit @ self._centre)


def _unit_length(probes: Embeddings) -> npt.NDArray[np.float64]:
    """Probes brought to length 1, in double precision; one of zeros stays one."""
    values = probes.astype(np.float64)
    lengths = np.sqrt((values**2).sum(axis=1, keepdims=True))
    return values / np.where(lengths > 0, lengths, 1)


def _columns(probes: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Probes as the right factor of a product; a single one as a vector, which is faster."""
    factors = np.ascontiguousarray(probes.T, np.float32)
    return factors[:, 0].copy() if len(probes) == 1 else factors


def _cosines(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rounded, and within the range that people are promised."""
    return np.clip(values, -1, 1).astype(np.float32)
