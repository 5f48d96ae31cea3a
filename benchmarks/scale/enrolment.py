"""Photos a second of enrolment beside other packages, and its memory as folders grow."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import watched_memory
from benchmarks.photo_folders import copy_photos
from benchmarks.scale.contestant import REPOSITORY, Contestant, MissingContestantError
from benchmarks.scale.results import Skipped
from benchmarks.timing import Times

_MODULE = "benchmarks.scale.enrolment_contestants"
# Enough for this package to start its worker processes, which it does not do for few photos.
WARM_UP_PHOTOS = 256
RIVAL_WARM_UP_PHOTOS = 8
# Each of several processes takes one core; libraries with threads of their own would fight.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Rival:
    """Another package in the contest.

    Attributes:
        name: What the results call it.
        kind: Of ``enrolment_contestants``.
        processes: How many of it share the photos.
    """

    name: str
    kind: str
    processes: int


RIVALS = (
    Rival("face_recognition", "face_recognition", 1),
    Rival("face_recognition, 2 processes", "face_recognition", 2),
    Rival("DeepFace (Dlib)", "deepface", 1),
    Rival("DeepFace (Dlib), 2 processes", "deepface", 2),
)
OURS = "face_encode"


@dataclass(frozen=True)
class EnrolmentRow:
    """How fast one contestant enrols.

    Attributes:
        contestant: Who.
        photos: How many it enrolled in all turns together.
        faces: In how many it found a face.
        seconds_a_photo: Over the turns.
        ratio: How many times this package's photos a second are its, by the medians.
        ratio_of_shortest: The same by the fastest turn of each.
        start_seconds: From the start of its process until it was ready; not counted above.
    """

    contestant: str
    photos: int
    faces: int
    seconds_a_photo: Times
    ratio: float
    ratio_of_shortest: float
    start_seconds: float

    @property
    def photos_a_second(self) -> float:
        """By the median turn."""
        return 1 / self.seconds_a_photo.median


def measure_rates(
    source: Path,
    *,
    photos: int,
    turns: int,
    deepface_photos: int,
    rivals: Sequence[str],
    skipped: list[Skipped],
) -> list[dict[str, Any]]:
    """Let this package and others enrol the same photos, in turns.

    In each turn this package enrols all photos, a rival, which takes so much longer, a part of
    them: every rival has had its whole share of the photos when the last turn ends.

    Args:
        source: A folder with one sub-folder a person.
        photos: How many of it are enrolled.
        turns: How many turns count.
        deepface_photos: How many of them DeepFace gets, which is slow.
        rivals: Names of ``RIVALS``.
        skipped: Takes who cannot take part.

    Returns:
        A row a contestant, this package first.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, warm_up = Path(name, "photos"), Path(name, "warm-up")
        folder.mkdir()
        warm_up.mkdir()
        paths = [str(path) for path in copy_photos(source, photos, folder)]
        copy_photos(source, WARM_UP_PHOTOS, warm_up)
        environment = {"DEEPFACE_HOME": str(deepface_home(Path(name, "home")))}
        ours = stack.enter_context(Contestant(OURS, _MODULE, "face_encode"))
        others: list[tuple[Contestant, list[str]]] = []
        for rival in (each for each in RIVALS if each.name in rivals):
            alone = rival.processes == 1
            try:
                contestant = Contestant(
                    rival.name,
                    _MODULE,
                    rival.kind,
                    {"processes": rival.processes},
                    environment | ({} if alone else _ONE_THREAD),
                )
            except MissingContestantError as error:
                skipped.append(Skipped("enrolment", rival.name, str(error)))
                continue
            few = rival.kind == "deepface"
            share = paths[:: max(1, len(paths) // deepface_photos)] if few else paths
            others.append((stack.enter_context(contestant), share))
        times: dict[str, list[float]] = {OURS: []}
        faces: dict[str, int] = {OURS: 0}
        for turn in range(turns):
            # Workers that have waited through the others' turns may have gone home.
            ours.ask(folder=str(warm_up))
            done = ours.ask(folder=str(folder))
            times[OURS].append(done["seconds"] / len(paths))
            faces[OURS] += done["faces"]
            for contestant, share in others:
                part = share[turn::turns]
                if not turn:
                    contestant.ask(photos=share[:RIVAL_WARM_UP_PHOTOS])
                done = contestant.ask(photos=part)
                times.setdefault(contestant.name, []).append(done["seconds"] / len(part))
                faces[contestant.name] = faces.get(contestant.name, 0) + done["faces"]
        counts = {OURS: turns * len(paths)} | {each.name: len(share) for each, share in others}
        starts = {each.name: each.start_seconds for each in (ours, *(each for each, _ in others))}
    ours_times = Times.of(times[OURS])
    rows = []
    for each, taken in times.items():
        its = Times.of(taken)
        rows.append(
            EnrolmentRow(
                contestant=each,
                photos=counts[each],
                faces=faces[each],
                seconds_a_photo=its,
                ratio=its.median / ours_times.median,
                ratio_of_shortest=its.minimum / ours_times.minimum,
                start_seconds=starts[each],
            )
        )
    return [asdict(row) | {"photos_a_second": row.photos_a_second} for row in rows]


def measure_memory(
    source: Path, sizes: Sequence[int], folder: Path, skipped: list[Skipped]
) -> Iterator[dict[str, Any]]:
    """Enrol so many photos by ``face-encode enroll``, and watch its memory.

    Args:
        source: A folder with one sub-folder a person.
        sizes: Numbers of photos, each enrolled anew by a process of its own.
        folder: Where the galleries go: ``SIZE.npz``.
        skipped: Takes the sizes that the folder is too small for.

    Yields:
        What was seen, a dict a size: megabytes of the process and its workers together.
    """
    command = (sys.executable, "-m", "face_encode.cli", "enroll")
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            copied = len(copy_photos(source, size, Path(name)))
            if copied < size:
                reason = f"the folder holds {copied:,} photos only"
                skipped.append(Skipped("memory", f"{size:,} photos", reason))
                continue
            start = time.perf_counter()
            process = subprocess.Popen(
                [*command, name, "-g", str(folder / f"{size}.npz"), "--json"],
                cwd=REPOSITORY,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            with watched_memory(process.pid) as peak:
                code = process.wait()
            taken = time.perf_counter() - start
        if code:
            raise RuntimeError(f"face-encode enroll ended with exit code {code}")
        yield {
            "photos": size,
            "peak_megabytes": peak.proportional,
            "peak_resident_megabytes": peak.resident,
            "samples": peak.samples,
            "seconds_with_start": taken,
        }


def deepface_home(folder: Path) -> Path:
    """A home for DeepFace with the weights of dlib that this package uses too.

    Args:
        folder: Where to make it.
    """
    from face_encode.weights import installed_path

    weights = folder / ".deepface" / "weights"
    weights.mkdir(parents=True)
    for known in ("dlib_resnet", "dlib_landmarks_5"):
        path = installed_path(known)
        (weights / path.name).symlink_to(path)
    return folder
