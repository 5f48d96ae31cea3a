"""The file of a gallery: an ``.npz`` archive of arrays, none of them pickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError
from face_encode.files import open_regular, reason_of

FORMAT_VERSION = 1

# The arrays of the file: numpy's kinds of type, and the number of dimensions.
_FIELDS = {
    "encoder_name": ("U", 0),
    "encoder_fingerprint": ("U", 0),
    "detector_name": ("U", 0),
    "names": ("U", 1),
    "digests": ("U", 1),
    "embeddings": ("f", 2),
}

# Files from before there were these are as good without: texts without a dimension.
_DEFAULTS = {"calibration": "", "metric": "cosine"}


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays; numpy refuses whatever would have to be unpickled.

    Returns:
        ``encoder_name``, ``encoder_fingerprint``, ``detector_name``, ``metric`` and
        ``calibration``, texts without a dimension; ``names`` and ``digests``, text arrays of one
        dimension, and ``embeddings``, floating-point of two. Whether they fit together is for
        the caller to check.

    Raises:
        GalleryError: Missing, damaged, or written by a later release.
    """
    try:
        with open_regular(path) as file:
            if not zipfile.is_zipfile(file):
                raise GalleryError(f"{path} is no gallery, or is cut off: no .npz archive")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                version = _checked(path, archive, "format_version", "iu", 0)
                if version != FORMAT_VERSION:
                    raise GalleryError(
                        f"{path} was written by a later release of face_encode; this one reads "
                        f"version {FORMAT_VERSION}. Received: version {version}"
                    )
                arrays = {
                    field: _checked(path, archive, field, kinds, dimensions)
                    for field, (kinds, dimensions) in _FIELDS.items()
                }
                for field, without in _DEFAULTS.items():
                    there = field in archive
                    text = _checked(path, archive, field, "U", 0) if there else np.array(without)
                    arrays[field] = text
                return arrays
    except GalleryError:
        raise
    except FileNotFoundError as error:
        raise GalleryError(f"no such gallery: {path}") from error
    except OSError as error:
        raise GalleryError(f"the gallery {path} cannot be read: {reason_of(error)}") from error
    except MemoryError as error:
        raise GalleryError(f"the gallery {path} does not fit into memory: {error}") from error
    # numpy and zipfile raise whatever a damaged archive trips over: ValueError, BadZipFile,
    # zlib.error, NotImplementedError …
    except Exception as error:
        raise GalleryError(f"the gallery {path} is damaged: {error}") from error


def _checked(
    path: Path, archive: Mapping[str, npt.NDArray[Any]], field: str, kinds: str, dimensions: int
) -> npt.NDArray[Any]:
    """An array of the file, of the kind of type and the number of dimensions that it has to be."""
    if field not in archive:
        raise GalleryError(f"{path} is no gallery: it holds no array {field!r}")
    array = archive[field]
    if array.dtype.kind not in kinds or array.ndim != dimensions:
        raise GalleryError(
            f"the gallery {path} is damaged: {field!r} is an array of {dimensions} dimensions "
            f"and kind {kinds!r}. Received: {array.dtype}, shape {array.shape}"
        )
    return array


def check_file_name(path: Path) -> None:
    """Refuse a gallery file by another ending than numpy would give it."""
    if path.suffix != ".npz":
        raise GalleryError(f"a gallery file's name ends in .npz. Received: {path}")
