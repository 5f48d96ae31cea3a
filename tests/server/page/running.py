"""The service whose page is tested, and the film that a camera shows it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from benchmarks import serving
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.unknown import Sight

READ_TOKEN = "only-to-look-around-0123"
WRITE_TOKEN = "to-change-people-456789"
FILM_SIZE = (640, 480)


class RunningService(serving.RunningService):
    """A service with tokens, in a process of its own.

    Attributes:
        address: The address of its page.
        database: Its gallery.
    """

    def __init__(self, people: Path, *options: str) -> None:
        """Serve a folder of people, with the fast detector alone: the tests are about the page."""
        detector = () if "--detector" in options else ("--detector", "dlib_hog")
        super().__init__(
            *("--people", str(people), "--keep-crops", *detector, *options),
            environment={
                "FACE_ENCODE_TOKEN": READ_TOKEN,
                "FACE_ENCODE_WRITE_TOKEN": WRITE_TOKEN,
            },
        )
        self.address = f"http://127.0.0.1:{self.port}/"
        self.database = people.with_name(f"{people.name}.sqlite")

    def __enter__(self) -> RunningService:
        return self

    def ask(self, method: str, path: str) -> Any:
        """Send a request past the page."""
        client = serving.Client(self.port, WRITE_TOKEN)
        reply = client.request(method, f"/{path}")
        client.close()
        assert reply.status == 200, reply.content
        return reply.json

    def see(self, *photos: Path, camera: str = "front door") -> None:
        """See the faces of photos as a camera does that shares the gallery."""
        threshold = self.ask("GET", "v1/settings")["threshold"]
        client = serving.Client(self.port, WRITE_TOKEN)
        with closing(DatabaseGallery(self.database, create=False, metric=None)) as gallery:
            for photo in photos:
                content = photo.read_bytes()
                (face,) = client.post("/v1/embed", [("photo", content)], {}).json["faces"]
                embedding = np.array(face["embedding"], np.float32)
                details = PhotoDetails(camera, quality=face["quality"], crop=content)
                gallery.unknown.see(Sight(embedding, details), threshold)
        client.close()

    def unknown(self) -> list[str]:
        """List the people without a name."""
        return [person["id"] for person in self.ask("GET", "v1/unknown")["people"]]

    def dismiss_all(self) -> None:
        """Delete the people without a name."""
        for each in self.unknown():
            self.ask("DELETE", f"v1/unknown/{each}")

    def send_photo(self, path: str, photo: Path) -> Any:
        """Send a photo past the page."""
        client = serving.Client(self.port, WRITE_TOKEN)
        reply = client.post(f"/{path}", [("photo", photo.read_bytes())])
        client.close()
        assert reply.status == 200, reply.content
        return reply.json

    def names(self) -> list[str]:
        """List the people."""
        return [person["name"] for person in self.ask("GET", "v1/people")["people"]]

    def remove(self, name: str) -> None:
        """Delete a person."""
        self.ask("DELETE", f"v1/people/{quote(name, safe='')}")


def film(path: Path, photos: Sequence[Path]) -> Path:
    """A film of photos side by side that sway a little, as Chromium's fake camera takes it."""
    width, height = FILM_SIZE
    room = width // len(photos)
    with path.open("wb") as file:
        for moment in (*range(12), *range(12, 0, -1)):
            frame = Image.new("RGB", FILM_SIZE, (118, 124, 120))
            for index, photo in enumerate(photos):
                portrait = Image.open(photo)
                portrait.thumbnail((room - 16, height - 60))
                frame.paste(portrait, (index * room + moment // 2, 30 + moment // 3))
            content = io.BytesIO()
            frame.save(content, "JPEG", quality=92)
            file.write(content.getvalue())
    return path
