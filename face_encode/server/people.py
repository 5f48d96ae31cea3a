"""The enrolled people: consistent snapshots to read, one writer, and nothing acknowledged unsaved.

Changes that come at once are saved in one step (group commit): each is done to a copy that nobody
sees, the audit log is written, the file takes the place of the former one on disk, the copy takes
the place of what readers see, and only then the clients are answered.
"""

from __future__ import annotations

import copy
import hashlib
import io
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, FaceEncodeError, GalleryError
from face_encode.files import check_writable, open_regular, reason_of, replacing
from face_encode.gallery.base import Gallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz import check_file_name, write_content
from face_encode.gallery.opening import read_gallery
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.pipeline.enrolment import enrol_embedded
from face_encode.server.audit import Action, AuditLog, Author
from face_encode.server.encryption import KEY_VARIABLE, Cipher, is_encrypted
from face_encode.types import EnrolmentReport, ImageArray

_SIDE_PIXELS = 96
_QUALITY_PERCENT = 85


class CropFolder:
    """One JPEG a person, named by a digest of the name, encrypted where the gallery is.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path, cipher: Cipher | None = None) -> None:
        """Take a folder; it is made when the first crop is kept."""
        self.path = path
        self._cipher = cipher

    def keep(self, name: str, crop: ImageArray) -> None:
        """Keep a person's crop, in the place of a former one.

        Raises:
            GalleryError: It cannot be written.
        """
        picture = Image.fromarray(crop)
        picture.thumbnail((_SIDE_PIXELS, _SIDE_PIXELS))
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=_QUALITY_PERCENT)
        self._write(name, content.getvalue())

    def of(self, name: str) -> bytes | None:
        """A person's crop as JPEG, or None where there is none that can be read."""
        try:
            with open_regular(self._path_of(name)) as file:
                content = file.read()
            if not is_encrypted(content):
                return content
            return None if self._cipher is None else self._cipher.decrypt(content, "a crop")
        except (OSError, GalleryError):
            return None

    def has(self, name: str) -> bool:
        """Whether there is a crop of a person."""
        return self._path_of(name).is_file()

    def forget(self, name: str) -> None:
        """Delete a person's crop, if there is one.

        Raises:
            GalleryError: It cannot be deleted.
        """
        try:
            self._path_of(name).unlink(missing_ok=True)
        except OSError as error:
            raise GalleryError(f"cannot delete a crop in {self.path}: {error.strerror}") from error

    def rename(self, name: str, new_name: str) -> None:
        """Keep a person's crop under another name.

        Raises:
            GalleryError: It cannot be written or deleted.
        """
        content = self.of(name)
        if content is not None:
            self._write(new_name, content)
        self.forget(name)

    def tidy(self, names: Iterable[str]) -> None:
        """Delete the crops of all but these people, and encrypt theirs under the first key.

        Raises:
            GalleryError: The folder cannot be written to.
        """
        if not self.path.is_dir():
            return
        wanted = {self._path_of(name): name for name in names}
        try:
            for path in self.path.iterdir():
                if path not in wanted:
                    # A crash left it behind.
                    path.unlink()
                elif self._cipher is not None and not self._cipher.is_current(path.read_bytes()):
                    content = self.of(wanted[path])
                    if content is not None:
                        self._write(wanted[path], content)
        except OSError as error:
            raise GalleryError(f"cannot tidy up {self.path}: {error.strerror}") from error

    def _write(self, name: str, content: bytes) -> None:
        if self._cipher is not None:
            content = self._cipher.encrypt(content)
        with replacing(self._path_of(name), GalleryError) as temporary:
            temporary.write_bytes(content)

    def _path_of(self, name: str) -> Path:
        # A digest, because no name that a client chose may become part of a path.
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return self.path / f"{digest[:40]}.jpg"


