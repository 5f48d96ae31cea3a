"""The people of a running service: snapshots for readers, and one writer that loses nothing.

Changes that arrive together are saved in one step (group commit): each is applied to a copy that no
reader sees, the audit log is written, the gallery file is replaced, the copy becomes what readers
see, and only then are the clients answered.
"""

from __future__ import annotations

import copy
import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from face_encode.encoders.encoder import Encoder
from face_encode.errors import FaceEncodeError, GalleryError
from face_encode.files import check_writable, open_regular, reason_of, replacing
from face_encode.gallery.base import Gallery
from face_encode.gallery.encryption import Cipher, decrypted
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz import check_file_name, write_content
from face_encode.gallery.opening import read_gallery
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.pipeline.enrolment import enrol_embedded
from face_encode.server.audit import Action, AuditLog, Author
from face_encode.server.problems import Problem
from face_encode.types import EnrolmentReport, ImageArray

_CROP_PIXELS = 96
_CROP_QUALITY_PERCENT = 85
_MAX_CHANGES_PER_SAVE = 256


class CropFolder:
    """One JPEG for each person, named by a digest of the name, encrypted like the gallery.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: Path, cipher: Cipher | None = None) -> None:
        self.path = path
        self._cipher = cipher

    def keep(self, name: str, crop: ImageArray) -> None:
        """Keep a person's crop in the place of a former one.

        Raises:
            GalleryError: The file cannot be written.
        """
        picture = Image.fromarray(crop)
        picture.thumbnail((_CROP_PIXELS, _CROP_PIXELS))
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=_CROP_QUALITY_PERCENT)
        self._write(name, content.getvalue())

    def read(self, name: str) -> bytes | None:
        """Return a person's crop as JPEG, or None where there is none that can be read."""
        try:
            with open_regular(self._path_of(name)) as file:
                return decrypted(file.read(), self._cipher, "a crop")
        except (OSError, GalleryError):
            return None

    def has(self, name: str) -> bool:
        """Whether there is a crop of a person."""
        return self._path_of(name).is_file()

    def forget(self, name: str) -> None:
        """Delete a person's crop, if there is one.

        Raises:
            GalleryError: The file cannot be deleted.
        """
        try:
            self._path_of(name).unlink(missing_ok=True)
        except OSError as error:
            raise GalleryError(f"cannot delete a crop in {self.path}: {error.strerror}") from error

    def rename(self, name: str, new_name: str) -> None:
        """Keep a person's crop under another name.

        Raises:
            GalleryError: A file cannot be written or deleted.
        """
        content = self.read(name)
        if content is not None:
            self._write(new_name, content)
        self.forget(name)

    def tidy(self, names: Iterable[str]) -> None:
        """Delete everything but the crops of these people, and encrypt those under the first key.

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
                    content = self.read(wanted[path])
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


class GalleryFile:
    """One gallery file, plain or encrypted.

    With a cipher the file is always encrypted under the first key: a file that is not is rewritten
    when it is read. Without a cipher it is plain, and an encrypted one is refused.

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
        """Read the gallery; without a file it is empty.

        Raises:
            GalleryError: The file cannot be read or decrypted, or is damaged.
            WrongEncoderError: Another encoder filled it.
        """
        label = str(self.path)
        try:
            with open_regular(self.path) as file:
                content = file.read()
            plain = io.BytesIO(decrypted(content, self._cipher, label))
            gallery = read_gallery(plain, encoder, label)
        except FileNotFoundError:
            return MemoryGallery(encoder)
        except OSError as error:
            raise GalleryError(f"the gallery {label} cannot be read: {reason_of(error)}") from error
        if self._cipher is not None and not self._cipher.is_current(content):
            self.write(gallery)
        return gallery

    def write(self, gallery: MemoryGallery) -> None:
        """Write the gallery atomically: at every moment the file is the former one or this one.

        Raises:
            GalleryError: The file cannot be written.
        """
        with replacing(self.path, GalleryError) as temporary:
            if self._cipher is None:
                write_content(temporary, gallery.content)
                return
            content = io.BytesIO()
            write_content(content, gallery.content)
            temporary.write_bytes(self._cipher.encrypt(content.getvalue()))


