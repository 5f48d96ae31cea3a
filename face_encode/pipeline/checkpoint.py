"""A journal: what a long run has done so far, kept so that a killed one can go on.

Records are appended to one file, each with its length and checksum. Whatever moment a process is
killed at, the file is whole up to some record: what follows, half a record, is cut off when the
journal is opened again.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import numpy as np

from face_encode.errors import FaceEncodeError
from face_encode.files import FileState, open_regular, state_of, text_array
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.types import Box, Face

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


UNFINISHED_SUFFIX = ".unfinished"

# What a journal holds, and which settings it names; one of another form is not gone on with.
_FORM = 3
# Batches of the journal that are kept at hand while results are read back in their order.
_BATCHES_AT_HAND = 16


class UnfinishedRun:
    """One run over many photos, with what its journal holds."""

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, object],
        error_type: type[FaceEncodeError],
        *,
        restart: bool = False,
    ) -> None:
        """Open the journal of an interrupted run, or begin one.

        Args:
            path: The journal.
            settings: What else the results depend on, as plain JSON values: a journal with other
                settings is refused. ``"engine"`` is the one that runs the encoder.
            error_type: What is raised.
            restart: Whether to begin anew whatever is there.

        Raises:
            FaceEncodeError: Of that type; see ``Journal``.
        """
        own = {**settings, "form": _FORM}
        heading = json.dumps(own, sort_keys=True).encode()
        self._journal = Journal(
            path,
            heading,
            error_type,
            restart=restart,
            refusal=lambda former: _refusal(former, own),
        )
        self._batch = lru_cache(_BATCHES_AT_HAND)(
            lambda place: _unpacked(self._journal.read(place))[0]
        )
        self._begun: deque[tuple[int, FileState]] = deque()
        self._take([], Path())

    def _take(self, photos: Sequence[str], top: Path) -> None:
        """Nothing is done yet."""
        self._photos, self._top = photos, top
        # For each photo the record that holds it, and its place in that; -1 where it is to do.
        # Arrays, because a million photos would fill as many objects.
        self._records = array("q", [-1]) * len(photos)
        self._places = array("q", [-1]) * len(photos)

    def resume(self, photos: Sequence[str], top: Path = Path()) -> int:
        """Find what the journal holds of the photos that could be read and have not changed.

        Args:
            photos: All photos of the run, by their paths relative to ``top`` or absolute; empty
                for one that has no path, which is never resumed.
            top: The folder of relative paths.

        Returns:
            How many of them are done.
        """
        self._take(photos, top)
        held: dict[str, tuple[FileState, int, int]] = {}
        for record, content in self._journal.records():
            batch, states = _unpacked(content)
            for place, (each, state) in enumerate(zip(batch, states, strict=True)):
                # What could not be read may be readable by now, with the same size and date.
                if each.error is None or each.digest:
                    held[each.photo] = state, record, place
        if not held:
            return 0
        done = 0
        for row, photo in enumerate(photos):
            found = held.get(photo) if photo else None
            if found is not None and found[0] == state_of(top / photo):
                _, self._records[row], self._places[row] = found
                done += 1
        return done

    def is_done(self, row: int) -> bool:
        """Whether the journal holds the result of a photo."""
        return self._records[row] >= 0

    def begin(self, row: int) -> None:
        """Note a photo's state: before it is read, lest a change in between pass unseen."""
        photo = self._photos[row]
        self._begun.append((row, state_of(self._top / photo) if photo else (-1, -1)))

    def keep(self, batch: Sequence[EmbeddedPhoto]) -> None:
        """Put a batch into the journal.

        Args:
            batch: The results, with digests, of the photos begun first of those that are not kept
                yet.
        """
        begun = [self._begun.popleft() for _ in batch]
        named = [
            replace(each, photo=self._photos[row])
            for each, (row, _) in zip(batch, begun, strict=True)
        ]
        record = self._journal.append(_packed(named, [state for _, state in begun]))
        for place, (row, _) in enumerate(begun):
            self._records[row], self._places[row] = record, place

    def result(self, row: int) -> EmbeddedPhoto:
        """What became of a photo that is done; faces come back without their landmarks."""
        return self._batch(self._records[row])[self._places[row]]

    def remove(self) -> None:
        """Delete the journal: what the run was for is safe."""
        self._journal.remove()

    def __enter__(self) -> UnfinishedRun:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the journal, which stays unless it was removed."""
        self._journal.__exit__(kind, error, trace)


def _refusal(heading: bytes, own: Mapping[str, object]) -> str:
    """Why a journal with another heading is not gone on with, and the ways out."""
    try:
        former = json.loads(heading)
    except ValueError:
        former = None
    if not isinstance(former, dict) or former.get("form") != _FORM:
        return (
            "by another release of this package, whose journals hold other things. Begin anew "
            "(--restart), or let that release end it"
        )
    differing = sorted(name for name in {**former, **own} if former.get(name) != own.get(name))
    if differing == ["engine"]:
        return (
            f"with the engine {former['engine']} running the encoder; the embeddings of another "
            f"differ in their last digits. Go on with that one (--encoder-engine "
            f"{former['engine']}, in Python engine={former['engine']!r}), or begin anew "
            f"(--restart, restart=True). Received: the engine {own['engine']}"
        )
    then, now = (
        json.dumps({name: settings[name] for name in differing if name in settings})
        for settings in (former, own)
    )
    return (
        f"by a run with other settings: {then}. Go on with those, or begin anew (--restart). "
        f"Received: {now}"
    )


def _packed(batch: Sequence[EmbeddedPhoto], states: Sequence[FileState]) -> bytes:
    """A record of the journal."""
    faces = [face for each in batch for face in each.faces]
    boxes = [(face.box.left, face.box.top, face.box.width, face.box.height) for face in faces]
    content = io.BytesIO()
    np.savez(
        content,
        photos=text_array([each.photo for each in batch]),
        digests=text_array([each.digest for each in batch]),
        errors=text_array([each.error or "" for each in batch]),
        states=np.array(states, np.int64),
        sizes=np.array([each.size for each in batch], np.int64),
        found=np.array([len(each.faces) for each in batch], np.int64),
        embedded=np.array([len(each.embeddings) for each in batch], np.int64),
        boxes=np.array(boxes, np.int64).reshape(len(faces), 4),
        scores=np.array([face.score for face in faces], np.float64),
        sharpness=np.concatenate([np.array(each.sharpness, np.float64) for each in batch]),
        embeddings=np.concatenate([each.embeddings for each in batch]),
    )
    return content.getvalue()


def _unpacked(record: bytes) -> tuple[list[EmbeddedPhoto], list[FileState]]:
    """The way back."""
    with np.load(io.BytesIO(record), allow_pickle=False) as stored:
        arrays = dict(stored)
    faces = [
        Face(Box(*box), score)
        for box, score in zip(arrays["boxes"].tolist(), arrays["scores"].tolist(), strict=True)
    ]
    batch = []
    face_end, embedding_end = 0, 0
    for photo, digest, error, size, found, embedded in zip(
        *(arrays[name].tolist() for name in ("photos", "digests", "errors", "sizes")),
        *(arrays[name].tolist() for name in ("found", "embedded")),
        strict=True,
    ):
        face_start, face_end = face_end, face_end + found
        start, embedding_end = embedding_end, embedding_end + embedded
        batch.append(
            EmbeddedPhoto(
                photo,
                tuple(faces[face_start:face_end]),
                arrays["embeddings"][start:embedding_end],
                tuple(arrays["sharpness"][start:embedding_end].tolist()),
                tuple(size),
                error or None,
                digest,
            )
        )
    return batch, [(size, time) for size, time in arrays["states"].tolist()]