class Change(Protocol):
    """Something to be done to a gallery that nobody else sees yet."""

    @property
    def action(self) -> Action:
        """What the audit log calls it."""

    def apply(self, model: Face_Encode_Model) -> Any:
        """Do it to the model's gallery.

        Returns:
            What the client is told.

        Raises:
            FaceEncodeError: It cannot be done; the gallery is then as it was.
        """

    def members(self, result: Any) -> dict[str, Any]:
        """What the audit log says of it."""

    def prepare_crops(self, crops: CropFolder) -> None:
        """Change the crops before the gallery is saved."""

    def finish_crops(self, crops: CropFolder) -> None:
        """Change the crops once the gallery is saved."""


class PhotosLeftOut(DatasetError):
    """No photo of an enrolment can be used.

    Attributes:
        left_out: Photo and reason, a row each.
    """

    def __init__(self, message: str, left_out: list[dict[str, str]]) -> None:
        """Take the rows."""
        super().__init__(message)
        self.left_out = left_out


@dataclass(frozen=True, eq=False)
class Enrol:
    """Enrol further photos of a person.

    Attributes:
        name: The person.
        photos: The photos, embedded.
        digests: Of the photos' contents.
        crop: The first usable photo's, or None.
    """

    name: str
    photos: Sequence[EmbeddedPhoto]
    digests: Sequence[str]
    crop: ImageArray | None = None
    action: Action = "enrol"

    def apply(self, model: Face_Encode_Model) -> EnrolmentReport:
        """Add the embeddings of the photos that are usable and not enrolled under the name yet."""
        gallery = _in_memory(model.gallery)
        owners: dict[str, str] = {}
        known = np.isin(gallery.digests, self.digests)
        hits = zip(gallery.digests[known].tolist(), gallery.names[known].tolist(), strict=True)
        for digest, owner in hits:
            owners[digest] = self.name if owner == self.name else owners.get(digest, owner)
        fresh, again, notes = [], 0, []
        seen: set[str] = set()
        for photo, digest in zip(self.photos, self.digests, strict=True):
            owner = owners.get(digest)
            if owner == self.name or digest in seen:
                # A client that missed our answer asks again: that enrols nothing twice.
                again += 1
                notes.append(f"{photo.photo}: enrolled already")
                continue
            seen.add(digest)
            if owner is not None and photo.error is None:
                notes.append(f"{photo.photo}: the same photo is enrolled as {owner}")
            fresh.append(replace(photo, digest=digest))
        if not fresh:
            return EnrolmentReport(again, {self.name: again}, (), again, tuple(notes))
        notes += self._likenesses(fresh, model)
        if all(photo.error is not None for photo in fresh):
            rows = [{"photo": photo.photo, "reason": str(photo.error)} for photo in fresh]
            raise PhotosLeftOut(f"none of the {len(fresh)} photos can be enrolled", rows)
        report = enrol_embedded(self.name, fresh, model.gallery, model.detector, model.encoder)
        return replace(
            report,
            enrolled=report.enrolled + again,
            per_person={self.name: report.enrolled + again},
            reused=again,
            notes=(*notes, *report.notes),
        )

    def _likenesses(self, photos: Sequence[EmbeddedPhoto], model: Face_Encode_Model) -> list[str]:
        """A note for each photo whose face is another enrolled person's, as far as it looks."""
        usable = [photo for photo in photos if photo.error is None]
        if not usable or not len(model.gallery):
            return []
        found = model.gallery.search(np.stack([photo.embeddings[0] for photo in usable]), k=2)
        return [
            f"{photo.photo}: looks like {match.name}, who is enrolled too "
            f"(similarity {match.similarity:.2f}): one person under two names?"
            for photo, matches in zip(usable, found, strict=True)
            for match in matches
            if match.name != self.name and match.similarity >= model.threshold
        ]

    def members(self, result: EnrolmentReport) -> dict[str, Any]:
        """The person and the numbers of photos."""
        added = result.enrolled - result.reused
        return {"person": self.name, "photos": added, "left_out": len(result.left_out)}

    def prepare_crops(self, crops: CropFolder) -> None:
        """Nothing: a crop comes once its person is enrolled."""

    def finish_crops(self, crops: CropFolder) -> None:
        """Keep the crop where there is none yet."""
        if self.crop is not None and not crops.has(self.name):
            crops.keep(self.name, self.crop)


