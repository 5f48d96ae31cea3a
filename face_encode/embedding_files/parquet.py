"""Files of embeddings as Parquet, which pandas, DuckDB, Spark and Ray read too; see ``arrow``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from face_encode.embedding_files.arrow import embedding_table_of, schema_of, table_of
from face_encode.embedding_files.table import EmbeddingSettings, EmbeddingTable, PhotoFaces
from face_encode.errors import EmbeddingFileError, InputError, MissingExtraError
from face_encode.files import open_regular
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import Place, in_a_line

# Rows that are written together: 16 MB of 128 float32 each.
_ROW_GROUP = 32_768


def check_pyarrow() -> None:
    """Refuse Parquet where it cannot be read or written.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            'Parquet needs pyarrow: pip install "face_encode[parquet]"'
        ) from error


def write_parquet(
    path: Path | IO[bytes],
    settings: EmbeddingSettings,
    photos: Iterable[PhotoFaces],
    quantizer: Quantizer | None,
) -> None:
    """Write the rows as they come, in memory of one row group.

    Args:
        path: Where to, or a file open for writing.
        settings: What made the embeddings.
        photos: Every photo, also those without a face.
        quantizer: For int8.
    """
    write_tables(path, settings, _tables(settings, photos, quantizer), quantizer)


def _tables(
    settings: EmbeddingSettings, photos: Iterable[PhotoFaces], quantizer: Quantizer | None
) -> Iterator[Any]:
    """The rows as Arrow tables of about a row group each."""
    waiting: list[PhotoFaces] = []
    rows = 0
    for each in photos:
        waiting.append(each)
        rows += max(1, len(each.boxes))
        if rows >= _ROW_GROUP:
            yield table_of(waiting, settings, quantizer)
            waiting.clear()
            rows = 0
    if waiting:
        yield table_of(waiting, settings, quantizer)


def write_tables(
    path: Path | IO[bytes],
    settings: EmbeddingSettings,
    tables: Iterable[Any],
    quantizer: Quantizer | None,
) -> None:
    """Write Arrow tables that ``table_of`` made, a row group each.

    Args:
        path: Where to, or a file open for writing.
        settings: What made the embeddings.
        tables: pyarrow's tables.
        quantizer: For int8.
    """
    import pyarrow.parquet

    # Embeddings look like noise: a dictionary of them would hold every number once.
    options = {"use_dictionary": ["photo", "digest", "error"]}
    with pyarrow.parquet.ParquetWriter(path, schema_of(settings, quantizer), **options) as writer:
        for table in tables:
            writer.write_table(table)


def read_parquet(place: Place) -> EmbeddingTable:
    """Read a Parquet file of embeddings; see ``read_embeddings``.

    Raises:
        EmbeddingFileError: Missing, damaged, or of another kind.
        InputError: Its parts do not fit together.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with _opened(place) as file:
            table = pyarrow.parquet.read_table(file)
    except FileNotFoundError as error:
        raise EmbeddingFileError(f"no such file of embeddings: {place}") from error
    # What pyarrow raises for a damaged file is an OSError too, without an error number.
    except pyarrow.ArrowException as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise InputError(first_line) from error
    except OSError as error:
        if error.errno is None:
            raise InputError(next(iter(str(error).splitlines()), "")) from error
        raise EmbeddingFileError(f"{place} cannot be read: {in_a_line(error)}") from error
    return embedding_table_of(table, str(place))


def _opened(place: Place) -> Any:
    """A file open for reading, at any place in it."""
    if place.is_local:
        return open_regular(place.local)
    return place.file_system.open_input_file(place.path)
