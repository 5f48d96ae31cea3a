"""Rewritten networks compute what they did before."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from face_encode.encoders.vgg16 import vgg_embedding
from face_encode.errors import InputError
from face_encode.training.surgery import fold_batch_normalization, resize_input, widen


def embed(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(model(pixels, training=False)))


def photos(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, side, side, 3)).astype(np.float32)


def trained(side: int = 48) -> keras.Model:
    """A network whose normalisations have seen data and whose parameters all differ."""
    keras.utils.set_random_seed(0)
    model = vgg_embedding((side, side, 3), width=0.125, batch_normalization=True)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            size = layer.gamma.shape
            layer.set_weights(
                [
                    random.uniform(0.5, 2, size),
                    random.normal(0, 0.5, size),
                    random.normal(0, 0.5, size),
                    random.uniform(0.2, 3, size),
                ]
            )
    return model


def test_folding_changes_no_embedding() -> None:
    model = trained()
    pixels = photos(8, 48)
    # Embeddings as long as usual, about 1: random normalisations leave lengths in the hundreds.
    length = np.linalg.norm(embed(model, pixels), axis=1).mean()
    model.layers[-1].set_weights([each / length for each in model.layers[-1].get_weights()])
    folded = fold_batch_normalization(model)
    expected = embed(model, pixels)
    assert expected.std() > 0.01
    assert np.abs(embed(folded, pixels) - expected).max() < 1e-4
    plain = vgg_embedding((48, 48, 3), width=0.125)
    assert [layer.name for layer in folded.layers] == [layer.name for layer in plain.layers]
    assert [w.shape for w in folded.get_weights()] == [w.shape for w in plain.get_weights()]


def test_folding_gives_float32_from_mixed_precision() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = trained()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("block1_conv1").compute_dtype == "bfloat16"
    folded = fold_batch_normalization(model)
    assert {layer.compute_dtype for layer in folded.layers[1:]} == {"float32"}
    # Compared in float32, because processors round differently in bfloat16.
    twin = trained()
    twin.set_weights(model.get_weights())
    pixels = photos(4, 48)
    expected = embed(twin, pixels)
    assert np.abs(embed(folded, pixels) - expected).max() < 1e-5 * np.abs(expected).max()


def test_folding_into_layers_without_bias_and_without_scale() -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3, use_bias=False),
            keras.layers.BatchNormalization(scale=False, center=False),
            keras.layers.Flatten(),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(),
        ]
    )
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(keras.ops.ones_like(layer.moving_mean) * 0.3)
            layer.moving_variance.assign(keras.ops.ones_like(layer.moving_variance) * 2.5)
    folded = fold_batch_normalization(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    pixels = photos(3, 6) / 255
    np.testing.assert_allclose(embed(folded, pixels), embed(model, pixels), atol=1e-5)


def test_growing_keeps_the_answer_for_even_features() -> None:
    def network(side: int) -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((side, side, 3)),
                keras.layers.MaxPooling2D(16),
                keras.layers.Flatten(),
                keras.layers.Dense(7),
            ]
        )

    model = network(32)
    grey = np.full((1, 80, 80, 3), 117.0, np.float32)
    expected = embed(model, grey[:, :32, :32])
    for side in (16, 48, 64, 80):
        received = embed(resize_input(model, side, side), grey[:, :side, :side])
        np.testing.assert_allclose(received, expected, rtol=1e-4)
    # From five places to one and to two, where some lie between the new ones.
    large = resize_input(model, 80, 80)
    large.layers[-1].set_weights([np.ones((75, 7)), np.zeros(7)])
    for side in (16, 32):
        received = embed(resize_input(large, side, side), grey[:, :side, :side])
        np.testing.assert_allclose(received, 75 * 117.0, rtol=1e-4)


@pytest.mark.parametrize(("small", "large"), [(64, 96), (96, 128), (96, 150)])
def test_growing_from_any_map_keeps_the_sum(small: int, large: int) -> None:
    model = trained(small)
    grown = resize_input(model, large, large)
    rows = model.get_layer("head_dense1").get_weights()[0]
    new_rows = grown.get_layer("head_dense1").get_weights()[0]
    old = rows.reshape(small // 32, small // 32, -1, 512).sum(axis=(0, 1))
    new = new_rows.reshape(large // 32, large // 32, -1, 512).sum(axis=(0, 1))
    np.testing.assert_allclose(new, old, atol=1e-5)


def test_growing_to_the_same_size_changes_nothing() -> None:
    model = trained(64)
    pixels = photos(3, 64)
    np.testing.assert_array_equal(embed(resize_input(model, 64, 64), pixels), embed(model, pixels))


def test_branched_networks_are_refused() -> None:
    images = keras.Input((8, 8, 3))
    left, right = keras.layers.Conv2D(4, 3)(images), keras.layers.Conv2D(4, 3)(images)
    model = keras.Model(images, keras.layers.Add()([left, right]))
    with pytest.raises(InputError, match="chain"):
        fold_batch_normalization(model)
    with pytest.raises(InputError, match="chain"):
        resize_input(model, 16, 16)


def test_growing_without_a_flatten_is_refused() -> None:
    pooled = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(InputError, match="flattens"):
        resize_input(pooled, 16, 16)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_widening_changes_no_embedding_and_no_two_copies_are_used_alike(factor: int) -> None:
    model = trained(64)
    pixels = photos(4, 64)
    wide = widen(model, factor)
    expected = vgg_embedding((64, 64, 3), width=0.125 * factor, batch_normalization=True)
    assert [w.shape for w in wide.get_weights()] == [w.shape for w in expected.get_weights()]
    answers = embed(model, pixels)
    np.testing.assert_allclose(embed(wide, pixels), answers, atol=2e-4 * np.abs(answers).max())
    kernel = wide.get_layer("block3_conv2").get_weights()[0]
    half = kernel.shape[2] // factor
    if factor > 1:
        # The copies see the same, and tell the next layer unlike shares of it.
        assert np.abs(kernel[:, :, :half] - kernel[:, :, half : 2 * half]).max() > 0.01


def test_widening_keeps_mixed_precision_and_refuses_what_it_cannot_do() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = trained()
    finally:
        keras.config.set_dtype_policy("float32")
    assert widen(model, 2).get_layer("block1_conv1").compute_dtype == "bfloat16"
    with pytest.raises(InputError, match="factor of 1 or more"):
        widen(model, 0)
    pooled = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(2, 3),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    with pytest.raises(InputError, match="flattens its features"):
        widen(pooled, 2)
