"""Losses over a batch of embeddings, and the mining of triplets within it.

Each loss is a plain ``keras.losses.Loss``: compile any embedding network with it and ``fit`` it on
batches of images and targets. The targets are the people, of whom a batch holds several photos
each; those of ``DistillationLoss`` are a teacher's embeddings. People are numbered below 2**24:
Keras casts targets to float32, in which larger numbers run together. ``PeopleBatches`` numbers
them anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import keras
from keras import ops

from face_encode.errors import InputError
from face_encode.types import check_number


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
    """Squared Euclidean distances ``(N, N)`` between embeddings ``(N, D)``, at least 0."""
    products = ops.matmul(embeddings, ops.transpose(embeddings))
    squares = ops.diagonal(products)
    # The product form saves the (N, N, D) differences; rounding may push it below 0.
    return ops.relu(squares[:, None] + squares[None, :] - 2 * products)


def batch_hard(distances: Any, people: Any) -> MinedTriplets:
    """Mine the farthest positive and the nearest negative of each anchor: N triplets.

    Takes squared distances ``(N, N)`` and the people, int ``(N,)`` or ``(N, 1)``.
    """
    positive, negative = _pair_masks(people)
    # Not infinity, so that no gradient becomes NaN.
    beyond = ops.max(distances) + 1
    return MinedTriplets(
        ops.max(ops.where(positive, distances, -beyond), axis=1),
        ops.min(ops.where(negative, distances, beyond), axis=1),
        ops.logical_and(ops.any(positive, axis=1), ops.any(negative, axis=1)),
    )


def batch_semi_hard(distances: Any, people: Any) -> MinedTriplets:
    """Mine, for each anchor and positive, the nearest negative that is farther than the positive.

    Where every negative is nearer than the positive, the farthest of them is taken: the least
    hard, because the hardest ones let the training collapse early on (FaceNet, section 3.2).
    Takes squared distances ``(N, N)`` and the people, int ``(N,)`` or ``(N, 1)``; gives N * N
    triplets, one for each ordered pair, valid where that is two photos of one person.
    """
    positive, negative = _pair_masks(people)
    beyond = ops.max(distances) + 1
    # Axes: anchor, positive, candidate negative.
    candidates = distances[:, None, :]
    farther = ops.logical_and(negative[:, None, :], candidates > distances[:, :, None])
    nearest_farther = ops.min(ops.where(farther, candidates, beyond), axis=2)
    farthest = ops.max(ops.where(negative, distances, -beyond), axis=1)
    chosen = ops.where(ops.any(farther, axis=2), nearest_farther, farthest[:, None])
    is_valid = ops.logical_and(positive, ops.any(negative, axis=1)[:, None])
    return MinedTriplets(
        ops.reshape(distances, (-1,)), ops.reshape(chosen, (-1,)), ops.reshape(is_valid, (-1,))
    )


_MINERS = {"semi_hard": batch_semi_hard, "hard": batch_hard}


class _ConfiguredLoss(keras.losses.Loss):  # type: ignore[misc]
    """A loss that is rebuilt from the attributes of these names."""

    _settings: tuple[str, ...]

    def get_config(self) -> dict[str, Any]:
        """The loss's own arguments, and those of every Keras loss."""
        return {**super().get_config(), **{name: getattr(self, name) for name in self._settings}}


