"""A run over many photos, and the checkpoint from which a killed run is resumed.

A checkpoint has a row for each photo that is done: in a file of SQLite of its own, or in the
gallery database that is being filled. Rows are added a batch at a time, in one transaction: at
whatever moment a process is killed, the checkpoint holds whole batches.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import weakref
import zlib
from bisect import bisect
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import FaceEncodeError, shown
from face_encode.files import (
    FileState,
    for_owner,
    make_private_folder,
    open_regular,
    reason_of,
    state_of,
)
from face_encode.liveness.judging import LivenessJudge
from face_encode.pipeline.embedding import (
    EmbeddedPhoto,
    embed_batches,
    face_numbers,
    faces_of_numbers,
)
from face_encode.pipeline.workers import workers_for
from face_encode.terminal import progress_bar
from face_encode.types import Liveness, Photo, Quality

CHECKPOINT_SUFFIX = ".unfinished"

# What a checkpoint begins with, by which it is told from any other file: SQLite's signature, and at
# byte 68 the application's (https://www.sqlite.org/fileformat.html).
_SIGNATURE, _APPLICATION, _APPLICATION_AT = b"SQLite format 3\0", b"FEcp", 68
# The form of the tables and the settings; a checkpoint of another form is refused.
_FORM = 6
_TABLES = (
    f"PRAGMA application_id = {int.from_bytes(_APPLICATION, 'big')}",
    "CREATE TABLE settings (json TEXT)",
    "CREATE TABLE done (photo BLOB PRIMARY KEY, content BLOB NOT NULL)",
)

# What a row with the right checksum and other content, which another program wrote, trips over.
_OTHER_CONTENT = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

# The real paths of the checkpoints that this process has open.
_in_use: set[str] = set()
_in_use_lock = threading.Lock()


class Store(Protocol):
    """Where the rows of a checkpoint are kept.

    Attributes:
        label: Its name in errors.
    """

    label: str

    def get(self, photo: bytes) -> bytes | None:
        """The content of a photo's row, or None."""

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Add rows, or replace them: all or, at a kill or on a full disk, none."""

    def clear(self, photos: Iterable[bytes]) -> None:
        """Delete the rows of a run that is done, by its photos; other runs may have rows here."""

    def close(self) -> None:
        """Leave the rows for the next run."""


class StoreFile:
    """A store in a file of its own, which one process uses at a time.

    Attributes:
        path: The file.
        label: Its name in errors.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        error_type: type[FaceEncodeError],
        *,
        restart: bool = False,
    ) -> None:
        """Open the checkpoint of an interrupted run, or begin one.

        Args:
            path: The file.
            settings: What the results depend on, as plain JSON values: a checkpoint with other
                settings is refused. ``"engine"`` is what runs the encoder.
            error_type: What is raised.
            restart: Whether to discard the results that are there.

        Raises:
            FaceEncodeError: Of that type: the file is another run's, damaged, or no checkpoint;
                another process is at work on it; or the operating system refuses.
        """
        self.path, self.label, self._error_type = path, str(path), error_type
        # SQLite's lock is the process's: closing any other descriptor of the file would drop it, so
        # a file that this process has open is not touched.
        key = os.path.realpath(path)
        with _in_use_lock:
            if key in _in_use:
                raise error_type(f"another run of this program is at work on {path}")
            _in_use.add(key)
        self._release = weakref.finalize(self, _in_use.discard, key)
        try:
            self._open_or_begin(settings, restart)
        except BaseException:
            self._release()
            raise

    def _open_or_begin(self, settings: Mapping[str, Any], restart: bool) -> None:
        """Open the file for this process, and compare or write the settings."""
        path, error_type = self.path, self._error_type
        try:
            make_private_folder(path.parent)
            header = b""
            if os.path.exists(path):
                with open_regular(path) as file:
                    header = file.read(_APPLICATION_AT + 4)
        except IsADirectoryError as error:
            raise error_type(f"{path} is in the way: it is a folder. Move it") from error
        except OSError as error:
            raise error_type(f"cannot write {path}: {reason_of(error)}") from error
        if header and (header[:16], header[_APPLICATION_AT:]) != (_SIGNATURE, _APPLICATION):
            raise error_type(f"{path} is in the way: it is no checkpoint of this package. Move it")
        with self._reporting():
            if header and restart:
                self._discard()
            self._open()
            try:
                self._begin({**settings, "form": _FORM})
            except BaseException:
                self._database.close()
                raise

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Make an error of SQLite one of ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise self._error_type(f"another process is at work on {self.path}") from error
            raise self._error_type(f"cannot write {self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._error_type(
                f"{self.path} is damaged ({error}): begin again from the first photo (--restart, "
                "restart=True)"
            ) from error

    def _discard(self) -> None:
        """Delete the file, unless another process is at work on it."""
        try:
            self._open()
            self._database.close()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            pass  # damaged, which does not matter any more
        self._unlink()

    def _open(self) -> None:
        """Open the file for this process alone."""
        # In full, since SQLite has a meaning of its own for a file named ":memory:".
        path = os.path.abspath(self.path)
        # SQLite gives the files beside it the same permissions.
        with suppress(OSError), open(path, "xb", opener=for_owner):
            pass
        self._database = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("BEGIN EXCLUSIVE")
            self._database.execute("COMMIT")
        except BaseException:
            self._database.close()
            raise

    def _begin(self, settings: Mapping[str, Any]) -> None:
        """Compare the settings with those of the run in the file; of a new file, write them."""
        with self._database:
            self._database.execute("BEGIN")
            if self._database.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
                for statement in _TABLES:
                    self._database.execute(statement)
                text = json.dumps(settings, sort_keys=True)
                self._database.execute("INSERT INTO settings VALUES (?)", [text])
            former = self._database.execute("SELECT json FROM settings").fetchone()
        if difference := _difference(former, settings):
            raise self._error_type(f"{self.path} was begun {difference}")
        # With a log a batch waits for no disk, and is safe from a kill; what a power cut takes is
        # done again.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")

    def get(self, photo: bytes) -> bytes | None:
        """The content of a photo's row, or None."""
        with self._reporting():
            row = self._database.execute(
                "SELECT content FROM done WHERE photo = ?", [photo]
            ).fetchone()
        return row[0] if row else None

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Add rows; see ``Store.put``."""
        with self._reporting(), self._database:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO done VALUES (?, ?)", rows)

    def clear(self, photos: Iterable[bytes]) -> None:
        """Delete the file, which is one run's."""
        self._database.close()
        self._unlink()
        self._release()

    def close(self) -> None:
        """Close the file, for another run."""
        self._database.close()
        self._release()

    def _unlink(self) -> None:
        """Delete the file, and what SQLite keeps beside it while it is open."""
        for ending in ("", "-journal", "-wal"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)


