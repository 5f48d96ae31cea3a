"""How many requests a second the service answers, how fast, and whether its memory stays flat.

Run as ``python -m benchmarks.serve_load PEOPLE_DIR``; see README.md beside this file.

A service is started on a copy of the people. First one client asks one thing after the other, then
many clients ask at once, then one again: both hit whatever else the machine does, and the ratio of
the two is the gain of answering together. Most requests name the faces in a photo; now and then a
client enrols a new person, and removes that person again some requests later. With ``--cameras``
the service watches as many streams meanwhile, of enrolled people who walk through.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from benchmarks.machine import processor_seconds, resident_megabytes
from benchmarks.serving import Client, Reply, RunningService
from benchmarks.streaming import streaming
from face_encode.photos.folders import people_in
from face_encode.photos.reading import decode_image
from face_encode.types import ImageArray

# One request in this many changes the people.
CHANGE_EVERY = 20
# What a camera sends: so large pictures, so many a second, in which a person is there for a while.
CAMERA_SIZE, CAMERA_RATE, FRAMES_THERE = (640, 360), 10.0, 60
# A person whom a client enrolled stays for this many of its changes.
STAYS = 3


@dataclass
class Phase:
    """What came of one phase.

    Attributes:
        name: What it was.
        clients: How many asked at once.
        seconds: How long it took.
        cpu_seconds: What the service computed meanwhile, its processes and threads together.
        statuses: Kind of request and status -> number.
        latencies: Kind of request -> seconds of each.
    """

    name: str
    clients: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: dict[str, list[float]] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """All that were answered."""
        return self.statuses.total()

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def server_errors(self) -> int:
        """Answers of 500 and above, and requests without an answer."""
        return sum(count for kind, count in self.statuses.items() if kind.split()[-1] >= "500")

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain JSON values."""
        latencies = {
            kind: {f"p{percent}": self.percentile(kind, percent) for percent in (50, 99)}
            for kind in self.latencies
        }
        # asdict would count the counter's pairs again.
        statuses = dict(self.statuses)
        return asdict(self) | {"rate": self.rate, "statuses": statuses, "latencies": latencies}

    def percentile(self, kind: str, percent: float) -> float:
        """Milliseconds within which ``percent`` per cent of a kind of request were answered."""
        return 1000 * float(np.percentile(self.latencies[kind], percent))


class Asker:
    """One client: asks one thing after the other, with its own people to enrol and remove."""

    def __init__(self, port: int, number: int, photos: Sequence[bytes]) -> None:
        self._client = Client(port)
        self._number = number
        self._photos = photos
        self._random = random.Random(number)
        self._enrolled: list[str] = []
        self._made = 0

    def reconnect(self) -> None:
        """Let go of a connection that the service has closed meanwhile."""
        self._client.close()

    def ask(self, phase: Phase, lock: threading.Lock) -> None:
        """One request, noted."""
        start = time.perf_counter()
        try:
            kind, reply = self._asked()
        except (OSError, HTTPException) as error:
            # No answer at all: the next request makes a new connection.
            with lock:
                phase.statuses[f"lost {type(error).__name__}"] += 1
            return
        took = time.perf_counter() - start
        with lock:
            phase.statuses[f"{kind} {reply.status}"] += 1
            phase.latencies.setdefault(kind, []).append(took)
        if reply.status == 429:
            time.sleep(float(reply.headers["retry-after"]))

    def _asked(self) -> tuple[str, Reply]:
        """Ask something; returns the kind of the request, and the answer."""
        if self._random.randrange(CHANGE_EVERY):
            kind = "match"
            reply = self._client.post("/v1/match", [("photo", self._random.choice(self._photos))])
        elif len(self._enrolled) < STAYS:
            kind, name = "enrol", f"Load {self._number}-{self._made}"
            self._made += 1
            photo = [("photos", self._random.choice(self._photos))]
            reply = self._client.post("/v1/people", photo, {"name": name})
            if reply.status == 200:
                self._enrolled.append(name)
        else:
            kind, name = "remove", self._enrolled.pop(0)
            reply = self._client.request("DELETE", f"/v1/people/{name.replace(' ', '%20')}")
        return kind, reply


