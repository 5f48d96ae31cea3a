"""How fast the machine reads its memory, which no search of an array can beat."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

# Far more than any cache holds.
ARRAY_BYTES = 1 << 30

# Ways to read every byte once with next to nothing to compute; which is the fastest depends on
# the processor. (A product of matrices would start threads of its own.)
_WAYS: tuple[Callable[[Any], Any], ...] = (
    np.sum,
    lambda part: np.sum(part.view(np.int64)),
    lambda part: np.bitwise_or.reduce(part.view(np.int64)),
)


class MemoryReader:
    """An array in memory, and as many threads as cores to read it."""

    def __init__(self, size_bytes: int = ARRAY_BYTES, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._parts = np.array_split(np.ones(size_bytes // 4, np.float32), self._threads)
        self._pool = ThreadPoolExecutor(self._threads)

    def bytes_a_second(self) -> float:
        """Read the whole array once in each of several ways; the rate of the fastest."""
        best = 0.0
        for way in _WAYS:
            start = time.perf_counter()
            list(self._pool.map(way, self._parts))
            taken = time.perf_counter() - start
            best = max(best, sum(part.nbytes for part in self._parts) / taken)
        return best
