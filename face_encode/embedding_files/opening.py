"""The functions that read and write a file of embeddings, of either format."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from face_encode.embedding_files.npz import read_npz, write_npz
from face_encode.embedding_files.parquet import check_pyarrow, read_parquet, write_parquet
from face_encode.embedding_files.table import EmbeddingSettings, EmbeddingTable, PhotoFaces
from face_encode.errors import EmbeddingFileError, InputError
from face_encode.files import as_path, replacing
from face_encode.quantization import Quantizer

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
    """Read a file that ``face-encode embed`` wrote.

    Args:
        path: ``.npz`` or ``.parquet``.

    Raises:
        EmbeddingFileError: Missing, damaged, no such file, or written by a later release.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    path = as_path(path)
    check_embeddings_path(path)
    try:
        if path.suffix == ".parquet":
            return read_parquet(path)
        return read_npz(path)
    except InputError as error:
        raise EmbeddingFileError(f"the file of embeddings {path} is damaged: {error}") from error


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
