"""Files: opened only if regular, replaced atomically; and archives of arrays (``.npz``)."""

from __future__ import annotations

import errno
import math
import mmap
import os
import secrets
import shutil
import stat
import struct
import tempfile
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import FaceEncodeError, InputError

# File systems allow 255 bytes; this much of a long name leaves room for the rest in any script.
_STEM_KEPT = 40

# What tells of people is for its owner only: galleries, embeddings, crops, drawings, checkpoints.
_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700

FileState: TypeAlias = tuple[int, int]
"""Size in bytes and time of change in nanoseconds, by which a file counts as unchanged."""


def as_path(value: object) -> Path:
    """Check an argument that is a path.

    Raises:
        InputError: Neither text nor a path; or empty, which pathlib would take for the current
            folder; or with a null character, which no file's name has.
    """
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"a path is a str or os.PathLike. Received: {type(value).__name__}")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InputError(
            f"a path is text, not empty and without null characters. Received: {text!r}"
        )
    return Path(text)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes; refuse pipes, devices and folders.

    A pipe may wait for a writer that never comes, and ``/dev/zero`` never ends.

    Raises:
        OSError: It cannot be opened, or is no regular file.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # characters that no file's name can hold
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "a pipe, socket or device, not a regular file", path)
    return open(path, "rb")


def reason_of(error: OSError) -> str:
    """The operating system's message, without the error number and path."""
    return (error.strerror or str(error)).lower()


def state_of(path: str | os.PathLike[str]) -> FileState:
    """A file's state now; ``(-1, -1)`` for a broken link or a path that is no file's."""
    try:
        found = os.stat(path)
    # A path with a zero byte in it is a ValueError.
    except (OSError, ValueError):
        return (-1, -1)
    return found.st_size, found.st_mtime_ns


