"""Kills the service while it enrols, removes and merges, and compares its gallery with its answers.

A test does it once; ``python -m tests.server.killing 200`` kills it that many times, with a new
service on the same file after each.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.parse import quote

from benchmarks.serving import Client, RunningService
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.gallery.audit import replayed
from face_encode.gallery.database import DatabaseGallery
from tests.conftest import EXAMPLES

PHOTO = (EXAMPLES / "ada_mirova.jpg").read_bytes()
CLIENTS = 4


@dataclass
class Expected:
    """The number of photos that people have, by what was acknowledged.

    Attributes:
        photos: Person -> photos; 0 for one who was removed, or merged into another.
        open: What was asked for and not answered: person -> photos afterwards, a change each.
    """

    photos: dict[str, int] = field(default_factory=dict)
    open: list[dict[str, int]] = field(default_factory=list)

    def agrees(self, people: dict[str, int]) -> list[str]:
        """Say what in a gallery is neither as acknowledged, nor as an open change makes it."""
        faults = []
        of_open = {name for change in self.open for name in change}
        for name in {*self.photos, *people} - of_open:
            if people.get(name, 0) != self.photos.get(name, 0):
                faults.append(f"{name}: {people.get(name, 0)} photos, not {self.photos.get(name)}")
        for change in self.open:
            now = {name: people.get(name, 0) for name in change}
            if now not in (change, {name: self.photos.get(name, 0) for name in change}):
                faults.append(f"half a change: {now}")
        return faults


@dataclass(frozen=True)
class Killed:
    """The outcome of one kill.

    Attributes:
        acknowledged: Changes that were answered.
        faults: What is wrong with the gallery afterwards.
        orphans: Processes of the service that outlived it.
    """

    acknowledged: int
    faults: list[str]
    orphans: list[int]


def kill_while_changing(
    folder: Path, encoder: Encoder, expected: Expected, label: str, seconds: float
) -> Killed:
    """Change the people from several clients, and kill the service after a while.

    Args:
        folder: Holds ``people.sqlite`` or will.
        encoder: To open the gallery with.
        expected: What earlier kills have left; is brought up to date.
        label: Begins the names of the people.
        seconds: From the first answer to the kill.
    """
    path = folder / "people.sqlite"
    service = RunningService("--people", str(path), "--detector", "dlib_hog", "--workers", "1")
    workers = children_of(service.process_id)
    acknowledged: list[int] = []
    refused: list[str] = []
    lock = threading.Lock()

    def change_on(number: int) -> None:
        client = Client(service.port)

        def ask(after: dict[str, int], method: str, address: str, body: str = "") -> bool:
            with lock:
                expected.open.append(after)
            try:
                if method == "ENROL":
                    reply = client.post("/v1/people", [("photos", PHOTO)], {"name": body})
                else:
                    json = {"Content-Type": "application/json"}
                    reply = client.request(method, address, body.encode() or None, json)
            except (OSError, HTTPException):
                return False  # killed
            with lock:
                expected.open.remove(after)
                if reply.status != 200:
                    refused.append(f"{method} {address}{body}: {reply.content.decode()}")
                    return False
                expected.photos.update(after)
                acknowledged.append(reply.status)
            return True

        all_of_them = f"{label} {number}"
        turn, goes_on = 0, ask({all_of_them: 1}, "ENROL", "", all_of_them)
        while goes_on:
            turn += 1
            name = f"{all_of_them} {turn}"
            address = f"/v1/people/{quote(name)}"
            goes_on = ask({name: 1}, "ENROL", "", name)
            if goes_on and turn % 3 == 1:
                goes_on = ask({name: 0}, "DELETE", address)
            elif goes_on and turn % 3 == 2:
                together = {name: 0, all_of_them: expected.photos[all_of_them] + 1}
                into = f'{{"into": "{all_of_them}"}}'
                goes_on = ask(together, "POST", f"{address}/merge", into)

    threads = [threading.Thread(target=change_on, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    # Never before the first answer: a kill before anything happened shows nothing.
    while not acknowledged and any(thread.is_alive() for thread in threads):
        time.sleep(0.005)
    time.sleep(seconds)
    assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    for thread in threads:
        thread.join()
    with closing(DatabaseGallery(path, encoder)) as gallery:
        people = gallery.people()
        # A refusal is explained by the service's log.
        faults = [*refused, *(service.lines if refused else ()), *expected.agrees(people)]
        counted = {name: len(photos) for name, photos in replayed(gallery.changes()).items()}
    if counted != people:
        faults.append("the audit does not give the gallery")
    with closing(sqlite3.connect(path)) as connection:
        faults += [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
    # What was open is known now.
    names = {name for change in expected.open for name in change}
    expected.photos.update({name: people.get(name, 0) for name in names})
    expected.open.clear()
    deadline = time.monotonic() + 90
    while (orphans := [each for each in workers if is_alive(each)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return Killed(len(acknowledged), faults, orphans)


def children_of(process: int) -> list[int]:
    """What a process has started (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == process:
            found.append(int(path.parent.name))
    return found


def is_alive(process: int) -> bool:
    """Whether a process runs: one that only waits to be noticed does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    """Kill the service again and again."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    chance, encoder, expected = random.Random(0), load_encoder(), Expected()
    acknowledged = 0
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for kill in range(1, count + 1):
            done = kill_while_changing(
                folder, encoder, expected, f"Kill {kill}", chance.uniform(0, 3)
            )
            acknowledged += done.acknowledged
            print(
                f"kill {kill}: {done.acknowledged} changes acknowledged, faults: {done.faults}, "
                f"{len(done.orphans)} processes left",
                flush=True,
            )
            assert not done.faults and not done.orphans
        with RunningService("--people", str(folder / "people.sqlite")) as service:
            people = Client(service.port).request("GET", "/v1/people?count=10000").json["people"]
        served = {person["name"]: person["photos"] for person in people}
        assert served == {name: photos for name, photos in expected.photos.items() if photos}
    print(f"{count} kills, {acknowledged} changes acknowledged, none lost, no half change")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
