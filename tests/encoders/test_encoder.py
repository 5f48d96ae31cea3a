from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.types import Embeddings, ImageArray


def random_crops(count: int) -> ImageArray:
    return np.random.default_rng(count).integers(0, 256, (count, 150, 150, 3), dtype=np.uint8)


def by_keras(encoder: Encoder, crops: ImageArray) -> Embeddings:
    pixels = keras.ops.convert_to_tensor(crops.astype(np.float32))
    embeddings = encoder.model(pixels, training=False)
    return np.asarray(keras.ops.convert_to_numpy(embeddings), np.float32)


@pytest.mark.parametrize("count", [1, 2, 31, 33])
def test_the_default_encoder_gives_what_plain_keras_gives(encoder: Encoder, count: int) -> None:
    crops = random_crops(count)
    expected = by_keras(encoder, crops)
    if encoder.contract.mirror:
        expected = np.mean([expected, by_keras(encoder, crops[:, :, ::-1])], axis=0)
    np.testing.assert_allclose(encoder.encode(crops), expected, atol=1e-5, rtol=0)


def test_nothing_to_encode_gives_no_rows(encoder: Encoder) -> None:
    assert encoder.encode(random_crops(0)).shape == (0, encoder.embedding_size)


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((1, 150, 150, 3), np.float32),
        np.zeros((1, 96, 96, 3), np.uint8),
        np.zeros((150, 150, 3), np.uint8),
    ],
)
def test_refuses_other_shapes_and_types(encoder: Encoder, crops: ImageArray) -> None:
    with pytest.raises(InputError, match=r"takes uint8 crops of shape \(N, 150, 150, 3\)"):
        encoder.encode(crops)


@pytest.mark.parametrize("batch_size", [-1, 0, 1.5, None, True])
def test_a_batch_of_no_count_is_refused(tiny: Encoder, batch_size: Any) -> None:
    crop = tiny.contract.crop
    with pytest.raises(InputError, match="batch_size is a whole number, at least 1"):
        tiny.encode(np.zeros((3, crop.height, crop.width, 3), np.uint8), batch_size=batch_size)


def test_the_fingerprint_tells_what_changes_an_embedding(encoder: Encoder) -> None:
    plain = replace(encoder.contract, mirror=not encoder.contract.mirror)
    stricter = replace(encoder.contract, threshold=0.99)
    assert Encoder(encoder.model, plain).fingerprint != encoder.fingerprint
    assert Encoder(encoder.model, stricter).fingerprint == encoder.fingerprint