class Checkpoint:
    """The results of an unfinished run; a context manager, which leaves them in their store.

    Attributes:
        photos: The paths of all photos of the run.
    """

    def __init__(
        self, store: Store, embedding_size: int, error_type: type[FaceEncodeError]
    ) -> None:
        """Take the results that a store has, and add to them.

        Args:
            store: Where they are kept.
            embedding_size: Length of an embedding.
            error_type: What is raised where a result is damaged.
        """
        self._store, self._size, self._error_type = store, embedding_size, error_type
        self.photos: Sequence[str] = ()

    def holds(self, photo: str, state: FileState) -> bool:
        """Whether there is the result of a photo as it is now.

        What could not be read may be readable by now, with the same size and date: it is not held.
        """
        read = self._read(photo)
        if read is None:
            return False
        former, result = read
        return former == list(state) and not (result.error and not result.digest)

    def keep(self, results: Iterable[tuple[str, FileState, EmbeddedPhoto]]) -> None:
        """Add the results of a batch: all of them or, at a kill or on a full disk, none.

        Args:
            results: The path of each photo, its state before it was read, and its result.
        """
        self._store.put(
            (os.fsencode(photo), _packed(state, result)) for photo, state, result in results
        )

    def result(self, photo: str) -> EmbeddedPhoto:
        """The result of a photo that is held; its faces are without their landmarks."""
        read = self._read(photo)
        if read is None:
            raise self._error_type(f"{self._store.label} was changed while it was in use")
        return read[1]

    def _read(self, photo: str) -> tuple[Any, EmbeddedPhoto] | None:
        """The row of a photo: the file's state, and the result."""
        content = self._store.get(os.fsencode(photo))
        if content is None:
            return None
        try:
            checksum, told, numbers = [*content.split(b"\n", 2), b"", b""][:3]
            if checksum != _checksum(told + b"\n" + numbers):
                raise ValueError("it does not match its checksum")
            return self._unpacked(photo, json.loads(told), numbers)
        except _OTHER_CONTENT as error:
            raise self._error_type(
                f"{self._store.label} is damaged (the row of {photo}: {shown(str(error))}): "
                "begin again from the first photo (--restart, restart=True)"
            ) from error

    def _unpacked(self, photo: str, told: Any, numbers: bytes) -> tuple[Any, EmbeddedPhoto]:
        """The content of a row, the opposite of ``_packed``."""
        lengths, (width, height) = told["lengths"], told["size"]
        error, digest = told["error"], told["digest"]
        counts = (*lengths, width, height)
        if not all(type(count) is int and 0 <= count < 2**53 for count in counts):
            raise ValueError("lengths and sizes are whole numbers")
        if not isinstance(error, str | None) or not isinstance(digest, str):
            raise ValueError("an error and a digest are text")
        ends = [sum(lengths[: part + 1]) for part in range(len(lengths))]
        if ends[-1] != len(numbers):
            raise ValueError("its arrays are cut off")
        faces, sharpness, embeddings, portrait = (
            numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)
        )
        qualities = told["qualities"]
        unjudged = [None] * len(qualities)
        return told["state"], EmbeddedPhoto(
            photo,
            tuple(
                replace(
                    face,
                    quality=quality and Quality(*quality),
                    liveness=liveness and Liveness(*liveness),
                )
                for face, quality, liveness in zip(
                    faces_of_numbers(faces), qualities, told.get("liveness", unjudged), strict=True
                )
            ),
            np.frombuffer(embeddings, np.float32).reshape(-1, self._size),
            tuple(np.frombuffer(sharpness).tolist()),
            (width, height),
            error,
            digest,
            portrait,
            tuple(map(str, told.get("notes", []))),
        )

    def remove(self) -> None:
        """Delete the results: the run is done."""
        self._store.clear(map(os.fsencode, self.photos))

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._store.close()


