"""What the tests of broken inputs share: one tiny encoder, and a detector that needs no face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.loading import load_encoder
from face_encode.model import Face_Encode_Model
from face_encode.types import Box, CropRecipe, Face, ImageArray

TINY_CONTRACT = EncoderContract(name="tiny", crop=CropRecipe("box", 8, 8), threshold=0.5)


@dataclass(frozen=True)
class WholePhoto:
    """A detector of a user's own, for photos that are faces already."""

    name: str = "whole_photo"

    def detect(self, image: ImageArray) -> list[Face]:
        return [Face(Box(0, 0, image.shape[1], image.shape[0]), 1.0)]


@pytest.fixture(scope="session")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole model file with a contract."""
    import keras

    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    path = tmp_path_factory.mktemp("encoder") / "tiny.keras"
    save_encoder(keras.Sequential(layers), path, TINY_CONTRACT)
    return path


@pytest.fixture(scope="session")
def tiny_encoder(tiny_file: Path) -> Encoder:
    """An encoder that takes milliseconds."""
    return load_encoder(tiny_file)


@pytest.fixture
def tiny_model(tiny_encoder: Encoder) -> Face_Encode_Model:
    """A model with one person enrolled."""
    model = Face_Encode_Model(tiny_encoder, WholePhoto())
    model.gallery.add(["Ada"], np.ones((1, 4), np.float32))
    return model


@pytest.fixture(scope="session")
def gallery_file(tiny_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole gallery file of three people; not to be changed by a test."""
    model = Face_Encode_Model(tiny_encoder, WholePhoto())
    embeddings = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    model.gallery.add(["Ada", "Bo", "Çelik"], embeddings, ["d1", "d2", "d3"])
    path = tmp_path_factory.mktemp("gallery") / "people.npz"
    model.save_gallery(path)
    return path
