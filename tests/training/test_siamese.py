"""The original project's network and its training on triplets, for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import keras
import numpy as np
import numpy.typing as npt
import pytest

from face_encode.detectors.registry import load_detector
from face_encode.encoders.vgg16 import vgg_embedding
from face_encode.pipeline.embedding import find_crops
from face_encode.training.backbones import standardize_layers
from face_encode.training.batches import random_triplets
from face_encode.training.triplet import TripletModel
from face_encode.types import CropRecipe

SIDE = 32
BATCH = 20
LEARNING_RATE = 5e-5
RECIPE = CropRecipe("dlib_chip", 150, 150, margin=0.25)

LOAD = """
import sys, keras, numpy
from face_encode import TripletModel
folder = sys.argv[1]
data = numpy.load(folder + "/data.npz")
model = keras.models.load_model(folder + "/siamese.keras", safe_mode=True)
assert isinstance(model, TripletModel), type(model)
network = keras.models.load_model(folder + "/embedding.keras", safe_mode=True)
for each in (model.embedding_network, network):
    received = keras.ops.convert_to_numpy(each(data["crops"], training=False))
    numpy.testing.assert_allclose(received, data["embeddings"], rtol=1e-4, atol=1e-4)
"""


def crops_and_people(
    folder: Path, people: int, photos: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Aligned crops ``(N, SIDE, SIDE, 3)`` of people with that many photos, and who is on them."""
    chosen = [sorted(each.glob("*.jpg")) for each in sorted(folder.iterdir())]
    chosen = [found[:photos] for found in chosen if len(found) >= photos][:people]
    paths = [path for found in chosen for path in found]
    crops, who = [], []
    for path, item in zip(paths, find_crops(paths, load_detector("dlib"), RECIPE), strict=True):
        if item.error is None:
            crops.append(cv2.resize(item.crops[0], (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            who.append(path.parent.name)
    _, indices = np.unique(who, return_inverse=True)
    return np.stack(crops).astype(np.float32), indices.astype(np.int64)


def train_and_save(
    crops: npt.NDArray[np.float32],
    people: npt.NDArray[np.int64],
    triplets: int,
    epochs: int,
    folder: Path,
) -> tuple[dict[str, float], dict[str, float], dict[str, list[float]]]:
    """Train the original's network; what ``evaluate`` says before and after, and the history."""
    keras.utils.set_random_seed(0)
    network = vgg_embedding((SIDE, SIDE, 3))
    standardize_layers(network, crops[:100])
    model = TripletModel(network)
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE))
    anchors, positives, negatives = random_triplets(people, triplets)
    data = [crops[anchors], crops[positives], crops[negatives]]
    before = model.evaluate(data, verbose=0, return_dict=True)
    history = model.fit(data, batch_size=BATCH, epochs=epochs, verbose=0).history
    after = model.evaluate(data, verbose=0, return_dict=True)
    print(f"before {before}\nafter {after}\n{history}")
    model.save(folder / "siamese.keras")
    model.embedding_network.save(folder / "embedding.keras")
    embeddings = keras.ops.convert_to_numpy(model.embedding_network(crops[:8], training=False))
    np.savez(folder / "data.npz", crops=crops[:8], embeddings=embeddings)
    return before, after, history


def loads_in_a_fresh_process(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", LOAD, str(folder)],
        check=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )


@pytest.mark.data
def test_it_learns_from_200_photos(lfw_photos: Path, tmp_path: Path) -> None:
    crops, people = crops_and_people(lfw_photos, people=50, photos=4)
    assert len(crops) == 200
    before, after, history = train_and_save(crops, people, triplets=200, epochs=5, folder=tmp_path)
    assert history["loss"][-1] < history["loss"][0]
    assert after["loss"] < 0.9 * before["loss"]
    assert after["accuracy"] > before["accuracy"] + 0.1
    loads_in_a_fresh_process(tmp_path)
