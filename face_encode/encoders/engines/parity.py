"""Whether an engine gives the embeddings that Keras gives, and how long it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.encoders.compilation import Forward
from face_encode.types import CropRecipe, Embeddings, ImageArray

MOST_DIFFERENCE = 1e-3
"""How far an embedding may be from the one that Keras gives; see :func:`largest_difference`."""

_PROBES = 8
_ROUNDS = 6
# The first call of a turn finds the caches full of what another engine left there.
_CALLS_A_TURN = 2
# Waves from the size of a face down to that of an eye's corner, each octave half as strong: the
# spectrum of photographs falls about so (Field, 1987).
_OCTAVES = (3, 6, 12, 24, 48)


@dataclass(frozen=True)
class Parity:
    """How an engine compares with Keras.

    Attributes:
        difference: See :func:`largest_difference`.
        milliseconds: Of the forward pass of eight crops, the fastest of a few.
    """

    difference: float
    milliseconds: float

    @property
    def holds(self) -> bool:
        """Whether the engine may stand in for Keras; not so for what is no number."""
        return self.difference <= MOST_DIFFERENCE


def probe_crops(recipe: CropRecipe) -> ImageArray:
    """Eight crops, always the same, with colours, edges and textures like those of photographs.

    Args:
        recipe: Of what size.

    Returns:
        uint8 ``(8, height, width, 3)``; the last is black on one half and white on the other.
    """
    generator = np.random.default_rng(20_150_610)
    shape = (_PROBES, recipe.height, recipe.width, 3)
    pixels = np.zeros(shape)
    for strength, cells in enumerate(_OCTAVES):
        coarse = generator.standard_normal((_PROBES, cells + 1, cells + 1, 3))
        pixels += _enlarged(coarse, recipe.height, recipe.width) / 2**strength
    pixels += generator.standard_normal(shape) / 2 ** len(_OCTAVES)
    pixels = 127.5 + 60 * pixels
    pixels[-1] = 0
    pixels[-1, :, recipe.width // 2 :] = 255
    crops: ImageArray = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return crops


def _enlarged(grid: npt.NDArray[np.float64], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """A grid ``(N, cells, cells, 3)`` with straight lines between its points."""
    for axis, length in ((1, rows), (2, columns)):
        places = np.linspace(0, grid.shape[axis] - 1, length)
        below = np.minimum(places.astype(int), grid.shape[axis] - 2)
        share = np.expand_dims(places - below, tuple(range(1, grid.ndim - axis)))
        first, second = np.take(grid, below, axis), np.take(grid, below + 1, axis)
        grid = np.asarray(first + share * (second - first), np.float64)
    return grid


def largest_difference(expected: Embeddings, received: Embeddings) -> float:
    """The largest difference of any number of any embedding.

    Embeddings shorter than 1 are compared as if brought to length 1: since they are compared by
    their cosine, what counts is the difference in proportion.

    Args:
        expected: As Keras gives them, float32 ``(N, D)``.
        received: As the engine gives them.

    Returns:
        0 where all are the same; not a number or infinite where an embedding is not finite, or
        of another shape.
    """
    if expected.shape != received.shape:
        return float("inf")
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        differences = np.abs(received.astype(np.float64) - expected) / np.minimum(lengths, 1)
    # An embedding of zeros, which has no direction, agrees with its like.
    differences[np.broadcast_to(lengths == 0, differences.shape) & (received == 0)] = 0
    return float(differences.max())


def milliseconds_in_turns(forwards: Sequence[Forward], crops: ImageArray) -> list[float]:
    """Time forward passes against each other: of each the fastest of a few.

    They take turns, so that whatever else the machine is busy with slows all of them alike.

    Args:
        forwards: Of the engines, each called before.
        crops: What :func:`probe_crops` gives.
    """
    fastest = [math.inf] * len(forwards)
    for _ in range(_ROUNDS):
        for place, forward in enumerate(forwards):
            for _ in range(_CALLS_A_TURN):
                start = time.perf_counter()
                forward(crops)
                fastest[place] = min(fastest[place], 1000 * (time.perf_counter() - start))
    return fastest
