"""Timing: contestants in turns, and what is kept of the times."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Times:
    """Repeated times of one thing.

    Attributes:
        median: The median.
        minimum: The shortest, which other processes disturb least.
        repeats: How many there were.
    """

    median: float
    minimum: float
    repeats: int

    @classmethod
    def of(cls, times: Sequence[float], factor: float = 1.0) -> Times:
        """Of times, at least one, each multiplied by a factor such as 1000 for milliseconds."""
        return cls(median(times) * factor, min(times) * factor, len(times))


def take_turns(
    turns: int, *contestants: Callable[[int], object], at_a_time: int = 1
) -> list[list[float]]:
    """Time contestants in turns, after a turn of each that does not count.

    Args:
        turns: How many turns count.
        contestants: What is timed; takes the number of the turn, from 0.
        at_a_time: How many turns a contestant has behind each other. Where one call is short,
            a change at every call would time how fast a processor's caches are refilled.

    Returns:
        The times of each, milliseconds.
    """
    times: list[list[float]] = [[] for _ in contestants]
    for contestant in contestants:
        contestant(0)
    for first in range(0, turns, at_a_time):
        for contestant, taken in zip(contestants, times, strict=True):
            for turn in range(first, min(first + at_a_time, turns)):
                start = time.perf_counter()
                contestant(turn)
                taken.append((time.perf_counter() - start) * 1e3)
    return times


def seconds(action: Callable[[], Any]) -> tuple[float, Any]:
    """How long something takes, and what it gives."""
    start = time.perf_counter()
    value = action()
    return time.perf_counter() - start, value


def number_of(value: float) -> str:
    """Three digits of a number, more where it is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
