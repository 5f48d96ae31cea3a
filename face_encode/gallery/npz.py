"""The file of a gallery: an ``.npz`` archive of plain arrays, none of them pickled.

A large file is mapped into memory: it opens at once, its rows are read from disk when they are
searched, and several processes share them.
"""

from __future__ import annotations

import os
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
from face_encode.gallery.approximate import ApproximateIndex, remove_stale_indices, write_index
from face_encode.gallery.base import (
    EncoderIdentity,
    check_embeddings,
    check_encoder,
    check_labels,
    check_names,
    check_shape,
)
from face_encode.gallery.columns import DigestColumn, Enrolled, pack_digests
from face_encode.gallery.distances import Metric, check_metric
from face_encode.gallery.quantization import Coded, Quantizer, farthest
from face_encode.gallery.thresholds import Calibration

VERSION = 3
_ANCESTRAL = 2

REQUIRED_COLUMNS: dict[str, tuple[str, int]] = {"embeddings": ("fi", 2)}
"""The arrays that people always take; see ``ArchiveForm``."""

OPTIONAL_COLUMNS: dict[str, tuple[str, int]] = {
    # Of int8, and of an index.
    "centre": ("f", 1),
    "reach": ("f", 0),
    "index_codes": ("i", 2),
    "index_steps": ("f", 1),
    "blur": ("f", 0),
    # Up to version 2 names, since then people, in UTF-8 and a line each, and owners.
    "names": ("U", 1),
    "people": ("u", 1),
    "owners": ("i", 1),
    "scales": ("f", 1),
    # One of these two.
    "digests": ("U", 1),
    "packed_digests": ("u", 2),
}
"""Those that they take too, by the version of the file and by what is kept."""

LONG_COLUMNS = (
    "embeddings",
    "scales",
    "owners",
    "packed_digests",
    "index_codes",
    "index_steps",
)
"""Those of numbers that are as long as the gallery: where it is large, they are mapped."""


def arrays_of(enrolled: Enrolled) -> Arrays:
    """The arrays of the newest version that people are written as."""
    arrays: Arrays = {
        "people": np.frombuffer("\n".join(enrolled.people).encode(), np.uint8),
        "owners": enrolled.owners,
        "packed_digests" if enrolled.digests.ndim == 2 else "digests": enrolled.digests,
        "scales": enrolled.scales,
        "embeddings": enrolled.rows,
    }
    if enrolled.quantizer is not None:
        arrays["centre"] = enrolled.quantizer.centre
        arrays["reach"] = np.array(enrolled.reach)
    if (index := enrolled.index) is not None:
        arrays["centre"] = index.quantizer.centre
        arrays["reach"] = np.array(index.reach)
        arrays["blur"] = np.array(index.blur)
        arrays["index_steps"] = index.steps
        arrays["index_codes"] = index.codes
    return arrays


def enrolled_of(stored: Arrays) -> Enrolled:
    """The people that the arrays of a file, of any version, stand for.

    Raises:
        InputError: An array is missing, or they do not fit together.
    """
    is_old = int(stored["format_version"]) <= _ANCESTRAL
    return _old_enrolled(stored) if is_old else _enrolled(stored)


def _old_enrolled(stored: Arrays) -> Enrolled:
    """The people of versions 1 and 2: a name and a digest a row, and nothing prepared."""
    rows, names = stored["embeddings"], _present(stored, "names").tolist()
    digests = _present(stored, "digests").tolist()
    digests = check_labels(names, digests)
    size = rows.shape[1]
    if rows.dtype.kind == "f":
        return Enrolled.nobody(size).joined(names, check_embeddings(rows, names, size), digests)
    check_shape(rows.shape, names, size)
    quantizer = _quantizer(stored, rows)
    if quantizer is None:
        return Enrolled.nobody(rows.shape[1], int8=True)
    place_of: dict[str, int] = {}
    owners = [place_of.setdefault(name, len(place_of)) for name in names]
    steps = quantizer.steps(rows)
    return Enrolled(
        rows,
        steps,
        np.array(owners, np.int32),
        tuple(place_of),
        pack_digests(digests),
        quantizer,
        farthest(rows, steps),
    )


