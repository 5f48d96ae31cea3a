"""Saved files open in a fresh process, of which one is started for all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.training.backbones import build_head, join, split_encoder
from face_encode.training.triplet import TripletModel
from tests.training.test_backbones import crops_for, small_vgg
from tests.training.test_triplet import colour_triplets, small_network

LOAD = """
import sys, keras, numpy
data = numpy.load("data.npz")
plain = keras.models.load_model("plain.keras", safe_mode=True)
assert not any(name.startswith("face_encode") for name in sys.modules)
received = keras.ops.convert_to_numpy(plain(data["crops"], training=False))
numpy.testing.assert_allclose(received, data["embeddings"], rtol=1e-4, atol=1e-4)

from face_encode import TripletModel
siamese = keras.models.load_model("siamese.keras", safe_mode=True)
assert isinstance(siamese, TripletModel), type(siamese)
near = siamese(tuple(data[f"arr_{index}"] for index in range(3)))[0]
numpy.testing.assert_allclose(keras.ops.convert_to_numpy(near), data["near"], 1e-4)
"""


@pytest.mark.slow
def test_a_retrained_network_opens_without_this_package_and_a_siamese_one_with_it(
    tmp_path: Path,
) -> None:
    encoder = small_vgg()
    backbone = split_encoder(encoder)
    crops = crops_for(encoder)
    features = backbone.extract(crops)
    deviation = features.std(axis=0) + np.float32(0.1)
    plain = join(backbone, build_head(backbone, features.mean(axis=0), deviation))
    plain.save(tmp_path / "plain.keras")
    siamese = TripletModel(small_network(), name="siamese")
    siamese.compile(optimizer="adam")
    triplets = colour_triplets(4)
    near = keras.ops.convert_to_numpy(siamese(triplets)[0])
    siamese.save(tmp_path / "siamese.keras")
    crops = crops.astype(np.float32)
    embeddings = keras.ops.convert_to_numpy(plain(crops, training=False))
    np.savez(tmp_path / "data.npz", *triplets, near=near, crops=crops, embeddings=embeddings)
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    environment = {
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "PYTHONPATH": path,
    }
    subprocess.run([sys.executable, "-c", LOAD], check=True, cwd=tmp_path, env=environment)
