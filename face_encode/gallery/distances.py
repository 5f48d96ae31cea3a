"""Distances between embeddings, and the thresholds that belong to them.

Inside this package a comparison is a similarity, higher is nearer; distances are for callers who
come from a library that returns them.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError
from face_encode.types import check_number

Metric: TypeAlias = Literal["cosine", "euclidean", "euclidean_l2"]
"""``"cosine"``: 1 minus the cosine similarity, 0..2. ``"euclidean"``: the length of the difference
of the embeddings as the encoder gives them, 0 and up. ``"euclidean_l2"``: the same of embeddings
brought to length 1, 0..2; it ranks as cosine does."""

METRICS: tuple[Metric, ...] = get_args(Metric)

FloatT = TypeVar("FloatT", np.float32, np.float64)

# Embeddings converted to double precision at once: 64 MB of 128 numbers each.
_BLOCK_ROWS = 65_536


def unit_length(embeddings: npt.NDArray[FloatT]) -> npt.NDArray[FloatT]:
    """Scale embeddings, ``(D,)`` or ``(N, D)``, to length 1; an embedding of zeros stays as it is.

    The type, float32 or float64, is kept.
    """
    lengths = np.linalg.norm(embeddings, axis=-1, keepdims=True)
    # Without this lower bound an embedding of zeros would be divided by zero.
    shortest = np.finfo(embeddings.dtype).tiny
    return np.asarray(embeddings / np.maximum(lengths, shortest), embeddings.dtype)


def check_metric(metric: object, allowed: tuple[Metric, ...] = METRICS) -> Metric:
    """Check an argument that names a metric.

    Raises:
        InputError: It is not one of those allowed.
    """
    if not isinstance(metric, str) or metric not in allowed:
        raise InputError(f"a metric is one of {', '.join(allowed)}. Received: {metric!r}")
    return metric


def distances(a: npt.ArrayLike, b: npt.ArrayLike, metric: Metric) -> npt.NDArray[np.float64]:
    """Distances between each embedding of one array and each of another.

    They are computed in double precision: in single precision rounding hides the difference
    between two nearly equal faces.

    Args:
        a: ``(m, D)``.
        b: ``(n, D)``.
        metric: See ``Metric``.

    Returns:
        float64 ``(m, n)``, lower is nearer.

    Raises:
        InputError: The arrays have other shapes or are not finite, or the metric is unknown; for
            ``"cosine"`` and ``"euclidean_l2"`` also where an embedding is all zeros, because it
            has no direction.
    """
    check_metric(metric)
    first, second = np.asarray(a), np.asarray(b)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InputError(
            "embeddings are two arrays of shape (m, D) and (n, D). "
            f"Received: {first.shape} and {second.shape}"
        )
    probes = _prepared(first, metric)
    result = np.empty((len(first), len(second)))
    for start in range(0, len(second), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        others = _prepared(second[rows], metric)
        products = probes @ others.T
        if metric == "cosine":
            result[:, rows] = 1 - np.clip(products, -1, 1)
        else:
            squares = (probes**2).sum(axis=1)[:, np.newaxis] + (others**2).sum(axis=1)
            # Rounding can make the square of a tiny distance negative.
            result[:, rows] = np.sqrt(np.maximum(squares - 2 * products, 0))
    return result


def _prepared(embeddings: npt.NDArray[np.generic], metric: Metric) -> npt.NDArray[np.float64]:
    """Embeddings in double precision, of length 1 where the metric needs that."""
    try:
        values = np.asarray(embeddings, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"embeddings are arrays of numbers: {error}") from error
    if not np.isfinite(values).all():
        raise InputError("an embedding is finite; at least one is not")
    if metric == "euclidean":
        return values
    if not np.linalg.norm(values, axis=1).all():
        raise InputError("an embedding is not all zeros; at least one is")
    return unit_length(values)


def unit_embedding(embedding: Any, size: int, encoder_name: str) -> npt.NDArray[np.float64]:
    """Check an argument that is one embedding, and scale it to length 1 in double precision.

    Args:
        embedding: ``(D,)`` or ``(1, D)``.
        size: The encoder's D.
        encoder_name: Named in the error.

    Returns:
        float64 ``(D,)``.

    Raises:
        InputError: The array has another shape, is not finite, or is all zeros.
    """
    try:
        vector = np.asarray(embedding, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"an embedding is an array of numbers: {error}") from error
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(vector))
    if vector.shape not in ((size,), (1, size)) or not 0 < length < np.inf:
        raise InputError(
            f"an embedding of {encoder_name!r} has shape ({size},), is finite and not "
            f"all zeros. Received: shape {vector.shape}, length {length}"
        )
    return vector.reshape(size) / length


def similarity_of(distance: float, metric: Metric) -> float:
    """Convert a distance to a similarity, higher is nearer.

    That is the cosine for ``"cosine"`` and ``"euclidean_l2"``, ``1 - d`` and ``1 - d² / 2``; for
    ``"euclidean"``, which does not depend on the angle alone, it is ``-d``.
    """
    if metric == "cosine":
        return 1 - distance
    return 1 - distance**2 / 2 if metric == "euclidean_l2" else -distance


def threshold_distance(
    metric: Metric, cosine_threshold: float, euclidean_threshold: float | None, encoder_name: str
) -> float:
    """The distance up to which two faces count as one person.

    Args:
        metric: See ``Metric``.
        cosine_threshold: The cosine similarity from which they do, within -1..1. On the unit
            sphere it corresponds to the Euclidean distance ``sqrt(2 - 2 t)``.
        euclidean_threshold: The threshold measured for the encoder's raw embeddings, or None. It
            cannot be derived from the cosine's, because lengths differ from face to face.
        encoder_name: Named in the error.

    Raises:
        InputError: The metric is ``"euclidean"`` and no threshold was measured.
    """
    if metric == "cosine":
        return 1 - cosine_threshold
    if metric == "euclidean_l2":
        return math.sqrt(2 - 2 * cosine_threshold)
    if euclidean_threshold is None:
        raise InputError(
            f"no threshold was measured for raw Euclidean distances of {encoder_name!r}: give "
            "one of your own, or use the metric 'euclidean_l2' or 'cosine'"
        )
    return euclidean_threshold


def check_distance_threshold(value: object) -> float:
    """Check an argument that is the largest distance of one person's faces.

    Raises:
        InputError: It is not a number, negative, or not finite.
    """
    return check_number(value, "a distance threshold", 0)
