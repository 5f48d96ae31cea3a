"""The file of events: a line of JSON an appearance."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from face_encode.errors import VideoError
from face_encode.files import as_path, check_writable, reason_of


class EventFile:
    """Appends lines, each whole and at once, so that a kill at any point leaves none cut off."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the file, to go on where it ends.

        Raises:
            VideoError: It cannot be written to.
        """
        self._path: Path = as_path(path)
        check_writable(self._path, VideoError)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
            )
            if self._ends_within_a_line():
                self._append(b"\n")
        except OSError as error:
            raise VideoError(f"cannot write {self._path}: {reason_of(error)}") from error

    def write(self, event: Mapping[str, Any]) -> None:
        """Append an event.

        Raises:
            VideoError: It cannot be written.
        """
        try:
            self._append(json.dumps(event, ensure_ascii=False).encode() + b"\n")
        except OSError as error:
            raise VideoError(f"cannot write {self._path}: {reason_of(error)}") from error

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._handle)

    def _append(self, line: bytes) -> None:
        """One call to the operating system: it appends all of a short line, or nothing."""
        written = os.write(self._handle, line)
        if written < len(line):
            raise OSError(None, "the disk is full")

    def _ends_within_a_line(self) -> bool:
        """Whether somebody else's writing was cut off."""
        size = os.fstat(self._handle).st_size
        if size == 0:
            return False
        os.lseek(self._handle, size - 1, os.SEEK_SET)
        return os.read(self._handle, 1) != b"\n"
