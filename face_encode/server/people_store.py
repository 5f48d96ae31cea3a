"""The enrolled people: consistent snapshots to read, one writer, and nothing acknowledged unsaved.

Changes that come at once are saved in one step (group commit): each is done to a copy that nobody
sees, the audit log is written, the file takes the place of the former one on disk, the copy takes
the place of what readers see, and only then the clients are answered.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from face_encode.errors import FaceEncodeError, GalleryError
from face_encode.gallery.base import Gallery
from face_encode.model import Face_Encode_Model
from face_encode.server.audit import AuditLog, Author
from face_encode.server.changes import Change
from face_encode.server.crops import CropFolder
from face_encode.server.gallery_file import GalleryFile

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
        people = former.model.gallery.copy()
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
