from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import (
    CONTRACT_MEMBER,
    EncoderContract,
    _for_older_keras,
    original_contract,
    read_contract,
    save_encoder,
)
from face_encode.encoders.vgg16 import vgg_embedding
from face_encode.errors import InputError, ModelFileError
from face_encode.types import CropRecipe
from tests.conftest import REPOSITORY

CONTRACT = EncoderContract(
    name="tiny",
    crop=CropRecipe("box", 8, 8, margin=0.1),
    threshold=0.5,
    false_match_rate=0.001,
    mirror=True,
    trained_on="nothing",
    licence="MIT",
)


def tiny_model() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(4)(x))


def test_what_was_saved_is_read() -> None:
    assert EncoderContract.from_json(CONTRACT.to_json()) == CONTRACT


def test_further_thresholds_and_parts_are_read_too() -> None:
    stack = CropRecipe.stacked([CropRecipe("box", 8, 8), CropRecipe("arcface", 6, 6)])
    more = replace(CONTRACT, crop=stack, thresholds=((1e-4, 0.6), (1e-5, 0.7)), spread=0.1)
    assert EncoderContract.from_json(more.to_json()) == more


def test_what_former_releases_do_not_know_is_written_only_where_it_says_something() -> None:
    values = json.loads(CONTRACT.to_json())
    assert not {"thresholds", "spread"} & set(values)
    assert "parts" not in values["crop"]


def test_a_saved_file_carries_its_contract(tmp_path: Path) -> None:
    path = tmp_path / "tiny.keras"
    save_encoder(tiny_model(), path, CONTRACT)
    assert read_contract(path) == CONTRACT
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny.keras"]


