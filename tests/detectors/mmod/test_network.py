from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from face_encode.detectors.mmod.convolution import Geometry
from face_encode.detectors.mmod.network import Network
from face_encode.dlib_file import DlibLayer, read_dlib_detector
from face_encode.errors import WeightsError
from face_encode.weights import installed_path
from tests.detectors.mmod.plain import Array, convolved


@pytest.fixture(scope="module")
def layers() -> list[DlibLayer]:
    return read_dlib_detector(installed_path("dlib_cnn").read_bytes())[1]


def run_plainly(layers: list[DlibLayer], picture: Array) -> Array:
    """Layer by layer, as they stand in the file."""
    for layer in layers[1:]:
        weights = [part.astype(np.float64) for part in layer.weights]
        if layer.kind == "con":
            geometry = Geometry(layer.sizes[0], layer.sizes[2], layer.sizes[4])
            picture = convolved(picture, weights[0], weights[1], geometry)
        elif layer.kind == "affine":
            picture = picture * weights[0] + weights[1]
        else:
            picture = np.maximum(picture, 0)
    return picture[:, :, 0]


@pytest.mark.parametrize("size", [(42, 90), (131, 115)])
def test_scores_are_those_of_the_layers_one_by_one(
    layers: list[DlibLayer], size: tuple[int, int]
) -> None:
    picture = np.random.default_rng(1).uniform(-0.5, 0.5, (*size, 3))
    network = Network.of(layers)
    canvas = network.canvas(*size)
    canvas[: size[0], : size[1]] = picture
    received = network.scores(canvas, *size)
    np.testing.assert_allclose(received, run_plainly(layers, picture), atol=1e-4)


def test_the_middle_of_a_window(layers: list[DlibLayer]) -> None:
    # Three times every other pixel, beginning at the third: 2 (2 (2 x + 2) + 2) + 2.
    received = Network.of(layers).middle(np.array([0.0, 1.0, 10.0]))
    assert received.tolist() == [14, 22, 94]


def test_other_layers_are_refused(layers: list[DlibLayer]) -> None:
    with pytest.raises(WeightsError, match=r"Received: input, con, affine, relu, .*affine"):
        Network.of(layers[:-1])


def test_filters_that_are_not_square_are_refused(layers: list[DlibLayer]) -> None:
    oblong = replace(layers[1], sizes=(5, 3, 2, 2, 0, 0))
    with pytest.raises(WeightsError, match=r"as wide as high.*Received: \(5, 3, 2, 2, 0, 0\)"):
        Network.of([layers[0], oblong, *layers[2:]])
