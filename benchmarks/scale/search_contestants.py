"""Who searches among enrolled embeddings; see ``contestant.py``.

The options say how many to enrol. A request ``{"repeats": …}`` has one embedding after the other
looked up, and is answered with the seconds of each, drawn at random or, where ``"probes"`` names a
``FILE.npy``, of its rows from ``"start"`` on; ``{"about": true}`` asks for what building took;
``{"probes": FILE.npy}`` alone for the nearest person of each of these embeddings.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np

from benchmarks.machine import available_bytes, proportional_megabytes
from benchmarks.photo_folders import FACE_RECOGNITION_LINE
from benchmarks.scale.bandwidth import MemoryReader
from benchmarks.scale.contestant import Answer, Handler, MissingContestantError, answer_requests
from benchmarks.scale.embeddings import Population
from benchmarks.timing import seconds
from face_encode.errors import FaceEncodeError
from face_encode.types import Embeddings

PHOTOS_A_PERSON = 4
_PROBES = 256
# No measurement may push out what else runs on the machine.
_SHARE_OF_MEMORY = 0.85
_OPENING = "face_encode.gallery.opening"
_LINES = {
    "faiss": 'pip install "face_encode[index]"',
    "pymilvus": 'pip install "face_encode[milvus]"',
}

Search: TypeAlias = Callable[[Embeddings], list[str]]
"""The nearest person of each probe."""


@dataclass(frozen=True)
class AnyEncoder:
    """What a gallery has to know of the encoder that fills it; here none does."""

    name: str = "drawn at random"
    fingerprint: str = "0" * 16
    embedding_size: int = 128


@dataclass(frozen=True, eq=False)
class Enrolled:
    """What is enrolled before a search.

    Attributes:
        names: The person of each embedding.
        embeddings: float32 ``(n, D)``.
    """

    names: list[str]
    embeddings: Embeddings

    @classmethod
    def of(cls, options: Answer) -> Enrolled:
        """Real ones of a file ``"real"``, where there is one, and drawn ones up to ``"faces"``.

        The drawn ones have the mean and covariance of the real ones.
        """
        count, dimensions = options["faces"], options.get("dimensions", 128)
        if "real" not in options:
            drawn = Population.invented(dimensions).draw(count, seed=1)
            return cls(_drawn_names(count), drawn)
        with np.load(options["real"], allow_pickle=False) as real:
            names, embeddings = real["names"].tolist(), real["embeddings"]
        missing = max(0, count - len(names))
        drawn = Population.of(embeddings).draw(missing, seed=1)
        return cls(names + _drawn_names(missing), np.concatenate([embeddings, drawn]))


def _drawn_names(count: int) -> list[str]:
    return [f"nobody {number // PHOTOS_A_PERSON}" for number in range(count)]


def contestant(
    build: Callable[[Enrolled, Answer], Search],
    bytes_a_number: float,
    modules: Sequence[str],
    options: Answer,
) -> Handler:
    """A way to search: built once, then asked.

    Args:
        build: Enrols.
        bytes_a_number: Peak memory of building, in bytes for each number of each embedding, the
            given embeddings included.
        modules: What it imports; libraries are no part of a gallery's memory.
        options: See the module.
    """
    count, dimensions = options["faces"], options.get("dimensions", 128)
    _check_memory(count * dimensions * bytes_a_number)
    _import(modules)
    before = proportional_megabytes(os.getpid())
    enrolled = Enrolled.of(options)
    try:
        build_seconds, search = seconds(partial(build, enrolled, options))
        probes = Population.invented(dimensions).draw(_PROBES, seed=2)
        # What is made at the first search belongs to the building.
        first_seconds, _ = seconds(partial(search, probes[:1]))
    except FaceEncodeError as error:
        raise MissingContestantError(str(error)) from error
    del enrolled
    about = {
        "megabytes": proportional_megabytes(os.getpid()) - before,
        "build_seconds": build_seconds + first_seconds,
    }
    turn = 0

    def handle(request: Answer) -> Answer:
        nonlocal turn
        if "about" in request:
            return about
        asked = probes
        if "probes" in request:
            asked = np.load(request["probes"], allow_pickle=False)
            if "repeats" not in request:
                return {"names": search(asked)}
            turn = request["start"]
        taken = []
        for _ in range(request["repeats"]):
            row = turn % len(asked)
            turn += 1
            taken.append(seconds(partial(search, asked[row : row + 1]))[0])
        return {"seconds": taken}

    return handle


def in_memory(
    enrolled: Enrolled, options: Answer, *, int8: bool = False, index: str = ""
) -> Search:
    """This package's gallery in memory.

    Args:
        enrolled: Who is enrolled.
        options: See the module.
        int8: Whether embeddings are kept as a byte a number.
        index: ``"codes"`` to look through int8 codes of float32 embeddings first, which finds the
            same; ``"cells"`` to search approximately; empty for neither.
    """
    from face_encode.gallery.memory import MemoryGallery

    gallery = MemoryGallery(AnyEncoder(embedding_size=enrolled.embeddings.shape[1]), int8=int8)
    gallery.add(enrolled.names, enrolled.embeddings)
    if index:
        gallery.build_index(approximate=index == "cells", progress=False)
    return lambda probes: [matches[0].name for matches in gallery.search(probes)]


def in_milvus(enrolled: Enrolled, options: Answer) -> Search:
    """This package's gallery in Milvus Lite, in a folder of its own."""
    from face_encode.gallery.opening import open_gallery

    identity = AnyEncoder(embedding_size=enrolled.embeddings.shape[1])
    gallery = open_gallery(Path(options["folder"], "people.db"), encoder=identity)
    gallery.add(enrolled.names, enrolled.embeddings)
    return lambda probes: [matches[0].name for matches in gallery.search(probes)]