def test_half_precision_halves_the_file_and_leaves_the_model_alone(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(400))
    kernel = np.random.default_rng(0).normal(0, 0.05, (192, 400)).astype(np.float32)
    # Larger than float16 goes: it stays as it is.
    kernel[0, 0] = 1e6
    model.set_weights([kernel, np.zeros(400)])
    save_encoder(model, tmp_path / "whole.keras", CONTRACT)
    save_encoder(model, tmp_path / "half.keras", CONTRACT, half_precision=True)
    sizes = [(tmp_path / f"{name}.keras").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.6 * sizes[0]
    np.testing.assert_array_equal(model.get_weights()[0], kernel)
    assert read_contract(tmp_path / "half.keras") == CONTRACT
    opened = keras.saving.load_model(tmp_path / "half.keras", compile=False)
    rounded = opened.get_weights()[0]
    assert rounded.dtype == np.float32
    assert rounded[0, 0] == 1e6
    np.testing.assert_allclose(rounded, kernel, rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(rounded[1:], kernel[1:].astype(np.float16))


def test_saved_files_open_without_this_package(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "tiny.keras"
    save_encoder(model, path, CONTRACT)
    vgg_embedding((32, 32, 3), width=0.125, pixels="vggface").save(tmp_path / "vgg.keras")
    pixels = np.arange(192, dtype=np.float32).reshape(1, 8, 8, 3)
    script = (
        "import sys, keras, numpy as np\n"
        "model, vgg = (keras.models.load_model(path, safe_mode=True) for path in sys.argv[1:])\n"
        "assert not any(name.startswith('face_encode') for name in sys.modules)\n"
        "assert vgg.input_shape == (None, 32, 32, 3)\n"
        "print(*model.predict(np.arange(192.0).reshape(1, 8, 8, 3), verbose=0)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(tmp_path / "vgg.keras")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    received = np.array(done.stdout.split()[-4:], float)
    np.testing.assert_allclose(received, np.asarray(model(pixels))[0], atol=1e-5)


# The settings of the shipped networks that Keras 3.8 and 3.12, the last for Python 3.10, have read.
READ_BY_OLDER_KERAS = """
activation activity_regularizer axis batch_shape beta_constraint beta_initializer beta_regularizer
bias_constraint bias_initializer bias_regularizer center data_format dilation_rate dtype epsilon
filters gamma_constraint gamma_initializer gamma_regularizer groups input_layers keras_history
kernel_constraint kernel_initializer kernel_regularizer kernel_size layers max_value momentum
moving_mean_initializer moving_variance_initializer name negative_slope noise_shape offset optional
output_layers padding pool_size ragged rate scale seed shape sparse strides synchronized threshold
trainable units use_bias
"""


def settings_in(described: Any) -> set[str]:
    """The names of the settings of everything that a model's description holds."""
    if isinstance(described, list):
        return set().union(*map(settings_in, described))
    if not isinstance(described, dict):
        return set()
    own = described.get("config") if "class_name" in described else None
    return set(own or ()) | set().union(*map(settings_in, described.values()))


def test_older_releases_of_keras_read_what_is_saved(tmp_path: Path) -> None:
    model = vgg_embedding((32, 32, 3), 8, width=1 / 16, batch_normalization=True)
    paths = list((REPOSITORY / "weights").glob("*.keras"))
    assert len(paths) == 3
    for half_precision in (False, True):
        paths.append(tmp_path / f"{half_precision}.keras")
        save_encoder(model, paths[-1], CONTRACT, half_precision=half_precision)
        kept = keras.saving.load_model(paths[-1]).get_weights()
        for weight, original in zip(kept, model.get_weights(), strict=True):
            np.testing.assert_allclose(weight, original, atol=5e-4)
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("config.json"))
        assert settings_in(described) <= set(READ_BY_OLDER_KERAS.split())


def test_what_only_newer_releases_of_keras_know_is_kept_where_it_says_something() -> None:
    told = {"name": "one", "renorm": True, "input_axes": None, "quantization_config": {"a": None}}
    expected = {"name": "one", "renorm": True, "quantization_config": {"a": None}}
    assert json.loads(_for_older_keras(json.dumps({"layers": [told]}).encode())) == {
        "layers": [expected]
    }


def test_a_file_without_a_contract_has_none(tmp_path: Path) -> None:
    path = tmp_path / "plain.keras"
    tiny_model().save(path)
    assert read_contract(path) is None


def test_the_original_conventions() -> None:
    contract = original_contract("old", 150, 150)
    assert contract.crop == CropRecipe("box", 150, 150)
    assert contract.pixel_range == (0, 1)
    assert (contract.threshold, contract.false_match_rate) == (0.7, None)
    assert not contract.mirror


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "name"),
        ({"threshold": 1.5}, "-1..1"),
        ({"threshold": float("nan")}, "-1..1"),
        ({"false_match_rate": 0.0}, "between 0 and 1"),
        ({"pixel_range": (0, 2)}, "pixel range"),
        ({"metric": "euclid"}, "metric"),
        ({"thresholds": ((1e-4, 1.5),)}, "within -1..1"),
        ({"thresholds": ((0.0, 0.5),)}, "between 0 and 1"),
        ({"spread": 0.0}, "between 0 and 1"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(CONTRACT, **change)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"contract_version": 99}',
        '{"contract_version": 1}',
        json.dumps({**json.loads(CONTRACT.to_json()), "crop": {"method": "oval"}}),
        json.dumps({**json.loads(CONTRACT.to_json()), "threshold": "high"}),
        json.dumps({**json.loads(CONTRACT.to_json()), "surprise": 1}),
        json.dumps({**json.loads(CONTRACT.to_json()), "thresholds": [1, 2]}),
        json.dumps({**json.loads(CONTRACT.to_json()), "thresholds": [[1e-4]]}),
        json.dumps({**json.loads(CONTRACT.to_json()), "thresholds": [["a", 0.5]]}),
    ],
)
def test_a_damaged_contract_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError):
        EncoderContract.from_json(text)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no such model file"):
        read_contract(tmp_path / "none.keras")


def test_what_is_no_archive_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.keras"
    path.write_text("not a model")
    with pytest.raises(ModelFileError, match=r"not a \.keras file"):
        read_contract(path)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"ends in \.keras"):
        save_encoder(tiny_model(), tmp_path / "tiny.h5", CONTRACT)


def test_a_save_that_fails_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "tiny.keras"
    save_encoder(tiny_model(), path, CONTRACT)
    before = path.read_bytes()

    class Unsaveable(keras.Model):  # type: ignore[misc]
        def save(self, filepath: str, **options: Any) -> None:
            Path(filepath).write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(ModelFileError, match="No space left"):
        save_encoder(Unsaveable(), path, CONTRACT)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_contract_is_one_member_of_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "tiny.keras"
    save_encoder(tiny_model(), path, CONTRACT)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist().count(CONTRACT_MEMBER) == 1
        assert archive.testzip() is None
