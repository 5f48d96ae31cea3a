"""What leaves a gallery database: a person's whole data, everybody's crops, and Parquet."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from face_encode.errors import GalleryError, InputError, MissingExtraError
from face_encode.files import (
    filling,
    for_owner,
    make_private_folder,
    open_regular,
    reason_of,
    replacing,
    text_array,
)
from face_encode.gallery.audit import former_names
from face_encode.gallery.base import GalleryRows, PhotoDetails, StoredEncoder
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.distances import check_metric
from face_encode.gallery.people_rows import EnrolledPhoto
from face_encode.gallery.thresholds import (
    Calibration,
    thresholds_from_json,
    thresholds_to_json,
)
from face_encode.types import Box

# Photos that are written together.
_WRITTEN_AT_ONCE = 32_768
_KEY = b"face_encode people"
_VERSION = 1
# What a folder of crops writes of a name as %XX, so that it is one folder's name everywhere, and
# not a hidden one.
_SAFE_ASCII = " !#$&'()+,-;=@[]^_`{}~"


def export_person(gallery: DatabaseGallery, name: str, file: Path | BinaryIO) -> int:
    """Write everything that a gallery holds of a person to a zip file.

    In it are ``person.json``: the name, the note, the encoder, the photos, and what the audit says
    of this person, without the names of others; ``embeddings.npy``, float32 ``(n, D)``, a row a
    photo; and ``crops/ID.jpg`` for each photo of which a crop is kept.

    Args:
        gallery: The gallery.
        name: The person.
        file: Its path, or the file open for writing; not written atomically: see
            ``face_encode.files.replacing``.

    Returns:
        How many photos that person has.

    Raises:
        GalleryError: Nobody of that name is enrolled, or somebody changed the person meanwhile.
        OSError: The file cannot be written.
    """
    photos = gallery.photos(name)
    shown, numbers = photos[0].name, [photo.id for photo in photos]
    person = gallery.person(shown)
    own = former_names(gallery.changes(), shown, gallery.people())
    told = {
        "name": shown,
        "note": person.note,
        "threshold": person.threshold,
        "encoder": gallery.encoder_name,
        "encoder_fingerprint": gallery.encoder_fingerprint,
        "photos": [photo.as_dict() for photo in photos],
        "audit": [
            change.as_dict()
            for change in (each.concerning(own) for each in gallery.changes())
            if change.removed or change.added or change.renamed or change.threshold
        ],
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("person.json", json.dumps(told, indent=2, ensure_ascii=False))
        with archive.open("embeddings.npy", "w") as opened:
            np.save(opened, gallery.embeddings_of(numbers), allow_pickle=False)
        for photo in photos:
            if photo.has_crop:
                archive.writestr(f"crops/{photo.id}.jpg", gallery.crop(photo.id) or b"")
    return len(photos)


def export_crops(gallery: DatabaseGallery, folder: Path) -> tuple[int, list[EnrolledPhoto]]:
    """Write the crops that a gallery keeps to a folder, as ``PERSON/ID.jpg``.

    Letters of a name that no folder's name may have are written as ``%XX``.

    Returns:
        How many were written, and the photos without a crop.

    Raises:
        GalleryError: The folder exists and is not empty, or cannot be written to.
    """
    written, without = 0, []
    try:
        make_private_folder(folder)
        if any(folder.iterdir()):
            raise GalleryError(f"crops are written to a new folder. Received: {folder}, not empty")
        with filling(folder) as work:
            for photo in gallery.photos():
                crop = gallery.crop(photo.id) if photo.has_crop else None
                if crop is None:
                    without.append(photo)
                    continue
                place = work / folder_name(photo.name)
                make_private_folder(place)
                with open(place / f"{photo.id}.jpg", "wb", opener=for_owner) as file:
                    file.write(crop)
                written += 1
    except OSError as error:
        raise GalleryError(f"cannot write to {folder}: {reason_of(error)}") from error
    return written, without


def folder_name(name: str) -> str:
    """A person's name as that of a folder; ``urllib.parse.unquote`` undoes it."""
    quoted = "".join(
        letter if letter > "\x7f" else quote(letter, safe=_SAFE_ASCII) for letter in name
    )
    return "%2E" + quoted[1:] if quoted.startswith(".") else quoted


