"""Embeddings like those of faces."""

from __future__ import annotations

import numpy as np

from face_encode.types import Embeddings


def like_faces(count: int, size: int = 16, seed: int = 0) -> Embeddings:
    """Embeddings around a large mean, of any length."""
    random = np.random.default_rng(seed)
    rows = np.random.default_rng(9).normal(size=size) + 0.5 * random.normal(size=(count, size))
    return np.asarray(rows * random.uniform(1, 2, (count, 1)), np.float32)
