from __future__ import annotations

import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from face_encode.encoders import conversion
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import open_onnx_runtime
from face_encode.errors import EngineError
from face_encode.types import CropRecipe

CONTRACT = EncoderContract("tiny", CropRecipe("box", 10, 8), threshold=0.5, mirror=True)


def tiny_network() -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((10, 8, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def test_the_network_alone_and_with_the_mirror_image() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (5, 10, 8, 3), dtype=np.uint8)
    model = tiny_network()
    alone, mirrored = (
        open_onnx_runtime(conversion.convert(model, CONTRACT, "onnx", mirror=mirror), 1)
        for mirror in (False, True)
    )
    both = [alone(crops), alone(crops[:, :, ::-1])]
    np.testing.assert_allclose(both[0], np.asarray(model(crops.astype(np.float32))), rtol=1e-4)
    assert np.abs(both[0] - both[1]).max() > 1
    np.testing.assert_allclose(mirrored(crops), np.mean(both, axis=0), rtol=1e-4, atol=1e-4)


def test_colours_are_scaled_plane_by_plane() -> None:
    inputs = keras.Input((10, 8, 3))
    x = keras.layers.Rescaling([0.5, 0.25, 0.125], [-1.0, 2.0, 3.0])(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same")(x)
    model = keras.Model(inputs, keras.layers.Flatten()(x))
    content = conversion.convert(model, CONTRACT, "onnx", mirror=False)
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert kinds.index("Transpose") < kinds.index("Mul") < kinds.index("Conv")
    crops = np.random.default_rng(0).integers(0, 256, (3, 10, 8, 3), dtype=np.uint8)
    expected = np.asarray(model(crops.astype(np.float32)))
    np.testing.assert_allclose(open_onnx_runtime(content, 1)(crops), expected, atol=1e-3)


@pytest.mark.slow
def test_on_another_backend_a_process_of_its_own_converts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_network()
    crops = np.random.default_rng(0).integers(0, 256, (3, 10, 8, 3), dtype=np.uint8)
    expected = Encoder(model, CONTRACT).encode(crops)
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    found = open_onnx_runtime(conversion.convert(model, CONTRACT, "onnx", mirror=True), 1)(crops)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("ends", "passes"), [("exit 1", True), ("kill $$", True), ("exit 3", False)]
)
def test_a_process_that_fails_is_told(
    ends: str, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_network()
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    (tmp_path / "python").write_text(f"#!/bin/sh\n{ends}\n")
    (tmp_path / "python").chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    message = "'tiny' cannot be converted to onnx: Keras on TensorFlow fails"
    with pytest.raises(EngineError, match=message) as caught:
        conversion.convert(model, CONTRACT, "onnx", mirror=False)
    # Only what the converter says of the network may be cached.
    assert conversion.is_passing(caught.value.__cause__) is passes
