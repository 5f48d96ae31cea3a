"""The content of a gallery database in memory, as a search takes it, and how it is kept fresh."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError
from face_encode.gallery.audit import Audit, Change
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.database_file import DatabaseFile, marks, parts
from face_encode.gallery.thresholds import Calibration
from face_encode.types import Embeddings

Precision: TypeAlias = Literal["float32", "int8"]

# Photos that are read from the file at once.
_READ_AT_ONCE = 2_048
# Where more photos than this share of all changed, reading everything again is faster.
_FEW_CHANGED = 0.1


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The content of a gallery database at one moment.

    Attributes:
        enrolled: The people, as a search takes them; without digests.
        ids: int64 ``(n,)``, the photo of each row, ascending.
        owners: int64 ``(n,)``, the person's number in the file of each row.
        change: The last change that is part of it.
        calibration: The result of ``face-encode calibrate``, or None.
    """

    enrolled: Enrolled
    ids: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    change: int
    calibration: Calibration | None


def read_snapshot(
    file: DatabaseFile, size: int, precision: Precision, former: Snapshot | None
) -> Snapshot:
    """Read a gallery database; where a former snapshot helps, only what has changed since.

    Args:
        file: The open file.
        size: Length D of an embedding.
        precision: How embeddings are kept in memory.
        former: An earlier snapshot of the same file, or None.

    Raises:
        GalleryError: The file is damaged.
    """
    with file.reading() as reader:
        (count,) = reader.execute("SELECT COUNT(*) FROM photo").fetchone()
        change = reader.execute("SELECT MAX(id) FROM change").fetchone()[0] or 0
        calibration = reader.execute(
            "SELECT value FROM gallery WHERE key = 'calibration'"
        ).fetchone()
        names = dict(reader.execute("SELECT id, name FROM person"))
        if file.is_encrypted:
            names = {number: file.text(name) for number, name in names.items()}
        touched = None
        if former is not None and not former.enrolled.is_int8 and change >= former.change:
            touched = _touched(Audit(file, reader).changes(former.change), count)
        rows = np.empty((count, size), np.float32)
        ids, owners = np.empty((2, count), np.int64)
        place = 0
        if former is None or touched is None:
            place = _read_rows(file, reader, "", [], rows, ids, owners)
        else:
            stays = ~np.isin(former.ids, touched)
            place = int(stays.sum())
            rows[:place], ids[:place], owners[:place] = (
                column[stays] for column in (former.enrolled.rows, former.ids, former.owners)
            )
            for part in parts(touched.tolist()):
                where = f"WHERE id IN ({marks(part)})"
                rest = (column[place:] for column in (rows, ids, owners))
                place += _read_rows(file, reader, where, part, *rest)
    if place != count:
        raise GalleryError(f"{file.label} is damaged: its audit and its photos do not agree")
    if touched is not None and (np.diff(ids) < 0).any():
        order = np.argsort(ids)
        rows, ids, owners = rows[order], ids[order], owners[order]
    enrolled = _columns(file, rows, owners, names)
    return Snapshot(
        enrolled.quantized() if precision == "int8" else enrolled,
        ids,
        owners,
        change,
        None if calibration is None else Calibration.from_json(calibration[0]),
    )


def _touched(changes: Sequence[Change], count: int) -> npt.NDArray[np.int64] | None:
    """The photos that changes concern, ascending; None where reading all photos is faster."""
    touched: list[int] = []
    for change in changes:
        for photos in (*change.removed.values(), *change.added.values()):
            touched += photos
        if change.action == "reembed" or len(touched) > max(1_000, _FEW_CHANGED * count):
            return None
    return np.unique(np.array(touched, np.int64))


def _read_rows(
    file: DatabaseFile,
    reader: sqlite3.Connection,
    where: str,
    values: Sequence[int],
    rows: Embeddings,
    ids: npt.NDArray[np.int64],
    owners: npt.NDArray[np.int64],
) -> int:
    """Read photos into arrays; returns how many there are."""
    place, size = 0, rows.shape[1]
    cursor = reader.execute(f"SELECT embedding FROM photo {where} ORDER BY id", values)
    while found := cursor.fetchmany(_READ_AT_ONCE):
        embeddings = [embedding for (embedding,) in found]
        if file.is_encrypted:
            embeddings = list(map(file.content, embeddings))
        content = b"".join(embeddings)
        if len(content) != 4 * size * len(found) or place + len(found) > len(rows):
            raise GalleryError(
                f"{file.label} is damaged: an embedding in it is not of length {size}"
            )
        rows[place : place + len(found)] = np.frombuffer(content, np.float32).reshape(-1, size)
        place += len(found)
    # As text, which SQLite makes from an index: a third less time than numbers beside each
    # embedding take.
    texts = reader.execute(
        "SELECT group_concat(id), group_concat(person) FROM "
        f"(SELECT id, person FROM photo {where})",
        values,
    ).fetchone()
    if place:
        numbers, people = (np.fromstring(text, np.int64, sep=",") for text in texts)
        order = np.argsort(numbers)
        ids[:place], owners[:place] = numbers[order], people[order]
    return place


def _columns(
    file: DatabaseFile, rows: Embeddings, owners: npt.NDArray[np.int64], names: Mapping[int, str]
) -> Enrolled:
    """The columns of a search; people in the order of their first photos."""
    count = len(rows)
    scales = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise GalleryError(
            f"{file.label} is damaged: an embedding in it is not finite, or all zeros"
        )
    first = np.full(int(owners.max(initial=0)) + 1, count, np.int64)
    # Backwards, so that the first row of each person is the last one written.
    first[owners[::-1]] = np.arange(count)[::-1]
    people = np.argsort(first, kind="stable")[: int((first < count).sum())]
    place = np.empty(len(first), np.int32)
    place[people] = np.arange(len(people), dtype=np.int32)
    try:
        ordered = tuple(names[number] for number in people.tolist())
    except KeyError as error:
        raise GalleryError(f"{file.label} is damaged: a photo is nobody's") from error
    digests = np.empty((count, 0), np.uint8)
    return Enrolled(rows, scales, place[owners], ordered, digests)