def face_distance(enrolled: Enrolled, options: Answer) -> Search:
    """``face_recognition.face_distance`` and ``argmin``, on the double precision that it gives."""
    import face_recognition

    doubles = enrolled.embeddings.astype(np.float64)
    names = enrolled.names

    def search(probes: Embeddings) -> list[str]:
        return [
            names[int(np.argmin(face_recognition.face_distance(doubles, probe)))]
            for probe in probes
        ]

    return search


def original_loop(enrolled: Enrolled, options: Answer) -> Search:
    """The original project's loop over a Keras metric, an object a comparison."""
    import keras

    names, embeddings = enrolled.names, enrolled.embeddings

    def search(probes: Embeddings) -> list[str]:
        nearest = []
        for probe in probes:
            # A new metric a comparison: it would average over all that it has seen.
            similarities = [
                float(keras.metrics.CosineSimilarity()(probe, each)) for each in embeddings
            ]
            nearest.append(names[int(np.argmax(similarities))])
        return nearest

    return search


def reading(options: Answer) -> Handler:
    """No search: an array read once, in the way that is fastest."""
    _check_memory(options["bytes"] * 1.1)
    reader = MemoryReader(options["bytes"])
    reader.bytes_a_second()

    def handle(request: Answer) -> Answer:
        return {"bytes_a_second": [reader.bytes_a_second() for _ in range(request["repeats"])]}

    return handle


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        package = module.partition(".")[0]
        # face_recognition ends the whole process where a module that it wants is missing.
        if find_spec(package) is None:
            line = _LINES.get(package, FACE_RECOGNITION_LINE)
            raise MissingContestantError(f"{package} is missing, install it by: {line}")
        importlib.import_module(module)


def _check_memory(needed: float) -> None:
    free = available_bytes()
    if free is not None and needed > _SHARE_OF_MEMORY * free:
        raise MissingContestantError(
            f"it would take {needed / 1e9:.1f} GB to build, and {free / 1e9:.1f} GB are free"
        )


KINDS: dict[str, Callable[[Answer], Handler]] = {
    "float32": partial(contestant, in_memory, 9.5, [_OPENING]),
    "indexed": partial(contestant, partial(in_memory, index="codes"), 11.0, [_OPENING]),
    "int8": partial(contestant, partial(in_memory, int8=True), 9.5, [_OPENING]),
    "approximate": partial(
        contestant, partial(in_memory, index="cells"), 13.0, [_OPENING, "faiss"]
    ),
    "milvus": partial(contestant, in_milvus, 17.0, [_OPENING, "pymilvus"]),
    "face_recognition": partial(
        contestant, face_distance, 30.0, ["pkg_resources", "face_recognition"]
    ),
    "loop": partial(contestant, original_loop, 5.0, ["keras"]),
    "reading": reading,
}

if __name__ == "__main__":
    answer_requests(KINDS)
