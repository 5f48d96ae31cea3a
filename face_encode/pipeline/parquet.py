"""Files of embeddings as Parquet, which pandas, DuckDB, Spark and Ray read too."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import EmbeddingFileError, InputError, MissingExtraError
from face_encode.files import open_regular, text_array
from face_encode.gallery.quantization import Quantizer
from face_encode.photos.folders import Location, in_a_line
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.pipeline.embedding_table import (
    FORMAT_VERSION,
    EmbeddingSettings,
    EmbeddingTable,
    check_version,
    finished,
)
from face_encode.types import Quality

_KEY = b"face_encode"
_SIDES = ("left", "top", "width", "height")
# Former releases did not write these; null where nothing is known.
_LATER = ("quality", "quality_reason", "notes")


def table_of(
    photos: list[EmbeddedPhoto], settings: EmbeddingSettings, quantizer: Quantizer | None
) -> Any:
    """The rows of some photos, at least one, as pyarrow's table."""
    import pyarrow

    schema = schema_of(settings, quantizer)
    return pyarrow.Table.from_arrays(_columns(photos, settings, quantizer, schema), schema=schema)


def schema_of(settings: EmbeddingSettings, quantizer: Quantizer | None) -> Any:
    """The schema of a file, with the settings in the metadata."""
    described = {"format_version": FORMAT_VERSION, "settings": json.loads(settings.to_json())}
    if quantizer is not None:
        described["centre"] = quantizer.centre.tolist()
    return _schema(settings).with_metadata({_KEY: json.dumps(described)})


def quantized(table: Any, settings: EmbeddingSettings, quantizer: Quantizer) -> Any:
    """A table of float32 embeddings as one of int8, by settings that say so."""
    schema = schema_of(settings, quantizer)
    embeddings = embeddings_of(table, settings.embedding_size)
    absent = table["error"].is_valid().to_numpy(zero_copy_only=False)
    codes = np.zeros((len(table), settings.embedding_size), np.int8)
    if len(embeddings):
        codes[~absent] = quantizer.quantize(embeddings)
    column = _vectors(codes, absent)
    index = schema.get_field_index("embedding")
    return table.set_column(index, schema.field(index), column).replace_schema_metadata(
        schema.metadata
    )


def embeddings_of(table: Any, size: int | None = None) -> Any:
    """The embeddings of a table's rows that have one, as they are kept: ``(N, D)``.

    Args:
        table: A table of ``table_of``, or its column ``embedding`` alone.
        size: The length D; None for that of the first embedding.

    Raises:
        InputError: An embedding has another length.
    """
    import pyarrow

    present = table["embedding"].combine_chunks().drop_null()
    if isinstance(present, pyarrow.ChunkedArray):  # of no chunk at all, in some releases
        present = pyarrow.concat_arrays(present.chunks or [pyarrow.array([], present.type)])
    lengths = present.value_lengths().to_numpy()
    if size is None:
        size = int(lengths[0]) if len(lengths) else 0
    if (lengths != size).any():
        raise InputError(f"an embedding has {size} numbers; at least one has not")
    return present.flatten().to_numpy().reshape(len(lengths), size)


def _vectors(embeddings: npt.NDArray[Any], absent: npt.NDArray[np.bool_]) -> Any:
    """Embeddings ``(N, D)`` as an Arrow column, null where they are absent."""
    import pyarrow

    count, size = embeddings.shape
    offsets = np.arange(count + 1, dtype=np.int32) * size
    return pyarrow.ListArray.from_arrays(
        offsets, embeddings.reshape(-1), mask=pyarrow.array(absent)
    )


