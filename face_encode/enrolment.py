"""Enrolment: from folders of people's photos to a gallery, with a row for every photo."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from face_encode.detectors.detector import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, ImageError, InputError
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.names import check_name
from face_encode.hygiene import find_suspicions
from face_encode.images import content_digest
from face_encode.pipeline import EmbeddedPhoto, embed_photos
from face_encode.progress import tracked
from face_encode.types import Embeddings, EnrolmentReport, LeftOut, Photo

PeoplePhotos: TypeAlias = Mapping[str, Sequence[Photo]]
Replaces: TypeAlias = Literal["all", "same people", "nothing"]


@dataclass(frozen=True, eq=False)
class _Task:
    """A photo to be enrolled, what it is called, and the digest of its content."""

    name: str
    photo: Photo
    label: str
    digest: str


def enrol_people(
    people: PeoplePhotos,
    gallery: MemoryGallery,
    detector: Detector,
    encoder: Encoder,
    *,
    replaces: Replaces = "all",
    progress: bool = True,
    workers: int | None = None,
) -> EnrolmentReport:
    """Make a gallery hold these people, by the largest face of each photo.

    A photo that the gallery holds already, told by its content, is not encoded again. The
    gallery changes in one step at the end: whatever happens before leaves it as it was.

    Args:
        people: Name -> photos.
        gallery: Where to.
        detector: Finds the faces.
        encoder: Embeds them.
        replaces: Which of the gallery's embeddings these take the place of: all, those of the
            same people, or none.
        progress: Whether to show a progress bar.
        workers: Processes that read and detect; None chooses.

    Returns:
        What became of each photo.

    Raises:
        DatasetError: Not one photo could be enrolled.
    """
    left_out: list[LeftOut] = []
    tasks = _tasks(people, left_out)
    known = gallery.known_photos(detector.name)
    fresh = [task for task in tasks if task.digest not in known]
    embedded = embed_photos([task.photo for task in fresh], detector, encoder, workers=workers)
    shown = tracked(embedded, len(fresh), "Enrolling", show=progress)
    results = dict(zip(map(id, fresh), shown, strict=True))

    enrolled: list[_Task] = []
    embeddings = []
    notes = [f"{name}: no photo in the folder" for name, photos in people.items() if not photos]
    for task in tasks:
        result: EmbeddedPhoto | None = results.get(id(task))
        if result is None:
            embeddings.append(known[task.digest])
        elif result.error is not None:
            left_out.append(LeftOut(task.label, task.name, result.error))
            continue
        else:
            embeddings.append(result.embeddings[0])
            if len(result.faces) > 1:
                notes.append(f"{task.label}: {len(result.faces)} faces, the largest is enrolled")
        enrolled.append(task)
    if not enrolled:
        raise DatasetError(
            f"none of the {len(left_out)} photos can be enrolled"
            + (f"; the first: {left_out[0].photo}: {left_out[0].reason}" if left_out else "")
        )
    counts = dict.fromkeys(people, 0)
    for task in enrolled:
        counts[task.name] += 1
    suspicions = _suspicions(enrolled, results, np.stack(embeddings), encoder)
    _replace(gallery, enrolled, np.stack(embeddings), replaces)
    gallery.detector_name = detector.name
    return EnrolmentReport(
        enrolled=len(enrolled),
        per_person=counts,
        left_out=tuple(left_out),
        reused=len(tasks) - len(fresh),
        # Likely mistakes first: they are what a reader must not miss.
        notes=(*suspicions, *notes),
    )


def _tasks(people: PeoplePhotos, left_out: list[LeftOut]) -> list[_Task]:
    """A task for each photo that can be opened at all; the others are told."""
    tasks = []
    for name, photos in people.items():
        try:
            check_name(name)
        except InputError as error:
            left_out += [
                LeftOut(_label(photo, index), name, str(error))
                for index, photo in enumerate(photos)
            ]
            continue
        for index, photo in enumerate(photos):
            label = _label(photo, index)
            try:
                tasks.append(_Task(name, photo, label, content_digest(photo)))
            except (ImageError, InputError) as error:
                reason = str(error).removeprefix(f"{Path(label)}: ")
                left_out.append(LeftOut(label, name, reason))
    return tasks


def _suspicions(
    enrolled: Sequence[_Task],
    results: Mapping[int, EmbeddedPhoto],
    embeddings: Embeddings,
    encoder: Encoder,
) -> list[str]:
    """Likely mistakes among the photos enrolled, such as one in the wrong folder."""
    # Of photos that were enrolled before, size and sharpness of the face are not known any more.
    fresh = [results.get(id(task)) for task in enrolled]
    boxes = [None if result is None else result.faces[0].box for result in fresh]
    found = find_suspicions(
        [task.label for task in enrolled],
        [task.name for task in enrolled],
        embeddings,
        face_sides=[np.nan if box is None else min(box.width, box.height) for box in boxes],
        sharpnesses=[np.nan if result is None else result.sharpness[0] for result in fresh],
        crop_side=min(encoder.contract.crop.height, encoder.contract.crop.width),
    )
    return [str(each) for each in found]


def _label(photo: Photo, index: int) -> str:
    """What a photo is called in the report."""
    return os.fspath(photo) if isinstance(photo, str | os.PathLike) else f"photo {index}"


def _replace(
    gallery: MemoryGallery,
    enrolled: Sequence[_Task],
    embeddings: Embeddings,
    replaces: Replaces,
) -> None:
    """Put the new embeddings in the place of those that they replace."""
    names = [task.name for task in enrolled]
    digests = [task.digest for task in enrolled]
    if replaces != "all":
        same_people = replaces == "same people"
        stay = ~np.isin(gallery.names, names if same_people else [])
        names = [*gallery.names[stay].tolist(), *names]
        digests = [*gallery.digests[stay].tolist(), *digests]
        embeddings = np.concatenate([gallery.embeddings[stay], embeddings])
    gallery.replace_all(names, embeddings, digests)
