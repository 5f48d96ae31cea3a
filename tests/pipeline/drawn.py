"""Faces of photos that never were."""

from __future__ import annotations

import numpy as np

from face_encode.pipeline.embedding import EmbeddedPhoto
from face_encode.types import Box, Face


def embedded(photo: str, count: int, error: str | None, digest: str, seed: int) -> EmbeddedPhoto:
    """A photo with a number of faces, the same for the same seed."""
    random = np.random.default_rng(seed)
    boxes = random.integers(1, 99, (count, 4)).tolist()
    scores = random.random(count).tolist()
    return EmbeddedPhoto(
        photo,
        tuple(Face(Box(*box), score) for box, score in zip(boxes, scores, strict=True)),
        (1 + random.random((count, 8))).astype(np.float32),
        error=error,
        digest=digest,
    )


def faces(photo: str, count: int) -> EmbeddedPhoto:
    """A photo with a number of faces, the same for the same first letter of its name."""
    return embedded(photo, count, None if count else "no face found", "ab", ord(photo[0]))
