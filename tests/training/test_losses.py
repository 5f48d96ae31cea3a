"""The losses on batches worked out by hand, and trained with for real."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.training.losses import (
    DistillationLoss,
    MinedTripletLoss,
    MultiSimilarityLoss,
    batch_hard,
    batch_semi_hard,
    squared_distances,
)

PEOPLE = np.array([0, 0, 1, 1])
# Unit vectors at 0, 90, 0 and 180 degrees.
EMBEDDINGS = np.array([[1, 0], [0, 1], [1, 0], [-1, 0]], np.float32)


def value(loss: keras.losses.Loss, people: np.ndarray, embeddings: np.ndarray) -> float:
    return float(keras.ops.convert_to_numpy(loss(people, embeddings)))


def test_hard_triplets_by_hand() -> None:
    # Squared distances: 0-1: 2, 0-2: 0, 0-3: 4, 1-2: 2, 1-3: 2, 2-3: 4.
    # Anchor 0: 2 - 0 + 1 = 3; 1: 2 - 2 + 1 = 1; 2: 4 - 0 + 1 = 5; 3: 4 - 2 + 1 = 3.
    loss = MinedTripletLoss(margin=1.0, mining="hard")
    assert value(loss, PEOPLE, EMBEDDINGS) == pytest.approx(3.0, abs=1e-5)


def test_semi_hard_triplets_by_hand() -> None:
    # (0, 1) at 2: beyond lies 4: 2 - 4 + 1 < 0: 0. (1, 0) at 2: nobody beyond 2, farthest 2: 1.
    # (2, 3) at 4: nobody beyond, farthest 2: 3. (3, 2) at 4: nobody beyond 4, farthest 4: 1.
    loss = MinedTripletLoss(margin=1.0, mining="semi_hard")
    assert value(loss, PEOPLE, EMBEDDINGS) == pytest.approx((0 + 1 + 3 + 1) / 4, abs=1e-5)


def test_raw_embeddings_keep_their_length() -> None:
    normalised = MinedTripletLoss(margin=1.0, mining="hard")
    raw = MinedTripletLoss(margin=1.0, mining="hard", normalize=False)
    longer = 3 * EMBEDDINGS
    assert value(normalised, PEOPLE, longer) == pytest.approx(3.0, abs=1e-5)
    # Distances are nine times as long: 19, 1, 37 and 19.
    assert value(raw, PEOPLE, longer) == pytest.approx(19.0, abs=1e-4)


def test_multi_similarity_by_hand() -> None:
    loss = MultiSimilarityLoss(2.0, 50.0, 0.5, 0.1)

    # Cosines: 0-1: 0, 0-2: 1, 0-3: -1, 1-2: 0, 1-3: 0, 2-3: -1.
    # Anchor 0: its positive (0) is below its hardest negative (1) + 0.1; of its negatives only
    # the one at 1 is above its hardest positive (0) - 0.1. Anchor 2 likewise, positive at -1,
    # negatives at 1 and 0. Anchor 1: positive 0, negatives 0 and 0. Anchor 3: positive -1,
    # negatives -1 and 0.
    def positive(similarity: float) -> float:
        return math.log(1 + math.exp(-2 * (similarity - 0.5))) / 2

    def negative(*similarities: float) -> float:
        return math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in similarities)) / 50

    anchors = [
        positive(0) + negative(1),
        positive(0) + negative(0, 0),
        positive(-1) + negative(1, 0),
        positive(-1) + negative(-1, 0),
    ]
    assert value(loss, PEOPLE, EMBEDDINGS) == pytest.approx(sum(anchors) / 4, rel=1e-5)


@pytest.mark.parametrize("settings", [(2.0, 200.0, 0.5), (2.0, 50.0, -0.9), (200.0, 50.0, 0.9)])
def test_multi_similarity_is_a_number_where_exponentials_overflow(
    settings: tuple[float, float, float],
) -> None:
    loss = MultiSimilarityLoss(*settings)
    # Far beyond 1, log(1 + exp(scale * x)) / scale is x: by hand, of the hardest pairs alone.
    positive_scale, negative_scale, threshold = settings

    def part(scale: float, excess: float) -> float:
        return float(np.logaddexp(0, scale * excess)) / scale

    people, embeddings = np.array([0, 0, 1]), np.array([[1, 0], [0, 1], [1, 0]], np.float32)
    # Cosines: 0-1: 0, 0-2: 1, 1-2: 0. The third has no positive, so that none of its negatives
    # is informative.
    anchors = [
        part(positive_scale, threshold - 0) + part(negative_scale, 1 - threshold),
        part(positive_scale, threshold - 0) + part(negative_scale, 0 - threshold),
        0,
    ]
    assert value(loss, people, embeddings) == pytest.approx(sum(anchors) / 3, rel=1e-4)


def test_teacher_loss_by_hand() -> None:
    # Centred and scaled: teacher (1, 0), (0, 1); student (1, 0), (1, 0).
    teacher = np.array([[7, 3], [5, 5]], np.float32)
    student = np.array([[7, 3], [7, 3]], np.float32)
    # Squared errors 0, 0, 1, 1: mean 0.5. Cosines between the two photos: 0 and 1, in two of
    # four places: mean square 0.5.
    loss = DistillationLoss(mean=[5.0, 3.0], scale=2.0, relation_weight=4.0)
    assert value(loss, teacher, student) == pytest.approx(0.5 + 4 * 0.5, abs=1e-5)
    assert value(DistillationLoss([5.0, 3.0], 2.0, 0.0), teacher, student) == pytest.approx(0.5)
    assert value(loss, teacher, teacher) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("loss", [MinedTripletLoss(), MultiSimilarityLoss()])
def test_solved_batches_and_single_photos_cost_nothing(loss: keras.losses.Loss) -> None:
    solved = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0]], np.float32)
    assert value(loss, np.arange(4), EMBEDDINGS) == 0
    assert value(loss, PEOPLE, solved) == 0


@pytest.mark.parametrize(
    "loss",
    [
        MinedTripletLoss(0.3, "hard", False),
        MultiSimilarityLoss(3.0),
        DistillationLoss([1.0, 2.0], 0.5),
    ],
)
def test_losses_survive_saving(loss: keras.losses.Loss) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


@pytest.mark.parametrize(
    "loss", [MinedTripletLoss(mining="hard"), MinedTripletLoss(), MultiSimilarityLoss()]
)
def test_training_with_the_loss_separates_people(loss: keras.losses.Loss) -> None:
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(4), 8)
    # Two small numbers tell the people apart, six larger ones tell nothing.
    inputs = random.normal(size=(32, 8)).astype(np.float32)
    inputs[:, :2] = 0.3 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])[people]
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, use_bias=False)])
    model.compile(optimizer=keras.optimizers.Adam(0.03), loss=loss)
    before = value(loss, people, model(inputs))
    # 150 times the same batch, in one epoch, for epochs take time of their own.
    steps = [np.concatenate([each] * 150) for each in (inputs, people)]
    model.fit(*steps, batch_size=32, shuffle=False, verbose=0)
    assert value(loss, people, model(inputs)) < 0.5 * before


@pytest.mark.parametrize(
    "build",
    [
        lambda: MinedTripletLoss(margin=0),
        lambda: MinedTripletLoss(margin=float("nan")),
        lambda: MinedTripletLoss(mining="easy"),  # type: ignore[arg-type]
        lambda: MultiSimilarityLoss(positive_scale=0),
        lambda: MultiSimilarityLoss(threshold=2),
        lambda: DistillationLoss(scale=0),
        lambda: DistillationLoss(relation_weight=-1),
    ],
)
def test_constants_out_of_range_are_refused(build: object) -> None:
    with pytest.raises(InputError, match="Received"):
        build()  # type: ignore[operator]


# Five photos on a line: A at 0 and 3, B at 1 and 10, and C, who has one photo, at 4.
OWNERS = np.array([0, 0, 1, 1, 2])
PLACES = np.array([[0.0], [3.0], [1.0], [10.0], [4.0]], np.float32)


def as_numpy(tensor: object) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def test_squared_distances_are_those_of_the_differences() -> None:
    embeddings = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    expected = ((embeddings[:, None] - embeddings[None]) ** 2).sum(axis=2)
    distances = as_numpy(squared_distances(embeddings))
    np.testing.assert_allclose(distances, expected, atol=1e-5)
    assert distances.min() >= 0


def test_batch_hard_takes_the_farthest_positive_and_the_nearest_negative() -> None:
    triplets = batch_hard(squared_distances(PLACES), OWNERS)
    # Anchors: A at 0 (own 3; others 1, 10, 4), A at 3 (own 0; others 1, 10, 4),
    # B at 1 (own 10; others 0, 3, 4), B at 10 (own 1; others 0, 3, 4), C.
    assert as_numpy(triplets.is_valid).tolist() == [True, True, True, True, False]
    np.testing.assert_allclose(as_numpy(triplets.positive_distance)[:4], [9, 9, 81, 81], atol=1e-4)
    np.testing.assert_allclose(as_numpy(triplets.negative_distance)[:4], [1, 1, 1, 36], atol=1e-4)


def test_batch_semi_hard_takes_the_nearest_negative_beyond_the_positive() -> None:
    triplets = batch_semi_hard(squared_distances(PLACES), OWNERS)
    valid = as_numpy(triplets.is_valid).reshape(5, 5)
    assert np.argwhere(valid).tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]
    negative = as_numpy(triplets.negative_distance).reshape(5, 5)[valid]
    positive = as_numpy(triplets.positive_distance).reshape(5, 5)[valid]
    np.testing.assert_allclose(positive, [9, 9, 81, 81], atol=1e-4)
    # A at 0: beyond 9 lie 16 (C) and 100: 16. A at 3: beyond 9 lies 49 only. B at 1 and B at 10:
    # nobody lies beyond 81, so the farthest: 9 (A at 3) and 100 (A at 0), which is beyond.
    np.testing.assert_allclose(negative, [16, 49, 9, 100], atol=1e-4)


@pytest.mark.parametrize("rule", [batch_hard, batch_semi_hard])
@pytest.mark.parametrize("people", [[0, 1, 2, 3, 4], [7, 7, 7, 7, 7]])
def test_a_batch_without_positives_or_without_negatives_has_no_triplet(
    rule: object, people: list[int]
) -> None:
    triplets = rule(squared_distances(PLACES), np.array(people))  # type: ignore[operator]
    assert not as_numpy(triplets.is_valid).any()
    assert np.isfinite(as_numpy(triplets.positive_distance)).all()
    assert np.isfinite(as_numpy(triplets.negative_distance)).all()


def test_people_may_come_as_a_column() -> None:
    distances = squared_distances(PLACES)
    flat, column = (
        batch_hard(distances, OWNERS),
        batch_hard(distances, OWNERS[:, None]),
    )
    np.testing.assert_array_equal(
        as_numpy(flat.negative_distance), as_numpy(column.negative_distance)
    )
