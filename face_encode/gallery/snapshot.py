"""The content of a gallery database in memory, as a search takes it, and how it is kept fresh."""

from __future__ import annotations

import glob
import sqlite3
import threading
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, WrongEncoderError
from face_encode.files import reason_of
from face_encode.gallery.approximate import (
    ApproximateIndex,
    find_index,
    index_files,
    save_index,
)
from face_encode.gallery.audit import Audit, Change
from face_encode.gallery.base import EncoderIdentity, folded_name
from face_encode.gallery.columns import Enrolled
from face_encode.gallery.database_file import DatabaseFile, marks, parts
from face_encode.gallery.distances import Metric
from face_encode.gallery.npz import read_codes, write_codes
from face_encode.gallery.people_rows import PeopleRows
from face_encode.gallery.quantization import Coded
from face_encode.gallery.thresholds import Calibration
from face_encode.types import Embeddings

Precision: TypeAlias = Literal["float32", "int8"]

# Photos that are read from the file at once.
_READ_AT_ONCE = 2_048
_CODES_ENDING = ".codes"
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
        stamp: Eight hexadecimal digits that differ where the photos do, also from those of a
            copy of the file that was changed otherwise.
        calibration: The result of ``face-encode calibrate``, or None.
        thresholds: Name -> threshold of the people who have one of their own.
        index: An approximate index of the same rows, or None.
    """

    enrolled: Enrolled
    ids: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    change: int
    stamp: str
    calibration: Calibration | None
    thresholds: Mapping[str, float]
    index: ApproximateIndex | None = None

    @cached_property
    def listed(self) -> list[tuple[str, str, int]]:
        """Folded name, name and number of photos of each person, in the order of folded names."""
        counts = zip(self.enrolled.people, self.enrolled.counts.tolist(), strict=True)
        return sorted((folded_name(name), name, count) for name, count in counts)


class Memory:
    """The latest snapshot of an open gallery database, for all threads of a program."""

    def __init__(
        self, file: DatabaseFile, encoder: EncoderIdentity, precision: Precision, metric: Metric
    ) -> None:
        """Read nothing yet; the arguments are those of ``read_snapshot``."""
        self._file, self._encoder, self._precision, self._metric = file, encoder, precision, metric
        self._lock = threading.Lock()
        # Together with the file's version, in one: threads read it without the lock.
        self._kept: tuple[tuple[object, ...], Snapshot] | None = None
        # Whether a search goes through int8 codes first: once there is a file of them.
        self._uses_codes = False

    def fresh(self) -> Snapshot:
        """The content of the file as it is now."""
        version, kept = self._file.version(), self._kept
        if kept is not None and version == kept[0]:
            return kept[1]
        with self._lock:
            # Asked before reading: a change meanwhile is seen at the next call at the latest.
            version, kept = self._file.version(), self._kept
            if kept is not None and version == kept[0]:
                return kept[1]
            former = None if kept is None else kept[1]
            snapshot = read_snapshot(self._file, self._encoder, self._precision, former)
            if former is None and self._metric == "cosine":
                self._uses_codes = self._uses_codes or any(_codes_files(self._file))
            if self._uses_codes:
                # Where the codes cannot be saved, a search goes without.
                with suppress(GalleryError):
                    snapshot = with_codes(self._file, snapshot)
            if former is not None and former.stamp == snapshot.stamp:
                snapshot = replace(snapshot, index=former.index)
            self._kept = version, snapshot
            return snapshot

    def index(self, *, approximate: bool, progress: bool) -> None:
        """Make an index; see ``DatabaseGallery.build_index``."""
        snapshot = self.fresh()
        if not len(snapshot.ids):
            raise GalleryError("an index is of embeddings, and nobody is enrolled yet")
        if approximate:
            snapshot = with_cells(self._file, snapshot, progress=progress)
        else:
            snapshot = with_codes(self._file, snapshot)
        with self._lock:
            self._uses_codes = self._uses_codes or not approximate
            if self._kept is not None and self._kept[1].stamp == snapshot.stamp:
                self._kept = self._kept[0], snapshot

    def renew(self) -> None:
        """Remove the indices beside the file, and read everything anew.

        Raises:
            GalleryError: A file cannot be removed.
        """
        with self._lock:
            codes = _codes_files(self._file)
            for path in (*codes, *index_files(self._file.path)):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise GalleryError(f"cannot remove {path}: {reason_of(error)}") from error
            self._uses_codes = self._uses_codes or any(codes)
            self._kept = None
        if any(codes):
            self.fresh()


def check_unchanged(
    connection: sqlite3.Connection, file: DatabaseFile, encoder: EncoderIdentity
) -> None:
    """Refuse to go on where another program has embedded the photos by another encoder meanwhile.

    Raises:
        WrongEncoderError: Names both encoders.
    """
    stored = dict(connection.execute("SELECT key, value FROM gallery WHERE key LIKE 'encoder%'"))
    name, fingerprint = stored.get("encoder_name"), stored.get("encoder_fingerprint")
    if fingerprint not in (None, encoder.fingerprint):
        raise WrongEncoderError(
            f"{file.label} is one of the encoder {name!r} ({fingerprint}) by now, here it was "
            f"opened for {encoder.name!r} ({encoder.fingerprint}): open it again"
        )


def read_snapshot(
    file: DatabaseFile, encoder: EncoderIdentity, precision: Precision, former: Snapshot | None
) -> Snapshot:
    """Read a gallery database; where a former snapshot helps, only what has changed since.

    Args:
        file: The open file.
        encoder: The encoder that the file was opened for.
        precision: How embeddings are kept in memory.
        former: An earlier snapshot of the same file, or None.

    Raises:
        GalleryError: The file is damaged.
        WrongEncoderError: The photos were embedded by another encoder meanwhile.
    """
    size = encoder.embedding_size
    with file.reading() as reader:
        check_unchanged(reader, file, encoder)
        (count,) = reader.execute("SELECT COUNT(*) FROM photo").fetchone()
        last = reader.execute("SELECT id, time FROM change ORDER BY id DESC LIMIT 1").fetchone()
        change = 0 if last is None else int(last[0])
        calibration = reader.execute(
            "SELECT value FROM gallery WHERE key = 'calibration'"
        ).fetchone()
        learnt = None if calibration is None else Calibration.from_json(calibration[0])
        stamp = f"{zlib.crc32(repr(last).encode()):08x}"
        if former is not None and stamp == former.stamp:
            # The people are the same: a stranger was seen, or an enrolment has staged a photo.
            return replace(former, calibration=learnt)
        names = dict(reader.execute("SELECT id, name FROM person"))
        if file.is_encrypted:
            names = {number: file.text(name) for number, name in names.items()}
        thresholds = PeopleRows(file, reader).thresholds()
        touched = None
        if former is not None and not former.enrolled.is_int8 and change >= former.change:
            touched = _touched(Audit(file, reader).changes(former.change), count)
        rows = np.empty((count, size), np.float32)
        ids, owners = np.empty((2, count), np.int64)
        place, codes = 0, None
        if former is None or touched is None:
            place = _read_rows(file, reader, "", [], rows, ids, owners)
        else:
            codes = former.enrolled.index
            stays = ~np.isin(former.ids, touched)
            place = int(stays.sum())
            rows[:place], ids[:place], owners[:place] = (
                column[stays] for column in (former.enrolled.rows, former.ids, former.owners)
            )
            stay = place
            for part in parts(touched.tolist()):
                where = f"WHERE id IN ({marks(part)})"
                rest = (column[place:] for column in (rows, ids, owners))
                place += _read_rows(file, reader, where, part, *rest)
            if codes is not None:
                codes = codes.of_rows(stays)
                if place > stay:
                    new = Coded.of(rows[stay:place], codes.quantizer, with_blur=True)
                    codes = codes.joined(new)
    if place != count:
        raise GalleryError(f"{file.label} is damaged: its audit and its photos do not agree")
    if touched is not None and (np.diff(ids) < 0).any():
        order = np.argsort(ids)
        rows, ids, owners = rows[order], ids[order], owners[order]
        codes = None if codes is None else codes.of_rows(order)
    enrolled = replace(_columns(file, rows, owners, names), index=codes)
    return Snapshot(
        enrolled.quantized() if precision == "int8" else enrolled,
        ids,
        owners,
        change,
        stamp,
        learnt,
        {names[number]: threshold for number, threshold in thresholds.items()},
    )


def with_codes(file: DatabaseFile, snapshot: Snapshot) -> Snapshot:
    """A snapshot with int8 codes that a search goes through first.

    They come from the file beside the database, NAME-STAMP.codes, or are made, and saved there in
    the place of those of former photos. An encrypted gallery's are in memory only.

    Raises:
        GalleryError: They cannot be saved.
    """
    if snapshot.enrolled.coded is not None or not len(snapshot.ids):
        return snapshot
    if file.is_encrypted:
        return replace(snapshot, enrolled=snapshot.enrolled.indexed())
    path = file.path.with_name(f"{file.path.name}-{snapshot.stamp}{_CODES_ENDING}")
    with suppress(GalleryError):
        codes = read_codes(path, snapshot.enrolled.rows)
        return replace(snapshot, enrolled=replace(snapshot.enrolled, index=codes))
    enrolled = snapshot.enrolled.indexed()
    if enrolled.index is not None:
        write_codes(path, enrolled.index)
    for former in _codes_files(file):
        if former != path:
            # A file that stays is ignored, because its name no longer fits.
            with suppress(OSError):
                former.unlink()
    return replace(snapshot, enrolled=enrolled)


def with_cells(file: DatabaseFile, snapshot: Snapshot, *, progress: bool = True) -> Snapshot:
    """A snapshot with an approximate index, from beside the database, or made and saved there.

    An encrypted gallery's is in memory only.

    Raises:
        GalleryError: It cannot be saved.
        MissingExtraError: ``faiss`` is not installed.
    """
    shape = snapshot.enrolled.rows.shape
    index = None
    if not file.is_encrypted:
        index = find_index(file.path, snapshot.stamp, *shape)
    if index is None:
        index = ApproximateIndex.of(snapshot.enrolled, progress=progress)
        if not file.is_encrypted:
            save_index(file.path, snapshot.stamp, index)
    return replace(snapshot, index=index)


def _codes_files(file: DatabaseFile) -> list[Path]:
    """The files of codes beside a gallery database."""
    name = glob.escape(file.path.name)
    return list(file.path.parent.glob(f"{name}-{'[0-9a-f]' * 8}{_CODES_ENDING}"))


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
