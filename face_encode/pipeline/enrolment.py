"""Enrolment: from folders of people's photos to a gallery, with a row for every photo."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.detectors.base import Detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, GalleryError, ImageError, InputError
from face_encode.files import as_path
from face_encode.gallery.base import Gallery, Mark, Replaces, check_name
from face_encode.gallery.milvus_store import is_milvus
from face_encode.gallery.mistakes import find_suspicions
from face_encode.photos.reading import PhotoInput, content_digest, local_photo, path_of, place_of
from face_encode.pipeline.checkpoint import UNFINISHED_SUFFIX, UnfinishedRun
from face_encode.pipeline.embedding import EmbeddedPhoto, embed_batches
from face_encode.pipeline.workers import sensible_workers
from face_encode.terminal import tracked
from face_encode.types import EnrolmentReport, LeftOut, Photo
from face_encode.weights import cache_folder

PeoplePhotos: TypeAlias = Mapping[str, Sequence[PhotoInput]]

# Photos of which it is asked at once whether the gallery holds them already.
_LOOKED_UP_TOGETHER = 256


@dataclass(frozen=True)
class EnrolmentTask:
    """A photo to be enrolled.

    Attributes:
        name: The person.
        label: What the photo is called in the report.
        digest: Of its content; see ``images.content_digest``.
    """

    name: str
    label: str
    digest: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class UsablePhoto:
    """What is kept of a photo until all are done: little, for there may be many.

    Attributes:
        digest: Of its content.
        embedding: float32 ``(D,)``.
        side: The shorter side of its face in pixels; NaN where only the embedding is known.
        sharpness: See ``hygiene.sharpness``; NaN where only the embedding is known.
        faces: How many there are in it; 0 where only the embedding is known.
    """

    digest: str
    embedding: npt.NDArray[np.float32]
    side: float = np.nan
    sharpness: float = np.nan
    faces: int = 0


Outcome: TypeAlias = "UsablePhoto | str"
"""A photo that can be enrolled, or the reason why one cannot."""


class EnrolmentWork:
    """The photos of one enrolment, and what became of each so far.

    Attributes:
        tasks: All photos.
        waiting: The rows of those that were not embedded before.
        only_files: Whether all photos are given by their paths.
    """

    def __init__(
        self,
        people: PeoplePhotos,
        gallery: Gallery,
        detector_name: str,
        unfinished: UnfinishedRun | None,
    ) -> None:
        """Nothing is opened yet."""
        self._gallery, self._detector_name, self._unfinished = gallery, detector_name, unfinished
        # Asked once: a gallery on a server takes a call for it.
        self._holds_some = len(gallery) > 0
        self._photos = [photo for photos in people.values() for photo in photos]
        self.tasks = [
            EnrolmentTask(name, _label(photo, index))
            for name, photos in people.items()
            for index, photo in enumerate(photos)
        ]
        self._refused = {name: _reason_against(name) for name in people}
        self._outcomes: list[Outcome | None] = [None] * len(self.tasks)
        self._begun: deque[int] = deque()
        paths = [path_of(photo) or "" for photo in self._photos]
        self.only_files = all(paths)
        if unfinished is not None:
            unfinished.resume(paths)
            for row in range(len(self.tasks)):
                if unfinished.is_done(row):
                    self._outcomes[row] = outcome_of(unfinished.result(row))
        self.waiting = [row for row, outcome in enumerate(self._outcomes) if outcome is None]

    def todo(self) -> Iterator[Photo]:
        """The photos to be embedded, each opened when it is asked for."""
        # A look into the gallery takes long where that is far away; paths take little memory.
        together = _LOOKED_UP_TOGETHER if self.only_files else 1
        for start in range(0, len(self.waiting), together):
            opened = list(self._opened(self.waiting[start : start + together]))
            known = self._enrolled_before([photo for _, photo in opened])
            for (row, photo), embedding in zip(opened, known, strict=True):
                if embedding is not None:
                    self._outcomes[row] = embedding
                    continue
                if self._unfinished is not None:
                    self._unfinished.begin(row)
                self._begun.append(row)
                yield photo

    def _opened(self, rows: Sequence[int]) -> Iterator[tuple[int, Photo]]:
        """Those of some photos that can be opened at all; of the others it is noted why."""
        for row in rows:
            task = self.tasks[row]
            try:
                if reason := self._refused[task.name]:
                    raise InputError(reason)
                yield row, local_photo(self._photos[row])
            except (ImageError, InputError) as error:
                self._outcomes[row] = str(error).removeprefix(f"{Path(task.label)}: ")

    def _enrolled_before(self, photos: Sequence[Photo]) -> list[UsablePhoto | None]:
        """What the gallery holds of some photos."""
        if not self._holds_some:
            return [None] * len(photos)
        digests = [_digest_of(photo) for photo in photos]
        asked_for = {digest for digest in digests if digest}
        known = self._gallery.known_photos(self._detector_name, asked_for)
        return [
            UsablePhoto(digest, known[digest]) if digest in known else None for digest in digests
        ]

    def done(self, batches: Iterator[list[EmbeddedPhoto]]) -> Iterator[int]:
        """Take in what comes out of the encoder; gives the rows that are done, in their order."""
        told = 0
        for batch in batches:
            if self._unfinished is not None:
                self._unfinished.keep(batch)
            for result in batch:
                row = self._begun.popleft()
                self._outcomes[row] = outcome_of(result)
            # Photos that need no encoder are done as soon as all before them are.
            while told < len(self.waiting) and self.waiting[told] <= row:
                yield self.waiting[told]
                told += 1
        yield from self.waiting[told:]

    def outcomes(self) -> Iterator[Outcome]:
        """What became of each photo, when all are done."""
        return (outcome for outcome in self._outcomes if outcome is not None)


def outcome_of(result: EmbeddedPhoto) -> Outcome:
    """What is kept of a result."""
    if result.error is not None:
        return result.error
    box = result.faces[0].box
    return UsablePhoto(
        result.digest,
        # A copy, for what it is a view into may hold the other faces of the photo too.
        result.embeddings[0].copy(),
        min(box.width, box.height),
        result.sharpness[0],
        len(result.faces),
    )


def _reason_against(name: str) -> str:
    """Why nobody can be called that; empty where somebody can."""
    try:
        check_name(name)
    except InputError as error:
        return str(error)
    return ""


def _digest_of(photo: Photo) -> str:
    """The digest of a photo's content, empty where it cannot be read: told where that is tried."""
    try:
        return content_digest(photo)
    except (ImageError, InputError):
        return ""


