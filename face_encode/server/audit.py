"""The audit log: a line of JSON for each change of the people, without photos or embeddings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeAlias

from face_encode.errors import FaceEncodeError
from face_encode.files import reason_of

Action: TypeAlias = Literal["enrol", "rename", "remove"]


@dataclass(frozen=True)
class Author:
    """The client that asks for a change.

    Attributes:
        token: The name of its token, or ``local`` on a service without any.
        address: The address of the request.
    """

    token: str
    address: str


class AuditError(FaceEncodeError):
    """The audit log cannot be written, so nothing is changed."""


class AuditLog:
    """Appends lines to a file, forced to disk before the change is answered."""

    def __init__(self, path: Path) -> None:
        """Open the file, which only its owner may read, and lock it.

        Two services on one gallery would overwrite each other's changes; the log lies beside the
        gallery, and its lock stops the second one.

        Raises:
            AuditError: The file cannot be opened for writing, or another service writes to it.
        """
        self._path = path
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._handle = os.open(path, flags, 0o600)
        except OSError as error:
            raise AuditError(f"cannot write the audit log {path}: {reason_of(error)}") from error
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            return
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise AuditError(
                f"another service writes to {path} and its gallery; run one service a gallery"
            ) from error

    def close(self) -> None:
        """Close and unlock the file."""
        os.close(self._handle)

    def write(self, entries: Iterable[tuple[Author, Action, Mapping[str, Any]]]) -> None:
        """Append lines, all in one step.

        Args:
            entries: The author, the action, and further members of the line.

        Raises:
            AuditError: The lines cannot be written.
        """
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        lines = [
            json.dumps(
                {"time": now, **asdict(author), "action": action, **members}, ensure_ascii=False
            )
            for author, action, members in entries
        ]
        content = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
        try:
            while content:
                content = content[os.write(self._handle, content) :]
            os.fsync(self._handle)
        except OSError as error:
            raise AuditError(
                f"cannot write the audit log {self._path}: {reason_of(error)}"
            ) from error
