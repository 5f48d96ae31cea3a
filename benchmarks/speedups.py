"""Speedups: the times of this package beside those of another, and a table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.timing import number_of


@dataclass(frozen=True)
class Speedup:
    """One contest.

    Attributes:
        what: What was done.
        rival: Who else did it.
        ours_ms: Median time of this package, milliseconds.
        rival_ms: Median time of the other, milliseconds.
        ratio: How many times faster this package is, by the medians.
        ratio_of_shortest: The same by the shortest times, which other processes disturb least.
        note: What has to be known to read the row right.
    """

    what: str
    rival: str
    ours_ms: float
    rival_ms: float
    ratio: float
    ratio_of_shortest: float
    note: str = ""


def compared(
    what: str,
    ours: Sequence[float],
    rival: str,
    rivals: Sequence[float],
    *,
    divisor: float = 1,
    rival_factor: float = 1,
    note: str = "",
) -> Speedup:
    """A contest from the times of both.

    Args:
        what: What was done.
        ours: This package's times, milliseconds.
        rival: Who else did it.
        rivals: The other's times, milliseconds.
        divisor: Things done in a turn, where the times are shown for one.
        rival_factor: How many times more the rival would have had to do.
        note: What has to be known to read the row right.
    """
    factor = rival_factor
    return Speedup(
        what=what,
        rival=rival,
        ours_ms=median(ours) / divisor,
        rival_ms=median(rivals) * factor / divisor,
        ratio=median(rivals) * factor / median(ours),
        ratio_of_shortest=min(rivals) * factor / min(ours),
        note=note,
    )


def print_table(facts: dict[str, str], results: Sequence[Speedup]) -> None:
    """Show it to people."""
    from rich.console import Console
    from rich.table import Table

    for name, value in facts.items():
        print(f"{name}: {value}")
    table = Table("", "what", "face_encode", "beside", "takes", "ratio", "by shortest times")
    for number, each in enumerate(results, 1):
        times = [f"{number_of(value)} ms" for value in (each.ours_ms, each.rival_ms)]
        ratios = [number_of(value) for value in (each.ratio, each.ratio_of_shortest)]
        table.add_row(str(number), each.what, times[0], each.rival, times[1], *ratios)
    # A narrow terminal, or none, would otherwise break every cell.
    Console(width=130).print(table)
    for number, each in enumerate(results, 1):
        if each.note:
            print(f"{number}: {each.note}")