def _packed(state: FileState, result: EmbeddedPhoto) -> bytes:
    """The row of a photo: a checksum, plain values as JSON, and the bytes of its arrays."""
    arrays = [
        face_numbers(result.faces).tobytes(),
        np.array(result.sharpness, np.float64).tobytes(),
        result.embeddings.tobytes(),
        result.portrait,
    ]
    told = {
        "state": state,
        "size": result.size,
        "error": result.error and result.error.encode(errors="backslashreplace").decode(),
        "digest": result.digest,
        "notes": result.notes,
        "qualities": [face.quality and astuple(face.quality) for face in result.faces],
        "liveness": [face.liveness and astuple(face.liveness) for face in result.faces],
        "lengths": list(map(len, arrays)),
    }
    content = json.dumps(told).encode() + b"\n" + b"".join(arrays)
    return _checksum(content) + b"\n" + content


def _checksum(content: bytes) -> bytes:
    """CRC-32 as eight digits."""
    return b"%08x" % zlib.crc32(content)


def checkpoint_in(
    path: Path,
    settings: Mapping[str, Any],
    error_type: type[FaceEncodeError],
    *,
    restart: bool = False,
) -> Checkpoint:
    """Open a checkpoint in a file of its own; arguments as for ``StoreFile``.

    ``settings["embedding_size"]`` is the length of an embedding.
    """
    store = StoreFile(path, settings, error_type, restart=restart)
    return Checkpoint(store, int(settings["embedding_size"]), error_type)


