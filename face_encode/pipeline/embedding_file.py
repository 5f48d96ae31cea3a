"""The functions that read and write a file of embeddings, of either format."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import EmbeddingFileError, InputError
from face_encode.files import ArchiveForm, read_archive, replacing, text_array, write_archive
from face_encode.gallery.quantization import Codes, Quantizer
from face_encode.photos.folders import Location, is_address, location_of, reporting
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.pipeline.embedding_table import (
    FORMAT_VERSION,
    EmbeddingSettings,
    EmbeddingTable,
    check_version,
    finished,
)
from face_encode.pipeline.parquet import (
    check_pyarrow,
    embedding_table_of,
    read_parquet,
    write_parquet,
    write_tables,
)
from face_encode.types import Embeddings, Quality

_FORM = ArchiveForm(
    what="file of embeddings",
    newest=FORMAT_VERSION,
    arrays={
        "settings": ("U", 0),
        "photos": ("U", 1),
        "digests": ("U", 1),
        "faces": ("i", 1),
        "boxes": ("i", 2),
        "scores": ("f", 1),
        "embeddings": ("fi", 2),
        "left_out_photos": ("U", 1),
        "left_out_reasons": ("U", 1),
    },
    optional={
        "centre": ("f", 1),
        # Former releases did not write these.
        "qualities": ("f", 1),
        "quality_reasons": ("U", 1),
    },
    error_type=EmbeddingFileError,
)


def write_npz(
    path: Path,
    settings: EmbeddingSettings,
    photos: Iterable[EmbeddedPhoto],
    quantizer: Quantizer | None,
) -> None:
    """Write an ``.npz`` file, which is put together in memory; see ``write_embeddings``."""
    names: list[str] = []
    digests: list[str] = []
    numbers: list[int] = []
    left_out: list[tuple[str, str]] = []
    none = np.empty((0, settings.embedding_size), np.float32)
    boxes = [np.empty((0, 4), np.int32)]
    scores = [np.empty(0, np.float32)]
    qualities: list[Quality] = []
    kept: list[Embeddings | Codes] = [none.astype(np.int8) if settings.int8 else none]
    for each in photos:
        if each.error is not None:
            left_out.append((each.photo, each.error))
            continue
        count = len(each.embeddings)
        names += [each.photo] * count
        digests += [each.digest] * count
        numbers += range(count)
        boxes.append(each.boxes)
        scores.append(each.scores)
        qualities += each.qualities
        kept.append(finished(each.embeddings, settings, quantizer))
    arrays: dict[str, npt.NDArray[Any]] = {
        "format_version": np.array(FORMAT_VERSION),
        "settings": np.array(settings.to_json()),
        "photos": text_array(names),
        "digests": text_array(digests),
        "faces": np.array(numbers, np.int32),
        "boxes": np.concatenate(boxes),
        "scores": np.concatenate(scores),
        "qualities": np.array([each.value for each in qualities], np.float32),
        "quality_reasons": text_array([each.reason or "" for each in qualities]),
        "embeddings": np.concatenate(kept),
        "left_out_photos": text_array([photo for photo, _ in left_out]),
        "left_out_reasons": text_array([reason for _, reason in left_out]),
    }
    if quantizer is not None:
        arrays["centre"] = quantizer.centre
    write_archive(path, arrays)


def read_npz(path: Path) -> EmbeddingTable:
    """Read a file; see ``read_embeddings``.

    Raises:
        EmbeddingFileError: Missing, damaged, or of another kind.
        InputError: Its parts do not fit together.
    """
    stored = read_archive(path, _FORM)
    reasons = stored["left_out_reasons"].tolist()
    photos: Sequence[str] = stored["left_out_photos"].tolist()
    if len(photos) != len(reasons):
        raise InputError("its columns are of unequal lengths")
    centre = stored.get("centre")
    count = len(stored["photos"])
    return EmbeddingTable(
        photos=stored["photos"],
        digests=stored["digests"],
        faces=stored["faces"],
        boxes=stored["boxes"],
        scores=stored["scores"],
        qualities=stored.get("qualities", np.full(count, np.nan, np.float32)),
        quality_reasons=stored.get("quality_reasons", text_array([""] * count)),
        kept=stored["embeddings"],
        quantizer=None if centre is None else Quantizer(np.asarray(centre, np.float32)),
        left_out=tuple(zip(photos, reasons, strict=True)),
        settings=EmbeddingSettings.from_json(str(stored["settings"])),
    )


CONTENTS = "_face_encode.json"

_DIGEST_DIGITS = 16
_PART = re.compile(r"part-\d{6,}-[0-9a-f]{16}\.parquet")
# Far above the length of a table of contents.
_MAX_BYTES = 1 << 30


def part_name(number: int, digest: str) -> str:
    """The name of a part's file, by its number and a hexadecimal digest of its sources."""
    return f"part-{number:06}-{digest[:_DIGEST_DIGITS]}.parquet"