def run_phase(service: RunningService, name: str, askers: Sequence[Asker], seconds: float) -> Phase:
    """Let clients ask at once for so long."""
    phase, lock = Phase(name, len(askers)), threading.Lock()
    cpu = processor_seconds(service.process_id)
    start = time.perf_counter()

    def ask_on(asker: Asker) -> None:
        asker.reconnect()
        while time.perf_counter() - start < seconds:
            asker.ask(phase, lock)

    threads = [threading.Thread(target=ask_on, args=(asker,)) for asker in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phase.seconds = time.perf_counter() - start
    phase.cpu_seconds = processor_seconds(service.process_id) - cpu
    return phase


def watch_memory(process: int, samples: list[tuple[float, float]], stop: threading.Event) -> None:
    """Note the memory every second."""
    start = time.perf_counter()
    while not stop.wait(1):
        samples.append((time.perf_counter() - start, resident_megabytes(process)))


def walking(photos: Sequence[bytes]) -> Callable[[int], ImageArray]:
    """What a camera sees: one person after the other crosses it, and nobody is there in between.

    Returns:
        From a frame's number to RGB, uint8 ``(360, 640, 3)``.
    """
    width, height = CAMERA_SIZE
    faces = [cv2.resize(decode_image(photo), (200, 200)) for photo in photos[:20]]

    def frame_at(number: int) -> ImageArray:
        frame: ImageArray = np.full((height, width, 3), 120, np.uint8)
        person, step = divmod(number, 2 * FRAMES_THERE)
        if step < FRAMES_THERE:
            left = round(step / FRAMES_THERE * (width - 200))
            frame[90:290, left : left + 200] = faces[person % len(faces)]
        return frame

    return frame_at


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("people", type=Path, help="a folder with one sub-folder a person")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--cameras", type=int, default=0, help="streams that are watched meanwhile")
    parser.add_argument("--alone-seconds", type=float, default=30, help="one client, twice")
    parser.add_argument("--warm-up-seconds", type=float, default=30)
    parser.add_argument("--persons", type=int, default=200, help="people of the folder enrolled")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    options = parser.parse_args()
    people = {name: photos for name, photos in people_in(options.people).items() if photos}
    names = sorted(people)[:: max(1, len(people) // options.persons)][: options.persons]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for name in names:
            shutil.copytree(options.people / name, Path(folder) / "people" / name)
        photos = [people[name][-1].read_bytes() for name in names]
        given = ["--people", f"{folder}/people", "--detector", "dlib_hog"]
        for number in range(options.cameras):
            stream = stack.enter_context(streaming(walking(photos[number:]), CAMERA_RATE))
            given += ["--camera", f"camera {number + 1}={stream.address}"]
        service = stack.enter_context(RunningService(*given))
        measure(service, photos, options)


def measure(service: RunningService, photos: Sequence[bytes], options: argparse.Namespace) -> None:
    """All phases on a running service."""
    print(service.lines[-1], f"(load average {os.getloadavg()[0]:.1f})", flush=True)
    askers = [Asker(service.port, number, photos) for number in range(options.clients)]
    run_phase(service, "warm-up", askers, options.warm_up_seconds)
    samples: list[tuple[float, float]] = []
    stop = threading.Event()
    watcher = threading.Thread(target=watch_memory, args=(service.process_id, samples, stop))
    alone = [run_phase(service, "one client", askers[:1], options.alone_seconds)]
    watcher.start()
    together = run_phase(service, f"{options.clients} clients", askers, 60 * options.minutes)
    stop.set()
    watcher.join()
    for camera in Client(service.port).request("GET", "/v1/cameras").json["cameras"]:
        print(f"{camera['name']}: {camera['state']}, {camera['frames_per_second']} frames a second")
    alone.append(run_phase(service, "one client", askers[:1], options.alone_seconds))
    for phase in (alone[0], together, alone[1]):
        print(f"{phase.name}: {phase.rate:.1f} requests/s, {dict(sorted(phase.statuses.items()))}")
        print(f"  computed: {1000 * phase.cpu_seconds / phase.requests:.1f} ms a request")
        for kind in sorted(phase.latencies):
            p50, p99 = phase.percentile(kind, 50), phase.percentile(kind, 99)
            print(f"  {kind}: p50 {p50:.0f} ms, p99 {p99:.0f} ms ({p99 / p50:.1f} times)")
    ratio = together.rate / (sum(phase.requests for phase in alone) / sum(p.seconds for p in alone))
    # After warm-up: the first tenth against the last.
    tenth = max(1, len(samples) // 10)
    first, last = (
        median(megabytes for _, megabytes in part) for part in (samples[:tenth], samples[-tenth:])
    )
    most = max(megabytes for _, megabytes in samples)
    print(f"{options.clients} clients get {ratio:.2f} times the requests of one")
    growth = 100 * (last / first - 1)
    print(f"memory: {first:.0f} MB at first, {last:.0f} MB at last ({growth:+.1f} %)")
    print(f"memory at most: {most:.0f} MB")
    print(f"answers of 500 and above, or none at all: {together.server_errors}")
    print(f"load average at the end: {os.getloadavg()[0]:.1f}")
    if options.json is not None:
        phases = [phase.as_dict() for phase in (*alone, together)]
        options.json.write_text(
            json.dumps({"ratio": ratio, "phases": phases, "memory_megabytes": samples}, indent=1)
        )


if __name__ == "__main__":
    main()
