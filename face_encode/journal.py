"""A journal: what a long run has done so far, kept so that a killed one can go on.

Records are appended to one file, each with its length and checksum. Whatever moment a process is
killed at, the file is whole up to some record: what follows, half a record, is cut off when the
journal is opened again.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from face_encode.errors import FaceEncodeError
from face_encode.files import open_regular

_SIGNATURE = b"face_encode journal 1\n"
# Length and CRC-32 of what follows.
_HEAD = struct.Struct("<QI")


class Journal:
    """Records in a file, the first of which says what run they belong to.

    Attributes:
        path: The file.
        heading: The first record.
    """

    def __init__(
        self,
        path: Path,
        heading: bytes,
        error_type: type[FaceEncodeError],
        *,
        restart: bool = False,
        refusal: Callable[[bytes], str] | None = None,
    ) -> None:
        """Open the journal of a run, or begin one.

        Args:
            path: The file.
            heading: What run this is: a journal with another heading is refused.
            error_type: What is raised.
            restart: Whether to begin anew whatever is there.
            refusal: Says of another heading, which it is given, what it means and what to do;
                None shows both headings.

        Raises:
            FaceEncodeError: Of that type: it is another run's, another process writes to it, or
                the operating system refuses.
        """
        self.path, self.heading, self._error_type = path, heading, error_type
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Appending, so that opening an existing file does not empty it before it is locked;
            # without a buffer, whose rest closing would try to write once more.
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as this is
        except OSError as error:
            # What Windows says of a folder is that access is denied.
            if os.path.isdir(path):
                raise error_type(
                    f"{path} is in the way: it is a folder, no journal of this package. Move it"
                ) from error
            raise error_type(f"cannot write {path}: {error.strerror or error}") from error
        try:
            self._lock()
            self._reading = open_regular(path)
            former = self._former_heading()
            if restart or former is None:
                self._file.truncate(0)
                self._write(_SIGNATURE)
                self.append(heading)
            elif former == heading:
                self._file.truncate(self._whole_until())
            else:
                told = _both(former, heading) if refusal is None else refusal(former)
                raise error_type(f"{path} was begun {told}")
            # Anew, for what was read ahead before the cut is no longer in the file.
            self._reading.close()
            self._reading = open_regular(path)
        except OSError as error:
            self._file.close()
            raise error_type(f"cannot write {path}: {error.strerror or error}") from error
        except FaceEncodeError:
            self._file.close()
            raise

    def _lock(self) -> None:
        """Keep a second process out, where the operating system can."""
        try:
            import fcntl
        except ImportError:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise self._error_type(f"another process is at work on {self.path}") from error

    def _former_heading(self) -> bytes | None:
        """The heading that is there already; refuses a file that is no journal."""
        start = self._reading.read(len(_SIGNATURE))
        if start != _SIGNATURE[: len(start)]:
            raise self._error_type(
                f"{self.path} is in the way: it is no journal of this package. Move it"
            )
        _, former = next(self._records(), (0, None))
        return former

    def _whole_until(self) -> int:
        """Where the last whole record ends."""
        end = len(_SIGNATURE)
        for start, record in self._records():
            end = start + _HEAD.size + len(record)
        return end

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Each whole record with its place, the heading first."""
        place = len(_SIGNATURE)
        while (record := self._record_at(place)) is not None:
            yield place, record
            place += _HEAD.size + len(record)

    def _record_at(self, place: int) -> bytes | None:
        """The record at a place, None where it is not whole."""
        self._reading.seek(place)
        head = self._reading.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        if place + _HEAD.size + length > os.fstat(self._reading.fileno()).st_size:
            return None
        record = self._reading.read(length)
        return record if zlib.crc32(record) == checksum else None

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Each record behind the heading, with the place at which ``read`` finds it."""
        places = self._records()
        next(places)
        return places

    def read(self, place: int) -> bytes:
        """The record at a place."""
        record = self._record_at(place)
        if record is None:
            raise self._error_type(f"{self.path} was changed while it was in use")
        return record

    def append(self, record: bytes) -> int:
        """Add a record; returns its place.

        Raises:
            FaceEncodeError: The operating system refuses, as on a full disk.
        """
        try:
            place = os.fstat(self._file.fileno()).st_size
            self._write(_HEAD.pack(len(record), zlib.crc32(record)) + record)
        except OSError as error:
            raise self._error_type(
                f"cannot write {self.path}: {error.strerror or error}"
            ) from error
        return place

    def _write(self, content: bytes) -> None:
        """All of it: the operating system may take less at a time."""
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) :]

    def remove(self) -> None:
        """Delete the file: the run is done."""
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the file, which stays."""
        self._reading.close()
        self._file.close()


def _both(former: bytes, heading: bytes) -> str:
    """What is said of another run's heading where nobody knows more."""
    return (
        f"by a run with other settings: {former.decode()}. Go on with those, or begin anew "
        f"(--restart). Received: {heading.decode()}"
    )
