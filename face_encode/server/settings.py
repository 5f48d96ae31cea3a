"""What the service allows, and how it was started."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from face_encode.errors import InputError

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class Limits:
    """The most that a client may ask for; each is at least 1.

    Attributes:
        body_bytes: Of one request's body.
        pixels: Of one photo.
        photos: Of one enrolment.
        faces: Of one photo that are named or embedded, the largest first.
        body_seconds: Until the whole body has arrived.
        request_seconds: Until the answer, once the body is there.
        requests_in_flight: Answered at the same time; more are told to come back.
        connections: Open at the same time.
        header_seconds: Until a request's headers have arrived.
    """

    body_bytes: int = 20_000_000
    pixels: int = 25_000_000
    photos: int = 20
    faces: int = 50
    body_seconds: int = 15
    request_seconds: int = 60
    requests_in_flight: int = 32
    connections: int = 256
    header_seconds: int = 10

    def __post_init__(self) -> None:
        """Check that each allows something."""
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise InputError(
                    f"the limit {field.name!r} is at least 1. Received: {getattr(self, field.name)}"
                )


@dataclass(frozen=True)
class ServerSettings:
    """How the service was started.

    Attributes:
        host: The address that it listens at.
        port: The port.
        allowed_hosts: Further names under which browsers reach it, such as a reverse proxy's.
        gallery: The file that the people are kept in.
        audit_log: The file that says who changed what.
        crops: The folder for small pictures of the people.
        keep_crops: Whether a small picture of each person is kept.
        workers: Processes that find faces.
        limits: What a client may ask for.
    """

    gallery: Path
    audit_log: Path
    crops: Path
    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    keep_crops: bool = False
    workers: int = 2
    limits: Limits = Limits()

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine reach it."""
        return self.host in LOOPBACK_HOSTS
