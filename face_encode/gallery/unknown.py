"""People without a name in a gallery database: strangers of cameras, faces of a folder of photos.

Each is a group of faces under a number that no other group ever gets: ``unknown-7``. A face joins
the group that it is most like, or begins one; both happen in one transaction, so that
programs that see a stranger at the same time agree on the number. Groups go by themselves some days
after the last face, by the number of days of the program that saw it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError, InputError, NotEnrolledError
from face_encode.gallery.audit import Audit, Author
from face_encode.gallery.base import EncoderIdentity, PhotoDetails, check_new, unknown_id
from face_encode.gallery.database_file import DatabaseFile
from face_encode.gallery.distances import unit_length
from face_encode.gallery.people_rows import PeopleRows, TakenRows
from face_encode.gallery.snapshot import check_unchanged
from face_encode.types import Embeddings, check_number

KEEP_DAYS = 3.0
"""How long a stranger is kept after the last sight where nobody says otherwise: 72 hours, beyond
which the European guidelines on video devices (EDPB 3/2019, 121) ask for reasons."""

MAX_FACES = 8
"""Faces that are kept of a group: those of the highest quality."""

MAX_GROUPS = 1_000
"""Groups that are kept; then those go that were not seen for the longest time."""

MAX_DAYS = 3_650
"""The longest time that a stranger can be kept."""


@dataclass(frozen=True, eq=False)
class Sight:
    """A face of somebody without a name, good enough to be recognised by.

    Attributes:
        embedding: float32 ``(D,)``, as the encoder gave it.
        details: Its crop, quality and source; the crop is not empty.
        digest: The content digest of its photo, and for a face that is not the largest in it, of
            digest and place, since a photo's digest stands for its largest face; empty for a
            camera.
        detector: The detector that found it.
    """

    embedding: npt.NDArray[np.float32]
    details: PhotoDetails
    digest: str = ""
    detector: str = ""


class Placed(NamedTuple):
    """Where faces were put: the group's number, and the numbers of those that are new."""

    number: int
    faces: tuple[int, ...]


@dataclass(frozen=True)
class UnknownFace:
    """A face of a group.

    Attributes:
        id: Its number, which no other face of a group ever gets.
        quality: 0..1, or None where it was not measured.
        source: The camera or the photo's file.
        seen_at: When, in UTC, ISO 8601.
    """

    id: int
    quality: float | None
    source: str
    seen_at: str


@dataclass(frozen=True)
class UnknownGroup:
    """A person without a name.

    Attributes:
        number: The group's number.
        seen: How often the person was seen: appearances before cameras, or faces in photos.
        first_seen: In UTC, ISO 8601.
        last_seen: In UTC, ISO 8601.
        expires_at: When the group goes unless the person is seen again.
        faces: The faces that are kept, that of the highest quality first.
    """

    number: int
    seen: int
    first_seen: str
    last_seen: str
    expires_at: str
    faces: tuple[UnknownFace, ...]

    @property
    def id(self) -> str:
        """What the group is called, ``unknown-7``."""
        return unknown_id(self.number)

    def as_dict(self) -> dict[str, Any]:
        """The group as plain JSON values."""
        values = asdict(self)
        del values["number"]
        return {"id": self.id, **values, "faces": [asdict(face) for face in self.faces]}


def check_keep_days(days: float) -> float:
    """Check how long strangers are kept.

    Raises:
        InputError: It is no number of days of at least 0.
    """
    return check_number(days, "the number of days to keep strangers", 0, MAX_DAYS)