def _label(photo: PhotoInput, index: int) -> str:
    """What a photo is called in the report."""
    place = place_of(photo)
    return f"photo {index}" if place is None else place


# Comparing each photo with each other takes seconds up to here, and hours at a hundred times as
# many: those are left to whoever asks for it.
_MOST_COMPARED = 20_000


def unfinished_path(gallery: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Path:
    """Where the journal of an enrolment lies, the same for the same command.

    Args:
        gallery: A gallery's file or address.
        folder: The people's.

    Returns:
        A path beside the gallery's file; for one in Milvus, where several folders may be enrolled
        at once, one in the cache.
    """
    if not is_milvus(gallery):
        path = as_path(gallery)
        return path.with_name(f"{path.name}{UNFINISHED_SUFFIX}")
    place = os.fspath(gallery)
    where = place if "://" in place else os.path.abspath(place)
    name = hashlib.sha256(os.fsencode(f"{where}\n{os.path.abspath(folder)}")).hexdigest()[:16]
    return cache_folder() / "unfinished" / f"{name}{UNFINISHED_SUFFIX}"


def unfinished_enrolment(
    path: Path, detector: Detector, encoder: Encoder, *, restart: bool = False
) -> UnfinishedRun:
    """Open what an interrupted enrolment has embedded, or begin to keep it.

    Args:
        path: The journal.
        detector: Finds the faces.
        encoder: Embeds them.
        restart: Whether to begin anew whatever is there.

    Raises:
        GalleryError: Another encoder's, engine's or detector's, or it cannot be written.
    """
    settings = {
        "run": "enroll",
        "encoder": encoder.name,
        "fingerprint": encoder.fingerprint,
        "embedding_size": encoder.embedding_size,
        "detector": detector.name,
        "engine": encoder.engine,
    }
    return UnfinishedRun(path, settings, GalleryError, restart=restart)


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
    unfinished: UnfinishedRun | None = None,
) -> EnrolmentReport:
    """Make a gallery hold these people, by the largest face of each photo.

    A photo that the gallery holds already, told by its content, is not encoded again. The
    gallery changes in one step at the end: whatever happens before leaves it as it was.

    Args:
        people: Name -> photos, in any form. Each is opened when its turn comes, so that memory
            grows by about 1 kB a photo.
        gallery: Where to.
        detector: Finds the faces.
        encoder: Embeds them.
        replaces: Which of the gallery's embeddings these take the place of: all, those of the
            same people, or none.
        progress: Whether to show a progress bar.
        workers: Processes that read and detect; None chooses.
        batch_size: Faces that go through the encoder together; None chooses.
        unfinished: From ``unfinished_enrolment``: takes what is embedded, batch by batch, and
            gives what an interrupted run had embedded of the photos that are files. The caller
            removes it once the gallery is safe.

    Returns:
        What became of each photo.

    Raises:
        DatasetError: Not one photo could be enrolled.
    """
    # Others may add to a shared gallery while this goes on; what they add is not replaced.
    mark = None if replaces == "nothing" else gallery.mark(None if replaces == "all" else people)
    work = EnrolmentWork(people, gallery, detector.name, unfinished)
    resumed = len(work.tasks) - len(work.waiting)
    if workers is None and not work.only_files:
        # Otherwise it is told by looking ahead, which opens photos that are no files: too early.
        workers = sensible_workers(len(work.waiting))
    batches = embed_batches(
        work.todo(), detector, encoder, workers=workers, batch_size=batch_size, digests=True
    )
    done = work.done(batches)
    for _ in tracked(done, len(work.tasks), "Enrolling", show=progress, done=resumed):
        pass
    try:
        report = _enrol(
            work.tasks, work.outcomes(), gallery, detector, encoder, replaces=replaces, mark=mark
        )
    except DatasetError:
        # All was done, and in vain: there is nothing to go on with.
        if unfinished is not None:
            unfinished.remove()
        raise
    empty = [f"{name}: no photo in the folder" for name, photos in people.items() if not photos]
    counts = {name: report.per_person.get(name, 0) for name in people}
    notes = (*report.notes, *empty)
    return replace(report, per_person=counts, notes=notes, resumed=resumed)


