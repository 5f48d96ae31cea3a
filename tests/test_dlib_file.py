from __future__ import annotations

import numpy as np
import pytest

from face_encode.dlib_file import read_dlib_detector, read_dlib_network
from face_encode.errors import WeightsError
from face_encode.weights import installed_path


@pytest.fixture(scope="module")
def content() -> bytes:
    return installed_path("dlib_resnet").read_bytes()


def test_reads_every_layer_in_the_order_of_execution(content: bytes) -> None:
    layers = read_dlib_network(content)
    kinds = [layer.kind for layer in layers]
    assert kinds[:5] == ["input", "con", "affine", "relu", "max_pool"]
    assert kinds[-2:] == ["avg_pool", "fc"]
    assert kinds.count("con") == 29
    assert kinds.count("add_prev") == 14
    parameters = sum(w.size for layer in layers if layer.kind != "input" for w in layer.weights)
    affine = sum(w.size for layer in layers if layer.kind == "affine" for w in layer.weights)
    # The affine layers vanish when they are folded into the convolutions.
    assert parameters - affine == 5_607_488


def test_the_mean_colour_is_in_rgb(content: bytes) -> None:
    mean = read_dlib_network(content)[0].weights[0]
    np.testing.assert_allclose(mean, [122.782, 117.001, 104.298], atol=1e-3)


@pytest.mark.parametrize("keep", [0, 1, 10, 300, 400, 20_000, 1_000_000, -1])
def test_a_file_cut_off_anywhere_is_refused(content: bytes, keep: int) -> None:
    with pytest.raises(WeightsError):
        read_dlib_network(content[:keep])


def test_bytes_left_over_are_refused(content: bytes) -> None:
    with pytest.raises(WeightsError):
        read_dlib_network(content + b"\x01\x05extra")


@pytest.fixture(scope="module")
def detector_content() -> bytes:
    return installed_path("dlib_cnn").read_bytes()


def test_reads_a_detector_and_its_options(detector_content: bytes) -> None:
    options, layers = read_dlib_detector(detector_content)
    assert (options.width, options.height, options.largest_cover) == (80, 80, 1.0)
    assert options.largest_overlap == pytest.approx(0.3382761)
    kinds = [layer.kind for layer in layers]
    assert kinds == ["input", *["con", "affine", "relu"] * 6, "con"]
    assert [layer.weights[0].shape for layer in layers if layer.kind == "con"] == [
        (16, 3, 5, 5),
        (32, 16, 5, 5),
        (32, 32, 5, 5),
        (45, 32, 5, 5),
        (45, 45, 5, 5),
        (45, 45, 5, 5),
        (1, 45, 9, 9),
    ]
    np.testing.assert_allclose(layers[0].weights[0], [122.782, 117.001, 104.298], atol=1e-3)


@pytest.mark.parametrize("keep", [0, 1, 10, 30, 100, 6_000, 400_000, -1])
def test_a_detector_cut_off_anywhere_is_refused(detector_content: bytes, keep: int) -> None:
    with pytest.raises(WeightsError):
        read_dlib_detector(detector_content[:keep])


def test_another_kind_of_dlib_file_is_refused(content: bytes, detector_content: bytes) -> None:
    with pytest.raises(WeightsError, match="not a dlib network"):
        read_dlib_network(detector_content)
    with pytest.raises(WeightsError, match="not a dlib network"):
        read_dlib_detector(content)


def test_options_that_are_not_known_are_refused(detector_content: bytes) -> None:
    version = detector_content.index(b"loss_mmod_") + len("loss_mmod_") + 1
    later = detector_content[:version] + b"\x04" + detector_content[version + 1 :]
    with pytest.raises(WeightsError, match="one window"):
        read_dlib_detector(later)
