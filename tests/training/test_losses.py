"""The losses on batches worked out by hand, and trained with for real."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.training.losses import MinedTripletLoss, MultiSimilarityLoss, TeacherLoss

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


def test_teacher_loss_by_hand() -> None:
    # Centred and scaled: teacher (1, 0), (0, 1); student (1, 0), (1, 0).
    teacher = np.array([[7, 3], [5, 5]], np.float32)
    student = np.array([[7, 3], [7, 3]], np.float32)
    # Squared errors 0, 0, 1, 1: mean 0.5. Cosines between the two photos: 0 and 1, in two of
    # four places: mean square 0.5.
    loss = TeacherLoss(mean=[5.0, 3.0], scale=2.0, relation_weight=4.0)
    assert value(loss, teacher, student) == pytest.approx(0.5 + 4 * 0.5, abs=1e-5)
    assert value(TeacherLoss([5.0, 3.0], 2.0, 0.0), teacher, student) == pytest.approx(0.5)
    assert value(loss, teacher, teacher) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("loss", [MinedTripletLoss(), MultiSimilarityLoss()])
def test_solved_batches_and_single_photos_cost_nothing(loss: keras.losses.Loss) -> None:
    solved = np.array([[1, 0], [1, 0], [-1, 0], [-1, 0]], np.float32)
    assert value(loss, np.arange(4), EMBEDDINGS) == 0
    assert value(loss, PEOPLE, solved) == 0


@pytest.mark.parametrize(
    "loss",
    [MinedTripletLoss(0.3, "hard", False), MultiSimilarityLoss(3.0), TeacherLoss([1.0, 2.0], 0.5)],
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
    model.fit(inputs, people, batch_size=32, epochs=150, shuffle=False, verbose=0)
    assert value(loss, people, model(inputs)) < 0.5 * before


@pytest.mark.parametrize(
    "build",
    [
        lambda: MinedTripletLoss(margin=0),
        lambda: MinedTripletLoss(margin=float("nan")),
        lambda: MinedTripletLoss(mining="easy"),  # type: ignore[arg-type]
        lambda: MultiSimilarityLoss(positive_scale=0),
        lambda: MultiSimilarityLoss(threshold=2),
        lambda: TeacherLoss(scale=0),
        lambda: TeacherLoss(relation_weight=-1),
    ],
)
def test_constants_out_of_range_are_refused(build: object) -> None:
    with pytest.raises(InputError, match="Received"):
        build()  # type: ignore[operator]
