"""Clustering: which faces of unnamed photos are of one person, and how right a grouping is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from face_encode.errors import InputError, MissingExtraError
from face_encode.evaluation.searches import Integers, unit_length

# Every face is compared with every other: 20,000 faces take 1.6 GB.
MOST_FACES = 20_000


@dataclass(frozen=True)
class BCubed:
    """How right a grouping is, seen from each item (Bagga & Baldwin, 1998).

    Attributes:
        precision: Mean over items of the share of its group that truly belongs with it.
        recall: Mean over items of the share of what truly belongs with it that is in its group.
        f: Harmonic mean of the two.
    """

    precision: float
    recall: float
    f: float


def cluster_faces(embeddings: npt.ArrayLike, threshold: float) -> Integers:
    """Group faces by person: average linkage over cosine similarity.

    Groups are merged, nearest first, while the mean similarity between the faces of the two
    reaches the threshold (UPGMA, Sokal & Michener, 1958). A single chance likeness cannot join
    two groups, as it does with single linkage; and the number of people need not be known.

    Args:
        embeddings: ``(N, D)``, finite, none of length zero; N at least 1.
        threshold: Mean cosine similarity from which two groups are one person, -1..1; an
            encoder's own threshold serves well.

    Returns:
        ``(N,)``, the group of each face, numbered from 0, the largest group first.

    Raises:
        InputError: Wrong shapes or values, or more faces than ``MOST_FACES``.
        MissingExtraError: scipy is not installed.
    """
    if not -1 <= threshold <= 1:
        raise InputError(f"a cosine threshold lies within -1..1. Received: {threshold}")
    units = unit_length(embeddings)
    if len(units) > MOST_FACES:
        raise InputError(
            f"at most {MOST_FACES:,} faces are grouped at once. Received: {len(units):,}"
        )
    if len(units) == 1:
        return np.zeros(1, np.intp)
    try:
        from scipy.cluster.hierarchy import fcluster, linkage
    except ImportError as error:
        raise MissingExtraError(
            "grouping faces needs scipy: pip install 'face_encode[cluster]'"
        ) from error
    rows, columns = np.triu_indices(len(units), 1)
    # Rounding can make a distance of equal faces negative, which linkage refuses.
    distances = np.maximum(1 - (units @ units.T)[rows, columns], 0).astype(np.float64)
    groups = fcluster(linkage(distances, "average"), 1 - threshold + 1e-12, "distance")
    return _largest_first(np.asarray(groups, np.intp))


def b_cubed(true_groups: npt.ArrayLike, groups: npt.ArrayLike) -> BCubed:
    """Compare a grouping with the true one.

    Args:
        true_groups: ``(N,)``, a label for each item; N at least 1.
        groups: ``(N,)``, the grouping to judge.

    Raises:
        InputError: Wrong shapes.
    """
    truth, given = np.asarray(true_groups), np.asarray(groups)
    if truth.shape != given.shape or truth.ndim != 1 or len(truth) == 0:
        raise InputError(
            "two groupings have one label an item, shape (N,). "
            f"Received: {truth.shape} and {given.shape}"
        )
    _, true_number = np.unique(truth, return_inverse=True)
    _, number = np.unique(given, return_inverse=True)
    # Items that share both labels lie in one cell.
    _, cell, together = np.unique(
        true_number * (number.max() + 1) + number, return_inverse=True, return_counts=True
    )
    shared = together[cell]
    precision = float(np.mean(shared / np.bincount(number)[number]))
    recall = float(np.mean(shared / np.bincount(true_number)[true_number]))
    return BCubed(precision, recall, 2 * precision * recall / (precision + recall))


def _largest_first(groups: Integers) -> Integers:
    """Number groups from 0, the largest first, equal ones by their first item."""
    _, first, number, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    place = np.empty(len(sizes), np.intp)
    place[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return place[number]
