"""Kills the service while it enrols, and compares its files with its answers.

A test does it once; ``python -m tests.server.killing 200`` repeats it until that many people are
enrolled, with a new service on the same files after each kill.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from benchmarks.serving import Client, RunningService
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.gallery.opening import load_gallery
from tests.conftest import EXAMPLES

PHOTO = (EXAMPLES / "ada_mirova.jpg").read_bytes()
CLIENTS = 8


@dataclass(frozen=True)
class Killed:
    """The outcome of one kill.

    Attributes:
        asked: People whose enrolment was asked for.
        acknowledged: People whose enrolment was answered.
        on_disk: People in the gallery file afterwards.
        audited: People enrolled according to the audit log.
        halves: Temporary files that were left behind.
        orphans: Processes of the service that outlived it.
    """

    asked: list[str]
    acknowledged: list[str]
    on_disk: list[str]
    audited: list[str]
    halves: int
    orphans: list[int]


def kill_while_enrolling(
    folder: Path, encoder: Encoder, names: list[str], seconds: float
) -> Killed:
    """Enrol from several clients, and kill the service after a while.

    Args:
        folder: Holds ``people.npz`` or will.
        encoder: To read the gallery with.
        names: Whom to enrol.
        seconds: From the first enrolment to the kill.
    """
    service = RunningService("--people", str(folder / "people.npz"), "--detector", "dlib_hog")
    workers = children_of(service.process_id)
    waiting, asked, acknowledged = list(names), [], []
    lock = threading.Lock()

    def enrol_on() -> None:
        client = Client(service.port)
        while True:
            with lock:
                if not waiting:
                    return
                name = waiting.pop()
                asked.append(name)
            try:
                reply = client.post("/v1/people", [("photos", PHOTO)], {"name": name})
            except (OSError, HTTPException):
                return  # killed
            assert reply.status == 200, reply.content
            with lock:
                acknowledged.append(name)

    threads = [threading.Thread(target=enrol_on) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    # Never before the first answer: a kill before anything happened shows nothing.
    while not acknowledged:
        time.sleep(0.005)
    time.sleep(seconds)
    assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    for thread in threads:
        thread.join()
    gallery = load_gallery(folder / "people.npz", encoder)
    lines = (folder / "people.audit.jsonl").read_text().splitlines()
    deadline = time.monotonic() + 90
    while (orphans := [each for each in workers if is_alive(each)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return Killed(
        asked=asked,
        acknowledged=acknowledged,
        on_disk=list(gallery.people()),
        audited=[json.loads(line)["person"] for line in lines],
        halves=sum(path.name.startswith(".people") for path in folder.iterdir()),
        orphans=orphans,
    )


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
    """Enrol many people, and kill the service again and again."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    chance, encoder = random.Random(0), load_encoder()
    asked: list[str] = []
    acknowledged: list[str] = []
    kills = halves = 0
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        while len(asked) < count:
            names = [f"Person {len(asked) + number}" for number in range(count - len(asked))]
            names.reverse()
            done = kill_while_enrolling(folder, encoder, names, chance.uniform(0, 3))
            kills += 1
            halves = done.halves
            asked += done.asked
            acknowledged += done.acknowledged
            lost = set(acknowledged) - set(done.on_disk)
            unaudited = set(done.on_disk) - set(done.audited)
            print(
                f"kill {kills}: {len(done.asked)} asked, {len(done.acknowledged)} acknowledged, "
                f"{len(done.on_disk)} on disk in all, {len(lost)} lost, {len(unaudited)} not in "
                f"the audit log, {len(done.orphans)} processes left",
                flush=True,
            )
            assert not lost and not unaudited and not done.orphans
        with RunningService("--people", str(folder / "people.npz")) as service:
            people = Client(service.port).request("GET", "/v1/people").json["people"]
        served = {person["name"] for person in people}
        print(
            f"{len(asked)} enrolments asked for, {len(acknowledged)} acknowledged, {kills} kills, "
            f"{halves} temporary files left beside the gallery; after the last restart "
            f"{len(set(acknowledged) - served)} of the acknowledged are missing"
        )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