class UnknownPeople:
    """The people without a name in an open gallery database."""

    def __init__(
        self,
        file: DatabaseFile,
        encoder: EncoderIdentity,
        changing: Callable[[], AbstractContextManager[tuple[PeopleRows, Audit]]],
        author: Author,
    ) -> None:
        """See an open database; ``DatabaseGallery.unknown`` does this."""
        self._file, self._encoder, self._changing, self._author = file, encoder, changing, author

    @property
    def can_keep(self) -> bool:
        """Whether the file can be written to."""
        return self._file.holds_unknown and self._file.can_write

    def see(
        self,
        sight: Sight,
        threshold: float,
        *,
        probe: npt.NDArray[np.float32] | None = None,
        keep_days: float = KEEP_DAYS,
    ) -> Placed | None:
        """Find whose face this is, or begin a group, and keep the face.

        Args:
            sight: The face.
            threshold: Mean cosine similarity to a group's faces from which it is the same person.
            probe: The embedding to find the group by, ``(D,)``, where there is a steadier one than
                the sight's own: the mean over several.
            keep_days: How long the group is kept if the person is not seen again.

        Returns:
            The group and the face; None where nothing is kept, with 0 days.

        Raises:
            InputError: The embedding is none of this gallery, the crop is empty, or the days are
                out of range.
            GalleryError: The file cannot be written to.
            WrongEncoderError: The gallery is one of another encoder by now.
        """
        if not check_keep_days(keep_days):
            return None
        self._check([sight])
        with self._seeing() as rows:
            own = sight.embedding if probe is None else probe
            number = rows.means().nearest(unit_length(own), threshold)
            if number is None:
                number = rows.begin()
            return Placed(number, rows.add(number, [sight], keep_days, appearances=1))

    def see_again(
        self, number: int, sight: Sight, *, keep_days: float = KEEP_DAYS
    ) -> tuple[int, ...]:
        """Keep a further face of an appearance that ``see`` has put into a group.

        Args:
            number: The group.
            sight: The face.
            keep_days: As for ``see``.

        Returns:
            The number of the face; nothing where the group is gone: named, merged or dismissed.

        Raises:
            InputError: As for ``see``.
            GalleryError: As for ``see``.
        """
        if not check_keep_days(keep_days):
            return ()
        self._check([sight])
        with self._seeing() as rows:
            return rows.add(number, [sight], keep_days) if rows.exists(number) else ()

    def withdraw(self, number: int, faces: Sequence[int]) -> None:
        """Take faces back out of a group, for they were somebody's who has a name.

        A group that has no other face goes.

        Raises:
            GalleryError: The file cannot be written to.
        """
        with self._seeing() as rows:
            rows.withdraw(number, faces)

    def add_groups(
        self,
        groups: Sequence[Sequence[Sight]],
        seen: Sequence[int],
        threshold: float,
        *,
        keep_days: float,
    ) -> list[int]:
        """Keep the faces of photos that were sorted into people; all of them, or none.

        A group that is like one in the file joins that; a face that is there already, by its
        digest, is not added again.

        Args:
            groups: The best faces of each person.
            seen: How many faces each person has in the photos.
            threshold: Mean cosine similarity of the faces of two groups from which they are one.
            keep_days: How long the groups are kept, more than 0.

        Returns:
            The number of each group.

        Raises:
            InputError: As for ``see``, or more than ``MAX_GROUPS`` groups.
            GalleryError: As for ``see``.
            WrongEncoderError: As for ``see``.
        """
        if not check_keep_days(keep_days):
            raise InputError("groups of photos that are to be named are kept for more than 0 days")
        if len(groups) > MAX_GROUPS:
            raise InputError(f"at most {MAX_GROUPS:,} groups are kept. Received: {len(groups):,}")
        for sights in groups:
            self._check(sights)
        numbers: list[int] = []
        with self._seeing() as rows:
            # Read once: those of this call were found to be different people.
            known = rows.means()
            for sights, count in zip(groups, seen, strict=True):
                own = np.mean([unit_length(sight.embedding) for sight in sights], axis=0)
                number = known.nearest(own, threshold)
                if number is None:
                    number = rows.begin()
                rows.add(number, sights, keep_days, faces_in_photos=count)
                numbers.append(number)
        return numbers

    def groups(self, start: int = 0, count: int | None = None) -> tuple[list[UnknownGroup], int]:
        """List the groups, those seen last first, then those seen most; and say how many there are.

        Args:
            start: How many to skip.
            count: At most this many; None for all.
        """
        # Not where another program is changing the file; what is over is not listed all the same.
        with suppress(GalleryError):
            self.purge()
        if not self._file.holds_unknown:
            return [], 0
        with self._file.reading() as reader:
            return UnknownRows(self._file, reader).groups(start, count)

    def group(self, number: int) -> UnknownGroup:
        """Describe a group.

        Raises:
            NotEnrolledError: There is no such group.
        """
        for each in self.groups()[0]:
            if each.number == number:
                return each
        raise _no_group(number)

    def most_like(self, embeddings: Embeddings, count: int = 3) -> list[tuple[int, float]]:
        """The groups that are most like somebody, the nearest first.

        Args:
            embeddings: float32 ``(N, D)``, of photos of that person, N at least 1.
            count: At most this many.

        Returns:
            Number of a group, and mean cosine similarity of its faces to the photos.
        """
        with suppress(GalleryError):
            self.purge()
        if not self._file.holds_unknown:
            return []
        with self._file.reading() as reader:
            means = UnknownRows(self._file, reader).means()
        if means.rows is None:
            return []
        similarities = means.rows @ np.mean(unit_length(embeddings), axis=0)
        nearest = np.argsort(-similarities)[:count]
        return [(means.numbers[index], float(similarities[index])) for index in nearest]

    def crop(self, face: int) -> bytes | None:
        """The crop of a group's face as JPEG, or None where there is no such face."""
        if not self._file.holds_unknown:
            return None
        with self._file.reading() as reader:
            row = reader.execute(
                "SELECT jpeg FROM unknown_face JOIN unknown USING (number) "
                "WHERE id = ? AND expires_at > ?",
                [face, _time()],
            ).fetchone()
        return None if row is None else self._file.content(row[0])

    def name(self, number: int, name: str) -> tuple[str, int]:
        """Enrol the faces of a group as photos of a person, new or known; the group goes.

        Undoing that brings the group back, for ``KEEP_DAYS``.

        Returns:
            The person's name, and the number of photos enrolled.

        Raises:
            NotEnrolledError: There is no such group.
            InputError: The name is not a person's name.
        """
        with self._changing() as (people, audit):
            rows = self._existing(people.connection, number)
            person = people.people_of([name])[name]
            photos = rows.enrol(number, person.number, self._author.name)
            audit.record(self._author, "name", added={person.name: photos}, unknown=[number])
        return person.name, len(photos)

    def merge(self, number: int, into: int) -> None:
        """Make one of two groups that are one person: ``into`` stays.

        Raises:
            NotEnrolledError: There is no such group.
            GalleryError: They are one group already.
        """
        if number == into:
            raise GalleryError(f"{unknown_id(number)} cannot be merged into itself")
        with self._changing() as (people, audit):
            rows = self._existing(people.connection, number, into)
            rows.merge(number, into)
            audit.record(self._author, "merge", unknown=[number, into])

    def dismiss(self, number: int) -> None:
        """Delete a group and its faces; seen again, the person gets a new number.

        Raises:
            NotEnrolledError: There is no such group.
        """
        with self._changing() as (people, audit):
            self._existing(people.connection, number).delete([number])
            audit.record(self._author, "dismiss", unknown=[number])
        self._file.empty_log()

    def purge(self) -> None:
        """Delete the groups whose time is over.

        Raises:
            GalleryError: The file cannot be written to.
        """
        purge_unknown(self._file)

    def _check(self, sights: Sequence[Sight]) -> None:
        """Refuse sights that are none of this gallery."""
        size = self._encoder.embedding_size
        embeddings = np.array([sight.embedding for sight in sights], np.float32)
        check_new([unknown_id(1)] * len(sights), embeddings, None, size)
        if not sights or not all(sight.details.crop for sight in sights):
            raise InputError("somebody unknown is known by faces, each with a crop")

    @contextmanager
    def _seeing(self) -> Iterator[UnknownRows]:
        """The tables in a transaction that the audit does not tell of, without what is over."""
        with self._file.transaction() as connection:
            check_unchanged(connection, self._file, self._encoder)
            rows = UnknownRows(self._file, connection)
            rows.purge()
            yield rows
            rows.drop_most(MAX_GROUPS)

    def _existing(self, connection: sqlite3.Connection, *numbers: int) -> UnknownRows:
        """The tables, in which there are these groups."""
        rows = UnknownRows(self._file, connection)
        rows.purge()
        for number in numbers:
            if not rows.exists(number):
                raise _no_group(number)
        return rows


