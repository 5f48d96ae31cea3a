"""A running service: what its routes share, and the one thread that changes the people."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from face_encode.errors import GalleryError, NotEnrolledError, WrongEncoderError
from face_encode.gallery.audit import Author
from face_encode.gallery.database import DatabaseGallery
from face_encode.model import Face_Encode_Model
from face_encode.server.challenges import Challenges
from face_encode.server.metrics import Metrics
from face_encode.server.problems import Problem
from face_encode.server.recognition import Recogniser
from face_encode.server.settings import ServerSettings
from face_encode.video.camera_process import CameraProcess

_Result = TypeVar("_Result")


class Service:
    """A running service.

    Attributes:
        model: The encoder, the detector and the people.
        gallery: The people, those of the model; other programs may change them at any time.
        recogniser: Embeds the photos of requests.
        settings: The settings that the service was started with.
        metrics: The service's numbers.
        cameras: The cameras that the service watches, or None.
        challenges: What the people before the cameras of clients have still to do.
        failing: Whether the last change could not be saved.
    """

    def __init__(
        self,
        model: Face_Encode_Model,
        gallery: DatabaseGallery,
        recogniser: Recogniser,
        settings: ServerSettings,
        metrics: Metrics,
        cameras: CameraProcess | None = None,
    ) -> None:
        self.model, self.gallery, self.cameras = model, gallery, cameras
        self.recogniser, self.settings, self.metrics = recogniser, settings, metrics
        self.challenges = Challenges()
        self.failing = False
        # One change after the other: they would wait for each other in the file anyway.
        self._writer = ThreadPoolExecutor(1, "people-writer")

    def close(self) -> None:
        """Make every change that was asked for, and end the thread."""
        self._writer.shutdown()

    async def change(
        self,
        author: Author,
        make: Callable[[DatabaseGallery], _Result],
        *,
        missing: str = "nobody-of-that-name",
        conflict: str = "cannot-be-done",
    ) -> tuple[_Result, int | None]:
        """Change the people, and wait until the change is on disk.

        Args:
            author: Who asks for it.
            make: Makes the change in the gallery that it is given.
            missing: The kind of problem where the person, photo or change is not there.
            conflict: The kind of problem where the gallery refuses the change.

        Returns:
            What ``make`` returned, and the number of the change, None if it changed nothing.

        Raises:
            Problem: The change is impossible, or cannot be saved.
        """
        gallery = self.gallery.signed(author)
        work = asyncio.get_running_loop().run_in_executor(self._writer, self._make, make, gallery)
        # Shielded: the change is made even if the request's time is over in the meantime.
        try:
            return await asyncio.shield(work), gallery.last_change
        except NotEnrolledError as error:
            raise Problem(404, missing, f"{error}.") from error
        except GalleryError as error:
            if not _is_of_the_file(error):
                raise Problem(409, conflict, f"{error}.") from error
            raise Problem(
                503,
                "not-saved",
                "The change could not be saved; nothing was changed.",
                headers={"Retry-After": "30"},
            ) from error

    def _make(
        self, make: Callable[[DatabaseGallery], _Result], gallery: DatabaseGallery
    ) -> _Result:
        """Make a change, and note whether the file took it."""
        try:
            result = make(gallery)
        except GalleryError as error:
            self.failing = self.failing or _is_of_the_file(error)
            raise
        if gallery.last_change is not None:
            self.failing = False
            self.metrics.changed()
        return result


def _is_of_the_file(error: GalleryError) -> bool:
    """Whether the file could not be read or written, rather than the change be made."""
    causes = (sqlite3.Error, OSError)
    return isinstance(error, WrongEncoderError) or isinstance(error.__cause__, causes)


def running_service(request: Request) -> Service:
    """Return the service of a request."""
    return cast(Service, request.app.state.service)


TheService = Annotated[Service, Depends(running_service)]