def _difference(row: tuple[Any, ...] | None, own: Mapping[str, Any]) -> str:
    """How the settings in a checkpoint differ from this run's, and the ways out; else empty."""
    try:
        former = json.loads(row[0]) if row else None
    except (ValueError, TypeError, RecursionError):
        former = None
    if not isinstance(former, dict) or former.get("form") != own["form"]:
        return (
            "by another release of this package, whose checkpoints hold other things. Begin again "
            "from the first photo (--restart), or let that release end it"
        )
    differing = sorted(name for name in {**former, **own} if former.get(name) != own.get(name))
    if differing == ["engine"]:
        return (
            f"with the engine {former['engine']} running the encoder; the embeddings of another "
            f"differ a little. Continue with that one (--encoder-engine "
            f"{former['engine']}, in Python engine={former['engine']!r}), or begin again from the "
            f"first photo (--restart, restart=True). Received: the engine {own['engine']}"
        )
    then, now = (
        json.dumps({name: settings[name] for name in differing if name in settings})
        for settings in (former, own)
    )
    return (
        f"by a run with other settings: {then}. Continue with those, or begin again from the first "
        f"photo (--restart). Received: {now}"
        if differing
        else ""
    )


class Run:
    """A run over many photos, which goes on where an interrupted one ended.

    Attributes:
        waiting: The rows of the photos that are not done, in their order.
        done: The rows of those that an interrupted run has done.
    """

    def __init__(
        self,
        paths: Sequence[str],
        checkpoint: Checkpoint | None,
        description: str,
        *,
        top: Path = Path(),
        progress: bool = True,
    ) -> None:
        """Find what the checkpoint holds of the photos.

        Args:
            paths: All photos, by their paths relative to ``top`` or absolute; empty for a photo
                without a path, which is never resumed.
            checkpoint: Takes the results, and has those of an interrupted run; None for neither.
            description: What is being done, for the progress bar.
            top: The folder of relative paths.
            progress: Whether to show a progress bar.
        """
        self._paths, self._checkpoint, self._top = paths, checkpoint, top
        self._description, self._progress = description, progress
        self._states: dict[int, FileState] = {}
        if checkpoint is not None:
            checkpoint.photos = paths
        self.waiting: list[int] = []
        self.done: list[int] = []
        for row, path in enumerate(paths):
            held = checkpoint and path and checkpoint.holds(path, state_of(top / path))
            (self.done if held else self.waiting).append(row)

    def batches(
        self,
        todo: Iterator[tuple[int, Photo]],
        detector: Detector,
        encoder: Encoder,
        *,
        max_faces: int | None = 1,
        workers: int | None = None,
        batch_size: int | None = None,
        portraits: bool = False,
        judge: LivenessJudge | None = None,
    ) -> Iterator[list[tuple[int, EmbeddedPhoto]]]:
        """Embed photos, as ``embed_photos`` does; each list went through the encoder together.

        ``todo`` are rows out of ``waiting``, in their order, each with its photo; they are taken as
        they are needed. Rows left out count as done as soon as all before them are.
        """
        rows_left: Iterable[tuple[int, Photo]] = todo
        if all(self._paths):
            workers, rows_left = workers_for(workers, todo)
        else:
            # Photos that are no files are opened as they are taken: not by looking ahead.
            workers, _ = workers_for(workers, self.waiting)
        begun: deque[int] = deque()

        def photos() -> Iterator[Photo]:
            for row, photo in rows_left:
                if self._checkpoint:
                    # Before the photo is read, so that a change in between does not go unseen.
                    path = self._paths[row]
                    self._states[row] = state_of(self._top / path) if path else (-1, -1)
                begun.append(row)
                yield photo

        shown = 0
        with (
            progress_bar(len(self._paths), self._description, done=len(self.done))
            if self._progress and self._paths
            else nullcontext()
        ) as advance:
            for batch in embed_batches(
                photos(),
                detector,
                encoder,
                workers=workers,
                max_faces=max_faces,
                digests=True,
                portraits=portraits,
                batch_size=batch_size,
                judge=judge,
            ):
                rows = [begun.popleft() for _ in batch]
                yield list(zip(rows, batch, strict=True))
                if advance:
                    done = bisect(self.waiting, rows[-1])
                    advance(done - shown)
                    shown = done
            if advance:
                advance(len(self.waiting) - shown)

    def keep(self, batch: Sequence[tuple[int, EmbeddedPhoto]]) -> None:
        """Write a batch into the checkpoint, where there is one."""
        if self._checkpoint:
            self._checkpoint.keep(
                (self._paths[row], self._states.pop(row), photo) for row, photo in batch
            )
