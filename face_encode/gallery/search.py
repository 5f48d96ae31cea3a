"""Exact search: the nearest people of each probe, among all who are enrolled.

Everybody is looked at roughly, in blocks of rows by matrix products, and only the best of every
few rows is noted, so that a search takes little memory whatever the gallery's size. Then the rows
that can hold one of the k nearest people, by how far off a rough similarity may be, are calculated
anew. What is found is therefore the same as if everybody had been calculated in double precision.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.gallery.approximate import ApproximateIndex
from face_encode.gallery.base import Ranking, check_undamaged
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.distances import Metric
from face_encode.gallery.quantization import Coded
from face_encode.types import Embeddings, Match

# A 64th of the similarities is little memory, and to calculate 64 rows anew takes microseconds.
GROUP_ROWS = 64


@dataclass(frozen=True)
class Groups:
    """How the rows of a gallery fall into groups.

    Rows are worked on in blocks. A block's groups are combs: with w of them the group g has the
    rows g, g + w, g + 2 w ..., because maxima are ten times as fast to find across long runs as
    within short ones. What is left over at the end is a group of its own.

    Attributes:
        rows: How many there are.
        height: Rows of a block, a multiple of ``GROUP_ROWS``; the last block may have fewer.
    """

    rows: int
    height: int

    @property
    def count(self) -> int:
        """Number of groups."""
        return -(-self.rows // GROUP_ROWS)

    def note_highest(
        self,
        values: npt.NDArray[np.float32],
        block: slice,
        highest: npt.NDArray[np.float32],
    ) -> None:
        """Note the highest value of each group of a block.

        Args:
            values: float32 ``(r, m)``, of each row of the block.
            block: Which rows these are.
            highest: float32 ``(count, m)``, takes the highest.
        """
        width = len(values) // GROUP_ROWS
        first = block.start // GROUP_ROWS
        combs = values[: width * GROUP_ROWS].reshape(GROUP_ROWS, -1)
        combs.max(axis=0, out=highest[first : first + width].reshape(-1))
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


# Similarities calculated at once, which stay in a core's cache: 4 MB.
_AT_ONCE = 1 << 20
# Rows at once for few probes: more make a product no faster.
_MOST_ROWS = 65_536
_MOST_PROBES = 128
# Similarities held at once where a mean takes all of them: 64 MB.
_HELD = 16_000_000
# Rows that an index is asked for: some people have many of the nearest.
_LEAST_ASKED = 64
# Rows above which a rough look at each of them takes less than calculating them anew.
_WORTH_A_LOOK = 256
# Rows calculated anew at once: 32 MB of 128 numbers in double precision.
_ANEW = 32_768


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
        metric: ``"cosine"`` or ``"euclidean"``; of codes, and with an index, ``"cosine"``.
        index: Of the same rows, to look among those that it finds only.

    Raises:
        GalleryError: The embeddings enrolled are damaged.
    """
    if index is not None:
        similarities = similarities_of(enrolled, probes, metric)
        return [
            _nearest_by_index(enrolled, similarities, index, place, probe, k, ranking)
            for place, probe in enumerate(probes)
        ]
    found: list[list[Match]] = []
    at_once = _MOST_PROBES
    if ranking == "mean":
        at_once = min(at_once, max(1, _HELD // len(enrolled)))
    for start in range(0, len(probes), at_once):
        similarities = similarities_of(enrolled, probes[start : start + at_once], metric)
        nearest = _nearest_by_best if ranking == "best" else _nearest_by_mean
        found += nearest(enrolled, similarities, k)
    return found


def _nearest_by_best(enrolled: Enrolled, similarities: Similarities, k: int) -> list[list[Match]]:
    """The nearest people of each probe by the nearest of a person's rows."""
    groups = Groups(len(enrolled), _height(similarities))
    highest = np.empty((groups.count, len(similarities.slack)), np.float32)

    def note(rows: slice) -> None:
        groups.note_highest(similarities.scores(rows), rows, highest)

    _over_rows(note, len(enrolled), similarities)
    highest = similarities.rough(highest)
    check_undamaged(highest)
    return [
        _nearest_in_groups(enrolled, similarities, groups, probe, column, k)
        for probe, column in enumerate(np.ascontiguousarray(highest.T))
    ]


def _nearest_in_groups(
    enrolled: Enrolled,
    similarities: Similarities,
    groups: Groups,
    probe: int,
    highest: npt.NDArray[np.float32],
    k: int,
) -> list[Match]:
    """The nearest people of one probe, by what the rough look found best in each group of rows."""
    slack = float(similarities.slack[probe])
    # The first turn finds out how near the k nearest are at least, and the next one, which goes a
    # slack below that, who else may be as near: half as far as by the rough look alone.
    least = _kth_largest(highest, k)
    while True:
        chosen = np.flatnonzero(highest >= least)
        rows = groups.rows_of(chosen)
        if len(rows) > _WORTH_A_LOOK and len(chosen) < len(highest):
            # Of most groups a single row is near.
            rows = rows[similarities.rough(similarities.scores(rows))[:, probe] >= least]
        people, best = _best_of_each(enrolled, similarities, probe, rows)
        if len(chosen) == len(highest):
            break
        if len(people) < k:
            # Many rows are one person's.
            least = _kth_largest(highest, 4 * len(chosen))
            continue
        needed = _kth_largest(best, k) - slack
        if needed >= least:
            break
        least = needed
    return _ranked(enrolled, people, best, k)


def _nearest_by_mean(enrolled: Enrolled, similarities: Similarities, k: int) -> list[list[Match]]:
    """The nearest people of each probe by the mean over a person's rows."""
    rough = np.empty((len(similarities.slack), len(enrolled)), np.float32)

    def hold(rows: slice) -> None:
        rough[:, rows] = similarities.rough(similarities.scores(rows)).T

    _over_rows(hold, len(enrolled), similarities)
    found = []
    for probe, values in enumerate(rough):
        sums = np.bincount(enrolled.owners, values, len(enrolled.people))
        means = sums / enrolled.counts
        check_undamaged(means)
        slack = float(similarities.slack[probe])
        candidates = means >= _kth_largest(means, k) - 2 * slack
        people = np.flatnonzero(candidates)
        nearness = _means_of(enrolled, similarities, probe, people)
        found.append(_ranked(enrolled, people, nearness, k))
    return found


def _nearest_by_index(
    enrolled: Enrolled,
    similarities: Similarities,
    index: ApproximateIndex,
    place: int,
    probe: npt.NDArray[np.float32],
    k: int,
    ranking: Ranking,
) -> list[Match]:
    """The nearest people of one probe among the rows that an index finds."""
    asked = max(_LEAST_ASKED, 4 * k)
    while True:
        rows = index.nearest_rows(probe, asked)
        people, nearness = _best_of_each(enrolled, similarities, place, rows)
        if len(people) >= k or asked >= len(enrolled):
            break
        # Many rows are one person's.
        asked *= 4
    if ranking == "mean":
        nearness = _means_of(enrolled, similarities, place, people)
    return _ranked(enrolled, people, nearness, k)


def _best_of_each(
    enrolled: Enrolled, similarities: Similarities, probe: int, rows: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float32]]:
    """Whose some rows are, and how near the nearest of each is."""
    values = _anew(similarities, probe, rows)
    order = np.argsort(-values, kind="stable")
    people, first = np.unique(enrolled.owners[rows][order], return_index=True)
    return people, values[order][first]


def _means_of(
    enrolled: Enrolled, similarities: Similarities, probe: int, people: npt.NDArray[np.integer]
) -> npt.NDArray[np.float32]:
    """How near some people are by the mean over their rows."""
    is_asked = np.zeros(len(enrolled.people), bool)
    is_asked[people] = True
    rows = np.flatnonzero(is_asked[enrolled.owners])
    values = _anew(similarities, probe, rows)
    sums = np.bincount(enrolled.owners[rows], values, len(enrolled.people))
    return np.asarray(sums[people] / enrolled.counts[people], np.float32)


def _height(similarities: Similarities) -> int:
    """Rows of a block."""
    return min(_MOST_ROWS, _AT_ONCE // len(similarities.slack) // GROUP_ROWS * GROUP_ROWS)


def _over_rows(work: Callable[[slice], None], count: int, similarities: Similarities) -> None:
    """Have all rows worked on, block by block, by all cores."""
    height = _height(similarities)
    blocks = [slice(start, min(start + height, count)) for start in range(0, count, height)]
    workers = 1 if similarities.is_threaded else min(len(blocks), _cores())
    waiting = deque(blocks)

    def work_on() -> None:
        while True:
            try:
                block = waiting.popleft()
            except IndexError:
                return
            work(block)

    # This thread works too, and does not wait for others that are busy with other searches.
    others = [_threads().submit(work_on) for _ in range(workers - 1)]
    work_on()
    for other in others:
        if not other.cancel():
            other.result()


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads for all searches: to start one takes as long as to look at 100,000 rows."""
    return ThreadPoolExecutor(max(1, _cores() - 1), thread_name_prefix="face_encode search")


if hasattr(os, "register_at_fork"):
    # A process that was forked has none of the threads.
    os.register_at_fork(after_in_child=_threads.cache_clear)


@cache
def _cores() -> int:
    """Cores that this process may take."""
    import loky

    return int(loky.cpu_count())


def _anew(
    similarities: Similarities, probe: int, rows: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    """Exact similarities of some rows and one probe."""
    values = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _ANEW):
        part = slice(start, start + _ANEW)
        values[part] = similarities.exact(probe, rows[part])
    check_undamaged(values)
    return values


def _kth_largest(values: npt.NDArray[np.floating], k: int) -> float:
    """The k-th largest value; the smallest where there are not so many."""
    if k == 1:
        return float(values.max())
    place = max(0, len(values) - k)
    return float(np.partition(values, place)[place])


def _ranked(
    enrolled: Enrolled,
    people: npt.NDArray[np.integer],
    nearness: npt.NDArray[np.float32],
    k: int,
) -> list[Match]:
    """The nearest k of some people, best first; the first by name where two are equally near."""
    chosen = np.flatnonzero(nearness >= _kth_largest(nearness, k))
    pairs = [(-float(nearness[each]), enrolled.people[people[each]]) for each in chosen]
    return [Match(name, -negated) for negated, name in sorted(pairs)[:k]]
