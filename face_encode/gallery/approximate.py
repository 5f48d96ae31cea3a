"""An approximate index, for galleries so large that looking at everybody takes too long.

The embeddings are divided into cells around so many centres (an inverted file; Sivic and
Zisserman, Video Google, 2003), with a byte a number, by ``faiss`` (Douze et al., The Faiss library,
2024). A search looks through the cells whose centres are nearest to the probe. The best that it
meets are then calculated exactly, so that each similarity is right; but the nearest of all may lie
in another cell.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, MissingExtraError
from face_encode.gallery.enrolled import Enrolled
from face_encode.progress import tracked
from face_encode.quantization import unit_length

# Times the square root of the rows: so many cells. With more of them a search is faster, as each
# holds fewer rows, and misses more.
_CELLS = 2
# Cells that a search looks through: of up to 16,000 rows all, of a million an eighth, of ten
# millions a 25th. docs/search.md has what is missed.
_LOOKED_THROUGH = 256
# The centres are means of so many rows each, found in so many rounds: more make no better cells.
_ROWS_A_CENTRE, _ROUNDS = 64, 5
_ADDED_AT_ONCE = 32_768


class ApproximateIndex:
    """The embeddings of a gallery in cells, by the numbers of their rows."""

    def __init__(self, cells: Any) -> None:
        """Take an inverted file of ``faiss``, of unit vectors."""
        self._cells = cells
        cells.nprobe = _LOOKED_THROUGH
        # The cells of one probe are divided among the cores; several probes take turns.
        cells.parallel_mode = 1

    @classmethod
    def of(cls, enrolled: Enrolled, *, progress: bool = True) -> ApproximateIndex:
        """Put everybody into cells, which takes half a minute for a million.

        Args:
            enrolled: At least one row.
            progress: Whether to show a progress bar.

        Raises:
            MissingExtraError: ``faiss`` is not installed.
        """
        faiss = _faiss()
        size = enrolled.rows.shape[1]
        count = max(1, round(_CELLS * math.sqrt(len(enrolled))))
        cells = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(size),
            size,
            count,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )
        cells.cp.spherical = True
        cells.cp.niter = _ROUNDS
        cells.cp.min_points_per_centroid = 1
        cells.cp.max_points_per_centroid = _ROWS_A_CENTRE
        samples = np.random.default_rng(0).choice(
            len(enrolled), min(len(enrolled), count * _ROWS_A_CENTRE), replace=False
        )
        cells.train(unit_length(enrolled.embeddings_of(np.sort(samples))))
        starts = range(0, len(enrolled), _ADDED_AT_ONCE)
        for start in tracked(starts, len(starts), "Indexing", show=progress):
            rows = np.arange(start, min(start + _ADDED_AT_ONCE, len(enrolled)))
            cells.add(unit_length(enrolled.embeddings_of(rows)))
        return cls(cells)

    @classmethod
    def read(cls, path: Path, rows: int, size: int) -> ApproximateIndex:
        """Open a file whose checksum is known to be right.

        Raises:
            GalleryError: It is of other embeddings, or no such file.
            MissingExtraError: ``faiss`` is not installed.
        """
        faiss = _faiss()
        # Windows refuses to replace a file that is mapped.
        mapped = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if os.name == "posix" else 0
        try:
            cells = faiss.read_index(os.fspath(path), mapped)
        except Exception as error:
            raise GalleryError(f"the index {path} is damaged: {error}") from error
        received = (cells.ntotal, cells.d)
        if not isinstance(cells, faiss.IndexIVF) or received != (rows, size):
            raise GalleryError(
                f"the index {path} is damaged: it is of ({rows}, {size}) embeddings. "
                f"Received: {type(cells).__name__} of {received}"
            )
        return cls(cells)

    def write(self, path: Path) -> None:
        """Write the cells to a file.

        Raises:
            OSError: It cannot be written; or a RuntimeError of ``faiss``.
        """
        _faiss().write_index(self._cells, os.fspath(path))

    def nearest_rows(self, probe: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.intp]:
        """Rows near a probe, ``(D,)`` of any length, as many as asked for or as its cells hold.

        They are likely to be the nearest ones, in no promised order.
        """
        unit = unit_length(np.asarray(probe, np.float32)[np.newaxis])
        _, (found,) = self._cells.search(unit, min(count, self._cells.ntotal))
        # Behind the last of them comes -1.
        return np.asarray(found[found >= 0], np.intp)


def _faiss() -> Any:
    """The library, where it is installed."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            'an approximate index takes faiss: pip install "face_encode[index]"'
        ) from error
    return faiss
