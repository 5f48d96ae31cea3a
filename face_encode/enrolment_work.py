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
from face_encode.gallery.base import Gallery, check_name
from face_encode.photos.reading import PhotoInput, content_digest, local_photo, path_of, place_of
from face_encode.pipeline import EmbeddedPhoto
from face_encode.resuming import UnfinishedRun
from face_encode.types import Photo

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
