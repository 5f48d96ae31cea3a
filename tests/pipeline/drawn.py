"""Faces of photos that never were."""

from __future__ import annotations

import numpy as np

from face_encode.pipeline.embedding_table import PhotoFaces


def faces(photo: str, count: int) -> PhotoFaces:
    """So many faces of a photo, the same for the same first letter of its name."""
    random = np.random.default_rng(ord(photo[0]))
    return PhotoFaces(
        photo,
        "ab",
        random.integers(1, 99, (count, 4)).astype(np.int32),
        random.random(count).astype(np.float32),
        (1 + random.random((count, 8))).astype(np.float32),
        None if count else "no face found",
    )
