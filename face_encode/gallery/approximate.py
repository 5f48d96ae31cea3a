"""An approximate index, for galleries too large to compare a probe with everybody.

The embeddings are divided into cells around centres (an inverted file; Sivic and Zisserman, Video
Google, 2003), at one byte a number, by ``faiss`` (Douze et al., The Faiss library, 2024). A search
goes through the cells whose centres are nearest to the probe. The best rows in them are then
compared exactly, so that each similarity is correct; but the nearest row of all may lie in another
cell.

The cells are saved beside the gallery's file, in a file whose name holds a stamp of the embeddings
and its own checksum: NAME-STAMP-CHECKSUM.faiss.
"""

from __future__ import annotations

import glob
import math
import os
import re
import secrets
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, MissingExtraError
from face_encode.files import for_owner, open_regular, reason_of, settle
from face_encode.gallery.base import check_undamaged
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.distances import unit_length
from face_encode.terminal import with_progress
from face_encode.types import Embeddings

# The number of cells is this times the square root of the rows. With more cells a search is faster,
# because each holds fewer rows, and misses more.
_CELLS = 2
# Cells that a search goes through: all for up to 16,000 rows, an eighth of a million, a 25th of ten
# millions. docs/search.md says what is missed.
_CELLS_SEARCHED = 256
# Where these hold fewer rows than are asked for, this many times as many cells are searched.
_FURTHER = 4
# Rows of which a centre is the mean, and rounds of finding it: more make no better cells.
_ROWS_A_CENTRE, _ROUNDS = 64, 5
_ADDED_AT_ONCE = 32_768

_ENDING = ".faiss"
_PIECE_BYTES = 1 << 24


class ApproximateIndex:
    """The rows of a gallery in cells.

    Any number of threads may search at once, each on one core: the threads of faiss itself, shared
    by all searches, would wait forever in a forked process.
    """

    def __init__(self, cells: Any) -> None:
        self._cells = cells

    @classmethod
    def of(cls, enrolled: Enrolled, *, progress: bool = True) -> ApproximateIndex:
        """Build an index, in about ten seconds for a million rows.

        Args:
            enrolled: At least one row.
            progress: Whether to show a progress bar.

        Raises:
            GalleryError: An embedding is damaged.
            MissingExtraError: ``faiss`` is not installed.
        """
        faiss = _faiss()
        size = enrolled.rows.shape[1]
        count = min(len(enrolled), round(_CELLS * math.sqrt(len(enrolled))))
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
        cells.train(_units(enrolled, np.sort(samples)))
        starts = range(0, len(enrolled), _ADDED_AT_ONCE)
        for start in with_progress(starts, len(starts), "Indexing", show=progress):
            rows = np.arange(start, min(start + _ADDED_AT_ONCE, len(enrolled)))
            cells.add(_units(enrolled, rows))
        return cls(cells)

    @classmethod
    def read(cls, path: Path, rows: int, size: int) -> ApproximateIndex:
        """Read a file whose checksum is known to be right.

        Raises:
            GalleryError: It is not such a file, or of other embeddings.
            MissingExtraError: ``faiss`` is not installed.
        """
        faiss = _faiss()
        # Through Python's file: faiss itself would decode the path by the system's encoding, and
        # open other files that this one may name.
        try:
            with open_regular(path) as file:
                cells = faiss.read_index(faiss.PyCallbackIOReader(file.read))
        except Exception as error:
            raise GalleryError(f"the index {path} is damaged: {error}") from error
        if not isinstance(cells, faiss.IndexIVFScalarQuantizer):
            raise GalleryError(
                f"the index {path} is damaged: it holds no cells. Received: {type(cells).__name__}"
            )
        received = (cells.ntotal, cells.d)
        if received != (rows, size) or cells.invlists.compute_ntotal() != rows:
            raise GalleryError(
                f"the index {path} is damaged: it is of ({rows}, {size}) embeddings. "
                f"Received: {received}"
            )
        return cls(cells)

    def write(self, path: Path) -> None:
        """Write the index to a file.

        Raises:
            OSError: It cannot be written.
            RuntimeError: ``faiss`` cannot write it.
        """
        faiss = _faiss()
        with open(path, "wb", opener=for_owner) as file:
            faiss.write_index(self._cells, faiss.PyCallbackIOWriter(file.write))

    def nearest_rows(self, probe: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.intp]:
        """Find ``count`` rows near a probe ``(D,)`` of any length, or all where there are fewer.

        They are likely to be the nearest ones, and come in any order.

        Raises:
            GalleryError: The index is damaged.
        """
        faiss = _faiss()
        unit = unit_length(np.asarray(probe, np.float32)[np.newaxis])
        total = self._cells.ntotal
        cells = _CELLS_SEARCHED
        while True:
            parameters = faiss.SearchParametersIVF(nprobe=cells)
            _, (found,) = self._cells.search(unit, min(count, total), params=parameters)
            # faiss fills up missing rows with -1.
            rows = np.asarray(found[found >= 0], np.intp)
            if len(rows) == min(count, total) or cells >= self._cells.nlist:
                break
            cells *= _FURTHER
        if len(rows) and rows.max() >= total:
            raise GalleryError("the approximate index is damaged: it names rows that are not there")
        return rows