def export_parquet(gallery: DatabaseGallery, path: Path) -> int:
    """Write a row for each photo to a Parquet file, atomically: who, when, where, embedding.

    Returns:
        How many photos were written.

    Raises:
        GalleryError: It cannot be written, or somebody removed photos meanwhile.
        MissingExtraError: ``pyarrow`` is not installed.
    """
    pyarrow = _pyarrow()
    calibration = gallery.calibration
    told = {
        "format_version": _VERSION,
        "encoder": gallery.encoder_name,
        "fingerprint": gallery.encoder_fingerprint,
        "embedding_size": gallery.encoder.embedding_size,
        "detector": gallery.detector_name,
        "metric": gallery.metric,
        "calibration": None if calibration is None else calibration.to_json(),
        "thresholds": thresholds_to_json(gallery.thresholds),
    }
    whole = [("left", pyarrow.int32()), ("top", pyarrow.int32())]
    whole += [("width", pyarrow.int32()), ("height", pyarrow.int32())]
    schema = pyarrow.schema(
        [
            ("id", pyarrow.int64()),
            ("name", pyarrow.string()),
            ("source", pyarrow.string()),
            ("digest", pyarrow.string()),
            ("quality", pyarrow.float32()),
            *whole,
            ("enrolled_at", pyarrow.string()),
            ("enrolled_by", pyarrow.string()),
            ("embedding", pyarrow.list_(pyarrow.float32())),
        ],
        metadata={_KEY: json.dumps(told)},
    )
    photos = gallery.photos()
    with (
        replacing(path, GalleryError) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, write_page_checksum=True) as writer,
    ):
        for start in range(0, len(photos), _WRITTEN_AT_ONCE):
            part = photos[start : start + _WRITTEN_AT_ONCE]
            embeddings = gallery.embeddings_of([photo.id for photo in part])
            writer.write_table(_table(part, embeddings, schema))
    return len(photos)


def _table(photos: Sequence[EnrolledPhoto], embeddings: Any, schema: Any) -> Any:
    """Some photos as pyarrow's table."""
    import pyarrow

    offsets = np.arange(len(photos) + 1, dtype=np.int32) * embeddings.shape[1]
    boxes = [PhotoDetails(box=photo.box).box_numbers for photo in photos]
    columns = [
        [photo.id for photo in photos],
        [photo.name for photo in photos],
        [photo.source for photo in photos],
        [photo.digest for photo in photos],
        [photo.quality for photo in photos],
        *([box[side] for box in boxes] for side in range(4)),
        [photo.enrolled_at for photo in photos],
        [photo.enrolled_by for photo in photos],
    ]
    arrays = [
        pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=False)
    ]
    arrays.append(pyarrow.ListArray.from_arrays(offsets, embeddings.reshape(-1)))
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def read_people_parquet(
    path: Path,
) -> tuple[GalleryRows, StoredEncoder, list[PhotoDetails]] | None:
    """Read what ``export_parquet`` wrote; None where a Parquet file is another one.

    Raises:
        GalleryError: The file is missing or damaged, or was written by a later release.
        MissingExtraError: ``pyarrow`` is not installed.
    """
    pyarrow = _pyarrow()
    try:
        with open_regular(path) as file:
            table = pyarrow.parquet.read_table(file, page_checksum_verification=True)
    except FileNotFoundError as error:
        raise GalleryError(f"no such file: {path}") from error
    except (OSError, pyarrow.ArrowException) as error:
        first_line = next(iter(str(error).splitlines()), "")
        raise GalleryError(f"{path} cannot be read: {first_line}") from error
    metadata = table.schema.metadata or {}
    if _KEY not in metadata:
        return None
    try:
        told = json.loads(metadata[_KEY])
        if told["format_version"] != _VERSION:
            raise GalleryError(
                f"{path} was written by a later release of face_encode; this one reads version "
                f"{_VERSION}. Received: version {told['format_version']}"
            )
        size = int(told["embedding_size"])
        rows = table.drop_columns(["embedding"]).to_pylist()
        values = table["embedding"].combine_chunks().flatten().to_numpy()
        calibration = told["calibration"]
        return (
            GalleryRows(
                text_array([row["name"] for row in rows]),
                values.reshape(len(rows), size).astype(np.float32),
                text_array([row["digest"] for row in rows]),
                told["detector"],
                check_metric(told["metric"]),
                None if calibration is None else Calibration.from_json(calibration),
                thresholds_from_json(told.get("thresholds", "{}"), {row["name"] for row in rows}),
            ),
            StoredEncoder(told["encoder"], told["fingerprint"], size),
            [
                PhotoDetails(
                    row["source"],
                    None
                    if row["left"] is None
                    else Box(row["left"], row["top"], row["width"], row["height"]),
                    row["quality"],
                )
                for row in rows
            ],
        )
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise GalleryError(f"{path} is damaged: {error}") from error


def _pyarrow() -> Any:
    """Import the library, with the part that reads and writes Parquet."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            'Parquet takes pyarrow: pip install "face_encode[parquet]"'
        ) from error
    return pyarrow
