"""The numbers of docs/enrolment.md on large folders: memory, and resuming after a kill.

``python benchmarks/large_folders.py memory PHOTO_DIR --photos 500 9000`` enrols these numbers of
photos, each in a process of its own, and prints the most memory that it took with its workers.

``python benchmarks/large_folders.py kill PHOTO_DIR --photos 2000`` enrols them once undisturbed and
once killed at three points with SIGKILL and started again, and compares the two galleries.

PHOTO_DIR has one sub-folder a person. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# At which share of its batches an enrolment is killed.
KILLED_AT = (0.2, 0.5, 0.8)
# How long after a batch left the encoder, in seconds: in the middle of another.
_LATER_SECONDS = (0.05, 0.13, 0.3)
_LOOK_SECONDS = 0.05

# The command itself, with a line in a file for each batch that has left the encoder.
_COMMAND = """
import sys
from face_encode.cli import main
from face_encode.encoders.encoder import Encoder

encode = Encoder.encode

def counted(encoder, crops, **options):
    embeddings = encode(encoder, crops, **options)
    with open(sys.argv[1], "a") as file:
        file.write(f"{len(crops)}\\n")
    return embeddings

Encoder.encode = counted
sys.exit(main(sys.argv[2:]))
"""


def copy_people(source: Path, count: int, target: Path) -> None:
    """Copy the first photos, this many, with their folders."""
    from face_encode.photos.folders import people_in

    for name, photos in people_in(source).items():
        if count <= 0:
            return
        (target / name).mkdir(parents=True)
        for photo in photos[:count]:
            shutil.copy2(photo, target / name)
        count -= len(photos)


def start(people: Path, gallery: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start the command on a folder."""
    options = ["enroll", str(people), "-g", str(gallery), "--json"]
    command = [sys.executable, "-c", _COMMAND, str(log), *options]
    with open(log.with_suffix(".json"), "wb") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)


def encoded(log: Path) -> list[int]:
    """The faces of each batch that a run has encoded."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def memory_of(process: int) -> int:
    """Bytes that a process and all that it started hold; 0 where it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0
    own = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return sum(1024 * int(kilobytes) for kilobytes in own) + sum(
        memory_of(int(c)) for c in children
    )


def measure_memory(source: Path, counts: Sequence[int]) -> None:
    """Print the most memory that enrolments of several sizes take."""
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder)
            copy_people(source, count, top / "people")
            process = start(top / "people", top / "people.npz", top / "run.log")
            most, began = 0, time.perf_counter()
            while process.poll() is None:
                most = max(most, memory_of(process.pid))
                time.sleep(_LOOK_SECONDS)
            seconds = time.perf_counter() - began
            faces = sum(encoded(top / "run.log"))
        print(
            f"{count:,} photos, {faces:,} faces: {most / 1e6:,.0f} MB, {seconds:.0f} s", flush=True
        )


def kill_and_compare(source: Path, count: int) -> bool:
    """Enrol undisturbed and killed; print both; returns whether they are the same."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        copy_people(source, count, top / "people")
        whole = top / "whole.log"
        if start(top / "people", top / "whole.npz", whole).wait() != 0:
            raise SystemExit("the undisturbed run failed")
        logs = [top / f"part{number}.log" for number in range(len(KILLED_AT) + 1)]
        for log, share, later in zip(logs, KILLED_AT, _LATER_SECONDS, strict=False):
            process = start(top / "people", top / "killed.npz", log)
            while sum(len(encoded(each)) for each in logs) < share * len(encoded(whole)):
                if process.poll() is not None:
                    raise SystemExit(f"it ended by itself, with {process.returncode}")
                time.sleep(_LOOK_SECONDS)
            time.sleep(later)
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"killed after {sum(encoded(log)):,} faces of this run", flush=True)
        if start(top / "people", top / "killed.npz", logs[-1]).wait() != 0:
            raise SystemExit("the last run failed")
        report = json.loads(logs[-1].with_suffix(".json").read_text())
        one, other = np.load(top / "whole.npz"), np.load(top / "killed.npz")
        alike = (top / "whole.npz").read_bytes() == (top / "killed.npz").read_bytes()
        print(f"the last run found {report['resumed']:,} photos done of {report['enrolled']:,}")
        print(f"the two files are the same byte for byte: {alike}")
        names = all(one[key].tobytes() == other[key].tobytes() for key in ("people", "owners"))
        print(f"names alike: {names}")
        apart = float(np.abs(one["embeddings"] - other["embeddings"]).max())
        print(f"embeddings apart by at most {apart:.1e}")
        again = sum(sum(encoded(log)) for log in logs) - sum(encoded(whole))
        print(f"encoded more than once, over {len(KILLED_AT)} kills: {again} faces")
        left = sorted(path.name for path in top.glob("*.unfinished"))
        print(f"checkpoints left: {left}")
        return alike and not left


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("memory", "kill"))
    parser.add_argument("folder", metavar="PHOTO_DIR", type=Path)
    parser.add_argument("--photos", type=int, nargs="+", default=[500, 2_000])
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if options.what == "memory":
        measure_memory(options.folder, options.photos)
        return 0
    return 0 if all(kill_and_compare(options.folder, count) for count in options.photos) else 1


if __name__ == "__main__":
    sys.exit(main())
