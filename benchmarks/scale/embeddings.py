"""Embeddings of people who do not exist, as many as a measurement wants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.types import Embeddings

# Rows drawn at once, each block from a seed of its own: 32 MB of 128 float32 each.
_BLOCK = 65_536
# Cosine of two strangers by the default encoder, and how fast the variances of its principal
# components fall: their share is about 1 / (1 + _FALL k).
_STRANGERS, _FALL = 0.8, 0.05


@dataclass(frozen=True, eq=False)
class Population:
    """A normal distribution of embeddings.

    Attributes:
        mean: float32 ``(D,)``.
        factor: float32 ``(D, D)``; factor @ factor.T is the covariance.
    """

    mean: npt.NDArray[np.float32]
    factor: npt.NDArray[np.float32]

    @classmethod
    def of(cls, embeddings: Embeddings) -> Population:
        """The one with mean and covariance of these, float32 ``(N, D)``, N at least 2."""
        values, vectors = np.linalg.eigh(np.cov(embeddings.astype(np.float64).T))
        factor = vectors * np.sqrt(np.maximum(values, 0))
        return cls(embeddings.mean(axis=0, dtype=np.float32), factor.astype(np.float32))

    @classmethod
    def invented(cls, dimensions: int) -> Population:
        """One like those of the default encoder: a large common mean, variances that fall."""
        random = np.random.default_rng(0)
        axes = np.linalg.qr(random.standard_normal((dimensions, dimensions)))[0]
        shares = 1 / (1 + _FALL * np.arange(dimensions))
        spread = np.sqrt((1 - _STRANGERS) * shares / shares.sum())
        return cls(
            (np.sqrt(_STRANGERS) * axes[:, 0]).astype(np.float32),
            (axes * spread).astype(np.float32),
        )

    def draw(self, count: int, seed: int) -> Embeddings:
        """This many embeddings, float32 ``(count, D)``; the same for the same seed."""
        drawn = np.empty((count, len(self.mean)), np.float32)
        start = 0
        for block in self.blocks(count, seed):
            drawn[start : start + len(block)] = block
            start += len(block)
        return drawn

    def blocks(self, count: int, seed: int) -> Iterator[Embeddings]:
        """The same, block by block."""
        for number, start in enumerate(range(0, count, _BLOCK)):
            random = np.random.default_rng((seed, number))
            rows = min(_BLOCK, count - start)
            normal = random.standard_normal((rows, len(self.mean)), np.float32)
            yield normal @ self.factor.T + self.mean
