"""Exact search: the nearest people of each probe, among all who are enrolled.

A small gallery takes one product, the best row of each person, and a sort: ``search_enrolled``. The
rest of this file is for larger ones, in two steps. The rough step goes through all rows in blocks,
in single precision or in whole numbers, and notes only the best of every few rows, so that it needs
little memory. The exact step computes in double precision the rows that can hold one of the k
nearest people, given the largest error of a rough similarity. The answer is that of double
precision throughout.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, InputError
from face_encode.gallery.approximate import ApproximateIndex
from face_encode.gallery.base import RANKINGS, Ranking, as_float32, check_undamaged
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.distances import Metric, unit_length
from face_encode.gallery.quantization import MAX_CODE, Coded
from face_encode.types import Embeddings, Match, check_count

# Similarities, rows times probes, up to which a search takes the short way: fractions of a
# millisecond, in which threads have nothing to gain.
_FEW_SIMILARITIES = 32_768

# Error of rounding a number to float32, relative to its size.
_UNIT_ROUNDOFF = 2.0**-24
# Roundings besides those of the product itself: of lengths, sums and quotients, with a margin.
_FURTHER_ROUNDINGS = 16


def check_search(
    embeddings: Any, size: int, k: object, ranking: object
) -> tuple[Embeddings, int, Ranking]:
    """Check the arguments of ``Gallery.search``; ``size`` is the length D of an embedding.

    Returns:
        The embeddings as float32 ``(m, D)``, k and the ranking.

    Raises:
        InputError: An embedding has another length or is not finite, k is below 1, or the ranking
            is unknown.
    """
    is_ready = isinstance(embeddings, np.ndarray) and embeddings.dtype == np.float32
    probes: Embeddings = embeddings if is_ready else as_float32(embeddings)
    if probes.ndim != 2 or probes.shape[1] != size:
        raise InputError(
            f"this gallery takes embeddings of shape (m, {size}). Received: shape {probes.shape}"
        )
    if not np.isfinite(probes).all():
        raise InputError("an embedding is finite; at least one is not")
    count = check_count(k, "k")
    for known in RANKINGS:
        if isinstance(ranking, str) and ranking == known:
            return probes, count, known
    raise InputError(f"a ranking is one of {', '.join(RANKINGS)}. Received: {ranking!r}")


def search_enrolled(
    enrolled: Enrolled,
    probes: Embeddings,
    k: int,
    ranking: Ranking = "best",
    metric: Metric = "cosine",
    index: ApproximateIndex | None = None,
) -> list[list[Match]]:
    """Find the nearest k people of each probe; see ``Gallery.search``.

    Args:
        enrolled: At least one row.
        probes: float32 ``(m, D)``, finite.
        k: At least 1.
        ranking: See ``Ranking``.
        metric: ``"cosine"`` or ``"euclidean"``; with codes or an index, ``"cosine"``.
        index: An index of the same rows: only the rows that it finds are compared.

    Raises:
        GalleryError: An enrolled embedding is damaged.
    """
    rows, people, size = enrolled.rows, enrolled.people, enrolled.rows.size * len(probes)
    if (
        (ranking, metric, index, enrolled.index) != ("best", "cosine", None, None)
        or rows.dtype != np.float32
        or len(rows) * len(probes) > _FEW_SIMILARITIES
    ):
        return _search_many(enrolled, probes, k, ranking, metric, index)
    k = min(k, len(people))
    slack = 2 * (rows.shape[1] + _FURTHER_ROUNDINGS) * _UNIT_ROUNDOFF
    units = probes.astype(np.float64)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    factors = units.astype(np.float32)
    # A product as small as the first stays in this thread by itself.
    products = rows @ factors.T if size <= _GEMV_ALONE else _products(rows, factors)
    similarities = products / enrolled.scales[:, np.newaxis]
    found = []
    for unit, rough in zip(units, similarities.T, strict=True):
        if not np.isfinite(rough).all():
            raise GalleryError("the gallery is damaged: an embedding in it is not finite")
        best = np.full(len(people), -np.inf, np.float32)
        np.maximum.at(best, enrolled.owners, rough)
        # Rows that can be among the nearest, in double precision: what is equal stays equal.
        near = np.flatnonzero(rough >= np.partition(best, -k)[-k] - slack)
        embeddings = rows[near].astype(np.float64)
        lengths = np.sqrt((embeddings**2).sum(axis=1))
        exact = np.clip((embeddings * unit).sum(axis=1) / lengths, -1, 1).astype(np.float32)
        names = [people[owner] for owner in enrolled.owners[near].tolist()]
        nearest: dict[str, float] = {}
        for distance, name in sorted(zip((-exact).tolist(), names, strict=True)):
            nearest.setdefault(name, -distance)
        found.append([Match(*each) for each in islice(nearest.items(), k)])
    return found


# Multiplications up to which OpenBLAS stays in the thread that called it: of a matrix with a
# vector, and (half of that; more of them are slow on some processors) with a matrix. For few probes
# products are computed in pieces that small. A search's own threads then use all cores, several
# searches at once do not wait for each other, and nothing waits for a core that is busy with
# something else: 8 probes among a million rows take three quarters of the time, or a third.
_GEMV_ALONE, _GEMM_ALONE = 8_192, 131_072
_PIECE_ROWS = 128
# For more probes than this a product by BLAS's own threads is faster.
_FEW_PROBES = 16


def _products(rows: npt.NDArray[Any], factors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Multiply float32 rows ``(r, D)`` with factors ``(m, D)``: ``(r, m)``."""
    (total, size), count = rows.shape, len(factors)
    if total * count > _FEW_SIMILARITIES:
        if count > _FEW_PROBES:
            return np.asarray(rows @ factors.T)
        if count == 1:
            # Where memory is the limit, a single run through the rows is a tenth faster.
            return np.asarray(np.einsum("nd,d->n", rows, factors[0])[:, np.newaxis])
    alone = _GEMV_ALONE if count == 1 else _GEMM_ALONE
    height = min(_PIECE_ROWS, max(1, alone // size // max(1, count)))
    pieces = total // height
    whole = pieces * height
    result = np.empty((count, total), np.float32)
    parts = result[:, :whole].reshape(count, pieces, height).transpose(1, 0, 2)
    np.matmul(factors, rows[:whole].reshape(pieces, height, size).transpose(0, 2, 1), out=parts)
    np.matmul(factors, rows[whole:].T, out=result[:, whole:])
    return np.transpose(result)


# A 64th of the similarities is little memory, and computing 64 rows exactly takes microseconds.
GROUP_ROWS = 64


@dataclass(frozen=True)
class Groups:
    """Groups of rows, of which the rough step notes the best row only.

    Rows are processed in blocks. A block's groups are combs: with w of them group g has the rows
    g, g + w, g + 2 w ..., because maxima across long runs are ten times as fast as within short
    ones. The rows left over at the end form a group of their own.

    Attributes:
        rows: Number of rows.
        height: Rows of a block, a multiple of ``GROUP_ROWS``; the last block may have fewer.
    """

    rows: int
    height: int

    @property
    def count(self) -> int:
        """Number of groups."""
        return -(-self.rows // GROUP_ROWS)

    def note_highest(
        self, values: npt.NDArray[np.float32], block: slice, highest: npt.NDArray[np.float32]
    ) -> None:
        """Write the highest of a block's values ``(r, m)`` in each group to ``(count, m)``."""
        width = len(values) // GROUP_ROWS
        first = block.start // GROUP_ROWS
        combs = values[: width * GROUP_ROWS].reshape(GROUP_ROWS, width, values.shape[1])
        highest[first : first + width] = combs.max(axis=0)
        if width * GROUP_ROWS < len(values):
            values[width * GROUP_ROWS :].max(axis=0, out=highest[-1])

    def rows_of(self, groups: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The rows of some groups."""
        in_block = self.height // GROUP_ROWS
        starts = groups // in_block * self.height
        widths = np.minimum(self.height, self.rows - starts) // GROUP_ROWS
        places = groups % in_block
        is_rest = places == widths
        firsts = starts + np.where(is_rest, widths * GROUP_ROWS, places)
        strides = np.where(is_rest, 1, widths)
        rows = firsts[:, np.newaxis] + strides[:, np.newaxis] * np.arange(GROUP_ROWS)
        found = rows.ravel()
        return np.asarray(found[found < self.rows], np.intp)


# Rows computed exactly at once: 32 MB of 128 numbers in double precision.
_EXACT_ROWS = 32_768
Rows: TypeAlias = "slice | npt.NDArray[np.intp]"


class Similarities(ABC):
    """The similarities of m probes and the enrolled rows, higher is nearer.

    Attributes:
        enrolled: The rows.
        slack: float64 ``(m,)``, the largest error of a rough similarity.
        is_threaded: Whether ``scores`` uses all cores by itself.
    """

    slack: npt.NDArray[np.float64]
    is_threaded = False

    def __init__(self, enrolled: Enrolled) -> None:
        self.enrolled = enrolled

    @abstractmethod
    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Score r rows for all probes, float32 ``(r, m)``: the nearer the row, the higher.

        Terms that are equal for all rows of a probe are left to ``rough``, which is called for the
        highest scores only.
        """

    def rough(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Convert scores ``(r, m)``, which may be overwritten, to similarities within the slack."""
        return scores

    @abstractmethod
    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """Compute rows and one probe in double precision; equal rows get equal similarities."""

    def best_of_each(
        self, probe: int, rows: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float32]]:
        """The people to whom some rows belong, and the exact similarity of each one's nearest."""
        values = self._exactly(probe, rows)
        order = np.argsort(-values, kind="stable")
        people, first = np.unique(self.enrolled.owners[rows][order], return_index=True)
        return people, values[order][first]

    def means_of(self, probe: int, people: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """The mean exact similarity of some people over all their rows."""
        owners, count = self.enrolled.owners, len(self.enrolled.people)
        is_asked = np.zeros(count, bool)
        is_asked[people] = True
        rows = np.flatnonzero(is_asked[owners])
        sums = np.bincount(owners[rows], self._exactly(probe, rows), count)
        return np.asarray(sums[people] / self.enrolled.counts[people], np.float32)

    def _exactly(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """``exact`` for any number of rows."""
        values = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), _EXACT_ROWS):
            part = slice(start, start + _EXACT_ROWS)
            values[part] = self.exact(probe, rows[part])
        check_undamaged(values)
        return values

    def ranked(
        self, people: npt.NDArray[np.integer], nearness: npt.NDArray[np.float32], k: int
    ) -> list[Match]:
        """The nearest k of some people, nearest first; equally near ones by name."""
        chosen = np.flatnonzero(nearness >= _kth_largest(nearness, k))
        pairs = [(-float(nearness[each]), self.enrolled.people[people[each]]) for each in chosen]
        return [Match(name, -negated) for negated, name in sorted(pairs)[:k]]


def similarities_of(enrolled: Enrolled, probes: Embeddings, metric: Metric) -> Similarities:
    """Prepare the comparison of probes, float32 ``(m, D)``, finite, by a gallery's metric."""
    if metric == "euclidean":
        return _Euclidean(enrolled, probes)
    coded = enrolled.coded
    return _Cosine(enrolled, probes) if coded is None else _ByCodes(enrolled, coded, probes)


class _Cosine(Similarities):
    """Cosine similarity to float32 rows of any length."""

    def __init__(self, enrolled: Enrolled, probes: Embeddings) -> None:
        super().__init__(enrolled)
        self._units = unit_length(probes.astype(np.float64))
        self._factors = self._units.astype(np.float32)
        self.is_threaded = len(probes) > _FEW_PROBES
        rounding = (probes.shape[1] + _FURTHER_ROUNDINGS) * _UNIT_ROUNDOFF
        self.slack = np.full(len(probes), rounding)

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        result = _products(self.enrolled.rows[rows], self._factors)
        result /= self.enrolled.scales[rows, np.newaxis]
        return result

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        found = self.enrolled.rows[rows].astype(np.float64)
        cosines = (found * self._units[probe]).sum(axis=1) / np.sqrt((found**2).sum(axis=1))
        return np.asarray(np.clip(cosines, -1, 1), np.float32)


class _Euclidean(Similarities):
    """Minus the distance between embeddings as the encoder gave them."""

    def __init__(self, enrolled: Enrolled, probes: Embeddings) -> None:
        super().__init__(enrolled)
        self._probes = probes.astype(np.float64)
        self._factors = probes
        self.is_threaded = len(probes) > _FEW_PROBES
        lengths = np.sqrt((self._probes**2).sum(axis=1))
        self._squares = (lengths**2).astype(np.float32)
        largest = float(enrolled.scales.max(initial=0))
        rounding = 2 * (probes.shape[1] + _FURTHER_ROUNDINGS) * _UNIT_ROUNDOFF
        # The error of the square; that of the root is at most its root, which it reaches near 0.
        self.slack = np.sqrt(rounding * (lengths + largest) ** 2)

    def scores(self, rows: Rows) -> npt.NDArray[np.float32]:
        result = _products(self.enrolled.rows[rows], self._factors)
        result *= np.float32(2)
        result -= self.enrolled.scales[rows, np.newaxis] ** 2
        return result

    def rough(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        # Rounding can make the square of a tiny distance negative.
        return np.asarray(-np.sqrt(np.maximum(self._squares - scores, 0)), np.float32)

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        apart = self.enrolled.rows[rows] - self._probes[probe]
        return np.asarray(-np.sqrt((apart**2).sum(axis=1)), np.float32)


# For a single probe this many rows of codes are multiplied as one long row with as many copies of
# the probe, side by side with zeros between: half to three quarters of the time.
_SIDE_BY_SIDE = 4


class _ByCodes(_Cosine):
    """Cosine similarity, roughly by codes; exactly to float32 rows, or to the codes themselves."""

    def __init__(self, enrolled: Enrolled, coded: Coded, probes: Embeddings) -> None:
        import numkong

        super().__init__(enrolled, probes)
        self.is_threaded = False
        self._product = numkong.dots_packed
        self._coded = coded
        self._centre = coded.quantizer.centre.astype(np.float64)
        # A probe of zeros has no direction, and is as far from everybody.
        widest = np.abs(self._units).max(axis=1, keepdims=True)
        steps = np.where(widest > 0, widest, 1) / MAX_CODE
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
        codes = self._coded.codes[rows]
        whole = 0
        result = np.empty((len(codes), len(self._steps)), np.float32)
        if self._packed_side_by_side is not None:
            whole = len(codes) // _SIDE_BY_SIDE * _SIDE_BY_SIDE
            wide = codes[:whole].reshape(-1, _SIDE_BY_SIDE * codes.shape[1])
            result[:whole, 0] = np.asarray(self._product(wide, self._packed_side_by_side)).ravel()
        if whole < len(codes):
            result[whole:] = self._product(codes[whole:], self._packed)
        result *= self._coded.steps[rows, np.newaxis]
        return result

    def rough(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        scores *= self._steps
        scores += self._offsets
        return scores

    def exact(self, probe: int, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        if not self.enrolled.is_int8:
            return super().exact(probe, rows)
        unit = self._units[probe]
        codes = self._coded.codes[rows].astype(np.float64)
        along = (codes * unit).sum(axis=1) * self._coded.steps[rows]
        return np.asarray(np.clip(along + unit @ self._centre, -1, 1), np.float32)


_MAX_PROBES = 128
# Similarities held at once where a mean takes all of them: 64 MB.
_MAX_HELD = 16_000_000
# Rows that an index is asked for, since many of the nearest can belong to one person.
_MIN_ASKED = 64
# Rows above which a rough look at each takes less time than computing them exactly.
_WORTH_A_LOOK = 256


def _search_many(
    enrolled: Enrolled,
    probes: Embeddings,
    k: int,
    ranking: Ranking,
    metric: Metric,
    index: ApproximateIndex | None,
) -> list[list[Match]]:
    """Do what ``search_enrolled`` does, for any gallery."""
    if index is not None:
        similarities = similarities_of(enrolled, probes, metric)
        return [
            _nearest_by_index(similarities, index, place, probe, k, ranking)
            for place, probe in enumerate(probes)
        ]
    found: list[list[Match]] = []
    at_once = _MAX_PROBES
    if ranking == "mean":
        at_once = min(at_once, max(1, _MAX_HELD // len(enrolled)))
    for start in range(0, len(probes), at_once):
        similarities = similarities_of(enrolled, probes[start : start + at_once], metric)
        nearest = _nearest_by_best if ranking == "best" else _nearest_by_mean
        found += nearest(similarities, k)
    return found


def _nearest_by_best(similarities: Similarities, k: int) -> list[list[Match]]:
    """The nearest people of each probe, by the nearest row of each person."""
    groups = Groups(len(similarities.enrolled), _block_height(similarities))
    highest = np.empty((groups.count, len(similarities.slack)), np.float32)

    def note(rows: slice) -> None:
        groups.note_highest(similarities.scores(rows), rows, highest)

    _for_each_block(note, groups.height, similarities)
    highest = similarities.rough(highest)
    check_undamaged(highest)
    return [
        _nearest_in_groups(similarities, groups, probe, column, k)
        for probe, column in enumerate(np.ascontiguousarray(highest.T))
    ]


def _nearest_in_groups(
    similarities: Similarities, groups: Groups, probe: int, highest: npt.NDArray[np.float32], k: int
) -> list[Match]:
    """The nearest people of one probe, given the best rough similarity of each group."""
    # The first turn finds a lower bound of the k nearest similarities; the next one, a slack below
    # that, finds everybody who may be as near. That is half as far down as the rough similarities
    # alone would ask for.
    least = _kth_largest(highest, k)
    while True:
        chosen = np.flatnonzero(highest >= least)
        rows = groups.rows_of(chosen)
        if len(rows) > _WORTH_A_LOOK and len(chosen) < len(highest):
            # In most groups a single row is near.
            rows = rows[similarities.rough(similarities.scores(rows))[:, probe] >= least]
        people, best = similarities.best_of_each(probe, rows)
        if len(chosen) == len(highest):
            break
        if len(people) < k:
            # Many rows belong to one person.
            least = _kth_largest(highest, 4 * len(chosen))
            continue
        needed = _kth_largest(best, k) - float(similarities.slack[probe])
        if needed >= least:
            break
        least = needed
    return similarities.ranked(people, best, k)


def _nearest_by_mean(similarities: Similarities, k: int) -> list[list[Match]]:
    """The nearest people of each probe, by the mean over the rows of each person."""
    enrolled = similarities.enrolled
    rough = np.empty((len(similarities.slack), len(enrolled)), np.float32)

    def hold(rows: slice) -> None:
        rough[:, rows] = similarities.rough(similarities.scores(rows)).T

    _for_each_block(hold, _block_height(similarities), similarities)
    found = []
    for probe, values in enumerate(rough):
        means = np.bincount(enrolled.owners, values, len(enrolled.people)) / enrolled.counts
        check_undamaged(means)
        least = _kth_largest(means, k) - 2 * float(similarities.slack[probe])
        people = np.flatnonzero(means >= least)
        found.append(similarities.ranked(people, similarities.means_of(probe, people), k))
    return found


def _nearest_by_index(
    similarities: Similarities,
    index: ApproximateIndex,
    place: int,
    probe: npt.NDArray[np.float32],
    k: int,
    ranking: Ranking,
) -> list[Match]:
    """The nearest people of one probe among the rows that an index finds."""
    asked = max(_MIN_ASKED, 4 * k)
    while True:
        people, nearness = similarities.best_of_each(place, index.nearest_rows(probe, asked))
        if len(people) >= k or asked >= len(similarities.enrolled):
            break
        # Many rows belong to one person.
        asked *= 4
    if ranking == "mean":
        nearness = similarities.means_of(place, people)
    return similarities.ranked(people, nearness, k)


def _kth_largest(values: npt.NDArray[np.floating], k: int) -> float:
    """The k-th largest value; the smallest where there are fewer than k."""
    if k == 1:
        return float(values.max())
    place = max(0, len(values) - k)
    return float(np.partition(values, place)[place])


# Similarities computed at once: at most 4 MB, which stays in a core's cache; fewer than the first
# are not worth a thread.
_MIN_BLOCK, _MAX_BLOCK = 1 << 16, 1 << 20
# Rows of a block: more do not make a product faster.
_MAX_BLOCK_ROWS = 65_536


def _block_height(similarities: Similarities) -> int:
    """Rows of a block, a multiple of ``GROUP_ROWS``."""
    rows, probes = len(similarities.enrolled), len(similarities.slack)
    height = min(_MAX_BLOCK_ROWS, _MAX_BLOCK // probes)
    if not similarities.is_threaded:
        # Few enough that each core has a block.
        height = min(height, max(_MIN_BLOCK // probes, -(-rows // _cores())))
    return -(-height // GROUP_ROWS) * GROUP_ROWS


def _for_each_block(work: Callable[[slice], None], height: int, similarities: Similarities) -> None:
    """Process all rows, block by block, on all cores."""
    count = len(similarities.enrolled)
    blocks = [slice(start, min(start + height, count)) for start in range(0, count, height)]
    waiting = deque(blocks)

    def work_on() -> None:
        while True:
            try:
                block = waiting.popleft()
            except IndexError:
                return
            work(block)

    # This thread works too, and does not wait for others that are busy with other searches.
    workers = 1 if similarities.is_threaded else min(len(blocks), _cores())
    others = [_threads().submit(work_on) for _ in range(workers - 1)]
    work_on()
    for other in others:
        if not other.cancel():
            other.result()


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads for all searches: starting one takes as long as going through 100,000 rows."""
    return ThreadPoolExecutor(max(1, _cores() - 1), thread_name_prefix="face_encode search")


if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads.
    os.register_at_fork(after_in_child=_threads.cache_clear)


@cache
def _cores() -> int:
    """Number of cores that this process may use."""
    import loky

    return int(loky.cpu_count())
