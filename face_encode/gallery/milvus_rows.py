"""The rows of a gallery in Milvus: their fields, their keys, and filters that find them.

No text that a user chose is ever part of a filter: people and photos are found by digests.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from face_encode.errors import InputError
from face_encode.gallery.distances import Metric
from face_encode.types import Embeddings

# Of a row: its key; the person's name and a digest of it; the photo's digest as it was given, and
# a digest of that; the detector that found the face; when it was enrolled, in nanoseconds.
ROW_ID, NAME, PERSON, DIGEST, PHOTO, DETECTOR, ADDED, EMBEDDING = (
    "id",
    "name",
    "person",
    "digest",
    "photo",
    "detector",
    "added",
    "embedding",
)

# Milvus's names for metrics.
METRIC_TYPES: dict[Metric, str] = {"cosine": "COSINE", "euclidean": "L2"}

_KEY_BYTES = 64
_MOST_TEXT_BYTES = 65_535


def person_key(name: str) -> str:
    """What a person's rows are found by."""
    return _key("person", name)


def photo_key(digest: str) -> str:
    """What the rows of a photo are found by."""
    return _key("photo", digest)


def row_id(name: str, digest: str) -> str:
    """A row's key: the same photo of the same person is enrolled once, however often it is sent.

    Without a digest it is unlike every other.
    """
    return _key("row", name, digest) if digest else uuid.uuid4().hex


def renamed_id(row: Mapping[str, Any], new_name: str) -> str:
    """The key of a row under another name; the same, if the renaming is done once more."""
    if row[DIGEST]:
        return row_id(new_name, row[DIGEST])
    return _key("renamed", new_name, row[ROW_ID])


def _key(*parts: str) -> str:
    """64 hexadecimal digits, unlike those of any other parts."""
    whole = hashlib.sha256()
    for part in parts:
        # Names may be broken in a way that no encoding takes, and are refused elsewhere.
        content = part.encode("utf-8", "surrogatepass")
        whole.update(len(content).to_bytes(8, "big") + content)
    return whole.hexdigest()


def rows_of(
    names: Sequence[str], embeddings: Embeddings, digests: Sequence[str], detector_name: str
) -> list[dict[str, Any]]:
    """Rows to be enrolled, each key once.

    Args:
        names: n names.
        embeddings: float32 ``(n, D)``.
        digests: n digests, empty where unknown.
        detector_name: Found the faces.

    Raises:
        InputError: A text is longer than Milvus takes.
    """
    now = time.time_ns()
    rows: dict[str, dict[str, Any]] = {}
    for index, (name, digest) in enumerate(zip(names, digests, strict=True)):
        row = {
            ROW_ID: row_id(name, digest),
            NAME: name,
            PERSON: person_key(name),
            DIGEST: digest,
            PHOTO: photo_key(digest),
            DETECTOR: detector_name,
            ADDED: now + index,
            EMBEDDING: embeddings[index],
        }
        for text in (name, digest, detector_name):
            if len(text.encode()) > _MOST_TEXT_BYTES:
                raise InputError(
                    f"Milvus takes texts of at most {_MOST_TEXT_BYTES:,} bytes. Received: one of "
                    f"{len(text.encode()):,}"
                )
        rows[row[ROW_ID]] = row
    return list(rows.values())


def any_of(field: str, keys: Iterable[str], *, other: bool = False) -> str:
    """A filter for the rows with one of these keys in a field; or for all the others."""
    listed = ",".join(f'"{key}"' for key in keys)
    return f"{field} {'not in' if other else 'in'} [{listed}]"


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """So many at a time."""
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def schema_of(client: Any, embedding_size: int) -> Any:
    """The fields of a collection that holds a gallery."""
    from pymilvus import DataType

    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(ROW_ID, DataType.VARCHAR, is_primary=True, max_length=_KEY_BYTES)
    for field in (NAME, DIGEST, DETECTOR):
        schema.add_field(field, DataType.VARCHAR, max_length=_MOST_TEXT_BYTES)
    for field in (PERSON, PHOTO):
        schema.add_field(field, DataType.VARCHAR, max_length=_KEY_BYTES)
    schema.add_field(ADDED, DataType.INT64)
    schema.add_field(EMBEDDING, DataType.FLOAT_VECTOR, dim=embedding_size)
    return schema


def indexes_of(client: Any, index: str, metric: Metric) -> list[Any]:
    """The indexes of such a collection, each called like its field.

    They are of the embeddings, and of what its filters ask for.
    """
    kinds: dict[str, dict[str, str]] = {
        EMBEDDING: {"index_type": index, "metric_type": METRIC_TYPES[metric]},
        PERSON: {"index_type": "INVERTED"},
        PHOTO: {"index_type": "INVERTED"},
    }
    return [
        client.prepare_index_params(field_name=field, index_name=field, **kind)
        for field, kind in kinds.items()
    ]
