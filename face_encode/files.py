"""Files: opening only what is one, and writing so that none is ever half the new version."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeAlias

from face_encode.errors import FaceEncodeError, InputError

# File systems allow 255 bytes; this much of a long name leaves room for the rest in any script.
_STEM_KEPT = 40

FileState: TypeAlias = tuple[int, int]
"""Size in bytes and time of change in nanoseconds, by which a file counts as unchanged."""


def as_path(value: object) -> Path:
    """Take an argument as a path.

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
    """Open a file to read its bytes, and nothing else that can be opened.

    A pipe may wait for a writer who never comes, and a device such as ``/dev/zero`` never ends.

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
    """What the operating system says, without the error number and path."""
    return (error.strerror or str(error)).lower()


def state_of(path: str | os.PathLike[str]) -> FileState:
    """A file's state now; a link to nothing has none: ``(-1, -1)``."""
    try:
        found = os.stat(path)
    # A path with a zero byte in it is a ValueError.
    except (OSError, ValueError):
        return (-1, -1)
    return found.st_size, found.st_mtime_ns


@contextmanager
def replacing(path: Path, error_type: type[FaceEncodeError]) -> Iterator[Path]:
    """Write a new version of a file, atomically.

    Gives the path of a temporary file beside it to write to. When the block ends well, its
    content is forced to disk and takes the place of the file in one step; when it fails, or the
    process dies at any point, the former file is as it was.

    Args:
        path: The file; folders above it are made. A link is followed, not replaced. A former
            file's permissions are kept.
        error_type: What is raised where the operating system refuses.
    """
    target = Path(os.path.realpath(path))
    # In the same folder, because os.replace is atomic only within one file system; with the
    # same ending, because Keras and numpy go by it.
    stem = target.stem[:_STEM_KEPT]
    temporary = target.with_name(f".{stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        settle(temporary, target)
    except OSError as error:
        raise error_type(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # What stood in the way of writing stands in the way of tidying up too.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def settle(temporary: Path, target: Path) -> None:
    """Force a finished file to disk and put it in the place of another in one step.

    Args:
        temporary: The file, in the target's folder.
        target: Its place. A former file's permissions are kept.

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
    """Refuse a place that cannot be written to before the work whose result would go there.

    Args:
        path: The file that is going to be written.
        error_type: What is raised.
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
    """Force the new name to disk too; not every operating and file system offers that."""
    if os.name == "posix":
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
