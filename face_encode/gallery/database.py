"""The gallery in a database: one SQLite file that programs share, searched in memory.

A program reads all embeddings once. Before each search it asks SQLite whether somebody has changed
the file since, which takes microseconds, and then reads the photos that changed.
"""

from __future__ import annotations

import copy
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from face_encode.errors import GalleryError
from face_encode.files import TextArray, as_path, text_array
from face_encode.gallery.audit import Audit, Author, Change, former_names
from face_encode.gallery.base import (
    GALLERY_METRICS,
    EncoderIdentity,
    GalleryRows,
    Mark,
    PhotoDetails,
    Ranking,
    Replaces,
    StoredEncoder,
    check_cosine,
    check_encoder,
    check_new,
    folded_name,
)
from face_encode.gallery.database_file import DatabaseFile
from face_encode.gallery.distances import Metric, check_metric, distances, similarity_of
from face_encode.gallery.encryption import KEY_VARIABLE, Cipher, cipher_from_environment
from face_encode.gallery.people_rows import (
    MAX_REMEMBERED,
    EnrolledPerson,
    EnrolledPhoto,
    PeopleRows,
    TakenRows,
    undo_rows,
)
from face_encode.gallery.search import check_search, search_enrolled
from face_encode.gallery.snapshot import Memory, Precision, Snapshot, check_unchanged
from face_encode.gallery.staging import Staging
from face_encode.gallery.thresholds import Calibration, check_threshold
from face_encode.gallery.unknown import UnknownPeople, UnknownRows, purge_unknown
from face_encode.types import Embeddings, Match

# Changes of which notes and pictures are remembered.
_MAX_KNOWN = 1_000