@dataclass(frozen=True, eq=False)
class Change:
    """A change of one person; each kind is a subclass.

    Attributes:
        action: The kind's name in the audit log.
        name: The person.
    """

    action: ClassVar[Action]
    name: str

    def apply(self, model: Face_Encode_Model) -> Any:
        """Change the model's gallery, which no reader sees yet.

        Returns:
            The client's answer.

        Raises:
            GalleryError: Nobody has this name, or somebody has the new one already.
            Problem: The change is impossible for another reason.
        """
        raise NotImplementedError

    def audit_members(self, result: Any) -> dict[str, Any]:
        """Describe the change for the audit log; ``result`` is what ``apply`` returned."""
        return {"person": self.name, "photos": result}

    def before_saving(self, crops: CropFolder) -> None:
        """Change the crops before the gallery is saved; not at all as a rule."""

    def after_saving(self, crops: CropFolder) -> None:
        """Change the crops once the gallery is saved; not at all as a rule."""


@dataclass(frozen=True, eq=False)
class Enrol(Change):
    """Enrol further photos of a person.

    Attributes:
        photos: The photos, embedded.
        digests: SHA-256 of each photo's content.
        crop: The first usable photo's crop, or None.
    """

    action = "enrol"
    photos: Sequence[EmbeddedPhoto]
    digests: Sequence[str]
    crop: ImageArray | None = None

    def apply(self, model: Face_Encode_Model) -> EnrolmentReport:
        """Add the embeddings of the photos that are usable and not enrolled under the name yet."""
        owners = self._owners(_in_memory(model))
        photos: list[EmbeddedPhoto] = []
        notes: list[str] = []
        again = 0
        for photo, digest in zip(self.photos, self.digests, strict=True):
            owner = owners.get(digest)
            if owner == self.name or any(digest == earlier.digest for earlier in photos):
                # A client that missed our answer asks again: that enrols nothing twice.
                again += 1
                notes.append(f"{photo.photo}: enrolled already")
                continue
            if owner is not None and photo.error is None:
                notes.append(f"{photo.photo}: the same photo is enrolled as {owner}")
            photos.append(replace(photo, digest=digest))
        if not photos:
            return EnrolmentReport(again, {self.name: again}, (), again, tuple(notes))
        if all(photo.error is not None for photo in photos):
            rows = [{"photo": photo.photo, "reason": str(photo.error)} for photo in photos]
            detail = f"None of the {len(photos)} photos can be enrolled."
            raise Problem(422, "no-photo-usable", detail, left_out=rows)
        notes += self._likenesses(photos, model)
        report = enrol_embedded(self.name, photos, model.gallery, model.detector, model.encoder)
        return replace(
            report,
            enrolled=report.enrolled + again,
            per_person={self.name: report.enrolled + again},
            reused=again,
            notes=(*notes, *report.notes),
        )

    def _owners(self, gallery: MemoryGallery) -> dict[str, str]:
        """Who each photo is enrolled as by now; this person first, where there are several."""
        known = np.isin(gallery.digests, self.digests)
        owners: dict[str, str] = {}
        for digest, owner in zip(gallery.digests[known], gallery.names[known], strict=True):
            if owner == self.name or digest not in owners:
                owners[str(digest)] = str(owner)
        return owners

    def _likenesses(self, photos: Sequence[EmbeddedPhoto], model: Face_Encode_Model) -> list[str]:
        """Note each photo whose face is another enrolled person's, among the two nearest."""
        usable = [photo for photo in photos if photo.error is None]
        if not len(model.gallery):
            return []
        found = model.gallery.search(np.stack([photo.embeddings[0] for photo in usable]), k=2)
        return [
            f"{photo.photo}: looks like {match.name}, who is enrolled too "
            f"(similarity {match.similarity:.2f}): one person under two names?"
            for photo, matches in zip(usable, found, strict=True)
            for match in matches
            if match.name != self.name and match.similarity >= model.threshold
        ]

    def audit_members(self, result: EnrolmentReport) -> dict[str, Any]:
        """Describe the change for the audit log."""
        added = result.enrolled - result.reused
        return {"person": self.name, "photos": added, "left_out": len(result.left_out)}

    def after_saving(self, crops: CropFolder) -> None:
        """Keep the crop where there is none yet."""
        if self.crop is not None and not crops.has(self.name):
            crops.keep(self.name, self.crop)


@dataclass(frozen=True, eq=False)
class Rename(Change):
    """Give a person another name.

    Attributes:
        new_name: The name from now on.
    """

    action = "rename"
    new_name: str

    def apply(self, model: Face_Encode_Model) -> int:
        """Rename the person; returns the number of photos."""
        return model.gallery.rename(self.name, self.new_name)

    def audit_members(self, result: int) -> dict[str, Any]:
        """Describe the change for the audit log."""
        return {"person": self.name, "new_name": self.new_name, "photos": result}

    def after_saving(self, crops: CropFolder) -> None:
        """Keep the crop under the new name."""
        if self.name != self.new_name:
            crops.rename(self.name, self.new_name)


