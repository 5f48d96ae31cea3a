"""The people and photos of a gallery database as rows, read and changed within a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

from face_encode.errors import GalleryError, NotEnrolledError
from face_encode.gallery.audit import Change, ThresholdChange
from face_encode.gallery.base import (
    EncoderIdentity,
    PhotoDetails,
    Replaces,
    check_name,
    folded_name,
    shown_form,
)
from face_encode.gallery.database_file import DatabaseFile, marks, now, parts
from face_encode.gallery.thresholds import Calibration
from face_encode.types import Box

TakenRows: TypeAlias = tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]
"""Rows of the tables ``photo`` and ``crop`` that a change has deleted."""

# Photos that are remembered when they are deleted, to undo that.
MAX_REMEMBERED = 10_000
_PHOTO_COLUMNS = 13
# Their crops are in memory at once: some 20 kB each.
_INSERTED_TOGETHER = 1000


class PersonRow(NamedTuple):
    """A person: number, shown name, note, and threshold where it is the person's own."""

    number: int
    name: str
    note: str
    threshold: float | None


@dataclass(frozen=True)
class EnrolledPhoto:
    """A photo in a gallery database.

    Attributes:
        id: Its number, which no other photo ever gets.
        name: The person.
        source: The name of its file, empty where unknown.
        quality: 0..1, or None where it was not measured.
        box: The face in it, or None where unknown.
        digest: SHA-256 of its content; empty where unknown, or the gallery is encrypted.
        enrolled_at: When, in UTC, ISO 8601.
        enrolled_by: The author of the change.
        has_crop: Whether a crop of it is kept.
    """

    id: int
    name: str
    source: str
    quality: float | None
    box: Box | None
    digest: str
    enrolled_at: str
    enrolled_by: str
    has_crop: bool

    def as_dict(self) -> dict[str, Any]:
        """The photo as plain JSON values."""
        return {**asdict(self), "box": None if self.box is None else self.box.as_dict()}


@dataclass(frozen=True)
class EnrolledPerson:
    """A person in a gallery database.

    Attributes:
        name: The name.
        photos: How many photos of that person are enrolled.
        note: What is noted about that person.
        crop: The photo whose crop is that person's picture: the one chosen, else the first of which
            a crop is kept, or None.
        threshold: The similarity from which a face is that person's; None where the model's
            threshold holds.
    """

    name: str
    photos: int
    note: str
    crop: int | None
    threshold: float | None


