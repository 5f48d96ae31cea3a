"""What an unfinished enrolment has embedded, in the gallery database that it fills."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from face_encode.gallery.database_file import DatabaseFile


class Staging:
    """Rows of the table ``staged`` that belong to runs with the same settings.

    Two runs with the same settings at once share them, to the good of both. What no run has taken
    up in the month after its own is deleted at the end of a later one.

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
        run = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        this_month = datetime.now(timezone.utc).replace(day=1)
        months = this_month, this_month - timedelta(days=1)
        # Rows are written under the first, and found under both.
        self._runs = [f"{month:%Y-%m} {run}" for month in months]
        if restart:
            with file.transaction() as connection:
                connection.execute("DELETE FROM staged")

    def get(self, photo: bytes) -> bytes | None:
        """The content of a photo's row, or None."""
        with self._file.reading() as reader:
            row = reader.execute(
                "SELECT content FROM staged WHERE run IN (?, ?) AND photo = ? ORDER BY run DESC",
                [*self._runs, self._key(photo)],
            ).fetchone()
        return None if row is None else self._file.content(row[0])

    def put(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Add rows, or replace them: all or none."""
        with self._file.transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO staged VALUES (?, ?, ?)",
                (
                    (self._runs[0], self._key(photo), self._file.sealed(content))
                    for photo, content in rows
                ),
            )

    def clear(self, photos: Iterable[bytes]) -> None:
        """Delete the rows of these photos, since their run is done, and old rows of any run."""
        former_month = self._runs[1][:7]
        with self._file.transaction() as connection:
            connection.executemany(
                "DELETE FROM staged WHERE run IN (?, ?) AND photo = ?",
                ((*self._runs, self._key(photo)) for photo in photos),
            )
            # Earlier releases did not write the month.
            connection.execute(
                "DELETE FROM staged WHERE run < ? OR run NOT LIKE '____-__ %'", [former_month]
            )

    def close(self) -> None:
        """Leave the rows for the next run."""

    def _key(self, photo: bytes) -> str | bytes:
        """The form in which a photo's path is looked up."""
        return self._file.blind(hashlib.sha256(photo).hexdigest())
