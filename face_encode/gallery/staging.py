"""What an unfinished enrolment has embedded, in the gallery database that it fills."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from face_encode.gallery.database_file import DatabaseFile


class Staging:
    """Rows of the table ``staged`` that belong to runs with the same settings.

    Two runs with the same settings at once share them, to the good of both.

    Attributes:
        label: The file's name in errors.
    """

    def __init__(
        self, file: DatabaseFile, settings: Mapping[str, Any], *, restart: bool = False
    ) -> None:
        """Take the rows that interrupted runs have left.

        Args:
            file: The open database.
            settings: What the content depends on, as plain JSON values.
            restart: Whether to discard what all interrupted runs have left.

        Raises:
            GalleryError: The file cannot be written to.
        """
        self.label, self._file = file.label, file
        self._run = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        if restart:
            with file.transaction() as connection:
                connection.execute("DELETE FROM staged")

    def get(self, photo: bytes) -> bytes | None:
        """The content of a photo's row, or None."""
        with self._file.reading() as reader:
            row = reader.execute(
                "SELECT content FROM staged WHERE run = ? AND photo = ?",
                [self._run, self._key(photo)],
            ).fetchone()
        return None if row is None else self._file.content(row[0])

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Add rows, or replace them: all or none."""
        with self._file.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO staged VALUES (?, ?, ?)",
                (
                    (self._run, self._key(photo), self._file.sealed(content))
                    for photo, content in rows
                ),
            )

    def clear(self) -> None:
        """Delete the rows: the run is done."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM staged WHERE run = ?", [self._run])

    def close(self) -> None:
        """Leave the rows for the next run."""

    def _key(self, photo: bytes) -> str | bytes:
        """The form in which a photo's path is looked up."""
        return self._file.blind(hashlib.sha256(photo).hexdigest())
