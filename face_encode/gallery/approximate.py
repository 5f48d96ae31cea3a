"""An approximate index, for galleries so large that looking at everybody takes too long.

The embeddings are divided into cells around so many centres (an inverted file; Sivic and
Zisserman, Video Google, 2003), with a byte a number, by ``faiss`` (Douze et al., The Faiss library,
2024). A search looks through the cells whose centres are nearest to the probe. The best that it
meets are then calculated exactly, so that each similarity is right; but the nearest of all may lie
in another cell.
"""

from __future__ import annotations

import glob
import math
import os
import re
import secrets
import zipfile
import zlib
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, MissingExtraError
from face_encode.files import open_regular, reason_of, settle
from face_encode.gallery.base import check_undamaged
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.quantization import unit_length
from face_encode.terminal import tracked
from face_encode.types import Embeddings

# Times the square root of the rows: so many cells. With more of them a search is faster, as each
# holds fewer rows, and misses more.
_CELLS = 2
# Cells that a search looks through: of up to 16,000 rows all, of a million an eighth, of ten
# millions a 25th. docs/search.md has what is missed.
_LOOKED_THROUGH = 256
# Where these hold fewer rows than are asked for, so many times as many are looked through.
_FURTHER = 4
# The centres are means of so many rows each, found in so many rounds: more make no better cells.
_ROWS_A_CENTRE, _ROUNDS = 64, 5
_ADDED_AT_ONCE = 32_768


class ApproximateIndex:
    """The embeddings of a gallery in cells, by the numbers of their rows.

    Any number of threads may search at once, each on one core: faiss' own threads, which it
    shares among all, come to a standstill in a process that was forked.
    """

    def __init__(self, cells: Any) -> None:
        """Take an inverted file of ``faiss``, of unit vectors."""
        self._cells = cells

    @classmethod
    def of(cls, enrolled: Enrolled, *, progress: bool = True) -> ApproximateIndex:
        """Put everybody into cells, which takes some ten seconds for a million.

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
        for start in tracked(starts, len(starts), "Indexing", show=progress):
            rows = np.arange(start, min(start + _ADDED_AT_ONCE, len(enrolled)))
            cells.add(_units(enrolled, rows))
        return cls(cells)

    @classmethod
    def read(cls, path: Path, rows: int, size: int) -> ApproximateIndex:
        """Read a file whose checksum is known to be right.

        Raises:
            GalleryError: It is of other embeddings, or no such file.
            MissingExtraError: ``faiss`` is not installed.
        """
        faiss = _faiss()
        # By Python's file: faiss would take the path for one in the system's own encoding, and
        # follow it to others that a file may name.
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
        """Write the cells to a file.

        Raises:
            OSError: It cannot be written; or a RuntimeError of ``faiss``.
        """
        faiss = _faiss()
        with open(path, "wb") as file:
            faiss.write_index(self._cells, faiss.PyCallbackIOWriter(file.write))

    def nearest_rows(self, probe: npt.NDArray[np.floating], count: int) -> npt.NDArray[np.intp]:
        """Rows near a probe, ``(D,)`` of any length, as many as asked for or all there are.

        They are likely to be the nearest ones, in no promised order.

        Raises:
            GalleryError: The index is damaged.
        """
        faiss = _faiss()
        unit = unit_length(np.asarray(probe, np.float32)[np.newaxis])
        total = self._cells.ntotal
        looked_through = _LOOKED_THROUGH
        while True:
            parameters = faiss.SearchParametersIVF(nprobe=looked_through)
            _, (found,) = self._cells.search(unit, min(count, total), params=parameters)
            # Behind the last of them comes -1.
            rows = np.asarray(found[found >= 0], np.intp)
            if len(rows) == min(count, total) or looked_through >= self._cells.nlist:
                break
            looked_through *= _FURTHER
        if len(rows) and rows.max() >= total:
            raise GalleryError("the approximate index is damaged: it names rows that are not there")
        return rows


def _units(enrolled: Enrolled, rows: npt.NDArray[np.intp]) -> Embeddings:
    """Some rows, brought to length 1.

    Raises:
        GalleryError: One is not finite; faiss would lose it without a word.
    """
    units = unit_length(enrolled.embeddings_of(rows))
    check_undamaged(units)
    return units


@cache
def _faiss() -> Any:
    """The library, where it is installed."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            'an approximate index takes faiss: pip install "face_encode[index]"'
        ) from error
    if hasattr(os, "register_at_fork"):
        # Its threads are not there in a process that was forked, and it would wait for them.
        os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))
    return faiss


_ENDING = ".faiss"
_PIECE_BYTES = 1 << 24


def find_index(gallery: Path, rows: int, size: int) -> ApproximateIndex | None:
    """Open the index of a gallery's file, where there is a whole one.

    Args:
        gallery: The gallery's file.
        rows: How many embeddings it holds.
        size: Numbers of each.

    Raises:
        GalleryError: The gallery's file cannot be read.
        MissingExtraError: ``faiss`` is not installed.
    """
    stamp = _stamp(gallery)
    for path in _indices(gallery):
        with suppress(GalleryError):
            if path.name.endswith(f"-{stamp}-{_checksum(path)}{_ENDING}"):
                return ApproximateIndex.read(path, rows, size)
    return None


def write_index(gallery: Path, index: ApproximateIndex) -> None:
    """Write the index of a gallery's file beside it, in the place of former ones.

    Raises:
        GalleryError: It cannot be written.
    """
    former = _indices(gallery)
    temporary = gallery.with_name(f".{secrets.token_hex(8)}{_ENDING}")
    try:
        index.write(temporary)
        name = f"{gallery.stem}-{_stamp(gallery)}-{_checksum(temporary)}{_ENDING}"
        settle(temporary, gallery.with_name(name))
    # faiss raises its own where the disk is full.
    except (OSError, RuntimeError) as error:
        raise GalleryError(f"cannot write the index of {gallery}: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _remove([path for path in former if path.name != name])


def remove_stale_indices(gallery: Path) -> None:
    """Remove indices of what a gallery's file held before it was written anew."""
    if indices := _indices(gallery):
        beginning = f"{gallery.stem}-{_stamp(gallery)}-"
        _remove([path for path in indices if not path.name.startswith(beginning)])


def _remove(paths: list[Path]) -> None:
    """Remove files, where that can be done."""
    for path in paths:
        # One that stays is passed over, because its name does not fit any more.
        with suppress(OSError):
            path.unlink()


def _indices(gallery: Path) -> list[Path]:
    """Files named as indices of a gallery's file."""
    name = re.compile(re.escape(gallery.stem) + "-[0-9a-f]{8}-[0-9a-f]{8}" + re.escape(_ENDING))
    beginning = glob.escape(gallery.stem)
    return sorted(
        path for path in gallery.parent.glob(f"{beginning}-*{_ENDING}") if name.fullmatch(path.name)
    )


def _stamp(gallery: Path) -> str:
    """The checksum of a gallery's embeddings, as its archive says it."""
    try:
        with zipfile.ZipFile(gallery) as archive:
            return f"{archive.getinfo('embeddings.npy').CRC:08x}"
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise GalleryError(f"the gallery {gallery} cannot be read: {error}") from error


def _checksum(path: Path) -> str:
    """The checksum of a file.

    Raises:
        GalleryError: It cannot be read.
    """
    checksum = 0
    try:
        with open_regular(path) as file:
            while piece := file.read(_PIECE_BYTES):
                checksum = zlib.crc32(piece, checksum)
    except OSError as error:
        raise GalleryError(f"the index {path} cannot be read: {reason_of(error)}") from error
    return f"{checksum:08x}"
