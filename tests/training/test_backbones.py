"""Encoders cut in two, and put together again."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.vgg16 import vgg_embedding
from face_encode.errors import InputError, WeightsError
from face_encode.training.backbones import (
    build_head,
    join,
    open_backbone,
    solve_linear_correction,
    split_encoder,
    standardize_layers,
)
from face_encode.types import CropRecipe, ImageArray


def crops_for(encoder: Encoder, count: int = 5) -> ImageArray:
    recipe = encoder.contract.crop
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, recipe.height, recipe.width, 3)).astype(np.uint8)


def small_vgg() -> Encoder:
    keras.utils.set_random_seed(0)
    model = vgg_embedding((40, 40, 3), 16, (24, 8), width=0.125)
    return Encoder(model, EncoderContract("small", CropRecipe("box", 40, 40), 0.5))


def test_dlibs_network_is_cut_behind_its_pooling(encoder: Encoder) -> None:
    backbone = split_encoder(encoder)
    crops = crops_for(encoder, 2)
    features = backbone.extract(crops)
    # The network's own 256, and one mean for each channel at each resolution.
    assert features.shape[1] > 256
    pooled = keras.Model(encoder.model.input, encoder.model.layers[-1].input)
    expected = keras.ops.convert_to_numpy(pooled(crops.astype(np.float32)))
    np.testing.assert_allclose(features[:, :256], expected, atol=1e-5)


def test_features_and_projection_together_are_the_encoder() -> None:
    encoder = small_vgg()
    backbone = split_encoder(encoder)
    crops = crops_for(encoder)
    assert backbone.projection is not None
    received = keras.ops.convert_to_numpy(backbone.projection(backbone.extract(crops)))
    np.testing.assert_allclose(received, encoder.encode(crops), atol=1e-5)


def test_a_new_head_begins_as_the_untouched_encoder() -> None:
    encoder = small_vgg()
    backbone = split_encoder(encoder)
    crops = crops_for(encoder)
    features = backbone.extract(crops)
    deviation = features.std(axis=0) + np.float32(0.1)
    model = join(backbone, build_head(backbone, features.mean(axis=0), deviation))
    expected = encoder.encode(crops)
    assert expected.std() > 0
    np.testing.assert_allclose(Encoder(model, encoder.contract).encode(crops), expected, atol=1e-5)


def test_only_the_new_head_is_trained() -> None:
    backbone = split_encoder(small_vgg())
    count = backbone.feature_count
    head = build_head(
        backbone, np.zeros(count, np.float32), np.ones(count, np.float32), head_units=(6,)
    )
    # Kernel and bias of the hidden layer, its normalisation's gamma and beta; kernel and bias
    # of the linear map and of the last layer.
    sizes = sorted(weight.shape[-1] for weight in head.trainable_variables)
    assert sizes == [6, 6, 6, 6, 16, 16, 16, 16]


def test_the_linear_correction_is_solved_for_what_the_projection_misses() -> None:
    backbone = split_encoder(small_vgg())
    random = np.random.default_rng(0)
    count = backbone.feature_count
    features = random.normal(size=(4 * count, count)).astype(np.float32)
    assert backbone.projection is not None
    own = backbone.projection.predict(features, verbose=0)
    missed = features @ random.normal(size=(count, 16)).astype(np.float32) + 3
    head = build_head(backbone, features.mean(axis=0), features.std(axis=0))
    solve_linear_correction(head, backbone, features, own + missed, ridge=1e-6)
    received = head.predict(features, verbose=0)
    np.testing.assert_allclose(received, own + missed, atol=0.05)


def test_a_network_without_a_head_is_all_features() -> None:
    model = keras.Sequential(
        [
            keras.Input((20, 20, 3)),
            keras.layers.Conv2D(7, 3),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    encoder = Encoder(model, EncoderContract("pooled", CropRecipe("box", 20, 20), 0.5))
    backbone = split_encoder(encoder)
    assert backbone.projection is None
    crops = crops_for(encoder)
    np.testing.assert_allclose(backbone.extract(crops), encoder.encode(crops), atol=1e-4)
    head = build_head(backbone, np.zeros(7, np.float32), np.ones(7, np.float32), embedding_size=5)
    assert join(backbone, head).output_shape == (None, 5)


def test_the_originals_backbone_takes_its_weights_by_path(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        open_backbone("vgg16", tmp_path / "missing.h5")


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
    model = two_numbers()
    standardize_layers(model, np.full((4, 2, 2, 3), 7.0))
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_what_it_cannot_do_is_refused() -> None:
    model = two_numbers()
    with pytest.raises(InputError, match="Received: 1"):
        standardize_layers(model, np.zeros((1, 2, 2, 3)))
    pixels = keras.Input((4,))
    branched = keras.Model(pixels, keras.layers.Add()([pixels, keras.layers.Dense(4)(pixels)]))
    with pytest.raises(InputError, match="chain"):
        standardize_layers(branched, np.zeros((4, 4)))