def _enrolled(stored: Arrays) -> Enrolled:
    """The people of version 3; the rows themselves are not looked at."""
    rows, scales, owners = (_present(stored, name) for name in ("embeddings", "scales", "owners"))
    digests: DigestColumn | None = stored.get("packed_digests", stored.get("digests"))
    if digests is None:
        raise InputError("it holds no array 'digests'")
    if not len(rows) == len(scales) == len(owners) == len(digests):
        raise InputError(
            "embeddings, scales, owners and digests are as many. "
            f"Received: {len(rows)}, {len(scales)}, {len(owners)} and {len(digests)}"
        )
    people = _people(_present(stored, "people"))
    quantizer = _quantizer(stored, rows) if rows.dtype.kind == "i" else None
    _check_scales(scales, may_be_zero=quantizer is not None)
    if rows.flags.writeable:
        # What is mapped is not read beforehand; a search tells of it.
        scales_of = _lengths if quantizer is None else quantizer.steps
        expected = scales_of(rows)
        _check_scales(expected, may_be_zero=quantizer is not None)
        if not np.allclose(expected, scales, rtol=1e-5, atol=0):
            raise InputError("an embedding is as long as its scale says; at least one is not")
    if len(rows) and not 0 <= int(owners.min()) <= int(owners.max()) < len(people):
        raise InputError(f"an embedding is somebody's of {len(people)} people; one is not")
    reach = _within_2(stored, "reach") if quantizer is not None else 0.0
    enrolled = Enrolled(
        rows if rows.dtype.kind == "i" else np.asarray(rows, np.float32),
        np.asarray(scales, np.float32),
        np.asarray(owners, np.int32),
        people,
        digests,
        quantizer,
        reach,
        _index(stored, rows) if "index_codes" in stored else None,
    )
    if not enrolled.counts.all():
        raise InputError("each person has at least one embedding; at least one has none")
    return enrolled


def _lengths(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The lengths of float32 embeddings."""
    # What float32 cannot hold becomes infinite, and is refused as that.
    with np.errstate(over="ignore"):
        return np.asarray(np.linalg.norm(np.asarray(rows, np.float32), axis=1))


def _check_scales(scales: npt.NDArray[Any], *, may_be_zero: bool) -> None:
    """Refuse scales that no embeddings have."""
    least = 0 if may_be_zero else np.finfo(np.float32).smallest_subnormal
    if not (np.isfinite(scales).all() and (scales >= least).all()):
        raise InputError("an embedding is finite and not all zeros; at least one is not")


def _index(stored: Arrays, rows: npt.NDArray[Any]) -> Coded:
    """The codes of float32 rows."""
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


def _within_2(stored: Arrays, name: str) -> float:
    """A distance of vectors of length 1 at the most."""
    value = float(_present(stored, name))
    if not 0 <= value <= 2:
        raise InputError(f"{name!r} lies within 0..2. Received: {value}")
    return value


def _present(stored: Arrays, name: str) -> npt.NDArray[Any]:
    """An array that this version of file holds."""
    if name not in stored:
        raise InputError(f"it holds no array {name!r}")
    return stored[name]


def _people(lines: npt.NDArray[Any]) -> tuple[str, ...]:
    """The names in their bytes, a line each."""
    try:
        text = lines.astype(np.uint8).tobytes().decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the names are not UTF-8: {error}") from error
    people = tuple(text.split("\n")) if text else ()
    check_names(people)
    if len(set(people)) != len(people):
        raise InputError("each person is listed once; somebody is listed twice")
    return people


def _quantizer(stored: Arrays, codes: npt.NDArray[Any]) -> Quantizer | None:
    """What the codes stand for; None where there are none and no centre."""
    if codes.dtype != np.int8:
        raise InputError(f"whole numbers as embeddings are int8. Received: {codes.dtype}")
    centre = stored.get("centre")
    if len(codes) and (centre is None or centre.shape != codes.shape[1:]):
        received = "none" if centre is None else f"shape {centre.shape}"
        raise InputError(
            f"int8 embeddings have a 'centre' of shape {codes.shape[1:]}. Received: {received}"
        )
    return None if centre is None else Quantizer(np.asarray(centre, np.float32))


# The beginning of every Fernet token, which ``face-encode serve`` writes under a key: the version
# 0x80 and the upper bytes of the time, in base64.
ENCRYPTED_HEADER = b"gAAAAA"

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
    refused={
        ENCRYPTED_HEADER: "is encrypted; face-encode serve reads it with its key",
        b"face_encode encrypted 1\n": "was encrypted before the first release, in a format that "
        "is not read any more: enrol its people again",
    },
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


class NpzStore:
    """The file of one gallery, if it has any.

    Attributes:
        path: The file, or None for a gallery that is kept nowhere.
        is_current: Whether the file holds what the gallery does; whoever changes the gallery sets
            it to False.
    """

    def __init__(self, path: Path | None) -> None:
        """Take a path; nothing is read or written yet."""
        self.path = path
        self.is_current = False

    def save(
        self, content: GalleryContent, index: ApproximateIndex | None, path: Path | None = None
    ) -> None:
        """Write a gallery, atomically, and then its index.

        Args:
            content: What the gallery holds.
            index: Of its embeddings; without one, those of other embeddings are removed.
            path: Where to; None for the gallery's own file.

        Raises:
            GalleryError: It has none, the name does not end in ``.npz``, or it cannot be written.
        """
        target = self.path if path is None else path
        if target is None:
            raise GalleryError("this gallery was not opened from a file; save it to a path")
        check_file_name(target)
        with replacing(target, GalleryError) as temporary:
            write_content(temporary, content)
        if index is None:
            remove_stale_indices(target)
        else:
            write_index(target, index)
        # Saved elsewhere, it is still to be written here.
        self.is_current = self.is_current or target == self.path
