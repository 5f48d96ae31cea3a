"""The file of a gallery: an ``.npz`` archive of plain arrays, none of them pickled.

A large file is mapped into memory: it opens at once, its rows are read from disk when they are
searched, and several processes share them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from face_encode.calibration import Calibration
from face_encode.distances import Metric, check_metric
from face_encode.errors import GalleryError, InputError
from face_encode.files import (
    ArchiveForm,
    Arrays,
    read_archive,
    read_open_archive,
    write_archive,
)
from face_encode.gallery.enrolled import Enrolled
from face_encode.gallery.gallery import EncoderIdentity, check_encoder
from face_encode.gallery.npz_columns import (
    LONG_COLUMNS,
    OPTIONAL_COLUMNS,
    REQUIRED_COLUMNS,
    VERSION,
    arrays_of,
    enrolled_of,
)

# What a file begins with that ``face-encode serve`` keeps under a key.
ENCRYPTED_HEADER = b"face_encode encrypted 1\n"

# Smaller files are read whole, and their checksums checked.
_MAPPED_FROM_BYTES = 64_000_000

_FORM = ArchiveForm(
    what="gallery",
    newest=VERSION,
    arrays={
        "encoder_name": ("U", 0),
        "encoder_fingerprint": ("U", 0),
        "detector_name": ("U", 0),
        **REQUIRED_COLUMNS,
    },
    optional={
        # Files from before there were these are as good without.
        "calibration": ("U", 0),
        "metric": ("U", 0),
        **OPTIONAL_COLUMNS,
    },
    error_type=GalleryError,
    refused={ENCRYPTED_HEADER: "is encrypted; face-encode serve reads it with its key"},
)


@dataclass(frozen=True, eq=False)
class GalleryContent:
    """What a gallery's file holds.

    Attributes:
        encoder_name: The encoder that filled it.
        encoder_fingerprint: Its fingerprint.
        detector_name: The detector that found the faces, empty where unknown.
        metric: What a search compares by.
        calibration: What ``face-encode calibrate`` learnt, or None.
        enrolled: The people.
    """

    encoder_name: str
    encoder_fingerprint: str
    detector_name: str
    metric: Metric
    calibration: Calibration | None
    enrolled: Enrolled

    def check(self, label: str, encoder: EncoderIdentity, metric: Metric | None) -> None:
        """Refuse what is not the gallery that it was opened as.

        Args:
            label: What it is called in errors.
            encoder: The encoder that has to have filled it.
            metric: The metric that it has to be searched by; None for any.

        Raises:
            GalleryError: Searched by another metric, or damaged.
            WrongEncoderError: Another encoder filled it.
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
    """Refuse a gallery file by another ending than numpy would give it.

    Raises:
        GalleryError: It does not end in ``.npz``.
    """
    if path.suffix != ".npz":
        raise GalleryError(f"a gallery file's name ends in .npz. Received: {path}")


def read_content(path: Path) -> GalleryContent:
    """Read a gallery's file, or map it where it is large.

    Raises:
        GalleryError: Missing, damaged, or written by a later release.
    """
    check_file_name(path)
    # Windows refuses to replace a file that is mapped.
    can_map = os.name == "posix" and _size(path) >= _MAPPED_FROM_BYTES
    stored = read_archive(path, _FORM, mapped=LONG_COLUMNS if can_map else ())
    return _content(stored, str(path))


def read_open_content(file: BinaryIO, label: str) -> GalleryContent:
    """Read a gallery from an open archive; ``label`` is what it is called in errors.

    Raises:
        GalleryError: Damaged, or written by a later release.
        OSError: The file cannot be read.
    """
    return _content(read_open_archive(file, label, _FORM), label)


def write_content(file: Path | BinaryIO, content: GalleryContent) -> None:
    """Write a gallery's archive, to a path or into an open file; not atomically.

    The same content gives the same bytes.

    Raises:
        OSError: It cannot be written.
    """
    calibration = content.calibration
    arrays: Arrays = {
        "format_version": np.array(VERSION),
        "encoder_name": np.array(content.encoder_name),
        "encoder_fingerprint": np.array(content.encoder_fingerprint),
        "detector_name": np.array(content.detector_name),
        "metric": np.array(content.metric),
        "calibration": np.array("" if calibration is None else calibration.to_json()),
        **arrays_of(content.enrolled),
    }
    write_archive(file, arrays)


def _size(path: Path) -> int:
    """Bytes of a file; 0 where it cannot be looked at, which opening it tells of."""
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):
        return 0


def _content(stored: Arrays, label: str) -> GalleryContent:
    """What the arrays of a file say."""
    try:
        # Files from before there was a choice are searched by cosine.
        metric = check_metric(str(stored.get("metric", "cosine")))
        calibration = str(stored.get("calibration", ""))
        return GalleryContent(
            str(stored["encoder_name"]),
            str(stored["encoder_fingerprint"]),
            str(stored["detector_name"]),
            metric,
            Calibration.from_json(calibration) if calibration else None,
            enrolled_of(stored),
        )
    except InputError as error:
        raise GalleryError(f"the gallery {label} is damaged: {error}") from error