@dataclass(frozen=True)
class Rename:
    """Call a person otherwise.

    Attributes:
        name: The person.
        new_name: The name from now on.
    """

    name: str
    new_name: str
    action: Action = "rename"

    def apply(self, model: Face_Encode_Model) -> int:
        """Rename; gives the number of photos."""
        return model.gallery.rename(self.name, self.new_name)

    def members(self, result: int) -> dict[str, Any]:
        """Both names."""
        return {"person": self.name, "new_name": self.new_name, "photos": result}

    def prepare_crops(self, crops: CropFolder) -> None:
        """Nothing before the gallery is saved."""

    def finish_crops(self, crops: CropFolder) -> None:
        """The crop goes along."""
        if self.name != self.new_name:
            crops.rename(self.name, self.new_name)


@dataclass(frozen=True)
class Remove:
    """Take a person out.

    Attributes:
        name: The person.
    """

    name: str
    action: Action = "remove"

    def apply(self, model: Face_Encode_Model) -> int:
        """Remove; gives the number of photos."""
        return model.gallery.remove(self.name)

    def members(self, result: int) -> dict[str, Any]:
        """The person and the number of photos."""
        return {"person": self.name, "photos": result}

    def prepare_crops(self, crops: CropFolder) -> None:
        """The picture goes first: a crash must not leave it behind."""
        crops.forget(self.name)

    def finish_crops(self, crops: CropFolder) -> None:
        """Nothing is left."""