def _units(enrolled: Enrolled, rows: npt.NDArray[np.intp]) -> Embeddings:
    """Some rows, scaled to length 1.

    Raises:
        GalleryError: One is not finite; faiss would drop it silently.
    """
    units = unit_length(enrolled.embeddings_of(rows))
    check_undamaged(units)
    return units


@cache
def _faiss() -> Any:
    """Import the library."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            'an approximate index takes faiss: pip install "face_encode[index]"'
        ) from error
    if hasattr(os, "register_at_fork"):
        # A forked process has none of its threads, and faiss would wait for them.
        os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))
    return faiss


def find_index(base: Path, stamp: str, rows: int, size: int) -> ApproximateIndex | None:
    """Open the index of a gallery's file; None where there is none that is undamaged.

    Args:
        base: The path with whose name those of the gallery's indices begin.
        stamp: Eight hexadecimal digits that differ where the embeddings do.
        rows: Number of the embeddings.
        size: Length of each.

    Raises:
        MissingExtraError: ``faiss`` is not installed.
    """
    for path in index_files(base):
        with suppress(GalleryError):
            if path.name.endswith(f"-{stamp}-{_checksum(path)}{_ENDING}"):
                return ApproximateIndex.read(path, rows, size)
    return None


def save_index(base: Path, stamp: str, index: ApproximateIndex | None) -> None:
    """Write an index beside a gallery's file, and remove those of former embeddings.

    Args:
        base: As for ``find_index``.
        stamp: As for ``find_index``.
        index: None keeps an index of the same embeddings.

    Raises:
        GalleryError: The index cannot be written.
    """
    former = index_files(base)
    stays = f"{base.name}-{stamp}-"
    if index is not None:
        temporary = base.with_name(f".{secrets.token_hex(8)}{_ENDING}")
        try:
            index.write(temporary)
            stays += f"{_checksum(temporary)}{_ENDING}"
            settle(temporary, base.with_name(stays))
        # faiss raises its own where the disk is full.
        except (OSError, RuntimeError) as error:
            raise GalleryError(
                f"cannot write the index {base.with_name(stays)}: {error}"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    for path in former:
        if not path.name.startswith(stays):
            # A file that stays is ignored, because its name no longer fits.
            with suppress(OSError):
                path.unlink()


def index_files(base: Path) -> list[Path]:
    """The files named as approximate indices of a gallery's file."""
    name = re.compile(re.escape(base.name) + "-[0-9a-f]{8}-[0-9a-f]{8}" + re.escape(_ENDING))
    beginning = glob.escape(base.name)
    return sorted(
        path for path in base.parent.glob(f"{beginning}-*{_ENDING}") if name.fullmatch(path.name)
    )


def _checksum(path: Path) -> str:
    """The checksum of a file."""
    checksum = 0
    try:
        with open_regular(path) as file:
            while piece := file.read(_PIECE_BYTES):
                checksum = zlib.crc32(piece, checksum)
    except OSError as error:
        raise GalleryError(f"the index {path} cannot be read: {reason_of(error)}") from error
    return f"{checksum:08x}"
