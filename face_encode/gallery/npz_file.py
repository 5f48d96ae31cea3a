"""The file of a gallery: an ``.npz`` archive of seven arrays, none of them pickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError
from face_encode.files import open_regular, reason_of

FORMAT_VERSION = 1
# What a file begins with that ``face-encode serve`` keeps under a key.
ENCRYPTED_HEADER = b"face_encode encrypted 1\n"

# The arrays of the file: numpy's kinds of type, and the number of dimensions.
_FIELDS = {
    "encoder_name": ("U", 0),
    "encoder_fingerprint": ("U", 0),
    "detector_name": ("U", 0),
    "names": ("U", 1),
    "digests": ("U", 1),
    "embeddings": ("f", 2),
}


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a file; see ``arrays_in``.

    Raises:
        GalleryError: Missing, damaged, or written by a later release.
    """
    try:
        with open_regular(path) as file:
            return arrays_in(file, str(path))
    except FileNotFoundError as error:
        raise GalleryError(f"no such gallery: {path}") from error
    except OSError as error:
        raise GalleryError(f"the gallery {path} cannot be read: {reason_of(error)}") from error


def arrays_in(file: BinaryIO, label: str) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays; numpy refuses whatever would have to be unpickled.

    Args:
        file: The archive, open for reading.
        label: What it is called in an error.

    Returns:
        ``encoder_name``, ``encoder_fingerprint`` and ``detector_name``, texts without a
        dimension; ``names`` and ``digests``, text arrays of one dimension, and ``embeddings``,
        floating-point of two. Whether they fit together is for the caller to check.

    Raises:
        GalleryError: Damaged, or written by a later release.
        OSError: The file cannot be read.
    """
    try:
        if file.read(len(ENCRYPTED_HEADER)) == ENCRYPTED_HEADER:
            raise GalleryError(f"{label} is encrypted; face-encode serve reads it with its key")
        if not zipfile.is_zipfile(file):
            raise GalleryError(f"{label} is no gallery, or is cut off: no .npz archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            version = _checked(label, archive, "format_version", "iu", 0)
            if version != FORMAT_VERSION:
                raise GalleryError(
                    f"{label} was written by a later release of face_encode; this one reads "
                    f"version {FORMAT_VERSION}. Received: version {version}"
                )
            arrays = {
                field: _checked(label, archive, field, kinds, dimensions)
                for field, (kinds, dimensions) in _FIELDS.items()
            }
            # Files from before there was a calibration are as good without.
            kept = "calibration" in archive
            none = np.array("")
            text = _checked(label, archive, "calibration", "U", 0) if kept else none
            return {**arrays, "calibration": text}
    except (GalleryError, OSError):
        raise
    except MemoryError as error:
        raise GalleryError(f"the gallery {label} does not fit into memory: {error}") from error
    # numpy and zipfile raise whatever a damaged archive trips over: ValueError, BadZipFile,
    # zlib.error, NotImplementedError …
    except Exception as error:
        raise GalleryError(f"the gallery {label} is damaged: {error}") from error


def _checked(
    label: str, archive: Mapping[str, npt.NDArray[Any]], field: str, kinds: str, dimensions: int
) -> npt.NDArray[Any]:
    """An array of the file, of the kind of type and the number of dimensions that it has to be."""
    if field not in archive:
        raise GalleryError(f"{label} is no gallery: it holds no array {field!r}")
    array = archive[field]
    if array.dtype.kind not in kinds or array.ndim != dimensions:
        raise GalleryError(
            f"the gallery {label} is damaged: {field!r} is an array of {dimensions} dimensions "
            f"and kind {kinds!r}. Received: {array.dtype}, shape {array.shape}"
        )
    return array


def check_file_name(path: Path) -> None:
    """Refuse a gallery file by another ending than numpy would give it."""
    if path.suffix != ".npz":
        raise GalleryError(f"a gallery file's name ends in .npz. Received: {path}")
