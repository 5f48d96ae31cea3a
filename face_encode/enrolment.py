"""Enrolment: from folders of people's photos to a gallery, with a row for every photo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.detectors.detector import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, ImageError, InputError
from face_encode.gallery.gallery import Gallery, Mark, Replaces
from face_encode.gallery.names import check_name
from face_encode.hygiene import find_suspicions
from face_encode.images import content_digest
from face_encode.photo_inputs import PhotoInput, local_photo, place_of
from face_encode.pipeline import EmbeddedPhoto, embed_photos
from face_encode.progress import tracked
from face_encode.types import Embeddings, EnrolmentReport, LeftOut, Photo

PeoplePhotos: TypeAlias = Mapping[str, Sequence[PhotoInput]]


@dataclass(frozen=True, eq=False)
class EnrolmentTask:
    """A photo to be enrolled.

    Attributes:
        name: The person.
        photo: Its path or pixels.
        label: What it is called in the report.
        digest: Of its content; see ``images.content_digest``.
    """

    name: str
    photo: Photo
    label: str
    digest: str


def enrol_people(
    people: PeoplePhotos,
    gallery: Gallery,
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
        people: Name -> photos, in any form.
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
    # Others may add to a shared gallery while this goes on; what they add is not replaced.
    mark = None if replaces == "nothing" else gallery.mark(None if replaces == "all" else people)
    known = gallery.known_photos(detector.name, {task.digest for task in tasks})
    fresh = [task for task in tasks if task.digest not in known]
    embedded = embed_photos([task.photo for task in fresh], detector, encoder, workers=workers)
    shown = tracked(embedded, len(fresh), "Enrolling", show=progress)
    results = dict(zip(map(id, fresh), shown, strict=True))
    report = enrol_embedded(
        tasks,
        [results[id(task)] if id(task) in results else known[task.digest] for task in tasks],
        gallery,
        detector,
        encoder,
        replaces=replaces,
        left_out=left_out,
        mark=mark,
    )
    empty = [f"{name}: no photo in the folder" for name, photos in people.items() if not photos]
    counts = {name: report.per_person.get(name, 0) for name in people}
    return replace(report, per_person=counts, notes=(*report.notes, *empty))


def enrol_embedded(
    tasks: Sequence[EnrolmentTask],
    results: Sequence[EmbeddedPhoto | npt.NDArray[np.float32]],
    gallery: Gallery,
    detector: Detector,
    encoder: Encoder,
    *,
    replaces: Replaces = "all",
    left_out: Sequence[LeftOut] = (),
    mark: Mark = None,
) -> EnrolmentReport:
    """Make a gallery hold people whose photos were embedded already.

    Args:
        tasks: The photos.
        results: What became of each: embedded or its error; or, for a photo known from before,
            its embedding alone, float32 ``(D,)``.
        gallery: Where to; it changes in one step at the end.
        detector: Found the faces.
        encoder: Embedded them.
        replaces: As for ``enrol_people``.
        left_out: Photos that could not even be opened, for the report.
        mark: What of the gallery may be replaced; see ``Gallery.replace``.

    Returns:
        What became of each photo.

    Raises:
        DatasetError: Not one photo could be enrolled.
    """
    refused = list(left_out)
    enrolled: list[EnrolmentTask] = []
    fresh: list[EmbeddedPhoto | None] = []
    embeddings, notes = [], []
    for task, result in zip(tasks, results, strict=True):
        if not isinstance(result, EmbeddedPhoto):
            embeddings.append(result)
        elif result.error is not None:
            refused.append(LeftOut(task.label, task.name, result.error))
            continue
        else:
            embeddings.append(result.embeddings[0])
            if len(result.faces) > 1:
                notes.append(f"{task.label}: {len(result.faces)} faces, the largest is enrolled")
        enrolled.append(task)
        fresh.append(result if isinstance(result, EmbeddedPhoto) else None)
    if not enrolled:
        raise DatasetError(
            f"none of the {len(refused)} photos can be enrolled"
            + (f"; the first: {refused[0].photo}: {refused[0].reason}" if refused else "")
        )
    suspicions = _suspicions(enrolled, fresh, np.stack(embeddings), encoder)
    names, digests = [task.name for task in enrolled], [task.digest for task in enrolled]
    gallery.replace(
        names, np.stack(embeddings), digests, replaces, detector_name=detector.name, mark=mark
    )
    return EnrolmentReport(
        enrolled=len(enrolled),
        per_person=Counter(task.name for task in enrolled),
        left_out=tuple(refused),
        reused=sum(result is None for result in fresh),
        # Likely mistakes first: they are what a reader must not miss.
        notes=(*suspicions, *notes),
    )


def _tasks(people: PeoplePhotos, left_out: list[LeftOut]) -> list[EnrolmentTask]:
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
                local = local_photo(photo)
                tasks.append(EnrolmentTask(name, local, label, content_digest(local)))
            except (ImageError, InputError) as error:
                reason = str(error).removeprefix(f"{Path(label)}: ")
                left_out.append(LeftOut(label, name, reason))
    return tasks


def _suspicions(
    enrolled: Sequence[EnrolmentTask],
    fresh: Sequence[EmbeddedPhoto | None],
    embeddings: Embeddings,
    encoder: Encoder,
) -> list[str]:
    """Likely mistakes among the photos enrolled, such as one in the wrong folder."""
    # Of photos that were enrolled before, size and sharpness of the face are not known any more.
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


def _label(photo: PhotoInput, index: int) -> str:
    """What a photo is called in the report."""
    place = place_of(photo)
    return f"photo {index}" if place is None else place
