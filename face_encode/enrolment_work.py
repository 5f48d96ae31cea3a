"""The photos of one enrolment on their way: which are to be embedded, and what became of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from face_encode.errors import ImageError, InputError
from face_encode.gallery.names import check_name
from face_encode.images import content_digest
from face_encode.photo_inputs import PhotoInput, local_photo, path_of, place_of
from face_encode.pipeline import EmbeddedPhoto
from face_encode.resuming import UnfinishedRun
from face_encode.types import Photo

PeoplePhotos: TypeAlias = Mapping[str, Sequence[PhotoInput]]


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
        known: Mapping[str, npt.NDArray[np.float32]],
        unfinished: UnfinishedRun | None,
    ) -> None:
        """Nothing is opened yet."""
        self._known, self._any_known, self._unfinished = known, len(known) > 0, unfinished
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
        for row in self.waiting:
            task = self.tasks[row]
            try:
                if reason := self._refused[task.name]:
                    raise InputError(reason)
                local = local_photo(self._photos[row])
            except (ImageError, InputError) as error:
                self._outcomes[row] = str(error).removeprefix(f"{Path(task.label)}: ")
                continue
            if (known := self._enrolled_before(local)) is not None:
                self._outcomes[row] = known
                continue
            if self._unfinished is not None:
                self._unfinished.begin(row)
            self._begun.append(row)
            yield local

    def _enrolled_before(self, photo: Photo) -> UsablePhoto | None:
        """What the gallery holds of a photo."""
        if not self._any_known:
            return None
        try:
            digest = content_digest(photo)
        except (ImageError, InputError):
            return None  # told where the photo is read
        return UsablePhoto(digest, self._known[digest]) if digest in self._known else None

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


def _label(photo: PhotoInput, index: int) -> str:
    """What a photo is called in the report."""
    place = place_of(photo)
    return f"photo {index}" if place is None else place
