"""The settings and limits of a service."""

from __future__ import annotations

from dataclasses import dataclass, fields

from face_encode.errors import InputError

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})
INTERFACES = ("/v1", "/api/v1")
"""Where the addresses begin under which programs reach the service."""


@dataclass(frozen=True)
class Limits:
    """The most that a client may ask for; each limit is at least 1.

    Attributes:
        body_bytes: Bytes of one request's body.
        pixels: Pixels of one photo.
        photos: Photos of one enrolment.
        faces: Faces of one photo that are named or embedded, largest first.
        body_seconds: Time for the whole body to arrive.
        request_seconds: Time for the answer, once the body has arrived.
        photo_seconds: Time for one photo in its process, until its faces are cut out.
        requests_in_flight: Requests that are answered at the same time; more get a 429.
        connections: Connections that are open at the same time.
        header_seconds: Time for a request's headers to arrive.
    """

    body_bytes: int = 20_000_000
    pixels: int = 25_000_000
    photos: int = 20
    faces: int = 50
    body_seconds: int = 15
    request_seconds: int = 60
    photo_seconds: int = 30
    requests_in_flight: int = 32
    connections: int = 256
    header_seconds: int = 10

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(
                    f"the limit {field.name!r} is at least 1. Received: {getattr(self, field.name)}"
                )


@dataclass(frozen=True)
class ServerSettings:
    """The settings of a service.

    Attributes:
        host: The address that the service listens at.
        port: The port.
        allowed_hosts: Further names under which browsers reach it, such as a reverse proxy's.
        keep_crops: Whether the face of each photo is kept, so that it can be shown, and embedded by
            another encoder later.
        workers: The number of processes that find faces.
        require_live: Whether the liveness of the faces of photos is judged, but for those that are
            enrolled, and what is not alive matches nobody.
        show_attributes: Whether the page tells age, gender and expression of the faces of a photo.
        limits: The most that a client may ask for.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    keep_crops: bool = False
    workers: int = 2
    require_live: bool = False
    show_attributes: bool = False
    limits: Limits = Limits()

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine reach the service."""
        return self.host in LOOPBACK_HOSTS
