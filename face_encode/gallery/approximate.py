"""An approximate index, for galleries so large that looking at everybody takes too long.

It is a graph of near neighbours (HNSW; Malkov and Yashunin, Efficient and robust approximate
nearest neighbor search, 2018), built and searched by ``usearch``. A search walks towards the probe
and meets a few thousand of a million rows. What it meets is then calculated exactly, so that each
similarity is right; but the nearest of all may be missed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, MissingExtraError
from face_encode.progress import tracked
from face_encode.quantization import unit_length
from face_encode.types import Embeddings

# Rows that each is linked to, and that are looked at for the best links: usearch's own defaults.
_LINKS = 16
_LOOKED_AT_TO_ADD = 128
# Rows that a walk keeps in sight; docs/search.md has what is missed with fewer or more.
_LOOKED_AT = 256
_ADDED_AT_ONCE = 10_000


class ApproximateIndex:
    """The graph of the embeddings of a gallery, by the numbers of their rows."""

    def __init__(self, graph: Any) -> None:
        """Take a ``usearch`` index of unit vectors."""
        self._graph = graph

    @classmethod
    def of(cls, embeddings: Embeddings, *, progress: bool = True) -> ApproximateIndex:
        """Build the graph, which takes minutes for a million.

        Args:
            embeddings: float32 ``(n, D)``, of any length.
            progress: Whether to show a progress bar.

        Raises:
            MissingExtraError: ``usearch`` is not installed.
        """
        graph = _usearch().Index(
            ndim=embeddings.shape[1],
            metric="ip",
            dtype="f16",
            connectivity=_LINKS,
            expansion_add=_LOOKED_AT_TO_ADD,
            expansion_search=_LOOKED_AT,
        )
        starts = range(0, len(embeddings), _ADDED_AT_ONCE)
        for start in tracked(starts, len(starts), "Indexing", show=progress):
            part = unit_length(embeddings[start : start + _ADDED_AT_ONCE])
            graph.add(np.arange(start, start + len(part), dtype=np.uint64), part)
        return cls(graph)

    @classmethod
    def read(cls, path: Path, rows: int, size: int) -> ApproximateIndex:
        """Open a file whose checksum is known to be right.

        Raises:
            GalleryError: It is of other embeddings, or no such file.
            MissingExtraError: ``usearch`` is not installed.
        """
        usearch = _usearch()
        try:
            # Windows refuses to replace a file that is mapped.
            graph = usearch.Index.restore(os.fspath(path), view=os.name == "posix")
        except Exception as error:
            raise GalleryError(f"the index {path} is damaged: {error}") from error
        if graph is None or (len(graph), graph.ndim) != (rows, size):
            received = "no index" if graph is None else f"({len(graph)}, {graph.ndim})"
            raise GalleryError(
                f"the index {path} is damaged: it is of ({rows}, {size}) embeddings. "
                f"Received: {received}"
            )
        graph.expansion_search = _LOOKED_AT
        return cls(graph)

    def write(self, path: Path) -> None:
        """Write the graph to a file.

        Raises:
            OSError: It cannot be written; or a RuntimeError of ``usearch``.
        """
        self._graph.save(os.fspath(path))

    def nearest_rows(self, probe: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.intp]:
        """Rows near a probe, ``(D,)`` of any length, as many as asked for or all there are.

        They are likely to be the nearest ones, in no promised order.
        """
        length = float(np.linalg.norm(probe))
        unit = np.asarray(probe / (length or 1), np.float32)
        return np.asarray(self._graph.search(unit, min(count, len(self._graph))).keys, np.intp)


def _usearch() -> Any:
    """The library, where it is installed."""
    try:
        import usearch.index
    except ImportError as error:
        raise MissingExtraError(
            'an approximate index takes usearch: pip install "face_encode[index]"'
        ) from error
    return usearch.index
