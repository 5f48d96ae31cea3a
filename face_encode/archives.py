"""``.npz`` archives: arrays of numbers and texts in one file, none of them pickled."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import FaceEncodeError
from face_encode.files import open_regular, reason_of

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
TextArray: TypeAlias = npt.NDArray[np.str_]


@dataclass(frozen=True)
class ArchiveForm:
    """What an archive of some kind holds.

    Attributes:
        what: What people call it.
        newest: The latest format version that this release reads; the array ``format_version``.
        arrays: The arrays that it always holds: numpy's kinds of type, and the number of
            dimensions.
        optional: The arrays that it may hold.
        error_type: What is raised.
        refused: What another kind of file begins with that may stand in its place, and what is
            said of that.
    """

    what: str
    newest: int
    arrays: Mapping[str, tuple[str, int]]
    error_type: type[FaceEncodeError]
    optional: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    refused: Mapping[bytes, str] = field(default_factory=dict)


def text_array(values: Sequence[str]) -> TextArray:
    """A text array of one dimension, also of nothing."""
    return np.array(values, dtype=np.str_).reshape(len(values))


def write_archive(file: Path | BinaryIO, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as ``numpy.load`` reads them; the same arrays give the same bytes.

    Texts, for which numpy takes four bytes a letter and as many letters as the longest has, are
    packed; numbers lie in the file as they do in memory.

    Args:
        file: Its path, or the file open for writing; not written atomically: see
            :func:`face_encode.files.replacing`.
        arrays: By their names.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            # Without a date, which would be that of the writing.
            member = zipfile.ZipInfo(f"{name}.npy")
            packed = array.dtype.kind in "US"
            member.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as opened:
                np.lib.format.write_array(opened, array, allow_pickle=False)


def read_archive(path: Path, form: ArchiveForm) -> Arrays:
    """Read an archive's file; see :func:`read_open_archive`.

    Raises:
        FaceEncodeError: Of the form's type: missing, damaged, or written by a later release.
    """
    raising, what = form.error_type, form.what
    try:
        with open_regular(path) as file:
            return read_open_archive(file, str(path), form)
    except FileNotFoundError as error:
        raise raising(f"no such {what}: {path}") from error
    except OSError as error:
        raise raising(f"the {what} {path} cannot be read: {reason_of(error)}") from error


def read_open_archive(file: BinaryIO, label: str, form: ArchiveForm) -> Arrays:
    """Read an archive; numpy refuses whatever would have to be unpickled.

    Args:
        file: The archive, open for reading.
        label: What it is called in an error.
        form: What it has to hold.

    Returns:
        The arrays of the form, each of the kind of type and the number of dimensions that it has
        to be, and ``format_version``; whether they fit together is for the caller to check.

    Raises:
        FaceEncodeError: Of the form's type: damaged, or written by a later release.
        OSError: The file cannot be read.
    """
    raising, what = form.error_type, form.what
    try:
        for beginning, words in form.refused.items():
            file.seek(0)
            if file.read(len(beginning)) == beginning:
                raise raising(f"{label} {words}")
        if not zipfile.is_zipfile(file):
            raise raising(f"{label} is no {what}, or is cut off: no .npz archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            version = _checked(label, form, archive, "format_version", "iu", 0)
            if not 1 <= version <= form.newest:
                raise raising(
                    f"{label} was written by a later release of face_encode; this one reads "
                    f"versions up to {form.newest}. Received: version {version}"
                )
            present = {name: want for name, want in form.optional.items() if name in archive}
            return {"format_version": version} | {
                name: _checked(label, form, archive, name, kinds, dimensions)
                for name, (kinds, dimensions) in (*form.arrays.items(), *present.items())
            }
    except (form.error_type, OSError):
        raise
    except MemoryError as error:
        raise raising(f"the {what} {label} does not fit into memory: {error}") from error
    # numpy and zipfile raise whatever a damaged archive trips over: ValueError, BadZipFile,
    # zlib.error, NotImplementedError …
    except Exception as error:
        raise raising(f"the {what} {label} is damaged: {error}") from error


def _checked(
    label: str,
    form: ArchiveForm,
    archive: Mapping[str, npt.NDArray[Any]],
    name: str,
    kinds: str,
    dimensions: int,
) -> npt.NDArray[Any]:
    """An array of the file, of the kind of type and the number of dimensions that it has to be."""
    if name not in archive:
        raise form.error_type(f"{label} is no {form.what}: it holds no array {name!r}")
    array = archive[name]
    if array.dtype.kind not in kinds or array.ndim != dimensions:
        raise form.error_type(
            f"the {form.what} {label} is damaged: {name!r} is an array of {dimensions} dimensions "
            f"and kind {kinds!r}. Received: {array.dtype}, shape {array.shape}"
        )
    return array
