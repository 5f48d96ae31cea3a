"""The file of a gallery: an ``.npz`` archive of plain arrays, none of them pickled.

A large file is mapped into memory: it opens at once, its rows are read from disk when they are
searched, and several processes share them.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, InputError
from face_encode.files import (
    ArchiveForm,
    Arrays,
    read_archive,
    read_open_archive,
    replacing,
    write_archive,
)
from face_encode.gallery.approximate import ApproximateIndex, save_index
from face_encode.gallery.base import EncoderIdentity, check_encoder, check_names
from face_encode.gallery.columns import DigestColumn, Enrolled
from face_encode.gallery.distances import Metric, check_metric
from face_encode.gallery.quantization import Coded, Quantizer
from face_encode.gallery.thresholds import (
    Calibration,
    thresholds_from_json,
    thresholds_to_json,
)

VERSION = 3

# The beginning of every Fernet token, which ``face-encode serve`` writes under a key: the version
# 0x80 and the upper bytes of the time, in base64.
ENCRYPTED_HEADER = b"gAAAAA"
"""The first bytes of a gallery that ``face-encode serve`` stores encrypted."""

# Smaller files are read whole, and their checksums verified.
_MAPPED_FROM_BYTES = 64_000_000
# The arrays of numbers that are as long as the gallery, which are mapped where it is large.
_LONG_ARRAYS = ("embeddings", "scales", "owners", "packed_digests", "index_codes", "index_steps")

_FORM = ArchiveForm(
    what="gallery",
    newest=VERSION,
    arrays={
        "encoder_name": ("U", 0),
        "encoder_fingerprint": ("U", 0),
        "detector_name": ("U", 0),
        "embeddings": ("fi", 2),
    },
    optional={
        "calibration": ("U", 0),
        "thresholds": ("U", 0),
        "metric": ("U", 0),
        # The names in UTF-8, one a line, and the line of each row.
        "people": ("u", 1),
        "owners": ("i", 1),
        "scales": ("f", 1),
        # One of these two.
        "digests": ("U", 1),
        "packed_digests": ("u", 2),
        # For int8, and for an index.
        "centre": ("f", 1),
        "reach": ("f", 0),
        "index_codes": ("i", 2),
        "index_steps": ("f", 1),
        "blur": ("f", 0),
    },
    error_type=GalleryError,
    refused={
        ENCRYPTED_HEADER: "is encrypted; face-encode import reads it with its key",
        b"face_encode encrypted 1\n": "was encrypted before the first release, in a format that "
        "is not read any more: enrol its people again",
    },
)


_CODES_FORM = ArchiveForm(
    what="index",
    newest=VERSION,
    arrays={
        name: _FORM.optional[name]
        for name in ("centre", "reach", "blur", "index_steps", "index_codes")
    },
    error_type=GalleryError,
)


@dataclass(frozen=True, eq=False)
class GalleryContent:
    """The content of a gallery's file.

    Attributes:
        encoder_name: The encoder that filled the gallery.
        encoder_fingerprint: Its fingerprint.
        detector_name: The detector that found the faces, empty where unknown.
        metric: The metric of a search.
        calibration: The result of ``face-encode calibrate``, or None.
        enrolled: The people.
        thresholds: Name -> threshold of the people who have one of their own.
    """

    encoder_name: str
    encoder_fingerprint: str
    detector_name: str
    metric: Metric
    calibration: Calibration | None
    enrolled: Enrolled
    thresholds: Mapping[str, float]

    def check(self, label: str, encoder: EncoderIdentity, metric: Metric | None) -> None:
        """Refuse a gallery of another encoder or metric than the one it is opened with.

        Args:
            label: The gallery's name in errors.
            encoder: The expected encoder.
            metric: The expected metric; None for any.

        Raises:
            GalleryError: The metric is another, or the embeddings have another length.
            WrongEncoderError: Another encoder filled the gallery.
        """
        check_encoder(label, self.encoder_name, self.encoder_fingerprint, encoder)
        if metric not in (None, self.metric):
            raise GalleryError(
                f"{label} is searched by the metric {self.metric!r}, here it is {metric!r}: "
                "open it with face_encode.ReferenceEmbeddings.load"
            )
        received = self.enrolled.rows.shape
        if received[1] != encoder.embedding_size:
            expected = (received[0], encoder.embedding_size)
            raise GalleryError(
                f"the gallery {label} is damaged: its encoder's embeddings are of shape "
                f"{expected}. Received: shape {received}"
            )


def check_file_name(path: Path) -> None:
    """Refuse a file name with another ending than numpy would give it.

    Raises:
        GalleryError: It does not end in ``.npz``.
    """
    if path.suffix != ".npz":
        raise GalleryError(f"a gallery file's name ends in .npz. Received: {path}")


def save_content(path: Path, content: GalleryContent, index: ApproximateIndex | None) -> None:
    """Write a gallery's file, atomically, and then its index.

    Args:
        path: The file.
        content: Its content.
        index: An index of the content's embeddings; None removes those of other embeddings.

    Raises:
        GalleryError: The name does not end in ``.npz``, or a file cannot be written.
    """
    check_file_name(path)
    with replacing(path, GalleryError) as temporary:
        write_content(temporary, content)
    save_index(path.with_suffix(""), stamp_of(path), index)


def stamp_of(path: Path) -> str:
    """The checksum of the embeddings in a gallery's file, as the archive records it.

    Raises:
        GalleryError: The file cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{archive.getinfo('embeddings.npy').CRC:08x}"
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise GalleryError(f"the gallery {path} cannot be read: {error}") from error


