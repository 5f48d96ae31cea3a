"""Converted networks, kept in the cache with what was found out about them.

Beside ``NAME.onnx`` lies ``NAME.onnx.json``, which holds its SHA-256, what would otherwise have to
be asked of Keras, and how each engine compared. So an encoder starts without Keras once its
network was converted. Whatever does not fit is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import filelock

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.engines.parity import Parity
from face_encode.errors import EngineError, ModelFileError
from face_encode.files import open_regular, replacing
from face_encode.version import __version__
from face_encode.weights import cache_folder

_NOTE_VERSION = 1


@dataclass(frozen=True)
class Note:
    """What is known of a converted network.

    Attributes:
        contract: The encoder's.
        fingerprint: The encoder's.
        embedding_size: The encoder's.
        converters: What converted it, or failed to.
        sha256: Of the ONNX file; None where it could not be converted.
        failure: Why it could not be converted.
        parities: How each engine compared with Keras, by its release and this machine.
        failures: Why an engine cannot run it, by the same.
    """

    contract: EncoderContract
    fingerprint: str
    embedding_size: int
    converters: str
    sha256: str | None = None
    failure: str | None = None
    parities: dict[str, Parity] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The note as text."""
        values = {**asdict(self), "contract": json.loads(self.contract.to_json())}
        return json.dumps({"note_version": _NOTE_VERSION, **values}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> Note:
        """Read a note.

        Raises:
            ValueError: It is none, or of another form.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values.pop("note_version") != _NOTE_VERSION:
                raise ValueError("a note of another form")
            values["contract"] = EncoderContract.from_json(json.dumps(values["contract"]))
            values["parities"] = {
                engine: Parity(float(parity["difference"]), float(parity["milliseconds"]))
                for engine, parity in values["parities"].items()
            }
            note = cls(**values)
        except (AttributeError, KeyError, TypeError, ModelFileError, RecursionError) as error:
            raise ValueError(f"no note: {error}") from error
        if not isinstance(note.fingerprint, str) or not isinstance(note.embedding_size, int):
            raise ValueError("no note")
        return note


@dataclass(frozen=True, eq=False)
class ConvertedNetwork:
    """A converted network.

    Attributes:
        note: What is known of it.
        content: The ONNX file; None where it could not be converted.
    """

    note: Note
    content: bytes | None


@dataclass(frozen=True)
class KeptPlace:
    """Where in the cache a converted network has its place.

    Attributes:
        path: Of the ONNX file.
    """

    path: Path

    @classmethod
    def of_file(cls, name: str, digest: str) -> KeptPlace:
        """The place for the network of a model file.

        Args:
            name: The encoder's.
            digest: SHA-256 of the model file. Another release converts anew.
        """
        key = f"{name} {digest} {__version__} {_NOTE_VERSION}"
        short = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return cls(cache_folder() / f"{_file_name(name)}-{short}.onnx")

    @property
    def _note_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def read(self) -> ConvertedNetwork | None:
        """The network as it is kept; None where there is none, or it is damaged."""
        try:
            with open_regular(self._note_path) as file:
                note = Note.from_json(file.read())
            if note.sha256 is None:
                return ConvertedNetwork(note, None)
            with open_regular(self.path) as file:
                content = file.read()
        except (OSError, ValueError):
            return None
        if hashlib.sha256(content).hexdigest() != note.sha256:
            return None
        return ConvertedNetwork(note, content)

    def write(self, converted: ConvertedNetwork) -> None:
        """Keep a network in the place of a former one.

        Raises:
            EngineError: The cache cannot be written to.
        """
        if converted.content is not None:
            with replacing(self.path, EngineError) as temporary:
                temporary.write_bytes(converted.content)
        self.write_note(converted.note)

    def write_note(self, note: Note) -> None:
        """Keep what else was found out.

        Raises:
            EngineError: The cache cannot be written to.
        """
        with replacing(self._note_path, EngineError) as temporary:
            temporary.write_text(note.to_json(), encoding="utf-8")

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Let one process at a time convert; gives whether the cache can be written to."""
        lock = filelock.FileLock(f"{self.path}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()


def _file_name(name: str) -> str:
    """A beginning for a file's name that every file system takes."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)[:40]
