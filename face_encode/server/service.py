"""What the routes share: the recogniser, the people, the settings and the numbers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, Request

from face_encode.errors import GalleryError, InputError
from face_encode.server.audit import Author
from face_encode.server.changes import Change, PhotosLeftOut
from face_encode.server.metrics import Metrics
from face_encode.server.names import person_name
from face_encode.server.people_store import NotSavedError, People, PeopleStore
from face_encode.server.problems import Problem
from face_encode.server.recognition import Recogniser
from face_encode.server.settings import ServerSettings


@dataclass(frozen=True, eq=False)
class Service:
    """A running service.

    Attributes:
        recogniser: Embeds photos.
        store: Holds the people.
        settings: How it was started.
        metrics: Its numbers.
    """

    recogniser: Recogniser
    store: PeopleStore
    settings: ServerSettings
    metrics: Metrics

    async def change(self, change: Change, author: Author) -> Any:
        """Make a change, and wait until it is on disk.

        Raises:
            Problem: It cannot be done, or not be saved.
        """
        # Shielded: a request whose time is over leaves the change as it is, done or not done.
        waiting = asyncio.wrap_future(self.store.submit(change, author))
        try:
            return await asyncio.shield(waiting)
        except PhotosLeftOut as error:
            detail = f"{str(error)[:1].upper()}{str(error)[1:]}."
            raise Problem(422, "no-photo-usable", detail, left_out=error.left_out) from error
        except NotSavedError as error:
            raise Problem(
                503,
                "not-saved",
                "The change could not be saved; nothing was changed.",
                headers={"Retry-After": "30"},
            ) from error
        except GalleryError as error:
            kind = "name-taken" if "already" in str(error) else "nobody-of-that-name"
            status = 409 if kind == "name-taken" else 404
            raise Problem(status, kind, f"{error}.") from error


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    return cast(Service, request.app.state.service)


TheService = Annotated[Service, Depends(service_of)]


def checked_name(value: object) -> str:
    """A person's name as it is enrolled.

    Raises:
        Problem: It is none.
    """
    try:
        return person_name(value)
    except InputError as error:
        raise Problem(422, "not-a-name", f"{error}.") from error


def enrolled_name(people: People, name: str) -> str:
    """The enrolled person of a name in a path.

    Raises:
        Problem: There is none.
    """
    # Galleries from elsewhere hold names that are not in the form that we enrol.
    if name in people.photos:
        return name
    try:
        normal = person_name(name)
    except InputError:
        normal = ""
    if normal in people.photos:
        return normal
    raise Problem(404, "nobody-of-that-name", "Nobody of that name is enrolled.")
