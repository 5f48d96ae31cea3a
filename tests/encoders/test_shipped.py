"""The encoders that come with the package: found by name, and what they say of themselves."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.encoders import shipped
from face_encode.encoders.contract import read_contract
from face_encode.encoders.registry import SHIPPED_ENCODERS, load_encoder, shipped_path
from face_encode.errors import ModelFileError


@pytest.mark.parametrize("name", SHIPPED_ENCODERS)
def test_a_shipped_encoder_is_calibrated_and_open_to_keras_alone(name: str) -> None:
    path = shipped_path(name)
    contract = read_contract(path)
    assert contract is not None
    assert contract.name == name
    assert contract.false_match_rate == 1e-3
    assert contract.licence != "unknown"
    assert contract.euclidean_threshold is None
    assert "dlib_resnet" in contract.trained_on
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    side = contract.crop.height
    assert model.input_shape == (None, side, side, 3)
    crops = np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    assert load_encoder(name).encode(crops).shape == (2, 128)


def test_vgg_embedding_is_plain_vgg16_with_the_mlp() -> None:
    kinds = [type(layer).__name__ for layer in load_encoder("vgg_embedding").model.layers]
    assert kinds.count("Conv2D") == 13
    assert kinds.count("MaxPooling2D") == 5
    assert kinds.count("Dense") == 4
    # Those of the original project's head, behind its activations.
    assert kinds.count("BatchNormalization") == 3
    assert "Conv2D" not in kinds[kinds.index("Flatten") :]


def test_a_shipped_encoder_carries_its_own_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="carries its own weights"):
        load_encoder("vgg_embedding", tmp_path / "weights.dat")


def test_a_missing_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "SHIPPED_ENCODERS", ("lost",))
    with pytest.raises(ModelFileError, match=r"lost\.keras.* is missing; install"):
        shipped_path("lost")
