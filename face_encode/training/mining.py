"""Choosing the triplets of a batch that teach something.

Of all triplets in a batch of P people times K photos most are solved already and give no
gradient. Both rules here choose by the distances of the moment:

- batch-hard: for each anchor the farthest positive and the nearest negative (Hermans, Beyer and
  Leibe, "In Defense of the Triplet Loss for Person Re-Identification", 2017,
  https://arxiv.org/abs/1703.07737);
- semi-hard: for each anchor and each positive the nearest negative that is farther than the
  positive (Schroff, Kalenichenko and Philbin, "FaceNet", 2015,
  https://arxiv.org/abs/1503.03832, section 3.2).

A person with a single photo in the batch is nobody's positive, and serves as negative only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops


class MinedTriplets(NamedTuple):
    """Triplets, as distances; M is the number of anchors or of pairs of anchor and positive.

    Attributes:
        positive_distance: ``(M,)``, anchor to positive.
        negative_distance: ``(M,)``, anchor to the chosen negative.
        is_valid: ``(M,)`` boolean; False where the batch held no positive or no negative, and
            the distances mean nothing.
    """

    positive_distance: Any
    negative_distance: Any
    is_valid: Any


def squared_distances(embeddings: Any) -> Any:
    """Squared Euclidean distances between all embeddings of a batch.

    Args:
        embeddings: float ``(N, D)``, L2-normalised or not.

    Returns:
        ``(N, N)``, at least 0, and 0 on the diagonal.
    """
    products = ops.matmul(embeddings, ops.transpose(embeddings))
    squares = ops.diagonal(products)
    # The product form saves the (N, N, D) differences; rounding may push it below 0.
    return ops.relu(squares[:, None] + squares[None, :] - 2 * products)


def batch_hard(distances: Any, people: Any) -> MinedTriplets:
    """The farthest positive and the nearest negative of each anchor.

    Args:
        distances: float ``(N, N)``, from :func:`squared_distances`.
        people: int ``(N,)``, who is on each photo.

    Returns:
        N triplets, one an anchor.
    """
    positive, negative = _pair_masks(people)
    infinity = _beyond(distances)
    return MinedTriplets(
        ops.max(ops.where(positive, distances, -infinity), axis=1),
        ops.min(ops.where(negative, distances, infinity), axis=1),
        ops.logical_and(ops.any(positive, axis=1), ops.any(negative, axis=1)),
    )


def batch_semi_hard(distances: Any, people: Any) -> MinedTriplets:
    """For each anchor and positive the nearest negative that is farther than the positive.

    Where every negative is nearer than the positive, the farthest of them is taken: the least
    hard, because the hardest ones let the training collapse early on (FaceNet, section 3.2).

    Args:
        distances: float ``(N, N)``, from :func:`squared_distances`.
        people: int ``(N,)``, who is on each photo.

    Returns:
        N * N triplets, one for each ordered pair; valid are those of one person's two photos.
    """
    positive, negative = _pair_masks(people)
    infinity = _beyond(distances)
    # Axes: anchor, positive, candidate negative.
    candidates = distances[:, None, :]
    farther = ops.logical_and(negative[:, None, :], candidates > distances[:, :, None])
    nearest_farther = ops.min(ops.where(farther, candidates, infinity), axis=2)
    farthest = ops.max(ops.where(negative, distances, -infinity), axis=1)
    chosen = ops.where(ops.any(farther, axis=2), nearest_farther, farthest[:, None])
    is_valid = ops.logical_and(positive, ops.any(negative, axis=1)[:, None])
    return MinedTriplets(
        ops.reshape(distances, (-1,)), ops.reshape(chosen, (-1,)), ops.reshape(is_valid, (-1,))
    )


def _pair_masks(people: Any) -> tuple[Any, Any]:
    """Boolean ``(N, N)``: pairs of two photos of one person, and pairs of two people."""
    people = ops.reshape(people, (-1,))
    same = ops.equal(people[:, None], people[None, :])
    itself = ops.eye(ops.shape(people)[0], dtype="bool")
    return ops.logical_and(same, ops.logical_not(itself)), ops.logical_not(same)


def _beyond(distances: Any) -> Any:
    """A number beyond every distance; finite, so that no gradient becomes NaN."""
    return ops.max(distances) + 1
