"""Photos a second of enrolment beside other packages, and its memory as folders grow."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import watched_memory
from benchmarks.photo_folders import copy_photos
from benchmarks.scale.contestant import REPOSITORY, Contestant, MissingContestantError
from benchmarks.scale.results import Skipped
from benchmarks.timing import Times
from face_encode.errors import InputError

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
# Each face once through the network, as the others do it; by itself this package averages the
# embeddings of a face and its mirror image.
OURS_SINGLE = "face_encode, dlib_resnet_single"


def measure_rates(
    source: Path,
    *,
    photos: int,
    turns: int,
    alone_photos: int,
    deepface_photos: int,
    rivals: Sequence[str],
    skipped: list[Skipped],
) -> dict[str, Any]:
    """Let this package and others enrol the same photos, in turns.

    In each turn this package enrols all photos; a rival, which takes so much longer, a part of
    its share of them, which it has had as a whole when the last turn ends.

    Args:
        source: A folder with one sub-folder a person.
        photos: How many of it are enrolled.
        turns: How many turns count.
        alone_photos: How many of them those get who enrol in one process.
        deepface_photos: How many of them DeepFace gets, which is slow.
        rivals: Names of ``RIVALS``.
        skipped: Takes who cannot take part.

    Returns:
        ``"rows"``, one a contestant, this package's two first; and the ``"engine"`` of its encoder.

    Raises:
        InputError: Fewer photos than turns.
    """
    if min(photos, alone_photos, deepface_photos) < turns:
        raise InputError(
            "every turn takes at least a photo of each contestant. "
            f"Received: {turns} turns; {photos} photos, {alone_photos} for one process, "
            f"{deepface_photos} for DeepFace"
        )
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, warm_up, home = (Path(name, each) for each in ("photos", "warm-up", "home"))
        for each in (folder, warm_up, home):
            each.mkdir()
        paths = [str(path) for path in copy_photos(source, photos, folder)]
        copy_photos(source, WARM_UP_PHOTOS, warm_up)
        environment = {"DEEPFACE_HOME": str(deepface_home(home))}
        ours = stack.enter_context(Contestant(OURS, _MODULE, "face_encode"))
        engine = ours.ask(about=True)["engine"]
        single = Contestant(OURS_SINGLE, _MODULE, "face_encode", {"encoder": "dlib_resnet_single"})
        own = [ours, stack.enter_context(single)]
        tallies = [_Tally(each, len(paths) * turns) for each in own]
        shares: dict[str, list[str]] = {}
        for rival in (each for each in RIVALS if each.name in rivals):
            try:
                contestant = stack.enter_context(_started(rival, environment))
            except MissingContestantError as error:
                skipped.append(Skipped("enrolment", rival.name, str(error)))
                continue
            count = alone_photos if rival.processes == 1 else len(paths)
            if rival.kind == "deepface":
                count = min(count, deepface_photos)
            share = paths[:: max(1, len(paths) // count)][:count]
            contestant.ask(photos=share[:RIVAL_WARM_UP_PHOTOS])
            tallies.append(_Tally(contestant, len(share)))
            shares[rival.name] = share
        for turn in range(turns):
            for tally in tallies[: len(own)]:
                # Workers that have waited through the others' turns may have gone home.
                tally.contestant.ask(folder=str(warm_up))
                tally.note(len(paths), tally.contestant.ask(folder=str(folder)))
            for tally in tallies[len(own) :]:
                part = shares[tally.contestant.name][turn::turns]
                tally.note(len(part), tally.contestant.ask(photos=part))
    return {"rows": [tally.row(*tallies[: len(own)]) for tally in tallies], "engine": engine}


@dataclass
class _Tally:
    """What one contestant has done so far.

    Attributes:
        contestant: Who.
        photos: How many it gets in all turns.
        faces: In how many it found a face.
        seconds_a_photo: Of each turn.
    """

    contestant: Contestant
    photos: int
    faces: int = 0
    seconds_a_photo: list[float] = field(default_factory=list)

    def note(self, photos: int, answer: dict[str, Any]) -> None:
        """Take what a turn gave."""
        self.faces += answer["faces"]
        self.seconds_a_photo.append(answer["seconds"] / photos)

    def row(self, ours: _Tally, single: _Tally) -> dict[str, Any]:
        """Its row, with the ratios to this package, as it comes and with each face encoded once."""
        its, our = Times.of(self.seconds_a_photo), Times.of(ours.seconds_a_photo)
        once = Times.of(single.seconds_a_photo)
        return {
            "contestant": self.contestant.name,
            "photos": self.photos,
            "faces": self.faces,
            "photos_a_second": 1 / its.median,
            "seconds_a_photo": asdict(its),
            # How many times its photos a second are this package's.
            "ratio": its.median / our.median,
            "ratio_of_shortest": its.minimum / our.minimum,
            "ratio_to_single": its.median / once.median,
            "ratio_to_single_of_shortest": its.minimum / once.minimum,
            "is_ours": self.contestant.name in (OURS, OURS_SINGLE),
            "start_seconds": self.contestant.start_seconds,
        }


def _started(rival: Rival, environment: Mapping[str, str]) -> Contestant:
    """The process of a rival, ready."""
    threads = {} if rival.processes == 1 else _ONE_THREAD
    options = {"processes": rival.processes}
    return Contestant(rival.name, _MODULE, rival.kind, options, {**environment, **threads})


def measure_memory(
    source: Path, sizes: Sequence[int], folder: Path, skipped: list[Skipped]
) -> Iterator[dict[str, Any]]:
    """Enrol photos by ``face-encode enroll``, a number at a time, and watch its memory.

    Args:
        source: A folder with one sub-folder a person.
        sizes: Numbers of photos, each enrolled from nothing by a process of its own.
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