def _schema(settings: EmbeddingSettings) -> Any:
    """The columns of the file."""
    import pyarrow

    number = pyarrow.int8() if settings.int8 else pyarrow.float32()
    whole = pyarrow.int32()
    return pyarrow.schema(
        [
            ("photo", pyarrow.string()),
            ("digest", pyarrow.string()),
            ("face", whole),
            *((side, whole) for side in _SIDES),
            ("score", pyarrow.float32()),
            ("quality", pyarrow.float32()),
            ("quality_reason", pyarrow.string()),
            # Not a list of fixed size: pyarrow reads nulls among those only from 26 on.
            ("embedding", pyarrow.list_(number)),
            ("error", pyarrow.string()),
            ("notes", pyarrow.list_(pyarrow.string())),
        ]
    )


def _columns(
    photos: list[EmbeddedPhoto],
    settings: EmbeddingSettings,
    quantizer: Quantizer | None,
    schema: Any,
) -> list[Any]:
    """The rows of some photos as Arrow columns; a photo without a face has a row of nulls."""
    import pyarrow

    # Photos without a face have one row as well.
    counts = [max(1, len(each.embeddings)) for each in photos]
    absent = np.repeat([each.error is not None for each in photos], counts)
    rows = len(absent)
    boxes = np.zeros((rows, 4), np.int32)
    scores = np.zeros(rows, np.float32)
    codes = np.int8 if settings.int8 else np.float32
    embeddings = np.zeros((rows, settings.embedding_size), codes)
    if not absent.all():
        found = [each for each in photos if each.error is None]
        boxes[~absent] = np.concatenate([each.boxes for each in found])
        scores[~absent] = np.concatenate([each.scores for each in found])
        together = np.concatenate([each.embeddings for each in found])
        embeddings[~absent] = finished(together, settings, quantizer)
    numbers = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
    vectors = _vectors(embeddings, absent)
    qualities = [quality for each in photos for quality in each.qualities or [Quality(math.nan)]]

    def repeated(values: list[Any], kind: Any) -> Any:
        each = zip(values, counts, strict=True)
        spread = [value for value, count in each for _ in range(count)]
        return pyarrow.array(spread, kind)

    text = pyarrow.string()

    return [
        repeated([each.photo for each in photos], text),
        repeated([each.digest or None for each in photos], text),
        pyarrow.array(numbers, mask=absent),
        *(pyarrow.array(np.ascontiguousarray(side), mask=absent) for side in boxes.T),
        pyarrow.array(scores, mask=absent),
        pyarrow.array(np.array([each.value for each in qualities], np.float32), from_pandas=True),
        pyarrow.array([each.reason for each in qualities], text),
        vectors,
        repeated([each.error for each in photos], text),
        repeated([each.notes for each in photos], pyarrow.list_(text)),
    ]


def embedding_table_of(table: Any, name: str) -> EmbeddingTable:
    """The embeddings in pyarrow's table of a file, which ``name`` is in an error.

    Raises:
        EmbeddingFileError: Of another kind.
        InputError: Its parts do not fit together.
    """
    import pyarrow

    settings, quantizer = _described(name, table.schema.metadata or {})
    index = table.schema.get_field_index("embedding")
    if index >= 0 and pyarrow.types.is_fixed_size_list(kind := table.schema.field(index).type):
        # As clones of before the first release wrote it.
        lists = table.column(index).cast(pyarrow.list_(kind.value_type))
        table = table.set_column(index, "embedding", lists)
    for column in _LATER:
        if column not in table.column_names:  # as former releases wrote it
            kind = _schema(settings).field(column).type
            table = table.append_column(column, pyarrow.nulls(len(table), kind))
    if set(table.column_names) == set(_schema(settings).names):
        table = table.select(_schema(settings).names)
    if not table.schema.equals(_schema(settings)):
        raise InputError("its columns are not those of embeddings")
    absent = table["error"].is_valid().to_numpy(zero_copy_only=False)
    missing = table.filter(pyarrow.array(absent))
    left_out = zip(missing["photo"].to_pylist(), missing["error"].to_pylist(), strict=True)
    faces = table.filter(pyarrow.array(~absent))
    if any(faces[name].null_count for name in {*faces.column_names} - {"error", *_LATER}):
        raise InputError("a row without an error lacks a value")
    return EmbeddingTable(
        photos=np.array(faces["photo"].to_pylist(), np.str_).reshape(len(faces)),
        digests=np.array(faces["digest"].to_pylist(), np.str_).reshape(len(faces)),
        faces=faces["face"].to_numpy(),
        boxes=np.stack([faces[side].to_numpy() for side in _SIDES], axis=1),
        scores=faces["score"].to_numpy(),
        qualities=faces["quality"].to_numpy().astype(np.float32),
        quality_reasons=text_array([each or "" for each in faces["quality_reason"].to_pylist()]),
        kept=embeddings_of(faces, settings.embedding_size),
        quantizer=quantizer,
        left_out=tuple(left_out),
        settings=settings,
    )


