"""A running service for the tests of its page, and the film that a camera shows it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from PIL import Image

from tests.conftest import REPOSITORY

READ_TOKEN = "only-to-look-around-0123"
WRITE_TOKEN = "to-change-people-456789"
FILM_SIZE = (640, 480)
_START_SECONDS = 180


@dataclass(frozen=True)
class RunningService:
    """A service in a process of its own.

    Attributes:
        address: Where its page is.
    """

    address: str

    def ask(self, method: str, path: str) -> Any:
        """Ask it something, past the page."""
        headers = {"Authorization": f"Bearer {WRITE_TOKEN}"}
        with urlopen(Request(self.address + path, None, headers, method=method)) as answer:
            return json.load(answer)

    def names(self) -> list[str]:
        """Who is enrolled."""
        return [person["name"] for person in self.ask("GET", "v1/people")["people"]]

    def remove(self, name: str) -> None:
        """Delete a person."""
        self.ask("DELETE", f"v1/people/{quote(name, safe='')}")


@contextmanager
def running_service(people: Path) -> Iterator[RunningService]:
    """Start ``face-encode serve``, and stop it in the end."""
    words = ["serve", "--people", str(people), "--port", "0", "--keep-crops"]
    process = subprocess.Popen(
        # The fast detector alone: the tests are about the page.
        [sys.executable, "-m", "face_encode.cli", *words, "--detector", "dlib_hog"],
        cwd=people.parent,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "FACE_ENCODE_TOKEN": READ_TOKEN,
            "FACE_ENCODE_WRITE_TOKEN": WRITE_TOKEN,
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield RunningService(_address_of(process))
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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


def _address_of(process: subprocess.Popen[str]) -> str:
    """Where the service listens, once it answers."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("serving "):
            address = line.split()[-1].rstrip("/") + "/"
            break
    else:
        raise AssertionError(f"the service ended with {process.wait()}")
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        with suppress(URLError, ConnectionError), urlopen(f"{address}healthz"):
            return address
        assert process.poll() is None, "the service ended"
        time.sleep(0.1)
    raise AssertionError("the service does not answer")
