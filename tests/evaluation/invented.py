"""Pairs with scores, and embeddings in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np

# Five same and five different pairs; one different pair (0.7) outscores two same ones.
SCORES = np.array([0.9, 0.8, 0.75, 0.6, 0.5, 0.7, 0.4, 0.3, 0.2, 0.1])
SAME = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], bool)


def random_pairs(seed: int, ties: bool, not_found: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    same = random.random(500) < 0.4
    scores = random.normal(same * 1.5, 1)
    if ties:
        scores = np.round(scores, 1)
    scores[random.choice(500, not_found, replace=False)] = np.nan
    return scores, same


def at_angles(*degrees: float) -> Any:
    """Unit vectors in the plane: the cosine of two is that of the angle between them."""
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)
