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
from functools import cache

import numpy as np
import numpy.typing as npt

from face_encode.distances import Metric
from face_encode.gallery.approximate import ApproximateIndex
from face_encode.gallery.checking import check_undamaged
from face_encode.gallery.enrolled import Enrolled
from face_encode.gallery.gallery import Ranking
from face_encode.gallery.groups import GROUP_ROWS, Groups
from face_encode.gallery.similarities import Similarities, similarities_of
from face_encode.types import Embeddings, Match

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