def enrol_embedded(
    tasks: Sequence[EnrolmentTask],
    results: Iterable[EmbeddedPhoto],
    gallery: Gallery,
    detector: Detector,
    encoder: Encoder,
    *,
    replaces: Replaces = "all",
    mark: Mark = None,
) -> EnrolmentReport:
    """Make a gallery hold people whose photos were embedded already.

    Args:
        tasks: The photos.
        results: What became of each: embedded or its error.
        gallery: Where to; it changes in one step at the end.
        detector: Found the faces.
        encoder: Embedded them.
        replaces: As for ``enrol_people``.
        mark: What of the gallery may be replaced; see ``Gallery.replace``.

    Returns:
        What became of each photo.

    Raises:
        DatasetError: Not one photo could be enrolled.
    """
    outcomes = [
        outcome_of(replace(result, digest=task.digest))
        for task, result in zip(tasks, results, strict=True)
    ]
    return _enrol(tasks, outcomes, gallery, detector, encoder, replaces=replaces, mark=mark)


def _enrol(
    tasks: Sequence[EnrolmentTask],
    outcomes: Iterable[Outcome],
    gallery: Gallery,
    detector: Detector,
    encoder: Encoder,
    *,
    replaces: Replaces,
    mark: Mark,
) -> EnrolmentReport:
    """Make a gallery hold the photos that are usable, in one step."""
    left_out: list[LeftOut] = []
    usable: list[UsablePhoto] = []
    names: list[str] = []
    labels: list[str] = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        if isinstance(outcome, str):
            left_out.append(LeftOut(task.label, task.name, outcome))
            continue
        usable.append(outcome)
        names.append(task.name)
        labels.append(task.label)
    if not usable:
        raise DatasetError(
            f"none of the {len(left_out)} photos can be enrolled"
            + (f"; the first: {left_out[0].photo}: {left_out[0].reason}" if left_out else "")
        )
    embeddings = np.stack([each.embedding for each in usable])
    suspicions = find_suspicions(
        labels,
        names,
        embeddings,
        # Of photos that were enrolled before, size and sharpness of the face are not known.
        face_sides=[each.side for each in usable],
        sharpnesses=[each.sharpness for each in usable],
        crop_side=min(encoder.contract.crop.height, encoder.contract.crop.width),
        compare=len(usable) <= _MOST_COMPARED,
    )
    notes = [str(each) for each in suspicions]
    if len(usable) > _MOST_COMPARED:
        notes.append(
            f"{len(usable):,} photos are too many to compare each with each other by the way: "
            "face-encode check looks for those in the wrong folder"
        )
    notes += [
        f"{label}: {each.faces} faces, the largest is enrolled"
        for label, each in zip(labels, usable, strict=True)
        if each.faces > 1
    ]
    gallery.replace(
        names,
        embeddings,
        [each.digest for each in usable],
        replaces,
        detector_name=detector.name,
        mark=mark,
    )
    return EnrolmentReport(
        enrolled=len(usable),
        per_person=Counter(names),
        left_out=tuple(left_out),
        reused=sum(not each.faces for each in usable),
        # Likely mistakes first: they are what a reader must not miss.
        notes=tuple(notes),
    )
