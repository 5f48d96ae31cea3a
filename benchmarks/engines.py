"""Measure an encoder on each engine: a face at a time and many, and how long each takes to start.

    python -m benchmarks.engines [ENCODER ...]

prints a table for each encoder. The engines take turns within each round, so that what else the
machine does falls on all of them alike. By the clock the fastest round counts, on which least else
fell; the time of all cores together is the median.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence

import numpy as np

from face_encode.cli.options import print_table
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import ENGINES, KERAS, largest_difference, probe_crops
from face_encode.encoders.registry import load_encoder
from face_encode.errors import EngineError
from face_encode.terminal import import_keras_quietly

BATCHES = (1, 8, 32)
ROUNDS = 40
_START = """
import time
start = time.perf_counter()
import numpy as np
from face_encode import load_encoder
encoder = load_encoder({name!r}, engine={engine!r})
crop = encoder.contract.crop
encoder.encode(np.zeros((1, crop.height, crop.width, 3), np.uint8))
print(time.perf_counter() - start)
"""


def on_engines(name: str) -> dict[str, Encoder]:
    """An encoder on Keras, and on what else is there and runs it; says why something does not."""
    encoders = {KERAS: load_encoder(name, engine=KERAS)}
    for engine in (each.name for each in ENGINES.values() if each.is_installed):
        try:
            encoders[engine] = load_encoder(name, engine=engine)
        except EngineError as error:
            print(error)
    return encoders


def milliseconds_a_face(encoders: dict[str, Encoder]) -> list[list[str]]:
    """A row an engine: times a face by batch, and the largest difference from Keras."""
    crops = np.concatenate([probe_crops(encoders[KERAS].contract.crop)] * 4)
    walls: dict[tuple[str, int], list[float]] = {}
    busy: dict[tuple[str, int], list[float]] = {}
    for batch in BATCHES:
        for turn in range(ROUNDS + 1):
            # The first engine of a round finds the machine more rested.
            order = list(encoders)[turn % len(encoders) :] + list(encoders)[: turn % len(encoders)]
            for engine in order:
                wall, processor = time.perf_counter(), time.process_time()
                encoders[engine].encode(crops[:batch])
                wall, processor = time.perf_counter() - wall, time.process_time() - processor
                # The first round warms up.
                if turn:
                    walls.setdefault((engine, batch), []).append(1000 * wall / batch)
                    busy.setdefault((engine, batch), []).append(1000 * processor / batch)
                # What a library's threads spin for after a call falls on no other's.
                time.sleep(0.01)
    expected = encoders[KERAS].encode(crops)
    return [
        [
            engine,
            *(f"{min(walls[engine, batch]):.1f}" for batch in BATCHES),
            *(f"{statistics.median(busy[engine, batch]):.1f}" for batch in BATCHES),
            f"{largest_difference(expected, encoder.encode(crops)):.0e}",
        ]
        for engine, encoder in encoders.items()
    ]


def seconds_to_start(name: str, engines: Iterable[str]) -> list[list[str]]:
    """A row an engine: from nothing to the first embedding, at first and later."""
    rows = []
    for engine in engines:
        with tempfile.TemporaryDirectory() as cache:
            first, *later = (_seconds(name, engine, cache) for _ in range(4))
        rows.append([engine, f"{first:.1f}", f"{min(later):.1f}"])
    return rows


def _seconds(name: str, engine: str, cache: str) -> float:
    """The time that a new process takes."""
    done = subprocess.run(
        [sys.executable, "-c", _START.format(name=name, engine=engine)],
        env={**os.environ, "FACE_ENCODE_CACHE": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("encoders", nargs="*", default=["dlib_resnet", "vgg_embedding"])
    options = parser.parse_args(arguments)
    import_keras_quietly()
    for name in options.encoders:
        encoders = on_engines(name)
        print(f"\n{name}: milliseconds a face, by how many are encoded at once")
        cores = (f"{batch}, all cores'" for batch in BATCHES)
        header = ["engine", *map(str, BATCHES), *cores, "difference"]
        print_table(header, milliseconds_a_face(encoders))
        print(f"{name}: seconds from nothing to the first embedding")
        print_table(["engine", "the first time", "later"], seconds_to_start(name, encoders))


if __name__ == "__main__":
    main()
