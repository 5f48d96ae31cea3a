"""Real parts that take milliseconds: an encoder, a detector, and photos that are faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from face_encode.attributes.answers import Calibration
from face_encode.attributes.network import build_network, save_attributes
from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.pipeline.folder import EmbeddingReport, embed_folder
from face_encode.types import Box, CropRecipe, Face, ImageArray

TINY_CONTRACT = EncoderContract("tiny", CropRecipe("box", 8, 8), threshold=0.5)


class Halves:
    """A detector for photos that are faces: wide ones show two, black ones nobody."""

    name = "halves"

    def detect(self, image: ImageArray) -> list[Face]:
        height, width = image.shape[:2]
        if not image.any():
            return []
        if width < 2 * height:
            return [Face(Box(0, 0, width, height), 1.0)]
        half = width // 2
        return [
            Face(Box(0, 0, width - half, height), 2.0),
            Face(Box(width - half, 0, half, height), 1.0),
        ]


def save_tiny_encoder(path: Path, seed: int = 0) -> Path:
    """Write the model file of an encoder with its contract."""
    import keras

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    save_encoder(model, path, TINY_CONTRACT)
    return path


TINY_CALIBRATION = Calibration({"age": 1.5, "gender": 1.25, "expression": 2.0}, 0.8)


def save_tiny_attributes(path: Path) -> Path:
    """Write the file of a network of attributes, a sixteenth as wide, of random weights."""
    import keras

    keras.utils.set_random_seed(0)
    contract = EncoderContract("tiny attributes", CropRecipe("box", 64, 64), threshold=0.0)
    save_attributes(build_network(64, 1 / 16), path, contract, TINY_CALIBRATION, None)
    return path


def write_photos(top: Path) -> Path:
    """150 photos, every tenth with two faces for ``Halves``; further ones that cannot be used."""
    random = np.random.default_rng(0)
    for number in range(150):
        where = top / f"day {number // 30}"
        where.mkdir(exist_ok=True)
        width = 40 if number % 10 == 0 else 20
        pixels = random.integers(0, 256, (16, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(where / f"{number:03}.png")
    Image.new("RGB", (20, 20)).save(top / "black.png")
    (top / "broken.jpg").write_text("no photo")
    (top / "notes.txt").write_text("no photo either, and not meant to be one")
    (top / ".hidden").mkdir()
    Image.new("RGB", (20, 20), "red").save(top / ".hidden" / "x.png")
    return top


def embed(folder: Path, output: Path, encoder: Encoder, **options: Any) -> EmbeddingReport:
    """Embed a folder of such photos, in this process unless told otherwise."""
    options = {"workers": 1, "progress": False} | options
    return embed_folder(folder, output, Halves(), encoder, **options)
