"""Enrolment: from folders of people's photos to a gallery, with a row for every photo."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector, notes_on
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, GalleryError, ImageError, InputError
from face_encode.files import as_path
from face_encode.gallery.base import (
    Gallery,
    Mark,
    PhotoDetails,
    Replaces,
    check_name,
    one_name_a_person,
)
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.milvus_store import is_milvus
from face_encode.gallery.mistakes import find_label_problems, misplaced_photos
from face_encode.photos.folders import PeopleFolder
from face_encode.photos.reading import PhotoInput, content_digest, local_photo, shown_name
from face_encode.pipeline.checkpoint import CHECKPOINT_SUFFIX, Checkpoint, Run, checkpoint_in
from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.types import EnrolmentReport, LeftOut, Photo, check_count
from face_encode.weights import cache_folder

PeoplePhotos: TypeAlias = Mapping[str, Sequence[PhotoInput]]

# Photos that the gallery is asked about in one call: one on a server takes a while to answer.
_ASKED_TOGETHER = 256
# Comparing every photo with every other takes seconds up to here, and hours at a hundred times as
# many: beyond, it is left to a command of its own.
_MAX_COMPARED = 20_000


def checkpoint_path(gallery: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """The path of an enrolment's checkpoint, the same for the same gallery and folder of people.

    It lies beside the gallery's file; for a gallery in Milvus, where several folders may be
    enrolled at once, in the cache.
    """
    if not is_milvus(gallery):
        path = as_path(gallery)
        return path.with_name(f"{path.name}{CHECKPOINT_SUFFIX}")
    address = os.fspath(gallery)
    where = address if "://" in address else os.path.abspath(address)
    name = hashlib.sha256(os.fsencode(f"{where}\n{os.path.abspath(folder)}")).hexdigest()[:16]
    return cache_folder() / "unfinished" / f"{name}{CHECKPOINT_SUFFIX}"


def enrolment_checkpoint(
    gallery: Gallery,
    path: Path,
    detector: Detector,
    encoder: Encoder,
    *,
    keep_crops: bool = False,
    restart: bool = False,
) -> Checkpoint:
    """Open the checkpoint of an enrolment, or begin one.

    Args:
        gallery: The gallery that is to be filled; a database keeps the checkpoint in itself.
        path: The checkpoint's own file, for any other gallery.
        detector: Finds the faces.
        encoder: Embeds them.
        keep_crops: As for ``enrol_people``.
        restart: Whether to discard what interrupted runs have embedded.

    Raises:
        GalleryError: The file is another encoder's, engine's or detector's, damaged, in use …
    """
    settings = {
        "run": "enroll",
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "embedding_size": encoder.embedding_size,
        "detector": detector.name,
        "engine": encoder.engine,
        "keep_crops": keep_crops,
    }
    if isinstance(gallery, DatabaseGallery):
        store = gallery.staging(settings, restart=restart)
        return Checkpoint(store, encoder.embedding_size, GalleryError)
    return checkpoint_in(path, settings, GalleryError, restart=restart)


class _Photos:
    """The photos of an enrolment and what became of each, in columns: there may be a million.

    Attributes:
        names: The person of each photo.
        labels: What each photo is called in the report.
        reasons: Why a photo cannot be enrolled, or None.
        digests: Of the contents; empty where unknown, or where the photo is to be judged again
            the next time.
        embeddings: float32 ``(n, D)``.
        sides: float64 ``(n,)``, the shorter side of each face in pixels; NaN where the gallery
            held the photo already.
        sharpness: float64 ``(n,)``, see ``mistakes.sharpness``; NaN likewise.
        faces: How many faces are in each photo; 0 where the gallery held it already.
        sizes: int64 ``(n, 2)``, width and height of each photo; 0 where it was not opened.
        details: What a gallery database keeps of each photo.
        notes: Remarks on the files, with their photo's label.
    """

    def __init__(
        self,
        names: Sequence[str],
        labels: Sequence[str],
        embedding_size: int,
        gallery: Gallery,
        check_quality: bool = True,
    ) -> None:
        count = len(names)
        self.names, self.labels, self._check_quality = names, labels, check_quality
        self._keeps_quality = isinstance(gallery, DatabaseGallery)
        self.reasons: list[str | None] = [None] * count
        self.digests = [""] * count
        self.embeddings = np.empty((count, embedding_size), np.float32)
        self.sides, self.sharpness = np.full((2, count), np.nan)
        self.faces = np.zeros(count, np.int64)
        self.sizes = np.zeros((count, 2), np.int64)
        self.details = [PhotoDetails()] * count
        self.notes: list[str] = []

    def note(self, row: int, photo: EmbeddedPhoto) -> None:
        """Take the result of a photo: its largest face."""
        self.digests[row], self.reasons[row] = photo.digest, photo.error
        self.sizes[row] = photo.size
        self.notes += [f"{self.labels[row]}: {note}" for note in photo.notes]
        if photo.error is None:
            box, quality = photo.faces[0].box, photo.faces[0].quality
            if self._check_quality:
                self.reasons[row] = photo.refusal
            elif photo.refusal and not self._keeps_quality:
                # Known by its digest, it would pass unjudged where the quality counts again.
                self.digests[row] = ""
            self.embeddings[row] = photo.embeddings[0]
            self.sides[row] = min(box.width, box.height)
            self.sharpness[row] = photo.sharpness[0]
            self.faces[row] = len(photo.faces)
            self.details[row] = PhotoDetails(
                self.labels[row], box, quality.value if quality else None, photo.portrait
            )

    def enrol(
        self,
        gallery: Gallery,
        detector: Detector,
        encoder: Encoder,
        replaces: Replaces,
        mark: Mark,
        refuse_mistakes: bool = False,
    ) -> EnrolmentReport:
        """Make a gallery hold the photos that are usable, in one step."""
        calibration, count = gallery.calibration, len(self.names)
        threshold = (
            encoder.contract.threshold
            if calibration is None
            else calibration.threshold(max(1, count))
        )
        usable = np.flatnonzero([reason is None for reason in self.reasons]).tolist()
        if refuse_mistakes:
            embeddings = self.embeddings[usable]
            named = [self.names[row] for row in usable]
            misplaced = misplaced_photos(named, embeddings, gallery, threshold)
            for place, likeness in misplaced.items():
                self.reasons[usable[place]] = str(likeness)
        columns = list(zip(self.names, self.labels, self.reasons, strict=True))
        left_out = [
            LeftOut(label, name, reason) for name, label, reason in columns if reason is not None
        ]
        usable = np.flatnonzero([reason is None for reason in self.reasons]).tolist()
        if not len(usable):
            raise DatasetError(
                f"none of the {len(left_out)} photos can be enrolled"
                + (f"; the first: {left_out[0].photo}: {left_out[0].reason}" if left_out else "")
            )
        names, labels, digests = (
            [column[row] for row in usable] for column in (self.names, self.labels, self.digests)
        )
        embeddings, faces = self.embeddings[usable], self.faces[usable]
        compare = len(usable) <= _MAX_COMPARED
        suspicions = find_label_problems(
            labels,
            names,
            embeddings,
            face_sides=self.sides[usable],
            sharpnesses=self.sharpness[usable],
            crop_side=min(encoder.contract.crop.height, encoder.contract.crop.width),
            threshold=threshold,
            compare=compare,
        )
        # Likely mistakes first: they are what a reader must not miss.
        notes = [str(each) for each in suspicions]
        if not compare:
            notes.append(
                f"{len(usable):,} photos are too many to compare each with each other by the way: "
                "face-encode check looks for those in the wrong folder"
            )
        notes += self.notes
        notes += [
            f"{labels[row]}: {faces[row]} faces, the largest is enrolled"
            for row in np.flatnonzero(faces > 1)
        ]
        sizes, size_of = np.unique(self.sizes, axis=0, return_inverse=True)
        limits = [notes_on(detector, *size) for size in sizes.tolist()]
        notes += [
            f"{label}: {limit}"
            for label, size in zip(self.labels, size_of.ravel().tolist(), strict=True)
            for limit in limits[size]
        ]
        gallery.replace(
            names,
            embeddings,
            digests,
            replaces,
            detector_name=detector.name,
            mark=mark,
            details=[self.details[row] for row in usable],
        )
        return EnrolmentReport(
            enrolled=len(usable),
            per_person=Counter(names),
            left_out=tuple(left_out),
            reused=int((faces == 0).sum()),
            notes=tuple(notes),
        )


def enrol_people(
    people: PeoplePhotos,
    gallery: Gallery,
    detector: Detector,
    encoder: Encoder,
    *,
    replaces: Replaces = "all",
    progress: bool = True,
    workers: int | None = None,
    batch_size: int | None = None,
    checkpoint: Checkpoint | None = None,
    keep_crops: bool = False,
    refuse_mistakes: bool = False,
    check_quality: bool = True,
) -> EnrolmentReport:
    """Make a gallery hold these people, by the largest face of each photo.

    A photo that the gallery holds already, known by its content, is not encoded again, unless its
    quality counts and the gallery does not vouch for it. The gallery changes in one step at the
    end: whatever happens before leaves it as it was.

    Args:
        people: Name -> photos, in any form. Each is opened when its turn comes, so that memory
            grows by about 1 kB a photo.
        gallery: The gallery.
        detector: Finds the faces.
        encoder: Embeds them.
        replaces: Which of the gallery's embeddings these take the place of: all, those of the
            same people, or none.
        progress: Whether to show a progress bar.
        workers: Processes that read and detect; None chooses.
        batch_size: Faces that go through the encoder together; None chooses.
        checkpoint: From ``enrolment_checkpoint``: takes what is embedded, batch by batch, and has
            what an interrupted run had embedded of the photos that are files. The caller removes
            it once the gallery is safe.
        keep_crops: Whether a gallery database keeps a crop of each photo, good enough to be
            embedded by another encoder later.
        refuse_mistakes: Whether to leave out photos that look like somebody else; see
            ``misplaced_photos``.
        check_quality: Whether to leave out photos whose quality is below the encoder's
            ``quality_threshold``.

    Returns:
        What became of each photo.

    Raises:
        DatasetError: Not one photo could be enrolled.
        InputError: ``batch_size`` or ``workers`` is no count.
    """
    if batch_size is not None:
        check_count(batch_size, "batch_size")
    enrolled_as, alike = one_name_a_person(people, gallery)
    mark = None
    if gallery.is_shared and replaces != "nothing":
        # Others may add to the gallery meanwhile; what they add is not replaced.
        mark = gallery.mark(None if replaces == "all" else set(enrolled_as.values()))
    photos = [photo for of_one in people.values() for photo in of_one]
    shown = [shown_name(photo) for photo in photos]
    numbered = (number for of_one in people.values() for number in range(len(of_one)))
    rows = _Photos(
        [enrolled_as[name] for name, of_one in people.items() for _ in of_one],
        [
            f"photo {number}" if name is None else name
            for name, number in zip(shown, numbered, strict=True)
        ],
        encoder.embedding_size,
        gallery,
        check_quality,
    )
    paths = [
        "" if name is None or "://" in name or "\0" in name else os.path.abspath(name)
        for name in shown
    ]
    run = Run(paths, checkpoint, "Enrolling", progress=progress)
    if checkpoint is not None:
        for row in run.done:
            rows.note(row, checkpoint.result(paths[row]))
    together = _ASKED_TOGETHER if all(paths) else 1
    judges = check_quality and encoder.quality_head is not None
    least_quality = encoder.contract.quality_threshold if judges else None
    todo = _unknown_photos(
        run.waiting, together, photos, rows, gallery, detector, keep_crops, least_quality
    )
    for batch in run.batches(
        todo, detector, encoder, workers=workers, batch_size=batch_size, portraits=keep_crops
    ):
        if checkpoint is not None:
            run.keep(batch)
        for row, result in batch:
            rows.note(row, result)
    try:
        report = rows.enrol(gallery, detector, encoder, replaces, mark, refuse_mistakes)
    except DatasetError:
        # Nothing usable: a checkpoint would only repeat the failure.
        if checkpoint is not None:
            checkpoint.remove()
        raise
    empty = [f"{name}: no photo in the folder" for name, of_one in people.items() if not of_one]
    counts = {name: report.per_person.get(name, 0) for name in enrolled_as.values()}
    notes = (*alike, *report.notes, *empty)
    return replace(report, per_person=counts, notes=notes, resumed=len(run.done))


def with_listing(report: EnrolmentReport, listed: PeopleFolder) -> EnrolmentReport:
    """The report of enrolling a folder's people, with what else was in the folder."""
    return replace(report, left_out=(*report.left_out, *listed.left_out), others=listed.others)


