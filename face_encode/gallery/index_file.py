"""The file of an approximate index, beside that of its gallery.

Its name says what it belongs to, ``people-1a2b3c4d-5e6f7a8b.faiss``: the checksum of the
gallery's embeddings, and that of the index itself. An index of other embeddings is therefore never
found, and a damaged one is passed over.
"""

from __future__ import annotations

import glob
import re
import secrets
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from face_encode.errors import GalleryError
from face_encode.files import open_regular, reason_of, settle
from face_encode.gallery.approximate import ApproximateIndex

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