def write_content(file: Path | BinaryIO, content: GalleryContent) -> None:
    """Write a gallery's archive to a path or into an open file; not atomically.

    The same content gives the same bytes.

    Raises:
        OSError: It cannot be written.
    """
    calibration, enrolled = content.calibration, content.enrolled
    arrays: Arrays = {
        "format_version": np.array(VERSION),
        "encoder_name": np.array(content.encoder_name),
        "encoder_fingerprint": np.array(content.encoder_fingerprint),
        "detector_name": np.array(content.detector_name),
        "metric": np.array(content.metric),
        "calibration": np.array("" if calibration is None else calibration.to_json()),
        "people": np.frombuffer("\n".join(enrolled.people).encode(), np.uint8),
        "owners": enrolled.owners,
        "packed_digests" if enrolled.digests.ndim == 2 else "digests": enrolled.digests,
        "scales": enrolled.scales,
        "embeddings": enrolled.rows,
    }
    if content.thresholds:
        arrays["thresholds"] = np.array(thresholds_to_json(content.thresholds))
    if enrolled.quantizer is not None:
        arrays["centre"] = enrolled.quantizer.centre
        arrays["reach"] = np.array(enrolled.reach)
    if enrolled.index is not None:
        arrays |= _arrays_of(enrolled.index)
    write_archive(file, arrays)


def _arrays_of(index: Coded) -> Arrays:
    """The arrays of an index."""
    return {
        "centre": index.quantizer.centre,
        "reach": np.array(index.reach),
        "blur": np.array(index.blur),
        "index_steps": index.steps,
        "index_codes": index.codes,
    }


def write_codes(path: Path, index: Coded) -> None:
    """Write codes to a file of their own, atomically: the index of a gallery database.

    Raises:
        GalleryError: It cannot be written.
    """
    with replacing(path, GalleryError) as temporary:
        write_archive(temporary, {"format_version": np.array(VERSION), **_arrays_of(index)})


def read_codes(path: Path, rows: npt.NDArray[Any]) -> Coded:
    """Map the codes of some rows from their file.

    Raises:
        GalleryError: The file is missing, damaged, or of other rows.
    """
    try:
        return _index(read_archive(path, _CODES_FORM, mapped=_LONG_ARRAYS), rows)
    except InputError as error:
        raise GalleryError(f"the index {path} is damaged: {error}") from error


def read_content(path: Path) -> GalleryContent:
    """Read a gallery's file, or map it where it is large.

    Raises:
        GalleryError: The file is missing, damaged, or of another version.
    """
    check_file_name(path)
    try:
        size = os.path.getsize(path)
    except (OSError, ValueError):
        size = 0  # opening the file gives the reason
    # Windows refuses to replace a file that is mapped.
    can_map = os.name == "posix" and size >= _MAPPED_FROM_BYTES
    stored = read_archive(path, _FORM, mapped=_LONG_ARRAYS if can_map else ())
    return _content(stored, str(path))


def read_open_content(file: BinaryIO, label: str) -> GalleryContent:
    """Read a gallery from an open archive; ``label`` names it in errors.

    Raises:
        GalleryError: The archive is damaged, or of another version.
        OSError: The file cannot be read.
    """
    return _content(read_open_archive(file, label, _FORM), label)


def _content(stored: Arrays, label: str) -> GalleryContent:
    """Convert the arrays of a file, and check that they fit together."""
    version = int(stored["format_version"])
    if version != VERSION:
        raise GalleryError(
            f"{label} was written by a face_encode from before its first release; this one reads "
            f"version {VERSION}. Enrol the photos again. Received: version {version}"
        )
    try:
        calibration = str(stored.get("calibration", ""))
        enrolled = _enrolled(stored)
        return GalleryContent(
            str(stored["encoder_name"]),
            str(stored["encoder_fingerprint"]),
            str(stored["detector_name"]),
            check_metric(str(stored.get("metric", "cosine"))),
            Calibration.from_json(calibration) if calibration else None,
            enrolled,
            thresholds_from_json(str(stored.get("thresholds", "{}")), enrolled.people),
        )
    except InputError as error:
        raise GalleryError(f"the gallery {label} is damaged: {error}") from error


