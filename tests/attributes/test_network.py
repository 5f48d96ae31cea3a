from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from face_encode.attributes.answers import ANSWERS
from face_encode.attributes.network import AttributeNetwork, load_attributes
from face_encode.encoders.registry import load_encoder
from face_encode.errors import InputError, ModelFileError
from face_encode.types import CropRecipe
from tests.conftest import REPOSITORY
from tests.tiny_parts import TINY_CALIBRATION, save_tiny_attributes, save_tiny_encoder


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_attributes(tmp_path_factory.mktemp("attributes") / "tiny.keras")


def test_what_was_saved_is_loaded_and_run_by_the_engine(file: Path) -> None:
    network = load_attributes(file, "onnx")
    assert network.calibration == TINY_CALIBRATION
    assert network.encoder.contract.crop == CropRecipe("box", 64, 64)
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    expected = load_attributes(file, "tensorflow").encoder.encode(crops)
    assert expected.shape == (3, ANSWERS)
    np.testing.assert_allclose(network.encoder.encode(crops), expected, atol=1e-4)


def test_it_is_no_encoder_and_an_encoder_tells_no_attributes(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="does not tell people apart"):
        load_encoder(file)
    with pytest.raises(ModelFileError, match="holds no network of attributes"):
        load_attributes(save_tiny_encoder(tmp_path / "encoder.keras"))


def test_a_network_of_other_numbers_is_refused(tmp_path: Path) -> None:
    encoder = load_encoder(save_tiny_encoder(tmp_path / "encoder.keras"), engine="tensorflow")
    with pytest.raises(ModelFileError, match="gives 110 numbers a face"):
        AttributeNetwork(encoder, TINY_CALIBRATION)


@pytest.mark.parametrize("name", ["nobody", "faces.onnx"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ModelFileError, match="'face_attributes' or the path"):
        load_attributes(name)


def test_a_missing_file_and_an_unknown_engine_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        load_attributes(tmp_path / "missing.keras")
    with pytest.raises(InputError, match="the engine is one of"):
        load_attributes(file, "steam")


def test_the_shipped_file_is_small_and_says_where_it_comes_from() -> None:
    assert (REPOSITORY / "weights" / "face_attributes.keras").stat().st_size <= 6_000_000
    contract = load_attributes().encoder.contract
    assert contract.quality_threshold is not None
    for name in ("UTKFace", "All-Age-Faces", "FER2013"):
        assert name in contract.trained_on