def _unknown_photos(
    waiting: Sequence[int],
    together: int,
    photos: Sequence[PhotoInput],
    rows: _Photos,
    gallery: Gallery,
    detector: Detector,
    keep_crops: bool,
    least_quality: float | None,
) -> Iterator[tuple[int, Photo]]:
    """The photos that the gallery does not hold, each opened when it is asked for.

    ``rows`` takes what the gallery holds, and why a photo cannot be opened; ``together`` photos
    are looked up in the gallery at once. A gallery database does not count as holding a photo of
    which it lacks the crop, with ``keep_crops``, or the ``least_quality``.
    """
    # Asked once: a gallery on a server takes a call for it.
    holds_some = len(gallery) > 0
    for start in range(0, len(waiting), together):
        opened: dict[int, Photo] = {}
        for row in waiting[start : start + together]:
            try:
                check_name(rows.names[row])
                opened[row] = local_photo(photos[row])
            except (ImageError, InputError) as error:
                rows.reasons[row] = str(error).removeprefix(f"{Path(rows.labels[row])}: ")
        digests = {row: _digest(photo) for row, photo in opened.items()} if holds_some else {}
        asked = set(digests.values()) - {""}
        known: Mapping[str, npt.NDArray[np.float32]] = {}
        if isinstance(gallery, DatabaseGallery):
            known = gallery.known_photos(
                detector.name, asked, with_crops=keep_crops, least_quality=least_quality
            )
        elif holds_some:
            known = gallery.known_photos(detector.name, asked)
        for row, photo in opened.items():
            digest = digests.get(row, "")
            if digest in known:
                rows.digests[row], rows.embeddings[row] = digest, known[digest]
                rows.details[row] = PhotoDetails(rows.labels[row])
            else:
                yield row, photo


def _digest(photo: Photo) -> str:
    """The digest of a photo's content; empty where it cannot be read, which is reported later."""
    try:
        return content_digest(photo)
    except (ImageError, InputError):
        return ""


def enrol_embedded(
    name: str,
    photos: Sequence[EmbeddedPhoto],
    gallery: Gallery,
    detector: Detector,
    encoder: Encoder,
    *,
    refuse_mistakes: bool = False,
    check_quality: bool = True,
) -> EnrolmentReport:
    """Enrol further photos of a person, which were embedded already, in one step.

    ``refuse_mistakes`` and ``check_quality`` are as for ``enrol_people``.

    Raises:
        DatasetError: Not one photo could be enrolled.
    """
    labels = [photo.photo for photo in photos]
    enrolled_as, alike = one_name_a_person([name], gallery)
    rows = _Photos(
        [enrolled_as[name]] * len(photos), labels, encoder.embedding_size, gallery, check_quality
    )
    for row, photo in enumerate(photos):
        rows.note(row, photo)
    report = rows.enrol(gallery, detector, encoder, "nothing", None, refuse_mistakes)
    return replace(report, notes=(*alike, *report.notes))
