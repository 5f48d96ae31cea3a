"""What the tests of broken inputs share: a tiny model, and a detector that needs no face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from face_encode.encoders.encoder import Encoder
from face_encode.model import Face_Encode_Model
from face_encode.types import Box, Face, ImageArray


@dataclass(frozen=True)
class WholePhoto:
    """A detector of a user's own, for photos that are faces already."""

    name: str = "whole_photo"

    def detect(self, image: ImageArray) -> list[Face]:
        return [Face(Box(0, 0, image.shape[1], image.shape[0]), 1.0)]


@pytest.fixture
def tiny_model(tiny: Encoder) -> Face_Encode_Model:
    """A model with one person enrolled."""
    model = Face_Encode_Model(tiny, WholePhoto())
    model.gallery.add(["Ada"], np.ones((1, 4), np.float32))
    return model


@pytest.fixture(scope="session")
def gallery_file(tiny: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole gallery file of three people; not to be changed by a test."""
    model = Face_Encode_Model(tiny, WholePhoto())
    embeddings = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    model.gallery.add(["Ada", "Bo", "Çelik"], embeddings, ["d1", "d2", "d3"])
    path = tmp_path_factory.mktemp("gallery") / "people.npz"
    model.save_gallery(path)
    return path
