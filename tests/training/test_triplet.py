"""The Siamese network: distances and loss by hand, real training, saving."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.training.triplet import DistanceLayer, TripletModel

Triplets = tuple[np.ndarray, np.ndarray, np.ndarray]


def small_network(units: int = 3) -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(units),
        ],
        name="small",
    )


def colour_triplets(count: int, seed: int = 0) -> Triplets:
    """Images of "people" who are told apart by colour, under much brightness noise."""
    random = np.random.default_rng(seed)

    def photos(people: np.ndarray) -> np.ndarray:
        colours = np.array([[120, 90, 90], [90, 120, 90], [90, 90, 120]])[people]
        noise = random.normal(0, 30, (count, 8, 8, 1)) + random.normal(0, 60, (count, 1, 1, 1))
        return np.asarray((colours[:, None, None] + noise).clip(0, 255), np.float32)

    anchors = random.integers(0, 3, count)
    others = (anchors + random.integers(1, 3, count)) % 3
    return photos(anchors), photos(anchors), photos(others)


def test_distance_layer_by_hand() -> None:
    anchor = np.array([[0.0, 0.0], [1.0, 1.0]], np.float32)
    positive = np.array([[3.0, 4.0], [1.0, 1.0]], np.float32)
    negative = np.array([[1.0, 0.0], [0.0, 3.0]], np.float32)
    near, far = DistanceLayer()(anchor, positive, negative)
    assert keras.ops.convert_to_numpy(near).tolist() == [25, 0]
    assert keras.ops.convert_to_numpy(far).tolist() == [1, 5]


def test_loss_and_accuracy_by_hand() -> None:
    # The embedding is the mean pixel, so distances can be read off the pixels.
    network = keras.Sequential([keras.Input((1, 1, 3)), keras.layers.GlobalAveragePooling2D()])
    model = TripletModel(network, margin=0.5)
    model.compile()

    def images(*values: float) -> np.ndarray:
        return np.array([[[[value, 0, 0]]] for value in values], np.float32)

    # Three triplets with squared distances (0, 1), (1, 1) and (4, 1).
    result = model.evaluate(
        [images(0, 0, 0), images(0, 1, 2), images(1, 1, 1)],
        batch_size=3,
        verbose=0,
        return_dict=True,
    )
    assert result["loss"] == pytest.approx((0 + 0.5 + 3.5) / 3, abs=1e-6)
    # A tie is no success.
    assert result["accuracy"] == pytest.approx(1 / 3, abs=1e-6)


def test_training_lowers_the_loss_and_raises_the_accuracy() -> None:
    keras.utils.set_random_seed(1)
    model = TripletModel(small_network())
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    unseen = list(colour_triplets(200, seed=1))
    before = model.evaluate(unseen, verbose=0, return_dict=True)
    history = model.fit(
        list(colour_triplets(300)), validation_data=unseen, epochs=8, batch_size=50, verbose=0
    )
    after = model.evaluate(unseen, verbose=0, return_dict=True)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert after["loss"] < 0.7 * before["loss"]
    assert after["accuracy"] > max(before["accuracy"] + 0.1, 0.9)


class _Batches(keras.utils.PyDataset):  # type: ignore[misc]
    def __init__(self, triplets: Triplets) -> None:
        super().__init__()
        self.triplets = triplets

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Triplets:
        anchor, positive, negative = (part[index * 10 : index * 10 + 10] for part in self.triplets)
        return anchor, positive, negative


def _generator(triplets: Triplets) -> Iterator[Triplets]:
    batches = _Batches(triplets)
    while True:
        yield from (batches[index] for index in range(2))


def _tf_data(triplets: Triplets) -> object:
    return pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices(triplets).batch(10)


def _marked_tf_data(triplets: Triplets) -> object:
    data = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((triplets,))
    return data.batch(10)


@pytest.mark.parametrize("kind", [_Batches, _generator, _tf_data, _marked_tf_data])
def test_datasets_of_triplets_give_what_arrays_give(kind: object) -> None:
    triplets = colour_triplets(20)
    model = TripletModel(small_network())
    model.compile(optimizer="adam")
    expected = model.evaluate(list(triplets), batch_size=10, verbose=0)
    received = model.evaluate(kind(triplets), steps=2, verbose=0)  # type: ignore[operator]
    np.testing.assert_allclose(received, expected, rtol=1e-4)
    history = model.fit(
        kind(triplets),  # type: ignore[operator]
        validation_data=kind(triplets),  # type: ignore[operator]
        steps_per_epoch=2,
        validation_steps=2,
        verbose=0,
    )
    assert np.isfinite(history.history["val_loss"]).all()


def test_regularizers_of_the_network_count() -> None:
    network = keras.Sequential(
        [
            keras.Input((1, 1, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(
                2, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(1.0)
            ),
        ]
    )
    model = TripletModel(network, margin=0.5)
    model.compile()
    images = np.zeros((4, 1, 1, 3), np.float32)
    # Three identical images lose the margin; six weights of one cost 6.
    loss, _ = model.evaluate([images, images, images], verbose=0)
    assert loss == pytest.approx(6.5)


def test_saved_model_trains_on_where_it_stopped(tmp_path: Path) -> None:
    triplets = list(colour_triplets(40))
    model = TripletModel(small_network(), margin=0.25)
    model.compile(optimizer="adam")
    model.fit(triplets, verbose=0)
    model.save(tmp_path / "siamese.keras")
    again = keras.models.load_model(tmp_path / "siamese.keras", safe_mode=True)
    assert isinstance(again, TripletModel)
    assert again.margin == 0.25
    np.testing.assert_allclose(
        again.evaluate(triplets, verbose=0), model.evaluate(triplets, verbose=0), rtol=1e-5
    )
    first = model.fit(triplets, shuffle=False, verbose=0).history["loss"]
    second = again.fit(triplets, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(first, second, rtol=1e-4)


@pytest.mark.parametrize("margin", [0, -1, float("nan"), float("inf")])
def test_margins_out_of_range_are_refused(margin: float) -> None:
    with pytest.raises(InputError, match="Received"):
        TripletModel(small_network(), margin=margin)


def test_something_else_than_a_network_is_refused() -> None:
    with pytest.raises(InputError, match="Received: str"):
        TripletModel("model.keras")