@keras.saving.register_keras_serializable(package="face_encode", name="MinedTripletLoss")
class MinedTripletLoss(_ConfiguredLoss):
    """The triplet loss over triplets mined within the batch."""

    _settings = ("margin", "mining", "normalize")

    def __init__(
        self,
        margin: float = 0.2,
        mining: Literal["semi_hard", "hard"] = "semi_hard",
        normalize: bool = True,
        **keywords: Any,
    ) -> None:
        """Choose margin and rule.

        Args:
            margin: By how much a negative is to be farther than the positive, as a squared
                distance; on normalised embeddings those lie within 0..4.
            mining: ``"semi_hard"`` or ``"hard"``: ``batch_semi_hard``, ``batch_hard``.
            normalize: Whether embeddings are scaled to length 1 first.
            **keywords: As for every Keras loss.

        Raises:
            InputError: The margin is not above 0, or the rule is unknown.
        """
        check_number(margin, "the margin", 0, ends=False)
        if mining not in _MINERS:
            raise InputError(f"mining is one of {sorted(_MINERS)}. Received: {mining!r}")
        super().__init__(**keywords)
        self.margin = margin
        self.mining = mining
        self.normalize = normalize

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The mean over the batch's valid triplets; 0 where it has none.

        Takes the people, int ``(N,)`` or ``(N, 1)``, below 2**24, and their embeddings, float
        ``(N, D)``.
        """
        embeddings = ops.normalize(y_pred, axis=-1) if self.normalize else y_pred
        triplets = _MINERS[self.mining](squared_distances(embeddings), y_true)
        losses = ops.relu(triplets.positive_distance - triplets.negative_distance + self.margin)
        valid = ops.cast(triplets.is_valid, losses.dtype)
        return ops.sum(losses * valid) / ops.maximum(ops.sum(valid), 1)


@keras.saving.register_keras_serializable(package="face_encode", name="MultiSimilarityLoss")
class MultiSimilarityLoss(_ConfiguredLoss):
    """The multi-similarity loss: every informative pair of the batch, weighted by its hardness.

    Wang, Han, Huang, Dong and Scott, "Multi-Similarity Loss with General Pair Weighting for Deep
    Metric Learning", 2019, https://arxiv.org/abs/1904.06627, equations 11 to 13. Works on cosine
    similarity, so the length of the embeddings does not matter.
    """

    _settings = ("positive_scale", "negative_scale", "threshold", "margin")

    def __init__(
        self,
        positive_scale: float = 2.0,
        negative_scale: float = 50.0,
        threshold: float = 0.5,
        margin: float = 0.1,
        **keywords: Any,
    ) -> None:
        """Choose the constants; the paper's are the default.

        Args:
            positive_scale: The paper's alpha: how sharply the weight of dissimilar positives grows.
            negative_scale: The paper's beta: how sharply the weight of similar negatives grows.
            threshold: The paper's lambda: similarity at which a pair weighs little, within -1..1.
            margin: The paper's epsilon: a pair counts when it comes within this of being on
                the wrong side of the anchor's hardest opposite pair.
            **keywords: As for every Keras loss.

        Raises:
            InputError: A scale is not above 0, or the threshold is no cosine.
        """
        check_number(positive_scale, "positive_scale", 0, ends=False)
        check_number(negative_scale, "negative_scale", 0, ends=False)
        check_number(threshold, "a cosine threshold", -1, 1)
        super().__init__(**keywords)
        self.positive_scale = positive_scale
        self.negative_scale = negative_scale
        self.threshold = threshold
        self.margin = margin

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss ``(N,)`` of each anchor; 0 for an anchor without an informative pair.

        Takes the people, int ``(N,)`` or ``(N, 1)``, below 2**24, and their embeddings, float
        ``(N, D)``.
        """
        similarity = _cosines(y_pred)
        positive, negative = _pair_masks(y_true)
        # Any cosine lies within -1..1: 2 stands for "no such pair".
        hardest_positive = ops.min(ops.where(positive, similarity, 2.0), axis=1, keepdims=True)
        hardest_negative = ops.max(ops.where(negative, similarity, -2.0), axis=1, keepdims=True)
        positive = ops.logical_and(positive, similarity - self.margin < hardest_negative)
        negative = ops.logical_and(negative, similarity + self.margin > hardest_positive)

        def part(scale: float, pairs: Any) -> Any:
            """``log(1 + sum(exp))`` over the informative pairs of each anchor."""
            logits = ops.where(pairs, scale * (similarity - self.threshold), -math.inf)
            # The 1 is the exponential of a 0 beside them; exponentials by themselves overflow.
            return ops.logsumexp(ops.pad(logits, ((0, 0), (1, 0))), axis=1) / abs(scale)

        return part(-self.positive_scale, positive) + part(self.negative_scale, negative)


@keras.saving.register_keras_serializable(package="face_encode", name="DistillationLoss")
class DistillationLoss(_ConfiguredLoss):
    """Regression on a teacher's embeddings, and on the similarities between them.

    The mean squared error, plus a weight times the mean squared difference of the batch's two
    matrices of cosines (Park, Kim, Lu and Cho, "Relational Knowledge Distillation", 2019,
    https://arxiv.org/abs/1904.05068, gives the idea): verification rests on the cosines.
    Embeddings of faces share a large mean, beside which their differences are small; both terms
    are taken of the embeddings without that mean.
    """

    _settings = ("mean", "scale", "relation_weight")

    def __init__(
        self,
        mean: float | Sequence[float] = 0.0,
        scale: float = 1.0,
        relation_weight: float = 10.0,
        **keywords: Any,
    ) -> None:
        """Take the teacher's statistics and the weight of the cosines.

        Args:
            mean: Mean of the teacher's embeddings, D numbers, or one for all.
            scale: Their standard deviation about it, one number for all.
            relation_weight: Weight of the cosines, at least 0.
            **keywords: As for every Keras loss.

        Raises:
            InputError: The scale is not above 0, or the weight is below 0.
        """
        check_number(scale, "scale", 0, ends=False)
        check_number(relation_weight, "relation_weight", 0)
        super().__init__(**keywords)
        self.mean = mean
        self.scale = scale
        self.relation_weight = relation_weight

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of the teacher's and the student's embeddings, both float ``(N, D)``."""
        teacher = (y_true - ops.cast(self.mean, y_true.dtype)) / self.scale
        student = (y_pred - ops.cast(self.mean, y_pred.dtype)) / self.scale
        loss = ops.mean(ops.square(student - teacher))
        if self.relation_weight:
            difference = _cosines(student) - _cosines(teacher)
            loss = loss + self.relation_weight * ops.mean(ops.square(difference))
        return loss


def _pair_masks(people: Any) -> tuple[Any, Any]:
    """Boolean ``(N, N)``: pairs of two photos of one person, and pairs of two people."""
    people = ops.reshape(people, (-1,))
    same = ops.equal(people[:, None], people[None, :])
    itself = ops.eye(ops.shape(people)[0], dtype="bool")
    return ops.logical_and(same, ops.logical_not(itself)), ops.logical_not(same)


def _cosines(embeddings: Any) -> Any:
    """Cosine similarities within a batch, ``(N, N)``."""
    unit = ops.normalize(embeddings, axis=-1)
    return ops.matmul(unit, ops.transpose(unit))
