"""Writing files so that they are either the former or the new one, and never half of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from face_encode.errors import FaceEncodeError


@contextmanager
def replacing(path: Path, error_type: type[FaceEncodeError]) -> Iterator[Path]:
    """Write a new version of a file, atomically.

    Gives the path of a temporary file beside it to write to. When the block ends well, its
    content is forced to disk and takes the place of the file in one step; when it fails, or the
    process dies at any point, the former file is as it was.

    Args:
        path: The file; folders above it are made. A link is followed, not replaced.
        error_type: What is raised where the operating system refuses.
    """
    target = Path(os.path.realpath(path))
    # In the same folder, because os.replace is atomic only within one file system; with the
    # same ending, because Keras and numpy go by it.
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise error_type(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Force the new name to disk too; not every operating system offers that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
