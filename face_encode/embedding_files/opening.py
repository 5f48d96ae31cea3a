"""The functions that read and write a file of embeddings, of either format."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from face_encode.embedding_files.npz import read_npz, write_npz
from face_encode.embedding_files.parquet import check_pyarrow, read_parquet, write_parquet
from face_encode.embedding_files.parts import read_parts
from face_encode.embedding_files.table import EmbeddingSettings, EmbeddingTable, PhotoFaces
from face_encode.errors import EmbeddingFileError, InputError
from face_encode.files import replacing
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import is_address, place_of, reporting

SUFFIXES = (".npz", ".parquet")


def check_embeddings_path(path: Path) -> None:
    """Refuse a file's name, or a missing extra, before hours of work rather than after.

    Raises:
        EmbeddingFileError: It ends in neither ``.npz`` nor ``.parquet``.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise EmbeddingFileError(
            f"a file of embeddings ends in {' or '.join(SUFFIXES)}. Received: {path}"
        )
    if path.suffix == ".parquet":
        check_pyarrow()


def read_embeddings(path: str | os.PathLike[str]) -> EmbeddingTable:
    """Read what ``face-encode embed`` wrote.

    Args:
        path: ``.npz`` or ``.parquet``; the latter may be a folder of parts, and an address such
            as ``s3://bucket/embeddings.parquet``.

    Raises:
        EmbeddingFileError: Missing, damaged, no such file, or written by a later release.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    place = place_of(path)
    # As the caller wrote it, in errors.
    name = str(place) if is_address(path) else os.fspath(path)
    check_embeddings_path(Path(name))
    if place.suffix == ".npz" and not place.is_local:
        raise EmbeddingFileError(f"an .npz file is read from this machine only. Received: {name}")
    try:
        if place.suffix == ".npz":
            return read_npz(Path(name))
        with reporting(f"{place} cannot be read", EmbeddingFileError):
            kind = place.kind()
        return read_parts(place) if kind == "folder" else read_parquet(place)
    except InputError as error:
        raise EmbeddingFileError(f"the file of embeddings {name} is damaged: {error}") from error


def write_embeddings(
    path: Path,
    settings: EmbeddingSettings,
    photos: Iterable[PhotoFaces],
    quantizer: Quantizer | None = None,
) -> None:
    """Write a file of embeddings, atomically.

    Parquet is written as the photos come; an ``.npz`` file is put together in memory.

    Args:
        path: ``.npz`` or ``.parquet``.
        settings: What made them.
        photos: Every photo, also those without a face.
        quantizer: For int8.

    Raises:
        EmbeddingFileError: It cannot be written.
    """
    check_embeddings_path(path)
    with replacing(path, EmbeddingFileError) as temporary:
        if path.suffix == ".parquet":
            write_parquet(temporary, settings, photos, quantizer)
        else:
            write_npz(temporary, settings, photos, quantizer)
