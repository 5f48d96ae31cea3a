"""What the tests of galleries share: an encoder's identity, embeddings, and people."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.gallery.memory import MemoryGallery


@dataclass(frozen=True)
class Identity:
    """What a gallery knows of an encoder."""

    name: str = "one"
    fingerprint: str = "f1"
    embedding_size: int = 2


SIXTEEN = Identity(embedding_size=16)


def vectors(*rows: tuple[float, ...]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32)


def like_faces(count: int, seed: int = 0, size: int = 16) -> npt.NDArray[np.float32]:
    """Embeddings around a large mean, of any length, as those of faces are."""
    random = np.random.default_rng(seed)
    rows = np.random.default_rng(9).normal(size=size) + 0.5 * random.normal(size=(count, size))
    return np.asarray(rows * random.uniform(1, 2, (count, 1)), np.float32)


NAMES = ["Bo", "Ada", "Bo", "Élodie 王", "سارا\u200cجان"]
DIGESTS = [hashlib.sha256(name.encode()).hexdigest() for name in NAMES]
KINDS = ["float32", "int8", "indexed"]


def filled(kind: str = "float32") -> MemoryGallery:
    """A gallery of NAMES, kept in one of KINDS."""
    gallery = MemoryGallery(SIXTEEN, int8=kind == "int8")
    gallery.add(NAMES, like_faces(5), DIGESTS)
    gallery.detector_name = "eyes"
    if kind == "indexed":
        gallery.build_index()
    return gallery
