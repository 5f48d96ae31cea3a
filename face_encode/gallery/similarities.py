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
out, is at most ``|e|`` times the largest ``s |c|``, the codes' reach (Cauchy and Schwarz). Where
codes are the index of float32 rows, a row of length 1 is as far from what its codes stand for as
the codes' blur at the most, and so is its similarity.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.distances import Metric
from face_encode.gallery.codes import Coded
from face_encode.gallery.enrolled import Enrolled
from face_encode.types import Embeddings

# What one rounding to float32 is off by, of a number's size.
_UNIT_ROUNDOFF = 2.0**-24
# Roundings beside those of the product itself: of lengths, sums and quotients; with room to spare.
_FURTHER_ROUNDINGS = 16
_LARGEST_CODE = 127
# So many rows of codes are taken as one long row for a single probe: its product with as many
# copies of the probe, side by side with zeros between, takes half to three quarters of the time.
_SIDE_BY_SIDE = 4
# Up to so many probes a product with each is faster than one with all: BLAS is made for many.
_FEW_PROBES = 4


Rows: TypeAlias = "slice | npt.NDArray[np.intp]"
"""A run of rows, or some rows by their numbers."""


class Similarities(Protocol):
    """The similarities of m probes and the enrolled, higher is nearer.

    Attributes:
        slack: float64 ``(m,)``, how far a rough similarity is from the exact one at the most.
        is_threaded: Whether ``scores`` takes all cores by itself; where it does not, it leaves
            Python's other threads alone.
    """

    slack: npt.NDArray[np.float64]
    is_threaded: bool

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Of r rows and all probes, float32 ``(r, m)``: higher where the row is nearer.

        Whatever is the same for all rows of a probe is left to ``rough``, which is asked about
        the highest scores only.
        """

    def rough(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The similarities to within the slack, of scores ``(r, m)``, which it may overwrite."""

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Of some rows and one probe, rounded once; the same for the same row, wherever it is."""


def similarities_of(enrolled: Enrolled, probes: Embeddings, metric: Metric) -> Similarities:
    """The similarities of probes, float32 ``(m, D)``, finite, by a gallery's metric."""
    if metric == "euclidean":
        return _Euclidean(enrolled, probes)
    if enrolled.coded is None:
        return _Cosine(enrolled, probes)
    return _OfCodes(enrolled.coded, probes) if enrolled.is_int8 else _ByCodes(enrolled, probes)


