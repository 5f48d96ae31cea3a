from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import keras
import numpy as np
import pytest

from face_encode.encoders import conversion, export
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.export import ExportedEncoder, export_encoder
from face_encode.errors import EngineError, InputError, MissingExtraError
from face_encode.types import CropMethod, CropRecipe, Embeddings, ImageArray
from face_encode.version import __version__

pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")
HEIGHT, WIDTH = 20, 16

# A program that has neither this package nor Keras, and goes by the JSON alone.
READER = """
import hashlib, json, sys
import numpy as np
import onnxruntime
note = json.load(open(sys.argv[1] + ".json", encoding="utf-8"))
content = open(sys.argv[1], "rb").read()
assert hashlib.sha256(content).hexdigest() == note["file"]["sha256"]
session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
crops = np.load(sys.argv[2])
assert crops.dtype == note["input"]["type"]
assert list(crops.shape[1:]) == note["input"]["shape"][1:]
found, = session.run([note["output"]["name"]], {note["input"]["name"]: crops})
assert list(found.shape) == [len(crops), note["output"]["shape"][1]]
np.save(sys.argv[3], found)
loaded = {name.split(".")[0] for name in sys.modules}
print(loaded & {"face_encode", "keras", "tensorflow", "tf2onnx"})
"""


@pytest.fixture(scope="module")
def small() -> Encoder:
    keras.utils.set_random_seed(2)
    inputs = keras.Input((HEIGHT, WIDTH, 3))
    x = keras.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(inputs)
    x = keras.layers.BatchNormalization()(x)
    outputs = keras.layers.Dense(5)(keras.layers.Flatten()(x))
    crop = CropRecipe("box", HEIGHT, WIDTH, margin=0.1)
    contract = EncoderContract("small", crop, 0.625, 0.01, pixel_range=(0, 1), mirror=True)
    return Encoder(keras.Model(inputs, outputs), contract)


def random_crops(count: int) -> ImageArray:
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def read_elsewhere(path: Path, crops: ImageArray, folder: Path) -> Embeddings:
    """Encode in a process with only numpy and ONNX Runtime."""
    given, taken = folder / "crops.npy", folder / "embeddings.npy"
    np.save(given, crops)
    done = subprocess.run(
        [sys.executable, "-I", "-c", READER, str(path), str(given), str(taken)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "set()"
    embeddings: Embeddings = np.load(taken)
    return embeddings


@pytest.fixture(scope="module")
def written(small: Encoder, tmp_path_factory: pytest.TempPathFactory) -> ExportedEncoder:
    return export_encoder(small, tmp_path_factory.mktemp("exported") / "small.onnx")


def test_the_json_says_all_that_the_right_use_takes(
    small: Encoder, written: ExportedEncoder
) -> None:
    assert written.note_path == written.path.with_name("small.onnx.json")
    note = json.loads(written.note_path.read_text("utf-8"))
    assert note["file"] == {
        "name": "small.onnx",
        "format": "onnx",
        "sha256": hashlib.sha256(written.path.read_bytes()).hexdigest(),
    }
    assert note["encoder"]["fingerprint"] == small.fingerprint
    assert note["crop"].items() >= small.contract.crop.as_dict().items()
    assert note["input"]["pixel_range"] == [0, 255]
    assert note["input"]["colours"] == "red, green, blue"
    assert "mirror image" in note["output"]["mirror"]
    assert note["comparison"]["metric"] == "cosine"
    assert note["comparison"]["threshold"] == 0.625
    assert note["comparison"]["false_match_rate"] == 0.01
    assert note["largest_difference_from_keras"] == written.difference
    assert note["package"]["version"] == __version__
    names = sorted(path.name for path in written.path.parent.iterdir())
    assert names == ["small.onnx", "small.onnx.json"]


@pytest.mark.parametrize("count", [1, 7])
def test_another_program_gets_the_same_by_the_json(
    small: Encoder, written: ExportedEncoder, tmp_path: Path, count: int
) -> None:
    crops = random_crops(count)
    found = read_elsewhere(written.path, crops, tmp_path)
    np.testing.assert_allclose(found, small.encode(crops), atol=1e-5, rtol=0)
    assert written.difference < 1e-5


@pytest.mark.slow
def test_another_program_gets_the_same_faces(
    encoder: Encoder, colour_crops: ImageArray, tmp_path: Path
) -> None:
    written = export_encoder(encoder, tmp_path / "dlib.onnx")
    found = read_elsewhere(written.path, colour_crops[:6], tmp_path)
    np.testing.assert_allclose(found, encoder.encode(colour_crops[:6]), atol=1e-5, rtol=0)
    note = json.loads(written.note_path.read_text("utf-8"))
    assert note["crop"]["method"] == "dlib_chip"
    assert "get_face_chip" in note["crop"]["in_words"]


@pytest.mark.parametrize("mirror", [pytest.param(False, marks=pytest.mark.slow), True])
def test_tensorflow_lite_gives_the_same(small: Encoder, tmp_path: Path, mirror: bool) -> None:
    import tensorflow as tf

    encoder = Encoder(small.model, replace(small.contract, mirror=mirror))
    written = export_encoder(encoder, tmp_path / "small.tflite")
    note = json.loads(written.note_path.read_text("utf-8"))
    interpreter = tf.lite.Interpreter(str(written.path))
    crops = random_crops(3)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], crops.shape)
    run = interpreter.get_signature_runner()
    found = run(**{note["input"]["name"]: crops})[note["output"]["name"]]
    np.testing.assert_allclose(found, encoder.encode(crops), atol=1e-5, rtol=0)
    assert note["output"]["mirror"] == "none" or mirror


def test_what_differs_from_keras_is_not_written(
    small: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted = conversion.convert

    def another(model: keras.Model, *arguments: object, **options: object) -> bytes:
        other = keras.models.clone_model(model)
        other.set_weights([weight + np.float32(0.01) for weight in model.get_weights()])
        return converted(other, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(export, "convert", another)
    (tmp_path / "small.onnx").write_text("the former one")
    with pytest.raises(EngineError, match=r"not written.*0\.001 at most. Received: .*difference"):
        export_encoder(small, tmp_path / "small.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    assert (tmp_path / "small.onnx").read_text() == "the former one"


@pytest.mark.parametrize("name", ["small.pb", "small", "small.keras"])
def test_another_ending_is_told(small: Encoder, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"ends in \.onnx or \.tflite\. Received"):
        export_encoder(small, tmp_path / name)


def test_a_path_that_cannot_be_written_is_told_before_the_work(
    small: Encoder, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EngineError, match="cannot write"):
        export_encoder(small, tmp_path / "file" / "small.onnx")


def test_a_folder_in_the_place_of_the_json_is_told_before_the_work(
    small: Encoder, tmp_path: Path
) -> None:
    (tmp_path / "small.onnx.json").mkdir()
    with pytest.raises(EngineError, match=r"cannot write .*small\.onnx\.json: it is a folder"):
        export_encoder(small, tmp_path / "small.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx.json"]


def test_every_way_to_cut_out_a_face_is_said_in_words() -> None:
    assert set(export._CROP_IN_WORDS) == set(get_args(CropMethod))


def test_a_missing_extra_is_told(
    small: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "tf2onnx" else object()
    )
    with pytest.raises(MissingExtraError, match=r"exporting to ONNX needs tf2onnx: pip install tf"):
        export_encoder(small, tmp_path / "small.onnx")
    assert not list(tmp_path.iterdir())
