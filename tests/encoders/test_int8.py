"""Networks rounded to int8: near those of Keras, or refused."""

from __future__ import annotations

import errno
import json
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import keras
import numpy as np
import onnx
import onnxruntime.quantization
import pytest

from face_encode.detectors.alignment import crop_faces
from face_encode.detectors.registry import load_detector
from face_encode.encoders import registry
from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.engines import KERAS, engine_names, unrounded
from face_encode.encoders.int8 import MIN_COSINE, invented_faces, smallest_cosine
from face_encode.encoders.registry import as_encoder, load_encoder
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
    faces = invented_faces(CONTRACT.crop).compared // 2 + 40
    expected, received = by_keras.encode(faces), rounded.encode(faces)
    assert MIN_COSINE <= smallest_cosine(expected, received) < 1 - 1e-6
    (cached,) = (model_file.parent / "cache").glob("*.network")
    _, record, content = cached.read_bytes().split(b"\n", 2)
    assert json.loads(record)["refusal"] == ""
    kinds = {weight.data_type for weight in onnx.load_from_string(content).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds


def test_each_face_has_the_same_embedding_alone_and_in_a_batch(model_file: Path) -> None:
    encoder = load_encoder(model_file, engine="int8")
    faces = invented_faces(CONTRACT.crop).compared
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
    fastest = load_encoder(model_file, engine="fastest")
    assert (fastest.engine, load_encoder(model_file).engine) == ("int8", "onnx")
    assert as_encoder(fastest, "fastest") is fastest


def test_what_fails_in_passing_is_tried_again(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **settings: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime.quantization, "quantize_static", fail)
        with pytest.raises(EngineError, match=r"rounded to int8: .*No space left"):
            load_encoder(model_file, engine="int8")
    assert load_encoder(model_file, engine="int8").engine == "int8"


def test_another_processor_rounds_anew(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_encoder(model_file, engine="int8")
    monkeypatch.setattr(cv2, "getCPUFeaturesLine", lambda: "another one")
    load_encoder(model_file, engine="int8")
    assert len(list((model_file.parent / "cache").glob("*.network"))) == 2


def test_rounding_leaves_the_logging_of_a_program_as_it_is(model_file: Path) -> None:
    before = list(logging.root.handlers)
    load_encoder(model_file, engine="int8")
    assert logging.root.handlers == before
    assert logging.root.manager.disable == 0


def test_several_encoders_as_one_are_refused() -> None:
    part = CropRecipe("dlib_chip", 40, 40)
    with pytest.raises(EngineError, match="single encoders"):
        invented_faces(CropRecipe("stack", 80, 40, parts=(part, part)))


def test_several_encoders_as_one_start_without_keras(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = keras.Input((80, 40, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    contract = EncoderContract("two", CropRecipe.stacked([CONTRACT.crop] * 2), threshold=0.5)
    save_encoder(model, model_file, contract)
    assert load_encoder(model_file, engine="fastest").engine == "onnx"
    # The second time the cache knows; nothing loads the model.
    monkeypatch.delattr(registry, "_load_file")
    assert load_encoder(model_file, engine="fastest").engine == "onnx"


def test_every_engine_has_one_for_networks_that_are_not_to_be_rounded() -> None:
    kept = {name: unrounded(name) for name in engine_names()}
    assert {name for name in kept if kept[name] != name} == {"int8", "fastest"}
    assert kept["int8"] == kept["fastest"] == "auto"


def test_faces_that_are_compared_are_others_than_those_measured() -> None:
    measured, compared = invented_faces(CropRecipe("arcface", 112, 112))
    assert (measured.shape, compared.shape) == ((24, 112, 112, 3), (16, 112, 112, 3))
    assert measured.dtype == compared.dtype == np.uint8
    assert len({face.tobytes() for face in (*measured, *compared)}) == 40
    np.testing.assert_array_equal(compared[8:], compared[:8, :, ::-1])


def test_the_faces_are_those_of_the_invented_people() -> None:
    paths = sorted((Path(__file__).parents[2] / "verify_dataset").glob("*/*.jpg"))
    chip = CropRecipe("dlib_chip", 128, 128, 0.25)
    tiles = invented_faces(chip).measured
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
    faces = invented_faces(fast.contract.crop).compared
    (near, qualities), (expected, expected_qualities) = fast.embed(faces), exact.embed(faces)
    assert smallest_cosine(expected, near) >= MIN_COSINE
    assert qualities is not None
    assert expected_qualities is not None
    np.testing.assert_allclose(qualities, expected_qualities, atol=0.1)