class PeopleRows:
    """The tables ``person``, ``photo`` and ``crop``, seen through one connection."""

    def __init__(self, file: DatabaseFile, connection: sqlite3.Connection) -> None:
        self._file, self.connection = file, connection

    def found(self, name: str) -> PersonRow | None:
        """The person of a name, in whatever case, spacing and Unicode form; or None."""
        row = self.connection.execute(
            "SELECT id, name, note, threshold FROM person WHERE folded = ?", [self._folded(name)]
        ).fetchone()
        if row is None:
            return None
        return PersonRow(row[0], self._file.text(row[1]), self._file.text(row[2]), row[3])

    def person(self, name: str) -> PersonRow:
        """The person of a name.

        Raises:
            NotEnrolledError: Nobody of that name is enrolled.
        """
        found = self.found(name)
        if found is None:
            raise NotEnrolledError(f"nobody named {name!r} is enrolled")
        return found

    def described_person(self, name: str) -> EnrolledPerson:
        """Describe the person of a name.

        Raises:
            NotEnrolledError: Nobody of that name is enrolled.
        """
        person = self.person(name)
        counted = (folded_name(name), person.name, len(self.photos_of(person)))
        return self.described([counted])[0]

    def described(self, people: Sequence[tuple[str, str, int]]) -> list[EnrolledPerson]:
        """Describe people, given folded name, name and number of photos of each."""
        more: dict[str | bytes, tuple[str, int | None, float | None]] = {}
        blind = [self._file.blind(folded) for folded, _, _ in people]
        for part in parts(blind):
            for key, note, crop, threshold in self.connection.execute(
                "SELECT folded, note, COALESCE("
                "(SELECT crop.photo FROM crop JOIN photo ON photo.id = crop.photo "
                "WHERE crop.photo = person.picture AND photo.person = person.id), "
                "(SELECT MIN(photo) FROM crop WHERE photo IN "
                "(SELECT id FROM photo WHERE photo.person = person.id))), threshold "
                f"FROM person WHERE folded IN ({marks(part)})",
                part,
            ):
                more[key] = self._file.text(note), crop, threshold
        return [
            EnrolledPerson(name, count, *more.get(key, ("", None, None)))
            for key, (_, name, count) in zip(blind, people, strict=True)
        ]

    def embeddings_by(
        self,
        detector: str,
        digests: Sequence[str],
        with_crops: bool,
        least_quality: float | None,
    ) -> dict[str, bytes]:
        """Content digest -> embedding, of the photos in which this detector found the face.

        ``with_crops`` leaves out those of which no crop is kept, and ``least_quality`` those of
        which no such quality is.
        """
        only = "AND id IN (SELECT photo FROM crop)" if with_crops else ""
        only += "" if least_quality is None else " AND quality >= ?"
        bounds = [] if least_quality is None else [least_quality]
        found: dict[str, bytes] = {}
        for part in parts([digest for digest in digests if digest]):
            blind = {self._file.blind(digest): digest for digest in part}
            for digest, embedding in self.connection.execute(
                "SELECT digest, embedding FROM photo "
                f"WHERE detector = ? AND digest IN ({marks(part)}) {only}",
                [detector, *blind, *bounds],
            ):
                found[blind[digest]] = self._file.content(embedding)
        return found

    def digests(self) -> list[str]:
        """The known content digests; none of an encrypted gallery, where they cannot be read."""
        if self._file.is_encrypted:
            return []
        return [
            digest for (digest,) in self.connection.execute("SELECT DISTINCT digest FROM photo")
        ]

    def names_of_digests(self, digests: Sequence[str]) -> dict[str, list[str]]:
        """Content digest -> the people that it is enrolled for."""
        names: dict[str, list[str]] = {}
        for part in parts(digests):
            blind = {self._file.blind(digest): digest for digest in part}
            for digest, name in self.connection.execute(
                "SELECT DISTINCT digest, name FROM photo JOIN person ON person.id = person "
                f"WHERE digest IN ({marks(part)})",
                list(blind),
            ):
                names.setdefault(blind[digest], []).append(self._file.text(name))
        return names

    def people_of(self, names: Iterable[str]) -> dict[str, PersonRow]:
        """The person of each name; those who are not there yet are added.

        Raises:
            InputError: One is not a person's name.
        """
        people = {}
        for name in dict.fromkeys(names):
            people[name] = self.found(name) or self._new(name)
        return people

    def _new(self, name: str) -> PersonRow:
        """Add a person."""
        shown, sealed = shown_form(name), self._file.sealed
        number = self.connection.execute(
            "INSERT INTO person (name, folded, note) VALUES (?, ?, ?)",
            [sealed(shown), self._folded(name), sealed("")],
        ).lastrowid
        assert number is not None
        return PersonRow(number, shown, "", None)

    def rename(self, person: PersonRow, new_name: str) -> str:
        """Rename a person; returns the new name as it is shown.

        Raises:
            InputError: The new name is not a person's name.
            GalleryError: Somebody else has it.
        """
        shown = shown_form(new_name)
        taken = self.found(new_name)
        if taken is not None and taken.number != person.number:
            raise GalleryError(
                f"somebody named {taken.name!r} is enrolled already; merge the two if they are one "
                "person"
            )
        self.connection.execute(
            "UPDATE person SET name = ?, folded = ? WHERE id = ?",
            [self._file.sealed(shown), self._folded(new_name), person.number],
        )
        return shown

    def set_note(self, person: PersonRow, note: str) -> None:
        """Replace a person's note."""
        self.connection.execute(
            "UPDATE person SET note = ? WHERE id = ?", [self._file.sealed(note), person.number]
        )

    def set_picture(self, photo: int, *, replaces: bool = True) -> bool:
        """Show a photo's crop as the person's picture; False where no crop of it is kept.

        Without ``replaces``, a picture that the person has stays.
        """
        kept = self.connection.execute("SELECT 1 FROM crop WHERE photo = ?", [photo]).fetchone()
        if kept is not None:
            self.connection.execute(
                "UPDATE person SET picture = ?1 "
                "WHERE id = (SELECT person FROM photo WHERE id = ?1) AND (?2 OR picture IS NULL)",
                [photo, replaces],
            )
        return kept is not None

    def set_threshold(self, person: PersonRow, threshold: float | None) -> ThresholdChange | None:
        """Replace a person's own threshold; returns None where it was the same before."""
        if person.threshold == threshold:
            return None
        self.connection.execute(
            "UPDATE person SET threshold = ? WHERE id = ?", [threshold, person.number]
        )
        return ThresholdChange(person.name, person.threshold, threshold)

    def set_calibration(self, calibration: Calibration | None) -> None:
        """Replace the calibration."""
        self.connection.execute("DELETE FROM gallery WHERE key = 'calibration'")
        if calibration is not None:
            self.connection.execute(
                "INSERT INTO gallery VALUES ('calibration', ?)", [calibration.to_json()]
            )

    def thresholds(self) -> dict[int, float]:
        """The number of each person who has a threshold of the person's own, and the threshold."""
        return dict(
            self.connection.execute(
                "SELECT id, threshold FROM person WHERE threshold IS NOT NULL"
            ).fetchall()
        )

    def drop_empty(self) -> list[tuple[PersonRow, int | None]]:
        """Remove people without photos; returns each with the photo chosen as the picture."""
        empty = "FROM person WHERE id NOT IN (SELECT person FROM photo)"
        found = self.connection.execute(
            f"SELECT id, name, note, threshold, picture {empty}"
        ).fetchall()
        self.connection.execute(f"DELETE {empty}")
        text = self._file.text
        return [
            (PersonRow(number, text(name), text(note), threshold), picture)
            for number, name, note, threshold, picture in found
        ]

    def last_photo(self) -> int:
        """The highest number that a photo ever had."""
        row = self.connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'photo'"
        ).fetchone()
        return 0 if row is None else int(row[0])

    def photos_of(self, person: PersonRow) -> list[int]:
        """The photos of a person, ascending."""
        found = self.connection.execute(
            "SELECT id FROM photo WHERE person = ? ORDER BY id", [person.number]
        )
        return [photo for (photo,) in found]

    def photos(self, person: PersonRow | None) -> list[EnrolledPhoto]:
        """The photos of a person, or of everybody, in the order of enrolment."""
        found = self.connection.execute(
            "SELECT photo.id, name, source, quality, x, y, width, height, digest, enrolled_at, "
            "enrolled_by, crop.photo IS NOT NULL FROM photo JOIN person ON person.id = person "
            f"LEFT JOIN crop ON crop.photo = photo.id {'WHERE person = ?' if person else ''} "
            "ORDER BY photo.id",
            [person.number] if person else [],
        )
        return [
            EnrolledPhoto(
                photo,
                self._file.text(name),
                self._file.text(source),
                quality,
                None if box[0] is None else Box(*box),
                digest if isinstance(digest, str) else "",
                time,
                author,
                bool(has_crop),
            )
            for photo, name, source, quality, *box, digest, time, author, has_crop in found
        ]

    def embeddings_of(self, photos: Sequence[int]) -> list[bytes]:
        """The embedding of each of some photos.

        Raises:
            NotEnrolledError: There is no photo of one of these numbers.
        """
        found: dict[int, bytes] = {}
        for part in parts(photos):
            for photo, embedding in self.connection.execute(
                f"SELECT id, embedding FROM photo WHERE id IN ({marks(part)})", part
            ):
                found[photo] = self._file.content(embedding)
        try:
            return [found[photo] for photo in photos]
        except KeyError as error:
            raise NotEnrolledError(f"no such photo in the gallery. Received: {error}") from error

    def names_of(self, photos: Sequence[int]) -> dict[str, list[int]]:
        """Name -> those of some photos that are the person's; what is not there is left out."""
        names: dict[str, list[int]] = {}
        for part in parts(photos):
            for name, photo in self.connection.execute(
                "SELECT name, photo.id FROM photo JOIN person ON person.id = person "
                f"WHERE photo.id IN ({marks(part)}) ORDER BY photo.id",
                part,
            ):
                names.setdefault(self._file.text(name), []).append(photo)
        return names

    def owners_of(self, photos: Sequence[int]) -> dict[str, list[int]]:
        """Name -> those of some photos that are the person's.

        Raises:
            NotEnrolledError: There is no photo of one of these numbers, or no number.
        """
        names = self.names_of(photos)
        missing = set(photos) - {photo for each in names.values() for photo in each}
        if missing or not photos:
            numbers = ", ".join(map(str, sorted(missing))) or "none"
            raise NotEnrolledError(f"no such photo in the gallery. Received: {numbers}")
        return names

    def former(
        self, replaces: Replaces, owners: set[int], mark: int
    ) -> dict[tuple[int, str | bytes, str], list[tuple[int, bytes]]]:
        """The photos that new ones replace.

        Args:
            replaces: See ``Replaces``.
            owners: The people of the new photos.
            mark: The last photo that is replaced.

        Returns:
            (person, digest, detector) -> photos, each with its embedding.
        """
        former: dict[tuple[int, str | bytes, str], list[tuple[int, bytes]]] = {}
        wheres: list[tuple[str, Sequence[int]]] = []
        if replaces == "all":
            wheres = [("", ())]
        elif replaces == "same people":
            wheres = [(f"AND person IN ({marks(part)})", part) for part in parts(sorted(owners))]
        for where, values in wheres:
            for photo, owner, digest, detector, embedding in self.connection.execute(
                "SELECT id, person, digest, detector, embedding FROM photo "
                f"WHERE id <= ? {where} ORDER BY id",
                [mark, *values],
            ):
                content = self._file.content(embedding)
                former.setdefault((owner, digest, detector), []).append((photo, content))
        return former

    def insert(
        self,
        photos: Iterable[tuple[int, int, bytes, str | bytes, PhotoDetails]],
        detector_name: str,
        author: str,
    ) -> None:
        """Add photos: number, person, embedding, digest and details of each.

        What their details lack is taken from photos of the same face that are enrolled already.
        """
        sealed, time, waiting = self._file.sealed, now(), iter(photos)
        while part := list(islice(waiting, _INSERTED_TOGETHER)):
            known = self._known_details(detector_name, [digest for *_, digest, _ in part])
            rows, crops = [], []
            for photo, owner, embedding, digest, own in part:
                details = _filled_up(own, known.get((digest, embedding)))
                crops.append((photo, details.crop))
                rows.append(
                    (
                        photo,
                        owner,
                        sealed(embedding),
                        digest,
                        sealed(details.source_text),
                        detector_name,
                        details.quality,
                        *details.box_numbers,
                        time,
                        author,
                    )
                )
            self.connection.executemany(
                f"INSERT INTO photo VALUES ({marks(range(_PHOTO_COLUMNS))})", rows
            )
            self._add_crops(crops)

    def _known_details(
        self, detector: str, digests: Sequence[str | bytes]
    ) -> dict[tuple[str | bytes, bytes], PhotoDetails]:
        """Digest and embedding of photos -> quality, box and crop, as far as they are known."""
        digests = [digest for digest in digests if digest]
        known: dict[tuple[str | bytes, bytes], PhotoDetails] = {}
        for digest, sealed_embedding, quality, *box, sealed_crop in self.connection.execute(
            "SELECT digest, embedding, quality, x, y, width, height, jpeg FROM photo "
            "LEFT JOIN crop ON crop.photo = photo.id "
            f"WHERE detector = ? AND digest IN ({marks(digests)})",
            [detector, *digests],
        ):
            face = digest, self._file.content(sealed_embedding)
            crop = b"" if sealed_crop is None else self._file.content(sealed_crop)
            details = PhotoDetails("", None if box[0] is None else Box(*box), quality, crop)
            known[face] = _filled_up(details, known.get(face))
        return known

    def complete(self, photos: Iterable[tuple[int, PhotoDetails]]) -> None:
        """Keep quality, box and crop of photos that have none, and where their files are now."""
        photos = list(photos)
        self.connection.executemany(
            "UPDATE photo SET quality = ? WHERE id = ? AND quality IS NULL",
            ((details.quality, photo) for photo, details in photos if details.quality is not None),
        )
        self.connection.executemany(
            "UPDATE photo SET x = ?, y = ?, width = ?, height = ? WHERE id = ? AND x IS NULL",
            ((*details.box_numbers, photo) for photo, details in photos if details.box is not None),
        )
        sources: dict[int, str] = {}
        for part in parts([photo for photo, _ in photos]):
            for photo, source in self.connection.execute(
                f"SELECT id, source FROM photo WHERE id IN ({marks(part)})", part
            ):
                sources[photo] = self._file.text(source)
        self.connection.executemany(
            "UPDATE photo SET source = ? WHERE id = ?",
            (
                (self._file.sealed(details.source_text), photo)
                for photo, details in photos
                if details.source_text not in ("", sources[photo])
            ),
        )
        self._add_crops((photo, details.crop) for photo, details in photos)

    def _add_crops(self, crops: Iterable[tuple[int, bytes]]) -> None:
        """Keep crops of photos that have none; an empty one is none."""
        self.connection.executemany(
            "INSERT OR IGNORE INTO crop VALUES (?, ?)",
            ((photo, self._file.sealed(crop)) for photo, crop in crops if crop),
        )

    def move(self, owners: Iterable[tuple[int, int]]) -> None:
        """Give photos to people: pairs of a photo and a person."""
        self.connection.executemany(
            "UPDATE photo SET person = ? WHERE id = ?", ((owner, photo) for photo, owner in owners)
        )

    def take(self, photos: Sequence[int]) -> TakenRows:
        """Delete photos, and return their rows; of very many none."""
        rows: list[tuple[Any, ...]] = []
        crops: list[tuple[Any, ...]] = []
        for part in parts(photos):
            where = f"({marks(part)})"
            if len(photos) <= MAX_REMEMBERED:
                rows += self.connection.execute(f"SELECT * FROM photo WHERE id IN {where}", part)
                crops += self.connection.execute(f"SELECT * FROM crop WHERE photo IN {where}", part)
            self.connection.execute(f"DELETE FROM photo WHERE id IN {where}", part)
        return rows, crops

    def put_back(self, taken: TakenRows, owner_of: dict[int, int]) -> None:
        """Undo ``take``, with the person of each photo."""
        rows, crops = taken
        self.connection.executemany(
            f"INSERT INTO photo VALUES ({marks(range(_PHOTO_COLUMNS))})",
            ((row[0], owner_of[row[0]], *row[2:]) for row in rows),
        )
        self.connection.executemany("INSERT INTO crop VALUES (?, ?)", crops)

    def reembed(
        self,
        encoder: EncoderIdentity,
        photos: Iterable[tuple[int, bytes, float | None]],
    ) -> None:
        """Give photos another encoder's embeddings: number, embedding and quality of each.

        What else the former encoder has left goes: the calibration, the rows of interrupted runs,
        and the people without a name.
        """
        self.connection.executemany(
            "UPDATE photo SET embedding = ?, quality = ? WHERE id = ?",
            (
                (self._file.sealed(embedding), quality, photo)
                for photo, embedding, quality in photos
            ),
        )
        self.set_calibration(None)
        self.connection.execute("UPDATE person SET threshold = NULL")
        for table in ("staged", "unknown"):
            self.connection.execute(f"DELETE FROM {table}")
        self.connection.executemany(
            "INSERT OR REPLACE INTO gallery VALUES (?, ?)",
            [
                ("encoder_name", encoder.name),
                ("encoder_fingerprint", encoder.fingerprint),
                ("embedding_size", str(encoder.embedding_size)),
            ],
        )

    def counts(self) -> dict[str, int]:
        """Name -> number of photos, in the order of the first photos."""
        found = self.connection.execute(
            "SELECT name, COUNT(*) FROM photo JOIN person ON person.id = person GROUP BY person "
            "ORDER BY MIN(photo.id)"
        )
        return {self._file.text(name): count for name, count in found}

    def names(self) -> set[str]:
        """The names of everybody."""
        found = self.connection.execute("SELECT name FROM person")
        return {self._file.text(name) for (name,) in found}

    def _folded(self, name: str) -> str | bytes:
        """The form by which a name is looked up."""
        check_name(name)
        return self._file.blind(folded_name(name))


