"""Losses over a batch of embeddings and the people on the photos.

Each is a plain ``keras.losses.Loss``: compile any embedding network with it and ``fit`` it on
batches of (images, people) that hold several photos of each person.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import keras
from keras import ops

from face_encode.errors import InputError


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


__all__ = ["MinedTripletLoss", "MultiSimilarityLoss", "TeacherLoss"]

_MINERS = {"semi_hard": batch_semi_hard, "hard": batch_hard}


@keras.saving.register_keras_serializable(package="face_encode", name="MinedTripletLoss")
class MinedTripletLoss(keras.losses.Loss):  # type: ignore[misc]
    """The triplet loss over triplets mined within the batch."""

    def __init__(
        self,
        margin: float = 0.2,
        mining: Literal["semi_hard", "hard"] = "semi_hard",
        normalize: bool = True,
        name: str = "mined_triplet_loss",
        **keywords: Any,
    ) -> None:
        """Choose margin and rule.

        Args:
            margin: By how much a negative is to be farther than the positive, as a squared
                distance; on normalised embeddings those lie within 0..4.
            mining: ``"semi_hard"`` or ``"hard"``: see :mod:`face_encode.training.losses`.
            normalize: Whether embeddings are scaled to length 1 first.
            name: As for every Keras loss.
            **keywords: As for every Keras loss.

        Raises:
            InputError: The margin is not above 0, or the rule is unknown.
        """
        if not margin > 0:
            raise InputError(f"the margin is a number above 0. Received: {margin}")
        if mining not in _MINERS:
            raise InputError(f"mining is one of {sorted(_MINERS)}. Received: {mining!r}")
        super().__init__(name=name, **keywords)
        self.margin = margin
        self.mining = mining
        self.normalize = normalize

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The mean over the batch's valid triplets; 0 where it has none.

        Args:
            y_true: int ``(N,)`` or ``(N, 1)``, the people.
            y_pred: float ``(N, D)``, the embeddings.
        """
        embeddings = ops.normalize(y_pred, axis=-1) if self.normalize else y_pred
        triplets = _MINERS[self.mining](squared_distances(embeddings), y_true)
        losses = ops.relu(triplets.positive_distance - triplets.negative_distance + self.margin)
        valid = ops.cast(triplets.is_valid, losses.dtype)
        return ops.sum(losses * valid) / ops.maximum(ops.sum(valid), 1)

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the loss."""
        return {
            **super().get_config(),
            "margin": self.margin,
            "mining": self.mining,
            "normalize": self.normalize,
        }


@keras.saving.register_keras_serializable(package="face_encode", name="MultiSimilarityLoss")
class MultiSimilarityLoss(keras.losses.Loss):  # type: ignore[misc]
    """The multi-similarity loss: every informative pair of the batch, weighed by its hardness.

    Wang, Han, Huang, Dong and Scott, "Multi-Similarity Loss with General Pair Weighting for Deep
    Metric Learning", 2019, https://arxiv.org/abs/1904.06627, equations 11 to 13. Works on cosine
    similarity, so the length of the embeddings does not matter.
    """

    def __init__(
        self,
        positive_scale: float = 2.0,
        negative_scale: float = 50.0,
        threshold: float = 0.5,
        margin: float = 0.1,
        name: str = "multi_similarity_loss",
        **keywords: Any,
    ) -> None:
        """Choose the constants; the paper's are the default.

        Args:
            positive_scale: The paper's alpha: how sharply unlike positives weigh more.
            negative_scale: The paper's beta: how sharply similar negatives weigh more.
            threshold: The paper's lambda: similarity at which a pair weighs little, within -1..1.
            margin: The paper's epsilon: a pair counts when it comes within this of being on
                the wrong side of the anchor's hardest opposite pair.
            name: As for every Keras loss.
            **keywords: As for every Keras loss.

        Raises:
            InputError: A scale is not above 0, or the threshold is no cosine.
        """
        if not (positive_scale > 0 and negative_scale > 0):
            raise InputError(
                f"scales are numbers above 0. Received: {positive_scale}, {negative_scale}"
            )
        if not -1 <= threshold <= 1:
            raise InputError(f"the threshold is a cosine, -1..1. Received: {threshold}")
        super().__init__(name=name, **keywords)
        self.positive_scale = positive_scale
        self.negative_scale = negative_scale
        self.threshold = threshold
        self.margin = margin

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of each anchor.

        Args:
            y_true: int ``(N,)`` or ``(N, 1)``, the people.
            y_pred: float ``(N, D)``, the embeddings.

        Returns:
            ``(N,)``; 0 for an anchor without an informative pair.
        """
        embeddings = ops.normalize(y_pred, axis=-1)
        similarity = ops.matmul(embeddings, ops.transpose(embeddings))
        people = ops.reshape(y_true, (-1,))
        same = ops.equal(people[:, None], people[None, :])
        itself = ops.eye(ops.shape(people)[0], dtype="bool")
        positive = ops.logical_and(same, ops.logical_not(itself))
        negative = ops.logical_not(same)
        # Any cosine lies within -1..1: 2 stands for "no such pair".
        hardest_positive = ops.min(ops.where(positive, similarity, 2.0), axis=1, keepdims=True)
        hardest_negative = ops.max(ops.where(negative, similarity, -2.0), axis=1, keepdims=True)
        positive = ops.logical_and(positive, similarity - self.margin < hardest_negative)
        negative = ops.logical_and(negative, similarity + self.margin > hardest_positive)
        return (
            _soft_sum(-self.positive_scale * (similarity - self.threshold), positive)
            / self.positive_scale
            + _soft_sum(self.negative_scale * (similarity - self.threshold), negative)
            / self.negative_scale
        )

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the loss."""
        return {
            **super().get_config(),
            "positive_scale": self.positive_scale,
            "negative_scale": self.negative_scale,
            "threshold": self.threshold,
            "margin": self.margin,
        }


@keras.saving.register_keras_serializable(package="face_encode", name="TeacherLoss")
class TeacherLoss(keras.losses.Loss):  # type: ignore[misc]
    """Regression on a teacher's embeddings, and on how similar the teacher finds two photos.

    The mean squared error, plus a weight times the mean squared difference of the batch's two
    matrices of cosines (Park, Kim, Lu and Cho, "Relational Knowledge Distillation", 2019,
    https://arxiv.org/abs/1904.05068, gives the idea): verification lives on the cosines.
    Embeddings of faces share a large mean, beside which their differences are small; say it,
    and both terms see the differences.
    """

    def __init__(
        self,
        mean: float | Sequence[float] = 0.0,
        scale: float = 1.0,
        relation_weight: float = 10.0,
        name: str = "teacher_loss",
        **keywords: Any,
    ) -> None:
        """Say what is common to the teacher's embeddings.

        Args:
            mean: Their mean, D numbers, or one for all.
            scale: Their standard deviation about it, one number for all.
            relation_weight: Weight of the cosines, at least 0.
            name: As for every Keras loss.
            **keywords: As for every Keras loss.

        Raises:
            InputError: The scale is not above 0, or the weight is below 0.
        """
        if not scale > 0 or not relation_weight >= 0:
            raise InputError(
                "the scale is a number above 0, the weight at least 0. "
                f"Received: {scale}, {relation_weight}"
            )
        super().__init__(name=name, **keywords)
        self.mean = mean
        self.scale = scale
        self.relation_weight = relation_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of the batch.

        Args:
            y_true: float ``(N, D)``, the teacher's embeddings.
            y_pred: float ``(N, D)``, the student's.
        """
        teacher = (y_true - ops.cast(self.mean, y_true.dtype)) / self.scale
        student = (y_pred - ops.cast(self.mean, y_pred.dtype)) / self.scale
        loss = ops.mean(ops.square(student - teacher))
        if self.relation_weight:
            difference = _cosines(student) - _cosines(teacher)
            loss = loss + self.relation_weight * ops.mean(ops.square(difference))
        return loss

    def get_config(self) -> dict[str, Any]:
        """What rebuilds the loss."""
        return {
            **super().get_config(),
            "mean": self.mean,
            "scale": self.scale,
            "relation_weight": self.relation_weight,
        }


def _cosines(embeddings: Any) -> Any:
    """Cosine similarities within a batch, ``(N, N)``."""
    unit = ops.normalize(embeddings, axis=-1)
    return ops.matmul(unit, ops.transpose(unit))


def _soft_sum(exponents: Any, mask: Any) -> Any:
    """``log(1 + sum(exp(exponents)))`` over the masked entries of each row."""
    terms = ops.exp(exponents) * ops.cast(mask, exponents.dtype)
    return ops.log1p(ops.sum(terms, axis=1))
