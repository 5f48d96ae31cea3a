"""The changes that clients make to the enrolled people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from face_encode.errors import DatasetError
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.pipeline.enrolment import EnrolmentTask, enrol_embedded
from face_encode.server.audit import Action
from face_encode.server.crops import CropFolder
from face_encode.types import EnrolmentReport, ImageArray


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
        gallery = model.gallery.copy()
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
            fresh.append((photo, EnrolmentTask(self.name, photo.photo, digest)))
        if not fresh:
            return EnrolmentReport(again, {self.name: again}, (), again, tuple(notes))
        notes += self._likenesses([photo for photo, _ in fresh], model)
        photos, tasks = zip(*fresh, strict=True)
        if all(photo.error is not None for photo in photos):
            rows = [{"photo": photo.photo, "reason": str(photo.error)} for photo in photos]
            raise PhotosLeftOut(f"none of the {len(photos)} photos can be enrolled", rows)
        report = enrol_embedded(
            tasks, photos, model.gallery, model.detector, model.encoder, replaces="nothing"
        )
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