def _filled_up(details: PhotoDetails, known: PhotoDetails | None) -> PhotoDetails:
    """Details with what else is known of the same face where they lack it."""
    if known is None:
        return details
    return replace(
        details,
        box=known.box if details.box is None else details.box,
        quality=known.quality if details.quality is None else details.quality,
        crop=details.crop or known.crop,
    )


class Undone(NamedTuple):
    """What undoing a change did, as its own change tells it; see ``Change``.

    Attributes:
        taken: The rows that it deleted.
    """

    taken: TakenRows
    removed: dict[str, list[int]]
    added: dict[str, list[int]]
    renamed: tuple[str, str] | None
    threshold: ThresholdChange | None


def undo_rows(rows: PeopleRows, change: Change, taken: TakenRows) -> Undone:
    """Bring the rows back to what they were before a change.

    Args:
        rows: The tables, in a transaction.
        change: The change.
        taken: The rows that it deleted.

    Raises:
        GalleryError: Later changes concern the same photos, or these are not all the rows that the
            change deleted.
    """
    back = {photo: name for name, photos in change.removed.items() for photo in photos}
    gone = {photo: name for name, photos in change.added.items() for photo in photos}
    now = rows.names_of([*back.keys() | gone.keys()])
    if {photo: name for name, photos in now.items() for photo in photos} != gone:
        raise GalleryError(
            f"change {change.id} cannot be undone: its photos have changed since; undo the later "
            "changes first"
        )
    if {row[0] for row in taken[0]} != back.keys() - gone.keys():
        raise GalleryError(
            f"change {change.id} cannot be undone: the photos that it removed are gone; only the "
            "program that removed them keeps them, while it runs"
        )
    lost = {name: own for name, own in change.lost.items() if rows.found(name) is None}
    people = rows.people_of(change.removed)
    owner_of = {photo: people[name].number for photo, name in back.items()}
    rows.put_back(taken, owner_of)
    rows.move((photo, owner_of[photo]) for photo in gone if photo in back)
    undone = rows.take([photo for photo in gone if photo not in back])
    for name, own in lost.items():
        rows.set_threshold(people[name], own)
    threshold = None
    if change.threshold is not None:
        changed = rows.person(change.threshold.name)
        if changed.threshold != change.threshold.new:
            raise GalleryError(
                f"change {change.id} cannot be undone: the threshold of {changed.name!r} has "
                "changed since"
            )
        threshold = rows.set_threshold(changed, change.threshold.former)
    renamed = None
    if change.renamed is not None:
        former, name = change.renamed
        person = rows.found(name)
        if person is None or person.name != name:
            raise GalleryError(
                f"change {change.id} cannot be undone: nobody is named {name!r} any more"
            )
        renamed = name, rows.rename(person, former)
    # Two names of the change may be one person's by now, and be spelt otherwise.
    added: dict[str, list[int]] = {}
    for name, photos in change.removed.items():
        added.setdefault(people[name].name, []).extend(photos)
    return Undone(undone, now, added, renamed, threshold)