def is_part(name: str) -> bool:
    """Whether a file's name is that of a part."""
    return _PART.fullmatch(name) is not None


def write_part(
    location: Location,
    settings: EmbeddingSettings,
    tables: Sequence[Any],
    quantizer: Quantizer | None = None,
) -> None:
    """Write pyarrow's tables, in the order of the photos, to a part's file, whole or not at all.

    Raises:
        EmbeddingFileError: It cannot be written.
    """
    import pyarrow

    # Put together in memory, a few dozen megabytes: a store that breaks off leaves nothing then.
    content = io.BytesIO()
    write_tables(content, settings, [pyarrow.concat_tables(tables)], quantizer)
    with location.writing(EmbeddingFileError) as file:
        file.write(content.getbuffer())


def read_part(location: Location, columns: list[str] | None = None) -> Any:
    """Read some columns of a part, or all, as pyarrow's table.

    Raises:
        EmbeddingFileError: The part is gone, or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with reporting(f"{location} cannot be read", EmbeddingFileError):
            return pyarrow.parquet.read_table(
                location.path,
                columns=columns,
                filesystem=location.file_system,
                partitioning=None,
                page_checksum_verification=True,
            )
    except pyarrow.ArrowException as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise EmbeddingFileError(f"{location} is damaged: {first_line}; delete it") from error


def write_contents(folder: Location, names: Iterable[str]) -> None:
    """Write a folder's table of contents, by which all parts are known to be there.

    Raises:
        EmbeddingFileError: It cannot be written.
    """
    content = json.dumps({"format_version": FORMAT_VERSION, "parts": list(names)})
    with (folder.below(CONTENTS)).writing(EmbeddingFileError) as file:
        file.write(content.encode())


def read_parts(folder: Location) -> EmbeddingTable:
    """Read a folder of parts; see ``read_embeddings``.

    Raises:
        EmbeddingFileError: It is not finished, or of another kind.
        InputError: Its parts do not fit together.
    """
    import pyarrow

    tables = [read_part(folder.below(name)) for name in _contents_of(folder)]
    if any(table.schema.metadata != tables[0].schema.metadata for table in tables):
        raise InputError("its parts were made by different settings")
    try:
        # A former release wrote no column of qualities.
        table = pyarrow.concat_tables(tables, promote_options="default")
    except pyarrow.ArrowException as error:
        raise InputError(next(iter(str(error).splitlines()), "")) from error
    return embedding_table_of(table, str(folder))


def _contents_of(folder: Location) -> list[str]:
    """The names of a folder's parts."""
    try:
        with reporting(f"{folder} cannot be read", EmbeddingFileError):
            content = folder.below(CONTENTS).read(_MAX_BYTES)
    except EmbeddingFileError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise EmbeddingFileError(
            f"{folder} is no finished folder of embeddings: it has no {CONTENTS}. Where a run was "
            "interrupted, the same command goes on"
        ) from error
    try:
        described = json.loads(content)
        version, names = described["format_version"], described["parts"]
        if not names or not all(is_part(name) for name in names):
            raise ValueError("parts")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"its {CONTENTS} is damaged: {error!r}") from error
    check_version(version, str(folder))
    return list(names)


SUFFIXES = (".npz", ".parquet")


def check_embeddings_path(path: Path) -> None:
    """Refuse a file's name, or a missing extra, before the work rather than after.

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
    location = location_of(path)
    # As the caller wrote it, in errors.
    name = str(location) if is_address(path) else os.fspath(path)
    check_embeddings_path(Path(name))
    if location.suffix == ".npz" and not location.is_local:
        raise EmbeddingFileError(f"an .npz file is read from this machine only. Received: {name}")
    try:
        if location.suffix == ".npz":
            return read_npz(Path(name))
        with reporting(f"{location} cannot be read", EmbeddingFileError):
            kind = location.kind()
        return read_parts(location) if kind == "folder" else read_parquet(location)
    # Without checksums, as former releases wrote it, a damaged name may be no text.
    except (InputError, UnicodeDecodeError) as error:
        raise EmbeddingFileError(f"the file of embeddings {name} is damaged: {error}") from error


def write_embeddings(
    path: Path,
    settings: EmbeddingSettings,
    photos: Iterable[EmbeddedPhoto],
    quantizer: Quantizer | None = None,
) -> None:
    """Write a file of embeddings, atomically.

    Parquet is written as the photos come; an ``.npz`` file is put together in memory.

    Args:
        path: ``.npz`` or ``.parquet``.
        settings: The settings that they were made by.
        photos: Every photo, also those without a face.
        quantizer: Makes the codes of int8.

    Raises:
        EmbeddingFileError: It cannot be written.
    """
    check_embeddings_path(path)
    with replacing(path, EmbeddingFileError) as temporary:
        if path.suffix == ".parquet":
            write_parquet(temporary, settings, photos, quantizer)
        else:
            write_npz(temporary, settings, photos, quantizer)