class _Cosine:
    """By the cosine of the angle; the rows are float32 of any length."""

    def __init__(self, enrolled: Enrolled, probes: Embeddings) -> None:
        self._enrolled = enrolled
        self._units = _unit_length(probes)
        self._factors = self._units.astype(np.float32)
        self.is_threaded = len(probes) > _FEW_PROBES
        rounding = (probes.shape[1] + _FURTHER_ROUNDINGS) * _UNIT_ROUNDOFF
        self.slack = np.full(len(probes), rounding)

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        result = _products(self._enrolled.rows[rows], self._factors)
        result /= self._enrolled.scales[rows, np.newaxis]
        return result

    def rough(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return scores

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        found = self._enrolled.rows[rows].astype(np.float64)
        lengths = np.sqrt((found**2).sum(axis=1))
        return _cosines((found * self._units[probe]).sum(axis=1) / lengths)


class _Euclidean:
    """By minus the distance of the embeddings as they are."""

    def __init__(self, enrolled: Enrolled, probes: Embeddings) -> None:
        self._enrolled = enrolled
        self._probes = probes.astype(np.float64)
        self._factors = probes
        self.is_threaded = len(probes) > _FEW_PROBES
        lengths = np.sqrt((self._probes**2).sum(axis=1))
        self._squares = (lengths**2).astype(np.float32)
        largest = float(enrolled.scales.max(initial=0))
        rounding = 2 * (probes.shape[1] + _FURTHER_ROUNDINGS) * _UNIT_ROUNDOFF
        # Of the square; a root is off by the root of that at the most, which it is near zero.
        self.slack = np.sqrt(rounding * (lengths + largest) ** 2)

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        result = _products(self._enrolled.rows[rows], self._factors)
        result *= np.float32(2)
        result -= self._enrolled.scales[rows, np.newaxis] ** 2
        return result

    def rough(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # Rounding makes the square of a tiny distance negative now and then.
        return np.asarray(-np.sqrt(np.maximum(self._squares - scores, 0)), np.float32)

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        apart = self._enrolled.rows[rows] - self._probes[probe]
        return np.asarray(-np.sqrt((apart**2).sum(axis=1)), np.float32)


class _OfCodes:
    """By the cosine of the angle; the rows are codes."""

    is_threaded = False

    def __init__(self, coded: Coded, probes: Embeddings) -> None:
        import numkong

        self._product = numkong.dots_packed
        self._coded = coded
        self._units = _unit_length(probes)
        self._centre = coded.quantizer.centre.astype(np.float64)
        # A probe of zeros, which has no direction, is as far from everybody.
        widest = np.abs(self._units).max(axis=1, keepdims=True)
        steps = np.where(widest > 0, widest, 1) / _LARGEST_CODE
        codes = np.rint(self._units / steps)
        left_out = self._units - codes * steps
        factors = codes.astype(np.int8)
        self._packed = numkong.dots_pack(factors)
        self._packed_side_by_side = None
        if len(factors) == 1:
            side_by_side = np.kron(np.eye(_SIDE_BY_SIDE, dtype=np.int8), factors)
            self._packed_side_by_side = numkong.dots_pack(side_by_side)
        self._steps = steps[:, 0].astype(np.float32)
        self._offsets = (self._units @ self._centre).astype(np.float32)
        # The products with the centre and with the codes are both below 2.
        rounding = _FURTHER_ROUNDINGS * _UNIT_ROUNDOFF * 4
        lengths = np.sqrt((left_out**2).sum(axis=1))
        self.slack = lengths * coded.reach + coded.blur + rounding

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        result = self._whole_products(self._coded.codes[rows]).astype(np.float32)
        result *= self._coded.steps[rows, np.newaxis]
        return result

    def rough(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        scores *= self._steps
        scores += self._offsets
        return scores

    def _whole_products(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Of r rows of codes and the probes', int32 ``(r, m)``."""
        if self._packed_side_by_side is None:
            return np.asarray(self._product(codes, self._packed))
        whole = len(codes) // _SIDE_BY_SIDE * _SIDE_BY_SIDE
        wide = codes[:whole].reshape(-1, _SIDE_BY_SIDE * codes.shape[1])
        products = np.asarray(self._product(wide, self._packed_side_by_side)).reshape(-1, 1)
        if whole == len(codes):
            return products
        rest = np.asarray(self._product(codes[whole:], self._packed))
        return np.concatenate([products, rest])

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        unit = self._units[probe]
        codes = self._coded.codes[rows].astype(np.float64)
        along = (codes * unit).sum(axis=1) * self._coded.steps[rows]
        return _cosines(along + unit @ self._centre)


class _ByCodes(_OfCodes):
    """By the cosine of the angle; the rows are float32, and their codes are looked through."""

    def __init__(self, enrolled: Enrolled, probes: Embeddings) -> None:
        assert enrolled.coded is not None
        super().__init__(enrolled.coded, probes)
        self._cosine = _Cosine(enrolled, probes)

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        return self._cosine.exact(probe, rows)


def _unit_length(probes: Embeddings) -> npt.NDArray[np.float64]:
    """Probes brought to length 1, in double precision; one of zeros stays one."""
    values = probes.astype(np.float64)
    lengths = np.sqrt((values**2).sum(axis=1, keepdims=True))
    return values / np.where(lengths > 0, lengths, 1)


def _products(rows: npt.NDArray[Any], factors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of r rows and m factors, float32 ``(r, m)``."""
    if len(factors) > _FEW_PROBES:
        return np.asarray(rows @ factors.T, np.float32)
    result = np.empty((len(rows), len(factors)), np.float32)
    for column, factor in enumerate(factors):
        # Unlike BLAS's, numpy's own product runs in several of Python's threads at once.
        np.einsum("nd,d->n", rows, factor, out=result[:, column])
    return result


def _cosines(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Rounded, and within the range that people are promised."""
    return np.asarray(np.clip(values, -1, 1), np.float32)
