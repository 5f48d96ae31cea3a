"""Initial weights that suit the data."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from face_encode.encoders.vgg16 import vgg_embedding
from face_encode.errors import InputError
from face_encode.training.backbones import standardize_layers


def images(count: int) -> np.ndarray:
    """Smooth and alike, as crops of faces are."""
    random = np.random.default_rng(0)
    common, own = random.uniform(80, 170, (1, 4, 4, 3)), random.normal(0, 25, (count, 4, 4, 3))
    return np.asarray(np.kron(common + own, np.ones((1, 8, 8, 1))).clip(0, 255), np.float32)


def two_numbers() -> keras.Model:
    return keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])


def test_layers_begin_standardised_and_embeddings_apart() -> None:
    keras.utils.set_random_seed(0)
    model = vgg_embedding((32, 32, 3), 16, (24, 8), width=0.125)
    sample = images(64)
    standardize_layers(model, sample)
    deep = model.get_layer("block4_conv2")
    before = keras.Model(model.input, deep.input)(sample)
    outputs = keras.ops.convert_to_numpy(keras.ops.conv(before, deep.kernel, padding="same"))
    outputs = outputs + keras.ops.convert_to_numpy(deep.bias)
    np.testing.assert_allclose(outputs.mean(axis=(0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(outputs.std(axis=(0, 1, 2)), 1, atol=1e-2)
    assert deep.activation is keras.activations.relu
    first, second = np.triu_indices(64, 1)
    embeddings = keras.ops.convert_to_numpy(model(sample, training=True))
    distances = np.square(embeddings[first] - embeddings[second]).sum(axis=1)
    # Dropout, which is at work here, adds a little.
    assert distances.mean() == pytest.approx(2, rel=0.5)


def test_a_channel_that_is_the_same_for_all_stays_finite() -> None:
    model = keras.Sequential(
        [keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    standardize_layers(model, np.full((4, 2, 2, 3), 7.0))
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_what_it_cannot_do_is_refused() -> None:
    model = keras.Sequential(
        [keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    with pytest.raises(InputError, match="Received: 1"):
        standardize_layers(model, np.zeros((1, 2, 2, 3)))
    pixels = keras.Input((4,))
    branched = keras.Model(pixels, keras.layers.Add()([pixels, keras.layers.Dense(4)(pixels)]))
    with pytest.raises(InputError, match="chain"):
        standardize_layers(branched, np.zeros((4, 4)))
