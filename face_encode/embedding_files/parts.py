"""Embeddings as a folder of Parquet files, for archives too large for one.

The files are like those of ``parquet``, ``part-000001-…`` and so on, in the order of their names.
What a run writes last says that all of them are there, and which: ``_face_encode.json``, a name
that other readers of Parquet folders pass over.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from face_encode.embedding_files.arrow import embedding_table_of
from face_encode.embedding_files.parquet import write_tables
from face_encode.embedding_files.table import FORMAT_VERSION, EmbeddingSettings, EmbeddingTable
from face_encode.errors import EmbeddingFileError, InputError
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import Place, reporting

CONTENTS = "_face_encode.json"

_DIGEST_DIGITS = 16
_PART = re.compile(r"part-\d{6,}-[0-9a-f]{16}\.parquet")
# Far above what names of parts take.
_MOST_BYTES = 1 << 30


def part_name(number: int, digest: str) -> str:
    """The name of a part's file.

    Args:
        number: Its place among the parts.
        digest: Hexadecimal, of what it is made of.
    """
    return f"part-{number:06}-{digest[:_DIGEST_DIGITS]}.parquet"


def is_part(name: str) -> bool:
    """Whether a file's name is that of a part."""
    return _PART.fullmatch(name) is not None


def write_part(
    place: Place,
    settings: EmbeddingSettings,
    tables: Sequence[Any],
    quantizer: Quantizer | None = None,
) -> None:
    """Write a part's file, whole or not at all.

    Args:
        place: Where to.
        settings: What made the embeddings.
        tables: pyarrow's tables, in the order of the photos.
        quantizer: For int8.

    Raises:
        EmbeddingFileError: It cannot be written.
    """
    import pyarrow

    # Put together in memory, a few dozen megabytes: a store that breaks off leaves nothing then.
    content = io.BytesIO()
    write_tables(content, settings, [pyarrow.concat_tables(tables)], quantizer)
    with place.writing(EmbeddingFileError) as file:
        file.write(content.getbuffer())


def read_part(place: Place, columns: list[str] | None = None) -> Any:
    """A part's rows as pyarrow's table.

    Args:
        place: Where it lies.
        columns: Which; None for all.

    Raises:
        EmbeddingFileError: It is gone, or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with reporting(f"{place} cannot be read", EmbeddingFileError):
            return pyarrow.parquet.read_table(
                place.path, columns=columns, filesystem=place.file_system, partitioning=None
            )
    except pyarrow.ArrowException as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise EmbeddingFileError(f"{place} is damaged: {first_line}; delete it") from error


def write_contents(folder: Place, names: Iterable[str]) -> None:
    """Say that all parts are there.

    Args:
        folder: Where they lie.
        names: Of their files, in order.

    Raises:
        EmbeddingFileError: It cannot be written.
    """
    content = json.dumps({"format_version": FORMAT_VERSION, "parts": list(names)})
    with (folder.below(CONTENTS)).writing(EmbeddingFileError) as file:
        file.write(content.encode())


def read_parts(folder: Place) -> EmbeddingTable:
    """Read a folder of parts; see ``read_embeddings``.

    Raises:
        EmbeddingFileError: It is not finished, or of another kind.
        InputError: Its parts do not fit together.
    """
    import pyarrow

    tables = [read_part(folder.below(name)) for name in _contents_of(folder)]
    if any(table.schema.metadata != tables[0].schema.metadata for table in tables):
        raise InputError("its parts were made by different settings")
    # Without the parts' schemas being equal this raises; told as damage.
    try:
        table = pyarrow.concat_tables(tables)
    except pyarrow.ArrowException as error:
        raise InputError(next(iter(str(error).splitlines()), "")) from error
    return embedding_table_of(table, str(folder))


def _contents_of(folder: Place) -> list[str]:
    """The names of a folder's parts."""
    try:
        with reporting(f"{folder} cannot be read", EmbeddingFileError):
            content = folder.below(CONTENTS).read(_MOST_BYTES)
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
    if version != FORMAT_VERSION:
        raise EmbeddingFileError(
            f"{folder} was written by a later release of face_encode; this one reads version "
            f"{FORMAT_VERSION}. Received: version {version}"
        )
    return list(names)
