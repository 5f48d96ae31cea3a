from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from face_encode.encoders import compilation
from face_encode.encoders.compilation import compile_forward
from face_encode.encoders.contract import EncoderContract
from face_encode.types import CropRecipe, Embeddings, ImageArray

TINY_CONTRACT = EncoderContract("tiny", CropRecipe("box", 12, 10), threshold=0.5)


@pytest.fixture(scope="module")
def tiny() -> keras.Model:
    """A network with every kind of variable: trained, moving averages, a random state."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization(moving_mean_initializer="random_normal")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(5)(x))


def random_crops(count: int) -> ImageArray:
    return np.random.default_rng(count).integers(0, 256, (count, 12, 10, 3), dtype=np.uint8)


def by_keras(model: keras.Model, crops: ImageArray) -> Embeddings:
    pixels = keras.ops.convert_to_tensor(crops.astype(np.float32))
    return np.asarray(keras.ops.convert_to_numpy(model(pixels, training=False)), np.float32)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("count", [1, 2, 31, 33])
def test_gives_what_plain_keras_gives(
    tiny: keras.Model, count: int, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not frozen:
        monkeypatch.setattr(compilation, "_MAX_FROZEN_BYTES", 0)
    forward = compile_forward(tiny, TINY_CONTRACT)
    crops = random_crops(count)
    embeddings = forward(crops)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, by_keras(tiny, crops), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 2, 31, 33])
def test_a_mirrored_embedding_is_the_mean_of_both(tiny: keras.Model, count: int) -> None:
    forward = compile_forward(tiny, replace(TINY_CONTRACT, mirror=True))
    crops = random_crops(count)
    both = [by_keras(tiny, crops), by_keras(tiny, crops[:, :, ::-1])]
    assert np.abs(both[0] - both[1]).max() > 1e-3
    np.testing.assert_allclose(forward(crops), np.mean(both, axis=0), atol=1e-5, rtol=0)


def test_scales_pixels_for_a_graph_that_takes_0_to_1(tiny: keras.Model) -> None:
    crops = random_crops(3)
    pixels = keras.ops.convert_to_tensor(crops.astype(np.float32) / 255)
    expected = keras.ops.convert_to_numpy(tiny(pixels, training=False))
    forward = compile_forward(tiny, replace(TINY_CONTRACT, pixel_range=(0, 1)))
    np.testing.assert_allclose(forward(crops), expected, atol=1e-5, rtol=0)


def test_many_threads_may_call_it_at_once(tiny: keras.Model) -> None:
    forward = compile_forward(tiny, replace(TINY_CONTRACT, mirror=True))
    batches = [random_crops(count) for count in range(1, 25)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(forward, batches))
    for crops, embeddings in zip(batches, together, strict=True):
        np.testing.assert_allclose(embeddings, forward(crops), atol=1e-6, rtol=0)


def test_tensorflow_traces_once_whatever_the_batch(tiny: keras.Model) -> None:
    """Tracing costs a second; a batch's size must not bring it about."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another backend")
    traced = []

    class Counting(keras.Model):  # type: ignore[misc]
        def call(self, pixels: Any, training: bool = False) -> Any:
            traced.append(pixels.shape)
            return tiny(pixels, training=training)

    model = Counting()
    model(np.zeros((1, 12, 10, 3), np.float32))
    traced.clear()
    forward = compile_forward(model, replace(TINY_CONTRACT, mirror=True))
    for count in range(1, 41):
        forward(random_crops(count))
    assert len(traced) == 1
