"""Attacks on a service, beside honest clients who should hardly notice.

Clients with a token send photos that keep a decoder busy, one after the other; clients without one
hold connections open, announce bodies and send none. ``python -m tests.server.attack --minutes 10``
runs them against a service of its own, prints what the honest clients saw, and fails where one was
refused or waited too long; a test does it for a short while.
"""

from __future__ import annotations

import argparse
import itertools
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import numpy as np

from benchmarks.machine import resident_megabytes
from benchmarks.serving import Client, RunningService
from tests.conftest import EXAMPLES, VERIFY_DATASET
from tests.photos.laborious import LABORIOUS, jpeg_of_scans
from tests.server.hostile import READ, TOKENS, WRITE, head

PHOTO = (EXAMPLES / "ada_mirova.jpg").read_bytes()
HONEST, LABORIOUS_CLIENTS, CONNECTIONS = 4, 2, 64
MAX_P99_SECONDS = 3.0
_PAUSE_SECONDS = 0.1


@dataclass
class Seen:
    """What came of an attack.

    Attributes:
        honest: Statuses of the honest clients' requests.
        seconds: How long each of them took.
        attacks: Statuses of the photos sent to keep the service busy.
        held: Connections that were opened to be held.
        ready: Statuses of ``/readyz``.
        megabytes: The most memory that the service took with its processes.
    """

    honest: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    attacks: Counter[int] = field(default_factory=Counter)
    held: int = 0
    ready: Counter[int] = field(default_factory=Counter)
    megabytes: float = 0.0

    @property
    def p99_seconds(self) -> float:
        """The time within which 99 of 100 honest requests were answered."""
        return float(np.percentile(self.seconds, 99))

    def __str__(self) -> str:
        return (
            f"honest: {dict(self.honest)}, p50 {np.median(self.seconds):.2f} s, "
            f"p99 {self.p99_seconds:.2f} s, at most {max(self.seconds):.2f} s; "
            f"laborious photos: {dict(self.attacks)}; connections held: {self.held}; "
            f"readyz: {dict(self.ready)}; at most {self.megabytes:.0f} MB"
        )


def attack(service: RunningService, seconds: float, photos: Sequence[bytes]) -> Seen:
    """Attack a service for a while.

    Args:
        service: With the tokens of ``hostile``.
        seconds: How long.
        photos: Sent to keep it busy.
    """
    seen, lock, end = Seen(), threading.Lock(), time.monotonic() + seconds

    def repeated(act: Callable[[Client], None], token: str | None) -> None:
        client = Client(service.port, token)
        while time.monotonic() < end:
            # A refused client may find its connection closed.
            with suppress(OSError, HTTPException):
                act(client)
        client.close()

    def ask(client: Client) -> None:
        begun, status = time.perf_counter(), 0
        try:
            status = client.post("/v1/match", [("photo", PHOTO)]).status
        finally:
            with lock:
                seen.honest[status] += 1
                seen.seconds.append(time.perf_counter() - begun)
        time.sleep(_PAUSE_SECONDS)

    laborious: Iterator[bytes] = itertools.cycle(photos)

    def bother(client: Client) -> None:
        with lock:
            content = next(laborious)
        status = client.post("/v1/match?thorough=false", [("photo", content)]).status
        with lock:
            seen.attacks[status] += 1

    def look(client: Client) -> None:
        seen.ready[client.request("GET", "/readyz").status] += 1
        seen.megabytes = max(seen.megabytes, resident_megabytes(service.process_id))
        time.sleep(0.5)

    def hold() -> None:
        announcing = (
            head("POST", "/v1/match", None, Content_Length="1000000", Content_Type="image/jpeg"),
            head("GET", "/healthz", None, Content_Length="1000000"),
            b"POST /v1/match HTTP/1.1\r\n",
            b"",
        )
        with ExitStack() as stack:
            open_now: list[socket.socket] = []
            while time.monotonic() < end:
                for sent in itertools.islice(itertools.cycle(announcing), CONNECTIONS):
                    with suppress(OSError):
                        each = socket.create_connection(("127.0.0.1", service.port), timeout=5)
                        open_now.append(stack.enter_context(each))
                        each.sendall(sent)
                        seen.held += 1
                # As many as the service lets be open, and then a few more.
                while len(open_now) > 4 * CONNECTIONS:
                    open_now.pop(0).close()
                time.sleep(1)

    threads = [threading.Thread(target=hold), threading.Thread(target=repeated, args=(look, None))]
    threads += [threading.Thread(target=repeated, args=(ask, READ)) for _ in range(HONEST)]
    threads += [
        threading.Thread(target=repeated, args=(bother, WRITE)) for _ in range(LABORIOUS_CLIENTS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def laborious_photos() -> list[bytes]:
    """Photos of every kind that is refused unread, and two that are just within the bounds."""
    photos = [make() for make in LABORIOUS.values()]
    return [*(each for each in photos if len(each) < 19_000_000), jpeg_of_scans(5000, 15)]


def main() -> int:
    """Attack a service of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    options = parser.parse_args()
    photos = laborious_photos()
    with tempfile.TemporaryDirectory() as folder:
        people = Path(folder) / "people"
        people.symlink_to(VERIFY_DATASET)
        arguments = ("--people", str(people), "--detector", "dlib_hog")
        with RunningService(*arguments, environment=TOKENS) as service:
            print(f"before: {attack_none(service)}", flush=True)
            seen = attack(service, 60 * options.minutes, photos)
    print(seen)
    return 0 if set(seen.honest) == {200} and seen.p99_seconds < MAX_P99_SECONDS else 1


def attack_none(service: RunningService) -> str:
    """How long one honest request after the other takes without an attack."""
    client, seconds = Client(service.port, READ), []
    for _ in range(20):
        begun = time.perf_counter()
        client.post("/v1/match", [("photo", PHOTO)])
        seconds.append(time.perf_counter() - begun)
    return f"a request takes {np.median(seconds):.2f} s, at most {max(seconds):.2f} s"


if __name__ == "__main__":
    sys.exit(main())