def _described(name: str, metadata: dict[bytes, bytes]) -> tuple[EmbeddingSettings, Any]:
    """The settings and the quantizer in a file's metadata."""
    if _KEY not in metadata:
        raise EmbeddingFileError(
            f"{name} is no file of embeddings: it has no metadata of face_encode"
        )
    try:
        described = json.loads(metadata[_KEY])
        version, stored = described["format_version"], described["settings"]
        centre = described.get("centre")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"its metadata are damaged: {error!r}") from error
    check_version(version, name)
    settings = EmbeddingSettings.from_json(json.dumps(stored))
    if centre is None:
        return settings, None
    try:
        return settings, Quantizer(np.array(centre, np.float32))
    except (ValueError, TypeError) as error:
        raise InputError(f"its centre is damaged: {error}") from error


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
    photos: Iterable[EmbeddedPhoto],
    quantizer: Quantizer | None,
) -> None:
    """Write the rows of photos as they come, in memory of one row group."""

    def tables() -> Iterator[Any]:
        waiting: list[EmbeddedPhoto] = []
        rows = 0
        for each in photos:
            waiting.append(each)
            rows += max(1, len(each.embeddings))
            if rows >= _ROW_GROUP:
                yield table_of(waiting, settings, quantizer)
                waiting, rows = [], 0
        if waiting:
            yield table_of(waiting, settings, quantizer)

    write_tables(path, settings, tables(), quantizer)


def write_tables(
    path: Path | IO[bytes],
    settings: EmbeddingSettings,
    tables: Iterable[Any],
    quantizer: Quantizer | None,
) -> None:
    """Write tables that ``table_of`` made, a row group each, to a path or an open file."""
    import pyarrow.parquet

    # Embeddings look like noise: a dictionary of them would hold every number once.
    options = {"use_dictionary": ["photo", "digest", "error"], "write_page_checksum": True}
    with pyarrow.parquet.ParquetWriter(path, schema_of(settings, quantizer), **options) as writer:
        for table in tables:
            writer.write_table(table)


def is_embeddings_file(location: Location) -> bool:
    """Whether a file is Parquet that this package wrote of embeddings, by its metadata.

    Raises:
        OSError: There is none, or the store does not answer, or refuses.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with location.file_system.open_input_file(location.path) as file:
            return _KEY in (pyarrow.parquet.read_schema(file).metadata or {})
    except pyarrow.ArrowInvalid:
        return False


def read_parquet(location: Location) -> EmbeddingTable:
    """Read a Parquet file of embeddings; see ``read_embeddings``.

    Raises:
        EmbeddingFileError: Missing, damaged, or of another kind.
        InputError: Its parts do not fit together.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with (
            open_regular(location.local)
            if location.is_local
            else location.file_system.open_input_file(location.path)
        ) as file:
            table = pyarrow.parquet.read_table(file, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise EmbeddingFileError(f"no such file of embeddings: {location}") from error
    # What pyarrow raises for a damaged file is an OSError too, without an error number.
    except pyarrow.ArrowException as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise InputError(first_line) from error
    except OSError as error:
        if error.errno is None:
            raise InputError(next(iter(str(error).splitlines()), "")) from error
        raise EmbeddingFileError(f"{location} cannot be read: {in_a_line(error)}") from error
    return embedding_table_of(table, str(location))