def for_owner(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file that is for its owner only where it is new: an ``opener`` of ``open``.

    A file that exists keeps its permissions, by which a user lets others in.
    """
    return os.open(path, flags, _PRIVATE_FILE)


def make_private_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder, and those above it that are missing, for their owner only.

    A folder that exists keeps its permissions.

    Raises:
        OSError: It cannot be made, or is a file.
    """
    folder = Path(path)
    # On Windows a drive, which is its own parent, may be missing.
    if folder.parent != folder and not os.path.isdir(folder.parent):
        make_private_folder(folder.parent)
    folder.mkdir(_PRIVATE_FOLDER, exist_ok=True)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Fill a new or an empty folder with everything, or with nothing.

    Yields the path of a temporary folder in it, for its owner only. When the block ends
    well, what is in it moves up; when the block fails, it is deleted.

    Raises:
        OSError: The operating system refuses.
    """
    make_private_folder(folder)
    with tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder) as temporary:
        yield Path(temporary)
        for name in os.listdir(temporary):
            os.rename(os.path.join(temporary, name), folder / name)


@contextmanager
def replacing(
    path: Path, error_type: type[FaceEncodeError], *, shared: bool = False
) -> Iterator[Path]:
    """Write a new version of a file, atomically.

    Yields the path of a temporary file beside it to write to. When the block ends well, its
    content is forced to disk and replaces the file in one step; when the block fails, or the
    process dies at any point, the former file is unchanged.

    Args:
        path: The file; folders above it are made. A link is followed, not replaced. A former
            file's permissions are kept.
        error_type: Raised where the operating system refuses.
        shared: Whether a new file, and a new folder, are for all whom the umask lets in, as models
            are; else they are for their owner only, and the temporary file is there, empty.
    """
    target = Path(os.path.realpath(path))
    # In the same folder, because os.replace is atomic only within one file system; with the
    # same ending, because Keras and numpy go by it.
    stem = target.stem[:_STEM_KEPT]
    temporary = target.with_name(f".{stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        if shared:
            target.parent.mkdir(parents=True, exist_ok=True)
        else:
            make_private_folder(target.parent)
            # Before anything is in it.
            with open(temporary, "xb", opener=for_owner):
                pass
        yield temporary
        if not shared and not temporary.stat().st_size:
            # Still as it was made: there is nothing to put in place.
            temporary.unlink()
        settle(temporary, target)
    except OSError as error:
        raise error_type(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # The reason that kept the file from being written may also keep it from being removed.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def settle(temporary: Path, target: Path) -> None:
    """Force a finished file to disk and move it to its path in one step.

    Args:
        temporary: The file, in the target's folder.
        target: The path. A former file's permissions are kept.

    Raises:
        OSError: The operating system refuses.
    """
    with open(temporary, "rb+") as written:
        os.fsync(written.fileno())
    with suppress(FileNotFoundError):
        shutil.copymode(target, temporary)
    os.replace(temporary, target)
    _sync_folder(target.parent)


def check_writable(path: Path, error_type: type[FaceEncodeError]) -> None:
    """Refuse a path that cannot be written to, before hours of work.

    Args:
        path: The file that will be written.
        error_type: Raised.
    """
    # os.path, because pathlib raises where a path cannot be looked at.
    folder = os.path.dirname(os.path.realpath(path))
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    if os.path.isdir(path):
        raise error_type(f"cannot write {path}: it is a folder")
    if not os.path.isdir(folder):
        raise error_type(f"cannot write {path}: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise error_type(f"cannot write {path}: no permission to write in {folder}")


def _sync_folder(folder: Path) -> None:
    """Force the new name to disk too, where the system offers that."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
TextArray: TypeAlias = npt.NDArray[np.str_]

# Where the numbers of an array begin in an archive: at a multiple of this, which suits every type
# and a processor's cache lines.
_ALIGNMENT = 64
# What a member of a zip archive begins with: its signature, and at the end the lengths of its name
# and of its extra fields (APPNOTE.TXT of PKWARE, section 4.3.7).
_MEMBER_HEADER = struct.Struct("<4s22xHH")
# The extra field that says a large member's size, which zipfile adds by itself.
_SIZE_FIELD_BYTES = 20
# What a packed array may be larger than its bytes in the file, and what it may always take. Numbers
# of embeddings hardly pack; texts, of which numpy pads each to the longest, pack to a hundredth.
_MAX_EXPANSION = {"numbers": (16, 64_000_000), "texts": (100, 256_000_000)}
# The number of the extra field that holds nothing but room: Android's, for the same purpose.
_ROOM_FIELD = 0xD935


@dataclass(frozen=True)
class ArchiveForm:
    """The arrays of one kind of archive.

    Attributes:
        what: The kind's name, for messages.
        newest: The latest format version that this release reads; the array ``format_version``.
        arrays: The required arrays: numpy's kinds of type, and the number of dimensions.
        optional: The optional arrays.
        error_type: Raised.
        refused: The first bytes of another kind of file, and the message for it.
    """

    what: str
    newest: int
    arrays: Mapping[str, tuple[str, int]]
    error_type: type[FaceEncodeError]
    optional: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    refused: Mapping[bytes, str] = field(default_factory=dict)


def text_array(values: Sequence[str]) -> TextArray:
    """Make a text array of one dimension, also of no texts."""
    return np.array(values, dtype=np.str_).reshape(len(values))


def write_archive(file: Path | BinaryIO, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as ``numpy.load`` reads them; the same arrays give the same bytes.

    Texts, for which numpy takes four bytes a letter and as many letters as the longest has, are
    packed; numbers lie in the file as they do in memory, and can be mapped: see
    ``read_archive``.

    Args:
        file: Its path, or the file open for writing; not written atomically: see
            ``face_encode.files.replacing``.
        arrays: By their names.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            # Without a date, which would be that of the writing.
            member = zipfile.ZipInfo(f"{name}.npy")
            packed = array.dtype.kind in "US"
            member.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            if not packed:
                beginning = archive.start_dir + _MEMBER_HEADER.size + len(member.filename)
                member.extra = _room(beginning + _SIZE_FIELD_BYTES)
            with archive.open(member, "w", force_zip64=True) as opened:
                np.lib.format.write_array(opened, array, allow_pickle=False)


def _room(place: int) -> bytes:
    """Make an extra field that pads an array's numbers to a place where they can be mapped.

    Args:
        place: Where the numbers would begin without it; numpy's header is a multiple itself.
    """
    length = -(place + 4) % _ALIGNMENT
    return struct.pack("<HH", _ROOM_FIELD, length) + bytes(length)


def read_archive(path: Path, form: ArchiveForm, *, mapped: Collection[str] = ()) -> Arrays:
    """Read an archive from its path; see ``read_open_archive``.

    Args:
        path: The file.
        form: What it has to hold.
        mapped: The arrays that are mapped into memory instead of being read, where they can be:
            they take no time to open and no memory of the process's own, cannot be written into,
            and their checksums are not looked at. They stay as they are when the file is replaced
            or removed; shortening the file in place ends the process.

    Raises:
        FaceEncodeError: Of the form's type: missing, damaged, or written by a later release.
    """
    raising, what = form.error_type, form.what
    try:
        with open_regular(path) as file:
            return read_open_archive(file, str(path), form, mapped=mapped)
    except FileNotFoundError as error:
        raise raising(f"no such {what}: {path}") from error
    except OSError as error:
        raise raising(f"the {what} {path} cannot be read: {reason_of(error)}") from error


def read_open_archive(
    file: BinaryIO, label: str, form: ArchiveForm, *, mapped: Collection[str] = ()
) -> Arrays:
    """Read an archive; numpy refuses arrays that would have to be unpickled.

    Args:
        file: The archive, open for reading.
        label: What it is called in an error.
        form: What it has to hold.
        mapped: See ``read_archive``; none of a file that is not on disk.

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
            wanted = {"format_version": ("iu", 0), **form.arrays, **form.optional}
            _check_sizes(file, archive.zip, {name: kinds for name, (kinds, _) in wanted.items()})
            mappings = {
                name: array
                for name in mapped
                if name in archive and (array := _mapped(file, archive.zip, name)) is not None
            }
            version = _checked(label, form, archive, "format_version", "iu", 0)
            if not 1 <= version <= form.newest:
                raise raising(
                    f"{label} was written by a later release of face_encode; this one reads "
                    f"versions up to {form.newest}. Received: version {version}"
                )
            present = {name: want for name, want in form.optional.items() if name in archive}
            return {"format_version": version} | {
                name: _checked(label, form, mappings if name in mappings else archive, name, *want)
                for name, want in (*form.arrays.items(), *present.items())
            }
    except (form.error_type, OSError):
        raise
    except MemoryError as error:
        raise raising(f"the {what} {label} does not fit into memory: {error}") from error
    # numpy and zipfile raise many types on a damaged archive: ValueError, BadZipFile,
    # zlib.error, NotImplementedError …
    except Exception as error:
        raise raising(f"the {what} {label} is damaged: {error!s:.300}") from error


def _check_sizes(file: BinaryIO, archive: zipfile.ZipFile, kinds: Mapping[str, str]) -> None:
    """Refuse arrays that are out of proportion to the file, before any is unpacked.

    Args:
        file: The archive's file.
        archive: The archive.
        kinds: The arrays that will be read, and numpy's kinds of their types.

    Raises:
        ValueError: An array expands beyond measure, or members lie over each other.
    """
    whole = file.seek(0, os.SEEK_END)
    if (packed := sum(member.compress_size for member in archive.infolist())) > whole:
        raise ValueError(f"members of {packed:,} bytes in a file of {whole:,}")
    for member in archive.infolist():
        # numpy finds an array under either name.
        name = member.filename.removesuffix(".npy")
        if (kind := kinds.get(name)) is not None:
            factor, always = _MAX_EXPANSION["texts" if "U" in kind else "numbers"]
            if member.file_size > (most := max(always, factor * member.compress_size)):
                raise ValueError(
                    f"{name!r}, {member.compress_size:,} bytes in the file, expands to at most "
                    f"{most:,}. Received: {member.file_size:,}"
                )


def _mapped(file: BinaryIO, archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any] | None:
    """An array of an archive mapped into memory; None where it has to be read instead.

    Raises:
        ValueError: The array is cut off, or not as long as the archive says.
    """
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    file.seek(member.header_offset)
    signature, name_bytes, extra_bytes = _MEMBER_HEADER.unpack(file.read(_MEMBER_HEADER.size))
    start = member.header_offset + _MEMBER_HEADER.size + name_bytes + extra_bytes
    file.seek(start)
    if signature != b"PK\3\4" or np.lib.format.read_magic(file) != (1, 0):
        return None
    shape, is_transposed, dtype = np.lib.format.read_array_header_1_0(file)
    place = file.tell()
    size = math.prod(shape) * dtype.itemsize
    whole = os.fstat(file.fileno()).st_size
    if place - start + size != member.file_size or place + size > whole:
        raise ValueError(f"{name!r} is cut off")
    if is_transposed or dtype.hasobject or not dtype.isnative or place % _ALIGNMENT or not size:
        return None
    mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.frombuffer(mapping, dtype, math.prod(shape), place).reshape(shape)


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
