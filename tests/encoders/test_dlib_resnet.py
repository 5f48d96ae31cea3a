from __future__ import annotations

import dlib
import numpy as np
import pytest

from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.types import ImageArray
from face_encode.weights import installed_path


@pytest.fixture(scope="module")
def single(cache_folder: object) -> Encoder:
    return load_encoder("dlib_resnet_single", engine=KERAS)


def test_embeddings_equal_those_of_dlib(
    encoder: Encoder, single: Encoder, colour_crops: ImageArray
) -> None:
    assert len(colour_crops) >= 20
    # On grey faces a swap of red and blue would pass unseen.
    assert np.abs(np.diff(colour_crops.astype(int), axis=3)).mean() > 5
    original = dlib.face_recognition_model_v1(str(installed_path("dlib_resnet")))
    expected = np.array([original.compute_face_descriptor(crop) for crop in colour_crops])
    np.testing.assert_allclose(single.encode(colour_crops), expected, atol=1e-5, rtol=0)
    assert single.fingerprint != encoder.fingerprint


def test_the_mirror_image_is_averaged_in(
    encoder: Encoder, single: Encoder, colour_crops: ImageArray
) -> None:
    both = single.encode(colour_crops), single.encode(colour_crops[:, :, ::-1])
    np.testing.assert_allclose(encoder.encode(colour_crops), np.mean(both, axis=0), atol=1e-5)


def test_the_graph_holds_built_in_layers_only(encoder: Encoder) -> None:
    modules = {type(layer).__module__.split(".")[0] for layer in encoder.model.layers}
    assert modules == {"keras"}


def test_has_the_parameters_of_the_folded_network(encoder: Encoder) -> None:
    assert encoder.model.count_params() == 5_607_488
