"""A gallery database beside an ``.npz`` file of the same people: opening, searching, memory.

Run as ``python -m benchmarks.database [--rows N] [--folder DIR]``. Both files are made in a
temporary folder, of as many photos as asked for, five a person. Each is then opened and searched in
a process of its own, the two in turns: the time until the first answer, the median of the searches
that follow, and the most memory that the process held.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from face_encode.gallery.opening import open_gallery

SIZE, PHOTOS_A_PERSON, SEARCHES = 128, 5, 30

_MEASURE = """
import json, resource, sys, time
import numpy as np
from benchmarks.database import Identity
from face_encode.gallery.opening import open_gallery

probe = np.random.default_rng(1).standard_normal((1, 128), dtype=np.float32)
start = time.perf_counter()
gallery = open_gallery(sys.argv[1], encoder=Identity(), create=False)
found = gallery.search(probe)
first = time.perf_counter() - start
times = []
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    assert gallery.search(probe) == found
    times.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "first_s": first, "search_ms": sorted(times)[len(times) // 2] * 1e3, "peak_mb": peak / 1e3,
    "nearest": found[0][0].name,
}))
"""


@dataclass(frozen=True)
class Identity:
    """What a gallery knows of an encoder."""

    name: str = "random"
    fingerprint: str = "0" * 16
    embedding_size: int = SIZE


def main() -> int:
    """Make the files, measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description="A gallery database beside an .npz file.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", help="for the files; default: a temporary one")
    options = parser.parse_args()
    embeddings = np.random.default_rng(0).standard_normal((options.rows, SIZE), dtype=np.float32)
    names = [f"person {row // PHOTOS_A_PERSON}" for row in range(options.rows)]
    digests = [f"{row:064x}" for row in range(options.rows)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        paths = [Path(folder, name) for name in ("people.npz", "people.sqlite")]
        for path in paths:
            gallery = open_gallery(path, encoder=Identity())
            gallery.add(names, embeddings, digests)
            gallery.close()
        del embeddings
        print("file             first answer   search     peak memory")
        nearest = set()
        for path in paths * options.turns:
            command = [sys.executable, "-c", _MEASURE, str(path), str(SEARCHES)]
            told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            nearest.add(told["nearest"])
            print(
                f"{path.name:<16} {told['first_s']:9.2f} s {told['search_ms']:8.2f} ms"
                f" {told['peak_mb']:8.0f} MB"
            )
    assert len(nearest) == 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