def _enrolled(stored: Arrays) -> Enrolled:
    """Convert the columns; rows that are mapped are not read.

    Raises:
        InputError: An array is missing, or the arrays do not fit together.
    """
    rows, scales, owners = (_present(stored, name) for name in ("embeddings", "scales", "owners"))
    is_int8 = rows.dtype.kind == "i"
    if not is_int8:
        # A number beyond the range of float32 becomes infinite, and is refused as that.
        with np.errstate(over="ignore"):
            rows = np.asarray(rows, np.float32)
    digests: DigestColumn | None = stored.get("packed_digests", stored.get("digests"))
    if digests is None:
        raise InputError("it holds no array 'digests'")
    if not len(rows) == len(scales) == len(owners) == len(digests):
        raise InputError(
            "embeddings, scales, owners and digests are as many. "
            f"Received: {len(rows)}, {len(scales)}, {len(owners)} and {len(digests)}"
        )
    people = _people(_present(stored, "people"))
    quantizer = _quantizer(stored, rows) if is_int8 else None
    _check_scales(scales, may_be_zero=is_int8)
    if rows.flags.writeable:
        # Rows that are mapped are not read here; a search finds damage in them.
        with np.errstate(over="ignore"):
            lengths = np.linalg.norm(rows, axis=1) if quantizer is None else quantizer.steps(rows)
        _check_scales(lengths, may_be_zero=is_int8)
        if not np.allclose(lengths, scales, rtol=1e-5, atol=0):
            raise InputError("an embedding is as long as its scale says; at least one is not")
    if len(rows) and not 0 <= int(owners.min()) <= int(owners.max()) < len(people):
        raise InputError(f"an embedding is somebody's of {len(people)} people; one is not")
    enrolled = Enrolled(
        rows,
        np.asarray(scales, np.float32),
        np.asarray(owners, np.int32),
        people,
        digests,
        quantizer,
        0.0 if quantizer is None else _within_2(stored, "reach"),
        _index(stored, rows) if "index_codes" in stored else None,
    )
    if not enrolled.counts.all():
        raise InputError("each person has at least one embedding; at least one has none")
    return enrolled


def _index(stored: Arrays, rows: npt.NDArray[Any]) -> Coded:
    """Convert the index, the codes of float32 rows."""
    codes, steps = stored["index_codes"], _present(stored, "index_steps")
    quantizer = _quantizer(stored, codes)
    if quantizer is None or codes.shape != rows.shape or len(steps) != len(rows):
        raise InputError(
            f"an index has as many codes as there are embeddings, {rows.shape}. "
            f"Received: {codes.shape} and {len(steps)} steps"
        )
    if not (np.isfinite(steps).all() and (steps >= 0).all()):
        raise InputError("the steps of an index are finite and not negative; at least one is")
    reach, blur = _within_2(stored, "reach"), _within_2(stored, "blur")
    return Coded(codes, np.asarray(steps, np.float32), quantizer, reach, blur)


def _quantizer(stored: Arrays, codes: npt.NDArray[Any]) -> Quantizer | None:
    """Convert the quantizer of some codes; None where there are neither codes nor a centre."""
    if codes.dtype != np.int8:
        raise InputError(f"whole numbers as embeddings are int8. Received: {codes.dtype}")
    centre = stored.get("centre")
    if len(codes) and (centre is None or centre.shape != codes.shape[1:]):
        received = "none" if centre is None else f"shape {centre.shape}"
        raise InputError(
            f"int8 embeddings have a 'centre' of shape {codes.shape[1:]}. Received: {received}"
        )
    return None if centre is None else Quantizer(np.asarray(centre, np.float32))


def _people(lines: npt.NDArray[Any]) -> tuple[str, ...]:
    """Convert the names, one a line."""
    try:
        text = lines.astype(np.uint8).tobytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the names are not UTF-8: {error}") from error
    people = tuple(text.split("\n")) if text else ()
    check_names(people)
    if len(set(people)) != len(people):
        raise InputError("each person is listed once; somebody is listed twice")
    return people


def _check_scales(scales: npt.NDArray[Any], *, may_be_zero: bool) -> None:
    """Refuse lengths or steps that no embedding has."""
    least = 0 if may_be_zero else np.finfo(np.float32).smallest_subnormal
    if not (np.isfinite(scales).all() and (scales >= least).all()):
        raise InputError("an embedding is finite and not all zeros; at least one is not")


def _within_2(stored: Arrays, name: str) -> float:
    """A distance between vectors of length at most 1."""
    value = float(_present(stored, name))
    if not 0 <= value <= 2:
        raise InputError(f"{name!r} lies within 0..2. Received: {value}")
    return value


def _present(stored: Arrays, name: str) -> npt.NDArray[Any]:
    """An array that a gallery always has."""
    if name not in stored:
        raise InputError(f"it holds no array {name!r}")
    return stored[name]
