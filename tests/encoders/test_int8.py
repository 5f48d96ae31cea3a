"""Networks rounded to int8: near those of Keras, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.registry import load_detector
from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.engines import KERAS, engine_names, unrounded
from face_encode.encoders.int8 import MIN_COSINE, invented_faces, smallest_cosine
from face_encode.encoders.registry import load_encoder
from face_encode.errors import EngineError
from face_encode.photos.reading import read_image
from face_encode.types import CropRecipe
from tests.conftest import place_weights

CONTRACT = EncoderContract("small", CropRecipe("dlib_chip", 40, 40), threshold=0.5, mirror=True)


def small_network(hidden_by: float = 0.0) -> keras.Model:
    """A network whose activations are a little signal on top of a number."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((40, 40, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(
        16, 3, padding="same", bias_initializer=keras.initializers.Constant(hidden_by)
    )(x)
    x = keras.layers.Rescaling(1.0, offset=-hidden_by)(x)
    x = keras.layers.Flatten()(keras.layers.MaxPooling2D()(x))
    return keras.Model(inputs, keras.layers.Dense(24)(x))


@pytest.fixture
def model_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    save_encoder(small_network(), tmp_path / "small.keras", CONTRACT)
    return tmp_path / "small.keras"


@pytest.fixture
def hidden_file(model_file: Path) -> Path:
    """A model file whose activations differ by less than they are rounded."""
    path = model_file.with_name("hidden.keras")
    save_encoder(small_network(hidden_by=1000.0), path, replace(CONTRACT, name="hidden"))
    return path


def test_embeddings_are_near_those_of_keras_and_made_of_whole_numbers(model_file: Path) -> None:
    by_keras = load_encoder(model_file, engine=KERAS)
    rounded = load_encoder(model_file, engine="int8")
    assert (rounded.engine, rounded.fingerprint) == ("int8", by_keras.fingerprint)
    # Other faces than those that it was rounded by.
    faces = invented_faces(CONTRACT.crop)[:, :, ::-1] // 2 + 40
    expected, received = by_keras.encode(faces), rounded.encode(faces)
    assert MIN_COSINE <= smallest_cosine(expected, received) < 1 - 1e-6
    (cached,) = (model_file.parent / "cache").glob("*.network")
    _, record, content = cached.read_bytes().split(b"\n", 2)
    assert json.loads(record)["refusal"] == ""
    kinds = {weight.data_type for weight in onnx.load_from_string(content).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_each_face_has_the_same_embedding_alone_and_in_a_batch(model_file: Path) -> None:
    encoder = load_encoder(model_file, engine="int8")
    faces = invented_faces(CONTRACT.crop)
    together = encoder.encode(faces)
    for face, embedding in zip(faces, together, strict=True):
        np.testing.assert_allclose(encoder.encode(face[np.newaxis])[0], embedding, atol=1e-5)


def test_a_network_that_rounding_changes_is_refused_and_fastest_takes_another_engine(
    hidden_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The second time the cache knows.
    for _ in range(2):
        with pytest.raises(EngineError, match=r"'int8'.*'hidden'.*cosine of 0\.98 at least"):
            load_encoder(hidden_file, engine="int8")
    assert load_encoder(hidden_file, engine="fastest").engine == "onnx"
    assert "another engine runs the encoder: the engine 'int8'" in caplog.text


def test_fastest_takes_int8_and_auto_never_does(model_file: Path) -> None:
    assert load_encoder(model_file, engine="fastest").engine == "int8"
    assert load_encoder(model_file).engine == "onnx"


def test_several_encoders_as_one_are_refused() -> None:
    part = CropRecipe("dlib_chip", 40, 40)
    with pytest.raises(EngineError, match="single encoders"):
        invented_faces(CropRecipe("stack", 80, 40, parts=(part, part)))


def test_every_engine_has_one_for_networks_that_are_not_to_be_rounded() -> None:
    kept = {name: unrounded(name) for name in engine_names()}
    assert {name for name in kept if kept[name] != name} == {"int8", "fastest"}
    assert kept["int8"] == kept["fastest"] == "auto"


def test_faces_are_upright_and_differ() -> None:
    faces = invented_faces(CropRecipe("arcface", 112, 112))
    assert faces.shape == (32, 112, 112, 3)
    assert faces.dtype == np.uint8
    # Skin is red before blue, and no two faces are one.
    assert (faces[..., 0].mean(axis=(1, 2)) > faces[..., 2].mean(axis=(1, 2))).mean() > 0.9
    assert len({face.tobytes() for face in faces}) == 32


def test_the_faces_are_those_of_the_invented_people() -> None:
    paths = sorted((Path(__file__).parents[2] / "verify_dataset").glob("*/*.jpg"))
    chip = CropRecipe("dlib_chip", 128, 128, 0.25)
    tiles = invented_faces(chip)
    for index in (0, 9):
        image = read_image(paths[index])
        (face,) = load_detector("dlib_hog").detect(image)
        (crop,) = crop_faces(image, [face], chip)
        # As far as the sheet's JPEG keeps it.
        assert np.abs(crop.astype(int) - tiles[index]).mean() < 6


@pytest.mark.data
def test_the_fast_choice_runs_on_it(public_weights: Path) -> None:
    place_weights("mobilefacenet", public_weights)
    fast, exact = load_encoder("fast"), load_encoder("fast", engine="onnx")
    assert (fast.engine, exact.engine) == ("int8", "onnx")
    faces = invented_faces(fast.contract.crop)[:, :, ::-1].copy()
    (near, qualities), (expected, expected_qualities) = fast.embed(faces), exact.embed(faces)
    assert smallest_cosine(expected, near) >= MIN_COSINE
    assert qualities is not None
    assert expected_qualities is not None
    np.testing.assert_allclose(qualities, expected_qualities, atol=0.1)