class DatabaseGallery:
    """The people in a gallery database.

    Any number of programs may have the file open, and any number of threads may use one gallery.
    Each change is in the file, whole, when its method returns.

    Attributes:
        is_shared: True: other programs may change the gallery at any time.
        metric: The metric of a search, one of ``GALLERY_METRICS``.
        precision: How embeddings are kept in memory; in the file they are float32.
        encoder: The encoder that fills the gallery, as far as it was given.
        encoder_name: Its name.
        encoder_fingerprint: Its fingerprint.
        author: Who asks for the changes that are made through this object.
        last_change: The number of the last change that was made through this object; None where
            there was none, it changed nothing, or forgot somebody.
    """

    is_shared = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        encoder: EncoderIdentity | None = None,
        *,
        create: bool = True,
        metric: Metric | None = "cosine",
        int8: bool = False,
        cipher: Cipher | None = None,
        author: Author | None = None,
    ) -> None:
        """Open a gallery database, or create one.

        Args:
            path: The file.
            encoder: The encoder that fills it; None takes the one that filled it, by what the file
                says of it.
            create: Whether the file may be new; missing folders above it are then made.
            metric: The metric of a search; None takes the file's, or cosine for a new one.
            int8: Whether to keep the embeddings in memory at one byte a number; a file opened so
                stays so.
            cipher: Encrypts what tells of people. None takes the keys in the environment, see
                ``gallery.encryption``; without any the file is plain.
            author: Who asks for changes, for the audit; None for this package.

        Raises:
            GalleryError: The file is missing, damaged, of another metric or release, or cannot be
                read, written or decrypted.
            WrongEncoderError: Another encoder filled it.
            InputError: The metric is unknown, or needs what int8 does not keep.
        """
        cipher = cipher_from_environment() if cipher is None else cipher
        self._file = DatabaseFile(as_path(path), cipher, create=create and encoder is not None)
        # Change -> the rows that it removed, to undo that.
        self._removed: dict[int, TakenRows] = {}
        # Change -> name -> note before and after it, and the pictures of the people who went.
        self._known: dict[int, tuple[dict[str, tuple[str, str]], list[int]]] = {}
        self.author = author or Author("face_encode")
        self.last_change: int | None = None
        try:
            # Whoever opens the file does this; where another program is changing it, the next one.
            with suppress(GalleryError):
                purge_unknown(self._file)
            self._settle(encoder, metric, int8)
        except BaseException:
            self._file.close()
            raise
        self._memory = Memory(self._file, self.encoder, self.precision, self.metric)

    def _settle(self, encoder: EncoderIdentity | None, metric: Metric | None, int8: bool) -> None:
        """Compare encoder and metric with those of the file; of an empty one, write them."""
        with self._file.reading() as reader:
            stored, new = self._settings(reader, encoder, metric, int8)
        if new != stored and not self._file.is_read_only:
            with self._file.transaction() as connection:
                # Another program may have filled it meanwhile.
                stored, new = self._settings(connection, encoder, metric, int8)
                if new["encoder_fingerprint"] != stored.get("encoder_fingerprint"):
                    PeopleRows(self._file, connection).set_calibration(None)
                connection.executemany(
                    "INSERT OR REPLACE INTO gallery VALUES (?, ?)", list(new.items())
                )
        if self._file.cipher is not None and not self._file.is_encrypted:
            self._file.rekey(self._file.cipher)

    def _settings(
        self,
        connection: sqlite3.Connection,
        encoder: EncoderIdentity | None,
        metric: Metric | None,
        int8: bool,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings that the file has, and those that it gets; the latter are this object's."""
        label = self._file.label
        kept = "key NOT IN ('blind_key', 'calibration')"
        stored = dict(connection.execute(f"SELECT key, value FROM gallery WHERE {kept}"))
        filled = ["photo", *(["unknown"] if self._file.holds_unknown else [])]
        is_empty = not any(
            connection.execute(f"SELECT 1 FROM {each}").fetchone() for each in filled
        )
        if encoder is None:
            if "encoder_name" not in stored:
                raise GalleryError(f"nobody is enrolled yet: {label} is empty")
            encoder = StoredEncoder(
                stored["encoder_name"],
                stored["encoder_fingerprint"],
                int(stored["embedding_size"]),
            )
        own = {
            "encoder_name": encoder.name,
            "encoder_fingerprint": encoder.fingerprint,
            "embedding_size": str(encoder.embedding_size),
            "metric": check_metric(metric or stored.get("metric", "cosine"), GALLERY_METRICS),
            "precision": stored.get("precision", "float32"),
        }
        new = {**stored, **own} if is_empty else dict(stored)
        if int8:
            new["precision"] = "int8"
        check_encoder(label, new["encoder_name"], new["encoder_fingerprint"], encoder)
        self.encoder, self._size = encoder, encoder.embedding_size
        self.encoder_name, self.encoder_fingerprint = encoder.name, encoder.fingerprint
        self.metric: Metric = check_metric(new["metric"], GALLERY_METRICS)
        if metric not in (None, self.metric):
            raise GalleryError(
                f"{label} is searched by the metric {self.metric!r}, here it is {metric!r}: "
                "open it with face_encode.ReferenceEmbeddings.load"
            )
        self.precision: Precision = "int8" if new["precision"] == "int8" else "float32"
        if self.precision == "int8":
            check_cosine(self.metric, "int8 keeps")
        return stored, new

    def signed(self, author: Author) -> DatabaseGallery:
        """The same open gallery, whose changes are this author's."""
        signed = copy.copy(self)
        signed.author, signed.last_change = author, None
        return signed

    def __repr__(self) -> str:
        return f"DatabaseGallery({self._file.label!r}, {len(self)} photos)"

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def is_encrypted(self) -> bool:
        """Whether what tells of people is encrypted in the file."""
        return self._file.is_encrypted

    @property
    def unknown(self) -> UnknownPeople:
        """The people without a name, whom cameras have seen or photos show."""
        return UnknownPeople(self._file, self.encoder, self._changing, self.author)

    def close(self) -> None:
        """Close the file; every change is in it already."""
        self._file.close()

    # Reading

    def snapshot(self) -> Snapshot:
        """The content of the file as it is now, as a search takes it."""
        return self._memory.fresh()

    def build_index(self, *, approximate: bool = False, progress: bool = True) -> None:
        """Make searches of many people faster; see docs/search.md.

        Args:
            approximate: False makes int8 codes, which every search of this file then goes through
                first: the answers are the same, in a fraction of the time, and the codes follow
                each change. True divides the embeddings into cells, for tens of millions: a search
                through ``open_gallery(…, approximate=True)`` may miss the nearest, and from the
                next change on compares with everybody.
            progress: Whether to show a progress bar.

        Raises:
            InputError: The gallery's metric is Euclidean distance, which needs lengths.
            GalleryError: Nobody is enrolled yet, or the index, which lies beside the file except
                where that is encrypted, cannot be saved.
            MissingExtraError: The index is approximate, and ``faiss`` is not installed.
        """
        check_cosine(self.metric, "an index holds")
        self._memory.index(approximate=approximate, progress=progress)

    @property
    def calibration(self) -> Calibration | None:
        """The result of ``face-encode calibrate`` for this encoder, or None."""
        return self.snapshot().calibration

    @calibration.setter
    def calibration(self, value: Calibration | None) -> None:
        with self._file.transaction() as connection:
            check_unchanged(connection, self._file, self.encoder)
            PeopleRows(self._file, connection).set_calibration(value)

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Name -> threshold of the people who have one of their own."""
        return self.snapshot().thresholds

    @property
    def detector_name(self) -> str:
        """The detector that found all the faces, empty where unknown or several."""
        with self._file.reading() as reader:
            found = reader.execute("SELECT DISTINCT detector FROM photo LIMIT 2").fetchall()
        return str(found[0][0]) if len(found) == 1 else ""

    @property
    def embeddings(self) -> Embeddings:
        """float32 ``(n, D)``, in the order of enrolment; of length 1 from int8."""
        return self.snapshot().enrolled.embeddings

    @property
    def names(self) -> TextArray:
        """The person of each embedding, str array of n."""
        return self.snapshot().enrolled.names

    def __len__(self) -> int:
        return len(self.snapshot().ids)

    def search(
        self, embeddings: Embeddings, k: int = 1, ranking: Ranking = "best"
    ) -> list[list[Match]]:
        """Find the nearest people; see ``Gallery.search``."""
        snapshot = self.snapshot()
        enrolled = snapshot.enrolled
        probes, k, ranking = check_search(embeddings, self._size, k, ranking)
        if not len(enrolled):
            return [[] for _ in probes]
        return search_enrolled(enrolled, probes, k, ranking, self.metric, snapshot.index)

    def people(self) -> dict[str, int]:
        """Name -> number of embeddings, in the order of enrolment."""
        with self._file.reading() as reader:
            return PeopleRows(self._file, reader).counts()

    def find_name(self, name: str) -> str | None:
        """The name under which a person is enrolled; see ``Gallery.find_name``."""
        with self._file.reading() as reader:
            found = PeopleRows(self._file, reader).found(name)
        return None if found is None else found.name

    def rows(self) -> GalleryRows:
        """Everything that is enrolled at this moment; see ``Gallery.rows``."""
        snapshot = self.snapshot()
        stored: dict[int, str] = {}
        if not self._file.is_encrypted:
            with self._file.reading() as reader:
                stored = dict(reader.execute("SELECT id, digest FROM photo"))
        return GalleryRows(
            snapshot.enrolled.names,
            snapshot.enrolled.embeddings,
            text_array([stored.get(photo, "") for photo in snapshot.ids.tolist()]),
            self.detector_name,
            self.metric,
            snapshot.calibration,
            snapshot.thresholds,
        )

    def known_photos(
        self,
        detector_name: str,
        digests: Collection[str] | None = None,
        *,
        with_crops: bool = False,
        least_quality: float | None = None,
    ) -> Mapping[str, npt.NDArray[np.float32]]:
        """Content digest -> embedding; see ``Gallery.known_photos``.

        ``with_crops`` leaves out the photos of which no crop is kept, and ``least_quality`` those
        whose quality is lower or was not measured.
        """
        with self._file.reading() as reader:
            rows = PeopleRows(self._file, reader)
            digests = rows.digests() if digests is None else digests
            found = rows.embeddings_by(detector_name, sorted(digests), with_crops, least_quality)
        return {digest: np.frombuffer(content, np.float32) for digest, content in found.items()}

    def person(self, name: str) -> EnrolledPerson:
        """Describe a person.

        Raises:
            NotEnrolledError: Nobody of that name is enrolled.
        """
        with self._file.reading() as reader:
            return PeopleRows(self._file, reader).described_person(name)

    def find_people(
        self, search: str = "", start: int = 0, count: int | None = None
    ) -> tuple[list[EnrolledPerson], int]:
        """List people in the order of their names; and say how many there are in all.

        Args:
            search: Only those whose names hold this text, in whatever case and Unicode form.
            start: How many to skip.
            count: At most this many; None for all.
        """
        listed, wanted = self.snapshot().listed, folded_name(search)
        found = [person for person in listed if wanted in person[0]] if wanted else listed
        part = found[start : None if count is None else start + count]
        with self._file.reading() as reader:
            return PeopleRows(self._file, reader).described(part), len(found)

    def enrolled_as(self, digests: Collection[str]) -> dict[str, list[str]]:
        """Content digest of a photo -> the people under whose names it is enrolled."""
        with self._file.reading() as reader:
            return PeopleRows(self._file, reader).names_of_digests(sorted(set(digests) - {""}))

    def photos(self, name: str | None = None) -> list[EnrolledPhoto]:
        """The photos of a person, or of everybody, in the order of enrolment.

        Raises:
            GalleryError: Nobody of that name is enrolled.
        """
        with self._file.reading() as reader:
            rows = PeopleRows(self._file, reader)
            return rows.photos(None if name is None else rows.person(name))

    def embeddings_of(self, photos: Sequence[int]) -> Embeddings:
        """The embeddings of photos as the encoder gave them, float32 ``(n, D)``.

        Raises:
            GalleryError: There is no photo of one of these numbers.
        """
        with self._file.reading() as reader:
            found = PeopleRows(self._file, reader).embeddings_of(photos)
        return np.frombuffer(b"".join(found), np.float32).reshape(len(photos), self._size)

    def nearest_photo(
        self, name: str, embedding: npt.NDArray[np.float32]
    ) -> tuple[EnrolledPhoto, float]:
        """A person's photo that is nearest to an embedding, ``(D,)``, and the similarity.

        Raises:
            GalleryError: Nobody of that name is enrolled.
        """
        photos = self.photos(name)
        own = self.embeddings_of([photo.id for photo in photos])
        apart = distances(embedding[np.newaxis], own, self.metric)[0]
        best = int(apart.argmin())
        return photos[best], similarity_of(float(apart[best]), self.metric)

    def source(self, photo: int) -> str | None:
        """The name of a photo's file; None where that is unknown."""
        with self._file.reading() as reader:
            row = reader.execute("SELECT source FROM photo WHERE id = ?", [photo]).fetchone()
        return (self._file.text(row[0]) or None) if row else None

    def crop(self, photo: int) -> bytes | None:
        """The crop of a photo as JPEG, or None where none is kept."""
        with self._file.reading() as reader:
            row = reader.execute("SELECT jpeg FROM crop WHERE photo = ?", [photo]).fetchone()
        return None if row is None else self._file.content(row[0])

    def changes(self, since: int = 0, count: int | None = None) -> list[Change]:
        """The audit; see ``Audit.changes``."""
        with self._file.reading() as reader:
            return Audit(self._file, reader).changes(since, count)

    # Changing

    @contextmanager
    def _changing(self) -> Iterator[tuple[PeopleRows, Audit]]:
        """The tables in one transaction; people without photos are dropped at its end."""
        with self._file.transaction() as connection:
            check_unchanged(connection, self._file, self.encoder)
            rows, audit = PeopleRows(self._file, connection), Audit(self._file, connection)
            yield rows, audit
            dropped = rows.drop_empty()
            if audit.recorded is not None:
                lost = {
                    each.name: each.threshold for each, _ in dropped if each.threshold is not None
                }
                if lost:
                    audit.record_lost(lost)
                notes = {each.name: (each.note, "") for each, _ in dropped if each.note}
                pictures = [picture for _, picture in dropped if picture is not None]
                self._keep_known(audit.recorded, notes, pictures)
        self.last_change = audit.recorded

    def _remember(self, change: int, taken: TakenRows) -> None:
        """Keep the rows that a change has removed, to undo it."""
        removed = self._removed
        if taken[0]:
            removed[change] = taken
        while sum(len(photos) for photos, _ in removed.values()) > MAX_REMEMBERED:
            del removed[next(iter(removed))]

    def _keep_known(
        self, change: int, notes: Mapping[str, tuple[str, str]], pictures: Sequence[int]
    ) -> None:
        """Keep what a change has made of notes, and the pictures that went, to undo it."""
        if notes or pictures:
            former_notes, former_pictures = self._known.get(change, ({}, []))
            self._known[change] = {**former_notes, **notes}, [*former_pictures, *pictures]
        if len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def add(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str] | None = None,
        details: Sequence[PhotoDetails] | None = None,
    ) -> None:
        """Enrol embeddings; see ``Gallery.add``."""
        self.replace(names, embeddings, digests or [""] * len(names), "nothing", details=details)

    def mark(self, names: Collection[str] | None = None) -> int:
        """The highest number of a photo so far: what is added later has a higher one."""
        with self._file.reading() as reader:
            return PeopleRows(self._file, reader).last_photo()

    def replace(
        self,
        names: Sequence[str],
        embeddings: Embeddings,
        digests: Sequence[str],
        replaces: Replaces = "all",
        *,
        detector_name: str = "",
        mark: Mark = None,
        details: Sequence[PhotoDetails] | None = None,
        known: GalleryRows | None = None,
    ) -> None:
        """Enrol embeddings in the place of others; see ``Gallery.replace``.

        A photo that is enrolled already, by its digest, under the same name and with the same
        embedding, stays as it is: with its number and the time when it was enrolled; it may get a
        crop, a box or a quality where it had none, and where its file is now. The calibration and
        the thresholds of these people become those of ``known``, where that is given.
        """
        added, digests = check_new(names, embeddings, digests, self._size)
        blind = [self._file.blind(digest) for digest in digests]
        details = [PhotoDetails()] * len(names) if details is None else details
        with self._changing() as (rows, audit):
            last = rows.last_photo()
            people = rows.people_of(names)
            owners = [people[name].number for name in names]
            former = rows.former(replaces, set(owners), mark if isinstance(mark, int) else last)
            new, kept = [], []
            for row, (owner, digest) in enumerate(zip(owners, blind, strict=True)):
                alike = former.get((owner, digest, detector_name), []) if digest else []
                content = added[row].tobytes()
                same = next((each for each in alike if each[1] == content), None)
                if same is None:
                    new.append(row)
                else:
                    alike.remove(same)
                    kept.append((same[0], details[row]))
            gone = [photo for alike in former.values() for photo, _ in alike]
            removed = rows.names_of(gone)
            numbers = range(last + 1, last + 1 + len(new))
            if known is not None:
                rows.set_calibration(known.calibration)
                for name in dict.fromkeys(names):
                    changed = rows.set_threshold(people[name], known.thresholds.get(name))
                    # Of who is new, the enrolment alone is undone.
                    if changed is not None and rows.photos_of(people[name]):
                        audit.record(self.author, "threshold", threshold=changed)
            rows.complete(kept)
            rows.insert(
                (
                    (photo, owners[row], added[row].tobytes(), blind[row], details[row])
                    for photo, row in zip(numbers, new, strict=True)
                ),
                detector_name,
                self.author.name,
            )
            # Only now: what is known of them is what a new photo of the same face may lack.
            taken = rows.take(gone)
            enrolled: dict[str, list[int]] = {}
            for photo, row in zip(numbers, new, strict=True):
                enrolled.setdefault(people[names[row]].name, []).append(photo)
            if enrolled or removed:
                self._remember(audit.record(self.author, "enrol", removed, enrolled), taken)

    def remove(self, name: str) -> int:
        """Remove a person; see ``Gallery.remove``."""
        with self._changing() as (rows, audit):
            person = rows.person(name)
            photos = rows.photos_of(person)
            taken = rows.take(photos)
            self._remember(audit.record(self.author, "remove", {person.name: photos}), taken)
        return len(photos)

    def remove_photos(self, photos: Sequence[int]) -> dict[str, list[int]]:
        """Remove photos; a person's last one removes the person.

        Returns:
            Name -> the photos that were the person's.

        Raises:
            GalleryError: There is no photo of one of these numbers.
        """
        with self._changing() as (rows, audit):
            removed = rows.owners_of(photos)
            taken = rows.take(photos)
            self._remember(audit.record(self.author, "remove", removed), taken)
        return removed

    def move_photos(self, photos: Sequence[int], name: str) -> str:
        """Make photos those of another person, new or known; returns that person's name.

        Raises:
            GalleryError: There is no photo of one of these numbers.
            InputError: The name is not a person's name.
        """
        with self._changing() as (rows, audit):
            removed = rows.owners_of(photos)
            person = rows.people_of([name])[name]
            removed.pop(person.name, None)
            moved = [photo for each in removed.values() for photo in each]
            rows.move((photo, person.number) for photo in moved)
            if moved:
                audit.record(self.author, "move", removed, {person.name: moved})
        return person.name

    def merge(self, name: str, into: str) -> int:
        """Make one person of two names; returns how many photos that person has.

        Args:
            name: The name that goes.
            into: The name that stays, with its own threshold if it has one.

        Raises:
            GalleryError: Nobody of one of the names is enrolled, or both are one person.
        """
        with self._changing() as (rows, audit):
            former, person = rows.person(name), rows.person(into)
            if former.number == person.number:
                raise GalleryError(f"{name!r} and {into!r} are one person already")
            moved = rows.photos_of(former)
            rows.move((photo, person.number) for photo in moved)
            change = audit.record(self.author, "merge", {former.name: moved}, {person.name: moved})
            if former.note:
                note = "\n".join(filter(None, (person.note, former.note)))
                rows.set_note(person, note)
                self._keep_known(change, {person.name: (person.note, note)}, ())
            return len(rows.photos_of(person))

    def rename(self, name: str, new_name: str) -> int:
        """Rename a person; see ``Gallery.rename``."""
        with self._changing() as (rows, audit):
            person = rows.person(name)
            shown = rows.rename(person, new_name)
            if shown != person.name:
                audit.record(self.author, "rename", renamed=(person.name, shown))
            return len(rows.photos_of(person))

    def set_note(self, name: str, note: str) -> None:
        """Note something about a person, in the place of what was noted before.

        Raises:
            GalleryError: Nobody of that name is enrolled.
        """
        with self._changing() as (rows, audit):
            rows.set_note(rows.person(name), note)
            audit.record(self.author, "note")

    def set_picture(self, photo: int) -> str:
        """Show the crop of a photo as its person's picture; returns the person's name.

        Raises:
            GalleryError: There is no such photo, or no crop of it is kept.
        """
        with self._changing() as (rows, audit):
            (name,) = rows.owners_of([photo])
            if not rows.set_picture(photo):
                raise GalleryError(f"no crop of photo {photo} is kept that could be a picture")
            audit.record(self.author, "picture")
        return name

    def set_threshold(self, name: str, threshold: float | None) -> None:
        """Give a person a threshold of the person's own; see ``Gallery.set_threshold``."""
        value = check_threshold(threshold)
        with self._changing() as (rows, audit):
            changed = rows.set_threshold(rows.person(name), value)
            if changed is not None:
                audit.record(self.author, "threshold", threshold=changed)

    def undo(self, change: int | None = None) -> Change:
        """Undo a change.

        Somebody who went by it gets the threshold of that person's own back, and from the program
        that made the change, while it runs, also the note and the picture.

        Args:
            change: Its number; None for the last one that is not undone yet.

        Returns:
            The change that was undone.

        Raises:
            GalleryError: There is none, later changes concern the same photos, or it removed photos
                that this program does not remember: removed is removed, except for the program that
                did it, while it runs.
        """
        with self._changing() as (rows, audit):
            told = audit.to_undo(change)
            undone = undo_rows(rows, told, self._removed.get(told.id, ([], [])))
            if told.unknown:
                UnknownRows(self._file, rows.connection).undo_naming(told.unknown[0], undone.taken)
            change = audit.record(
                self.author,
                "undo",
                undone.removed,
                undone.added,
                renamed=undone.renamed,
                threshold=undone.threshold,
                undoes=told.id,
                unknown=told.unknown,
            )
            notes, pictures = self._known.get(told.id, ({}, []))
            for name, (before, after) in notes.items():
                person = rows.found(name)
                if person is not None and person.note == after:
                    rows.set_note(person, before)
                    self._keep_known(change, {person.name: (after, before)}, ())
            for picture in pictures:
                rows.set_picture(picture, replaces=False)
            self._remember(change, undone.taken)
        return told

    def forget(self, name: str) -> int:
        """Remove a person and every trace of that person from this file.

        Also cleared are what the audit says of the names that the person has had, what interrupted
        runs have embedded, the indices beside the file, and its free pages. Not reached are
        backups, exports, the photos themselves, and what other programs remember while they run.

        Returns:
            How many photos that person had.

        Raises:
            GalleryError: Nobody of that name is enrolled.
        """
        with self._changing() as (rows, audit):
            person = rows.person(name)
            photos = rows.photos_of(person)
            rows.take(photos)
            audit.record(self.author, "forget", {person.name: photos})
            audit.scrub(former_names(audit.changes(), person.name, rows.names()))
            rows.connection.execute("DELETE FROM staged")
            self._removed.clear()
            self._known.clear()
            # There is nothing to undo.
            audit.recorded = None
        try:
            self._file.compact()
        finally:
            self._memory.renew()
        return len(photos)

    def reembed(
        self,
        encoder: EncoderIdentity,
        photos: Mapping[int, npt.NDArray[np.float32]],
        *,
        qualities: Mapping[int, float] | None = None,
        mark: Mark = None,
    ) -> DatabaseGallery:
        """Make the gallery one of another encoder.

        Args:
            encoder: The new encoder.
            photos: Photo -> its embedding by the new encoder, ``(D,)``; photos that are not among
                them are removed.
            qualities: Photo -> its quality by the new encoder, 0..1, where that judges.
            mark: What ``mark`` returned when the work on these began, so that nobody who was
                enrolled meanwhile is lost; None takes this moment.

        Returns:
            The gallery, opened with the new encoder; this object is closed.

        Raises:
            InputError: An embedding has another length, is not finite or is all zeros.
            GalleryError: A photo is not in the gallery, or one was enrolled after ``mark``.
        """
        size = encoder.embedding_size
        stacked = np.stack(list(photos.values())) if photos else np.empty((0, size), np.float32)
        embeddings, _ = check_new(["photo"] * len(photos), stacked, None, size)
        with self._changing() as (rows, audit):
            present = {photo for (photo,) in rows.connection.execute("SELECT id FROM photo")}
            if not photos.keys() <= present:
                raise GalleryError("a photo was removed meanwhile; begin again")
            if mark not in (None, rows.last_photo()):
                raise GalleryError("a photo was enrolled meanwhile; begin again")
            others = sorted(present - photos.keys())
            removed = rows.names_of(others)
            rows.take(others)
            rows.reembed(
                encoder,
                (
                    (photo, row.tobytes(), (qualities or {}).get(photo))
                    for photo, row in zip(photos, embeddings, strict=True)
                ),
            )
            audit.record(self.author, "reembed", removed)
        self.close()
        return DatabaseGallery(
            self._file.path, encoder, metric=None, cipher=self._file.cipher, author=self.author
        )

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write a copy of the whole database, as it is at this moment, to a new file.

        Raises:
            GalleryError: There is a file of that name, or it cannot be written.
        """
        self._file.copy_to(as_path(path))

    def staging(self, settings: Mapping[str, Any], *, restart: bool = False) -> Staging:
        """What an interrupted enrolment has embedded; see ``Staging``."""
        return Staging(self._file, settings, restart=restart)

    def rekey(self, cipher: Cipher | None = None) -> None:
        """Encrypt everything that tells of people under the first of the keys.

        Args:
            cipher: The keys; None for those in the environment.

        Raises:
            GalleryError: There is no key, or none of them fits.
        """
        cipher = cipher or cipher_from_environment()
        if cipher is None:
            raise GalleryError(f"there is no key: set {KEY_VARIABLE}")
        self._file.rekey(cipher)
