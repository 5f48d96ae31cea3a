"""Time and memory of a search as galleries grow, and what faster ways of searching miss."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.scale.bandwidth import ARRAY_BYTES
from benchmarks.scale.contestant import Contestant, MissingContestantError
from benchmarks.scale.growth import Growth
from benchmarks.scale.results import Skipped
from benchmarks.timing import Times

_MODULE = "benchmarks.scale.search_contestants"
DIMENSIONS = 128
# The original's loop takes 2 ms a comparison: this many are timed, the rest extrapolated.
LOOP_COMPARISONS = 300
# Below, a search is mostly the cost of the call, which does not grow.
GROWTH_FROM = 10_000
# What a turn may take: the repeats of a contestant at a size are chosen by its first search.
_SECONDS_A_TURN, _FEWEST, _MOST = 0.5, 2, 50


@dataclass(frozen=True)
class SearchKind:
    """A way to search.

    Attributes:
        kind: Of ``search_contestants``.
        label: What tables and plots call it.
        most: The most faces that it is measured with unless more are asked for, where it takes
            long to build or much memory; None for no limit.
    """

    kind: str
    label: str
    most: int | None = None


SEARCH_KINDS = (
    SearchKind("float32", "exact, float32"),
    SearchKind("indexed", "exact, float32 with int8 index"),
    SearchKind("int8", "exact, int8"),
    SearchKind("approximate", "approximate index"),
    SearchKind("milvus", "Milvus Lite", 100_000),
    SearchKind("face_recognition", "face_recognition", 1_000_000),
)
LOOP = SearchKind("loop", "the original's loop (extrapolated)")
READING = SearchKind("reading", "reading the array once")


def measure_search(
    sizes: Sequence[int],
    kinds: Sequence[str],
    turns: int,
    skipped: list[Skipped],
    most: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Look one embedding up at each size, by each way of searching, in turns.

    Args:
        sizes: Numbers of faces enrolled.
        kinds: Of ``SEARCH_KINDS``, and ``"loop"``.
        turns: How many turns a size has.
        skipped: Takes what cannot be measured here.
        most: Kind -> the most faces, where others than its own are wanted.

    Returns:
        ``"rows"``, one a way and size; ``"bytes_a_second"`` of the memory; ``"growth"`` of each
        way.
    """
    rows: list[dict[str, Any]] = []
    rates: list[float] = []
    with Contestant(READING.label, _MODULE, "reading", {"bytes": ARRAY_BYTES}) as reader:
        for size in sorted(sizes):
            allowed = [
                each
                for each in SEARCH_KINDS
                if each.kind in kinds
                and not is_too_large(each, size, most or {}, "search", skipped)
            ]
            rows += _measure_size(size, allowed, turns, reader, rates, skipped)
    if "loop" in kinds:
        rows += _loop_rows(sizes, turns, skipped)
    growth = {}
    # A time that was only read or extrapolated grows in proportion and needs no fit.
    searched = (row["kind"] for row in rows if "build_seconds" in row)
    for kind in dict.fromkeys(searched):
        points = [
            (row["faces"], row["milliseconds"]["median"])
            for row in rows
            if row["kind"] == kind and row["faces"] >= GROWTH_FROM
        ]
        if len(points) >= 2:
            growth[kind] = asdict(Growth.of(*zip(*points, strict=True)))
    return {"rows": rows, "bytes_a_second": max(rates), "growth": growth}


def is_too_large(
    each: SearchKind, size: int, most: Mapping[str, int], part: str, skipped: list[Skipped]
) -> bool:
    """Whether a way is too slow or large for this many faces; ``skipped`` then says so."""
    limit = most.get(each.kind, each.most)
    if limit is None or size <= limit:
        return False
    what = f"{each.label}, {size:,} faces"
    skipped.append(Skipped(part, what, f"measured up to {limit:,} (--most {each.kind}=N)"))
    return True


def _measure_size(
    size: int,
    kinds: Sequence[SearchKind],
    turns: int,
    reader: Contestant,
    rates: list[float],
    skipped: list[Skipped],
) -> list[dict[str, Any]]:
    """All ways at one size; ``rates`` takes the bytes a second that were read meanwhile.

    Those that do not fit into the memory beside the others take their turns after them.
    """
    read: list[float] = []
    rows: dict[str, dict[str, Any]] = {}
    waiting = list(kinds)
    while waiting:
        left_out: dict[str, str] = {}
        rows |= _measure_together(size, waiting, turns, reader, read, left_out)
        if len(left_out) == len(waiting):
            skipped += [
                Skipped("search", f"{each.label}, {size:,} faces", left_out[each.kind])
                for each in waiting
            ]
            break
        waiting = [each for each in waiting if each.kind in left_out]
    rates += read
    array_bytes = size * DIMENSIONS * 4
    in_order = [rows[each.kind] for each in kinds if each.kind in rows]
    return [_row("reading", size, [array_bytes / rate for rate in read]), *in_order]


def _measure_together(
    size: int,
    kinds: Sequence[SearchKind],
    turns: int,
    reader: Contestant,
    read: list[float],
    left_out: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """As many ways as there is room for, in turns; ``left_out`` says why others were not."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        contestants: dict[str, Contestant] = {}
        repeats: dict[str, int] = {}
        # Backwards, because building takes much more memory than it keeps: the largest comes last,
        # when nobody else needs room to build.
        for each in reversed(kinds):
            options = {"faces": size, "dimensions": DIMENSIONS, "folder": folder}
            try:
                contestant = Contestant(each.label, _MODULE, each.kind, options)
            except MissingContestantError as error:
                left_out[each.kind] = str(error)
                continue
            contestants[each.kind] = stack.enter_context(contestant)
            once = contestant.ask(repeats=2)["seconds"][-1]
            repeats[each.kind] = int(np.clip(_SECONDS_A_TURN / once, _FEWEST, _MOST))
        times: dict[str, list[float]] = {kind: [] for kind in contestants}
        for _ in range(turns):
            read += reader.ask(repeats=2)["bytes_a_second"]
            for kind, contestant in contestants.items():
                times[kind] += contestant.ask(repeats=repeats[kind])["seconds"]
        return {
            kind: _row(kind, size, times[kind]) | contestant.ask(about=True)
            for kind, contestant in contestants.items()
        }


def _loop_rows(sizes: Sequence[int], turns: int, skipped: list[Skipped]) -> list[dict[str, Any]]:
    """Time some comparisons of the original's loop and extrapolate the rest."""
    options = {"faces": LOOP_COMPARISONS, "dimensions": DIMENSIONS}
    try:
        with Contestant(LOOP.label, _MODULE, "loop", options) as contestant:
            taken = contestant.ask(repeats=turns)["seconds"]
    except MissingContestantError as error:
        skipped.append(Skipped("search", LOOP.label, str(error)))
        return []
    return [
        _row("loop", size, [each * size / LOOP_COMPARISONS for each in taken])
        | {"extrapolated": True}
        for size in sorted(sizes)
    ]


def _row(kind: str, size: int, taken: Sequence[float]) -> dict[str, Any]:
    return {
        "kind": kind,
        "faces": size,
        "milliseconds": asdict(Times.of(taken, 1e3)),
        "extrapolated": False,
    }