class Remove(Change):
    """Remove a person."""

    action = "remove"

    def apply(self, model: Face_Encode_Model) -> int:
        """Remove the person; returns the number of photos."""
        return model.gallery.remove(self.name)

    def before_saving(self, crops: CropFolder) -> None:
        """Delete the crop first: a crash must not leave it behind."""
        crops.forget(self.name)


class People:
    """The enrolled people at one moment; never changed.

    Attributes:
        model: A model with these people enrolled.
        photos: The number of photos of each person.
    """

    def __init__(self, model: Face_Encode_Model, gallery: Gallery) -> None:
        self.model = copy.copy(model)
        self.model.gallery = gallery
        self.photos = gallery.people()
        if len(gallery):
            # The first search builds the index; better here than in some client's time.
            gallery.search(gallery.embeddings[:1])


def _in_memory(model: Face_Encode_Model) -> MemoryGallery:
    """Return the people of a service, who are always held in memory."""
    assert isinstance(model.gallery, MemoryGallery)
    return model.gallery


@dataclass(frozen=True, eq=False)
class _Request:
    """A change that a client waits for."""

    change: Change
    author: Author
    future: Future[Any]


class PeopleStore:
    """The gallery of a running service.

    Attributes:
        people: The people at this moment.
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
        """Take the people of the model's gallery.

        Args:
            model: Shares its encoder and detector with every snapshot.
            file: Where the gallery is saved.
            audit: Where the authors of changes are noted.
            crops: Where pictures of the people are kept, if at all.
            on_save: Called with the number of changes that were saved together.
        """
        self.people = People(model, model.gallery)
        self.crops = crops
        self.failing = False
        self._file = file
        self._audit = audit
        self._on_save = on_save
        self._waiting: deque[_Request] = deque()
        self._writer = ThreadPoolExecutor(1, "people-writer")
        if crops is not None:
            crops.tidy(self.people.photos)

    def submit(self, change: Change, author: Author) -> Future[Any]:
        """Ask for a change.

        Returns:
            Done once the change is on disk, with what its ``apply`` returned.
        """
        request = _Request(change, author, Future())
        self._waiting.append(request)
        self._writer.submit(self._save_waiting)
        return request.future

    def close(self) -> None:
        """Save every change that was asked for, and end the writer."""
        self._writer.shutdown()

    def _save_waiting(self) -> None:
        """Save what has arrived by now; often an earlier call has done so already."""
        while self._waiting:
            count = min(len(self._waiting), _MAX_CHANGES_PER_SAVE)
            group = [self._waiting.popleft() for _ in range(count)]
            try:
                self._save(group)
            except BaseException as error:  # no client may wait in vain
                self.failing = True
                for request in group:
                    if not request.future.done():
                        request.future.set_exception(error)

    def _save(self, group: Sequence[_Request]) -> None:
        """Apply the changes of a group, save once, and answer all of them."""
        former = self.people.model
        draft = copy.copy(former)
        draft.gallery = gallery = _in_memory(former).copy()
        done: list[tuple[_Request, Any]] = []
        for request in group:
            try:
                done.append((request, request.change.apply(draft)))
            except Exception as error:  # the others of the group are saved all the same
                request.future.set_exception(error)
        if not done:
            return
        entries = [
            (request.author, request.change.action, request.change.audit_members(result))
            for request, result in done
        ]
        try:
            # First the log: of a change that a crash cuts off it says too much, never too little.
            self._audit.write(entries)
            if self.crops is not None:
                for request, _ in done:
                    request.change.before_saving(self.crops)
            self._file.write(gallery)
        except FaceEncodeError as error:
            self.failing = True
            with suppress(FaceEncodeError):
                self._audit.write(
                    (author, action, {**members, "failed": True})
                    for author, action, members in entries
                )
            raise Problem(
                503,
                "not-saved",
                "The change could not be saved; nothing was changed.",
                headers={"Retry-After": "30"},
            ) from error
        self.failing = False
        self.people = People(former, gallery)
        if self.crops is not None:
            for request, _ in done:
                # The people are saved, as was promised; a picture may be missing.
                with suppress(GalleryError):
                    request.change.after_saving(self.crops)
        self._on_save(len(done))
        for request, result in done:
            request.future.set_result(result)