class Means(NamedTuple):
    """The groups' numbers, and the mean of each group's faces, ``(n, D)``; None without groups.

    Each face counts with length 1, the mean has none.
    """

    numbers: tuple[int, ...]
    rows: npt.NDArray[np.float32] | None

    def nearest(self, embedding: npt.NDArray[np.float32], threshold: float) -> int | None:
        """The group to whose faces somebody is most similar; None below the threshold.

        By the mean similarity to all its faces, as in average linkage, which is that to their mean:
        with the nearest face alone a chance likeness joins two people. On 384 faces of 229 people
        of LFW's training split, one photo after the other in five random orders, the groups had a
        B-cubed F of 0.954, by the nearest face 0.936, by the direction of the mean 0.927.

        Args:
            embedding: ``(D,)``, of length 1, or the mean of several such.
            threshold: The mean similarity from which somebody is the person of a group.
        """
        if self.rows is None:
            return None
        similarities = self.rows @ embedding
        best = int(similarities.argmax())
        return self.numbers[best] if similarities[best] >= threshold else None


class UnknownRows:
    """The tables ``unknown`` and ``unknown_face``, seen through one connection."""

    def __init__(self, file: DatabaseFile, connection: sqlite3.Connection) -> None:
        self._file, self._connection = file, connection
        # What happens in one transaction happens at one moment.
        self._moment = _time()

    def exists(self, number: int) -> bool:
        """Whether there is a group of this number."""
        found = self._connection.execute("SELECT 1 FROM unknown WHERE number = ?", [number])
        return found.fetchone() is not None

    def means(self) -> Means:
        """The mean of each group."""
        found = self._connection.execute("SELECT number, mean FROM unknown").fetchall()
        content = b"".join(self._file.content(mean) for _, mean in found)
        rows = np.frombuffer(content, np.float32).reshape(len(found), -1) if found else None
        return Means(tuple(number for number, _ in found), rows)

    def begin(self) -> int:
        """Begin a group; a face has to follow."""
        moment, nothing = self._moment, self._file.sealed(b"")
        number = self._connection.execute(
            "INSERT INTO unknown (seen, first_seen, last_seen, expires_at, mean) "
            "VALUES (0, ?, ?, ?, ?)",
            [moment, moment, moment, nothing],
        ).lastrowid
        assert number is not None
        return number

    def add(
        self,
        number: int,
        sights: Sequence[Sight],
        keep_days: float,
        *,
        appearances: int = 0,
        faces_in_photos: int = 0,
    ) -> tuple[int, ...]:
        """Add faces to a group, and keep the best; returns the numbers of the new ones.

        Args:
            number: The group.
            sights: The faces.
            keep_days: How long the group is kept from now on, at least.
            appearances: How many appearances these are.
            faces_in_photos: How many faces of a folder are the person's; a folder that is sorted
                again does not count twice.
        """
        sealed, moment = self._file.sealed, self._moment
        new = []
        for sight in sights:
            details, digest = sight.details, self._file.blind(sight.digest)
            box = details.box_numbers
            same = "SELECT 1 FROM unknown_face WHERE number = ? AND digest = ?"
            if digest and self._connection.execute(same, [number, digest]).fetchone():
                continue
            content = np.asarray(sight.embedding, np.float32).tobytes()
            source, crop = sealed(details.source_text), sealed(details.crop)
            found = (digest, source, sight.detector, details.quality, *box)
            new.append(self._insert([number, sealed(content), *found, moment, crop]))
        self._connection.execute(
            "UPDATE unknown SET last_seen = ?, expires_at = MAX(expires_at, ?), "
            "seen = MAX(seen + ?, ?) WHERE number = ?",
            [moment, _time(keep_days), appearances, faces_in_photos, number],
        )
        self._settle(number)
        return tuple(new)

    def _insert(self, row: Sequence[Any]) -> int:
        """Insert a face."""
        face = self._connection.execute(
            "INSERT INTO unknown_face (number, embedding, digest, source, detector, quality, "
            "x, y, width, height, seen_at, jpeg) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row,
        ).lastrowid
        assert face is not None
        return face

    def _settle(self, number: int) -> None:
        """Keep the best faces of a group, and their mean; without a face it goes."""
        best = self._connection.execute(
            "SELECT id, embedding FROM unknown_face WHERE number = ? "
            "ORDER BY quality DESC NULLS LAST, id",
            [number],
        ).fetchall()
        self._connection.executemany(
            "DELETE FROM unknown_face WHERE id = ?", ([face] for face, _ in best[MAX_FACES:])
        )
        if not best:
            self.delete([number])
            return
        content = [self._file.content(embedding) for _, embedding in best[:MAX_FACES]]
        mean = np.mean([unit_length(np.frombuffer(each, np.float32)) for each in content], axis=0)
        self._connection.execute(
            "UPDATE unknown SET mean = ? WHERE number = ?",
            [self._file.sealed(mean.astype(np.float32).tobytes()), number],
        )

    def withdraw(self, number: int, faces: Sequence[int]) -> None:
        """Delete faces of a group, as if their appearance had not been."""
        self._connection.executemany(
            "DELETE FROM unknown_face WHERE number = ? AND id = ?",
            ((number, face) for face in faces),
        )
        self._connection.execute(
            "UPDATE unknown SET seen = MAX(seen - 1, 1) WHERE number = ?", [number]
        )
        self._settle(number)

    def merge(self, number: int, into: int) -> None:
        """Give the faces of a group to another; the group goes."""
        self._connection.execute(
            "UPDATE unknown_face SET number = ? WHERE number = ?", [into, number]
        )
        self._connection.execute(
            "UPDATE unknown AS stays SET seen = stays.seen + goes.seen, "
            "first_seen = MIN(stays.first_seen, goes.first_seen), "
            "last_seen = MAX(stays.last_seen, goes.last_seen), "
            "expires_at = MAX(stays.expires_at, goes.expires_at) "
            "FROM unknown AS goes WHERE stays.number = ? AND goes.number = ?",
            [into, number],
        )
        self.delete([number])
        self._settle(into)

    def enrol(self, number: int, person: int, author: str) -> list[int]:
        """Make a group's faces photos of a person; returns their numbers, and the group goes."""
        photos = []
        for face, *columns in self._connection.execute(
            "SELECT id, embedding, digest, source, detector, quality, x, y, width, height "
            "FROM unknown_face WHERE number = ? ORDER BY id",
            [number],
        ).fetchall():
            # Sealed as the columns of a photo are.
            photo = self._connection.execute(
                "INSERT INTO photo (person, embedding, digest, source, detector, quality, "
                "x, y, width, height, enrolled_at, enrolled_by) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [person, *columns, self._moment, author],
            ).lastrowid
            assert photo is not None
            self._connection.execute(
                "INSERT INTO crop SELECT ?, jpeg FROM unknown_face WHERE id = ?", [photo, face]
            )
            photos.append(photo)
        self.delete([number])
        return photos

    def undo_naming(self, number: int, taken: TakenRows) -> None:
        """Undo ``enrol``, with the rows of the photos that were taken out again.

        Without rows the undoing is undone in its turn, and the group goes again.
        """
        if not taken[0]:
            self.delete([number])
            return
        photos = taken[0]
        crops: dict[int, Any] = dict(taken[1])
        moment, expires = self._moment, _time(KEEP_DAYS)
        first = min(row[-2] for row in photos)
        self._connection.execute(
            "INSERT INTO unknown VALUES (?, ?, ?, ?, ?, ?)",
            [number, len(photos), first, moment, expires, self._file.sealed(b"")],
        )
        for photo, _, *columns, enrolled_at, _ in photos:
            self._insert([number, *columns, enrolled_at, crops[photo]])
        self._settle(number)

    def delete(self, numbers: Sequence[int]) -> None:
        """Delete groups with their faces."""
        self._connection.executemany(
            "DELETE FROM unknown WHERE number = ?", ([number] for number in numbers)
        )

    def purge(self) -> None:
        """Delete the groups whose time is over."""
        self._connection.execute("DELETE FROM unknown WHERE expires_at <= ?", [self._moment])

    def drop_most(self, count: int) -> None:
        """Delete all groups but those seen last."""
        self._connection.execute(
            "DELETE FROM unknown WHERE number IN "
            "(SELECT number FROM unknown ORDER BY last_seen DESC, number DESC LIMIT -1 OFFSET ?)",
            [count],
        )

    def groups(self, start: int, count: int | None) -> tuple[list[UnknownGroup], int]:
        """See ``UnknownPeople.groups``."""
        moment = self._moment
        found = self._connection.execute(
            "SELECT number, seen, first_seen, last_seen, expires_at FROM unknown "
            "WHERE expires_at > ? ORDER BY last_seen DESC, seen DESC, number LIMIT ? OFFSET ?",
            [moment, -1 if count is None else count, start],
        ).fetchall()
        (total,) = self._connection.execute(
            "SELECT COUNT(*) FROM unknown WHERE expires_at > ?", [moment]
        ).fetchone()
        groups = []
        for number, seen, first_seen, last_seen, expires_at in found:
            faces = self._connection.execute(
                "SELECT id, quality, source, seen_at FROM unknown_face WHERE number = ? "
                "ORDER BY quality DESC NULLS LAST, id",
                [number],
            )
            kept = [
                UnknownFace(face, quality, self._file.text(source), seen_at)
                for face, quality, source, seen_at in faces
            ]
            groups.append(
                UnknownGroup(number, seen, first_seen, last_seen, expires_at, tuple(kept))
            )
        return groups, total


def purge_unknown(file: DatabaseFile) -> None:
    """Delete the groups whose time is over.

    Raises:
        GalleryError: The file cannot be written to.
    """
    if not (file.holds_unknown and file.can_write):
        return
    with file.reading() as reader:
        is_due = reader.execute("SELECT 1 FROM unknown WHERE expires_at <= ?", [_time()]).fetchone()
    if is_due:
        with file.transaction() as connection:
            UnknownRows(file, connection).purge()
        file.empty_log()


def _time(days: float = 0.0) -> str:
    """This moment in UTC, ISO 8601, or that in some days."""
    moment = datetime.now(timezone.utc) + timedelta(days=days)
    return moment.isoformat(timespec="milliseconds")


def _no_group(number: int) -> NotEnrolledError:
    """The error where a group is not there."""
    return NotEnrolledError(
        f"there is no {unknown_id(number)}: named, merged, dismissed, or its time is over"
    )
