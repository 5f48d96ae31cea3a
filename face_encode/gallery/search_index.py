"""Exact search in embeddings in memory: one matrix product, then the best of each person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.distances import Metric, distances
from face_encode.gallery.gallery import Ranking
from face_encode.quantization import Codes, Quantizer, unit_length
from face_encode.types import Embeddings, Match

# Similarities held at once during a search: 64 MB, whatever the number of probes.
_BLOCK = 16_000_000


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """The embeddings as a search wants them, one person's behind each other.

    Attributes:
        rows: float32 ``(n, D)``, for cosine of length 1; or int8 ``(n, D)``, codes of the
            quantizer.
        quantizer: What the codes stand for, or None for float32.
        steps: float32 ``(n,)``, the step of each row of codes; empty for float32.
        starts: First row of each person.
        names: The person of each start, in ascending order.
        metric: ``"cosine"``; or ``"euclidean"``, where a similarity is minus the distance.
    """

    rows: Embeddings | Codes
    quantizer: Quantizer | None
    steps: npt.NDArray[np.float32]
    starts: npt.NDArray[np.intp]
    names: list[str]
    metric: Metric = "cosine"

    @classmethod
    def of(
        cls,
        rows: Embeddings | Codes,
        quantizer: Quantizer | None,
        names: npt.NDArray[np.str_],
        metric: Metric = "cosine",
    ) -> SearchIndex:
        """Sort by person, so that a person's best is the maximum over a run of rows.

        Args:
            rows: float32 or int8 ``(n, D)``, n at least 1.
            quantizer: For int8.
            names: The person of each row.
            metric: What a search compares by; with a quantizer ``"cosine"``.
        """
        people, person = np.unique(names, return_inverse=True)
        order = np.argsort(person, kind="stable")
        starts = np.searchsorted(person[order], np.arange(len(people)))
        if quantizer is None:
            none = np.empty(0, np.float32)
            sorted_rows = np.asarray(rows[order], np.float32)
            if metric == "cosine":
                sorted_rows = unit_length(sorted_rows)
            return cls(sorted_rows, None, none, starts, people.tolist(), metric)
        codes = np.asarray(rows[order], np.int8)
        return cls(codes, quantizer, quantizer.steps(codes), starts, people.tolist())

    def search(self, probes: Embeddings, k: int, ranking: Ranking = "best") -> list[list[Match]]:
        """The nearest k people of each probe, float32 ``(m, D)``, best first."""
        found: list[list[Match]] = []
        block = max(1, _BLOCK // len(self.rows))
        for start in range(0, len(probes), block):
            similarities = self._similarities(probes[start : start + block])
            if ranking == "best":
                best = np.maximum.reduceat(similarities, self.starts, axis=1)
            else:
                counts = np.diff(self.starts, append=len(self.rows))
                best = np.add.reduceat(similarities, self.starts, axis=1, dtype=np.float64)
                best = np.asarray(best / counts, np.float32)
            if self.metric == "cosine":
                # Rounding can lead out of the range that people are promised.
                best = np.clip(best, -1, 1)
            found += [_nearest(row, self.names, k) for row in best]
        return found

    def _similarities(self, probes: Embeddings) -> npt.NDArray[np.float32]:
        """Of each probe and each row, float32 ``(m, n)``, higher is nearer."""
        if self.metric == "euclidean":
            rows = np.asarray(self.rows, np.float32)
            return np.asarray(-distances(probes, rows, "euclidean"), np.float32)
        units = unit_length(probes)
        if self.quantizer is None:
            return np.asarray(units @ self.rows.T, np.float32)
        return self.quantizer.similarities(units, np.asarray(self.rows, np.int8), self.steps)


def _nearest(similarities: npt.NDArray[np.float32], names: list[str], k: int) -> list[Match]:
    """The k nearest people, best first; the first by name where two are equally near."""
    if k == 1:
        best = int(similarities.argmax())
        return [Match(names[best], float(similarities[best]))]
    k = min(k, len(names))
    candidates = np.argpartition(-similarities, k - 1)[:k]
    order = candidates[np.lexsort((candidates, -similarities[candidates]))]
    return [Match(names[index], float(similarities[index])) for index in order]