class GalleryFile:
    """Reads and writes one gallery file.

    With a cipher it is always encrypted under the first key: what is found otherwise is written
    anew as soon as it is read. Without one it is plain, and an encrypted one is refused.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, cipher: Cipher | None = None) -> None:
        """Take a path that can be written to.

        Raises:
            GalleryError: It does not end in ``.npz``, or cannot be written to.
        """
        check_file_name(path)
        check_writable(path, GalleryError)
        self.path = path
        self._cipher = cipher

    def read(self, encoder: Encoder) -> MemoryGallery:
        """The people that it holds; nobody where there is no file yet.

        Raises:
            GalleryError: It cannot be read or decrypted, or is damaged.
            WrongEncoderError: Another encoder filled it.
        """
        label = str(self.path)
        try:
            with open_regular(self.path) as file:
                content = file.read()
            is_current = self._cipher is None or self._cipher.is_current(content)
            if is_encrypted(content):
                if self._cipher is None:
                    raise GalleryError(f"{label} is encrypted: its key belongs in {KEY_VARIABLE}")
                content = self._cipher.decrypt(content, label)
            gallery = read_gallery(io.BytesIO(content), encoder, label)
            if not is_current:
                self.write(gallery)
            return gallery
        except FileNotFoundError:
            return MemoryGallery(encoder)
        except OSError as error:
            raise GalleryError(f"the gallery {label} cannot be read: {reason_of(error)}") from error

    def write(self, gallery: MemoryGallery) -> None:
        """Write it, atomically: whatever happens, the file is the former one or this one.

        Raises:
            GalleryError: It cannot be written.
        """
        with replacing(self.path, GalleryError) as temporary:
            if self._cipher is None:
                write_content(temporary, gallery.content)
                return
            content = io.BytesIO()
            write_content(content, gallery.content)
            temporary.write_bytes(self._cipher.encrypt(content.getvalue()))


_MOST_TOGETHER = 256


class NotSavedError(FaceEncodeError):
    """A change could not be saved; the people are as they were."""


@dataclass(frozen=True, eq=False)
class People:
    """The enrolled people at one moment; never changed.

    Attributes:
        model: A model with these people enrolled.
    """

    model: Face_Encode_Model

    @cached_property
    def photos(self) -> dict[str, int]:
        """How many photos each person has."""
        return self.model.gallery.people()


class PeopleStore:
    """The gallery of a running service.

    Attributes:
        crops: Pictures of the people, or None where none are kept.
        failing: Whether the last change could not be saved.
    """

    def __init__(
        self,
        model: Face_Encode_Model,
        file: GalleryFile,
        audit: AuditLog,
        crops: CropFolder | None = None,
        on_save: Callable[[int], None] = lambda changes: None,
    ) -> None:
        """Take the people that the model's gallery holds, and start the writer.

        Args:
            model: Shares its encoder and detector with every snapshot.
            file: Where they are kept.
            audit: Where it is said who changed them.
            crops: Where their pictures are kept, if they are.
            on_save: Is told how many changes were saved together.
        """
        self.crops = crops
        self.failing = False
        self._file = file
        self._audit = audit
        self._on_save = on_save
        self._people = _frozen(model, model.gallery)
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue()
        if crops is not None:
            crops.tidy(self._people.photos)
        self._writer = threading.Thread(target=self._write_on, name="people-writer")
        self._writer.start()

    @property
    def people(self) -> People:
        """The people at this moment."""
        return self._people

    def submit(self, change: Change, author: Author) -> Future[Any]:
        """Ask for a change.

        Returns:
            Done once the change is on disk; its result is the change's own.
        """
        future: Future[Any] = Future()
        self._waiting.put(_Waiting(change, author, future))
        return future

    def close(self) -> None:
        """Save what was asked for, and end the writer; a second time does nothing."""
        self._waiting.put(None)
        self._writer.join()

    def _write_on(self) -> None:
        """One group of changes after the other, until told to stop."""
        stopping = False
        while not stopping:
            taken = [self._waiting.get()]
            with suppress(queue.Empty):
                while len(taken) < _MOST_TOGETHER:
                    taken.append(self._waiting.get_nowait())
            stopping = None in taken
            group = [each for each in taken if each is not None]
            try:
                self._commit(group)
            except BaseException as error:  # the writer must never end before its time
                self.failing = True
                for each in group:
                    if not each.future.done():
                        each.future.set_exception(error)

    def _commit(self, group: list[_Waiting]) -> None:
        """Do the changes of a group, save once, and answer all of them."""
        former = self._people
        draft = copy.copy(former.model)
        people = _in_memory(former.model.gallery).copy()
        draft.gallery = people
        done: list[tuple[_Waiting, Any]] = []
        for each in group:
            try:
                done.append((each, each.change.apply(draft)))
            # One change that cannot be done is its own client's affair.
            except Exception as error:
                each.future.set_exception(error)
        if not done:
            return
        changes = [each.change for each, _ in done]
        entries = [
            (each.author, each.change.action, each.change.members(result)) for each, result in done
        ]
        try:
            # First the log: of a change that a crash cuts off it says too much, never too little.
            self._audit.write(entries)
            if self.crops is not None:
                for change in changes:
                    change.prepare_crops(self.crops)
            self._file.write(people)
        except FaceEncodeError as error:
            self.failing = True
            with suppress(FaceEncodeError):
                self._audit.write((*entry[:2], {**entry[2], "failed": True}) for entry in entries)
            raise NotSavedError(str(error)) from error
        self.failing = False
        self._people = _frozen(former.model, people)
        if self.crops is not None:
            for change in changes:
                # The people are saved, which is what was promised; a picture can be missing.
                with suppress(GalleryError):
                    change.finish_crops(self.crops)
        self._on_save(len(done))
        for each, result in done:
            each.future.set_result(result)


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A change that somebody waits for."""

    change: Change
    author: Author
    future: Future[Any]


def _in_memory(gallery: Gallery) -> MemoryGallery:
    """The people of the service, who are always held in memory."""
    assert isinstance(gallery, MemoryGallery)
    return gallery


def _frozen(model: Face_Encode_Model, gallery: Gallery) -> People:
    """The people of a gallery, ready to be searched."""
    shown = copy.copy(model)
    shown.gallery = gallery
    if len(gallery):
        # The first search builds the index; better here than in some client's time.
        gallery.search(gallery.embeddings[:1])
    people = People(shown)
    _ = people.photos
    return people
