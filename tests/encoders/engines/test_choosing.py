from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import choosing, conversion
from face_encode.encoders.engines.engine import Engine, Network
from face_encode.encoders.engines.onnx_runtime import open_onnx_runtime
from face_encode.encoders.engines.table import ENGINES, KERAS
from face_encode.encoders.registry import load_encoder
from face_encode.errors import EngineError, InputError, MissingExtraError, ModelFileError
from face_encode.types import CropRecipe, Embeddings, ImageArray

pytest.importorskip("tf2onnx")
HEIGHT, WIDTH = 24, 20


def small_network() -> keras.Model:
    keras.utils.set_random_seed(4)
    inputs = keras.Input((HEIGHT, WIDTH, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-1.0)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization(moving_mean_initializer="random_normal")(x)
    x = keras.layers.MaxPooling2D(padding="same")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(6)(x))


CONTRACT = EncoderContract("small", CropRecipe("box", HEIGHT, WIDTH), threshold=0.5, mirror=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model_file(tmp_path: Path, cache: Path) -> Path:
    path = tmp_path / "small.keras"
    save_encoder(small_network(), path, CONTRACT)
    return path


def random_crops(count: int, seed: int = 0) -> ImageArray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def installed_engines() -> list[str]:
    return [name for name, engine in ENGINES.items() if engine.is_installed]


@pytest.fixture(params=sorted(ENGINES))
def name(request: pytest.FixtureRequest) -> str:
    if not ENGINES[request.param].is_installed:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.mark.parametrize("mirror", [False, True])
def test_an_engine_gives_what_keras_gives(
    name: str, mirror: bool, tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "model.keras"
    save_encoder(small_network(), path, replace(CONTRACT, mirror=mirror))
    by_keras, by_engine = load_encoder(path, engine=KERAS), load_encoder(path, engine=name)
    assert (by_keras.engine, by_engine.engine) == (KERAS, name)
    assert by_engine.contract == by_keras.contract
    assert by_engine.embedding_size == by_keras.embedding_size
    for count in (0, 1, 2, 3, 17, 70):
        crops = random_crops(count, count)
        expected, received = by_keras.encode(crops), by_engine.encode(crops)
        assert received.dtype == np.float32
        np.testing.assert_allclose(received, expected, atol=1e-5, rtol=0)


def test_the_fingerprint_does_not_depend_on_the_engine(model_file: Path) -> None:
    prints = {
        load_encoder(model_file, engine=engine).fingerprint
        for engine in (KERAS, "auto", *installed_engines())
    }
    assert prints == {Encoder(small_network(), CONTRACT).fingerprint}


def test_a_file_without_a_contract_is_used_by_the_original_conventions(
    name: str, tmp_path: Path, cache: Path
) -> None:
    paths = [tmp_path / "one.keras", tmp_path / "two.keras"]
    for path in paths:
        small_network().save(path)
        by_engine, by_keras = load_encoder(path, engine=name), load_encoder(path, engine=KERAS)
        assert by_engine.contract == by_keras.contract
        assert by_engine.name == path.stem
        crops = random_crops(3)
        np.testing.assert_allclose(by_engine.encode(crops), by_keras.encode(crops), atol=1e-5)


def test_the_default_encoder_gives_what_keras_gives(
    name: str, encoder: Encoder, colour_crops: ImageArray
) -> None:
    expected = load_encoder(engine=KERAS).encode(colour_crops)
    on_engine = load_encoder(engine=name)
    assert on_engine.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(on_engine.encode(colour_crops), expected, atol=1e-5, rtol=0)


def test_many_threads_may_encode_at_once(name: str, model_file: Path) -> None:
    encoder = load_encoder(model_file, engine=name)
    batches = [random_crops(count, count) for count in range(1, 25)] * 4
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(encoder.encode, batches))
    for crops, embeddings in zip(batches, together, strict=True):
        np.testing.assert_allclose(embeddings, encoder.encode(crops), atol=1e-6, rtol=0)


def test_a_single_core_and_many_give_the_same(name: str, model_file: Path) -> None:
    from face_encode.encoders.engines.conversion import convert

    content = convert(small_network(), CONTRACT, "onnx", mirror=False)
    crops = random_crops(20)
    one, three = (ENGINES[name].open(content, cores) for cores in (1, 3))
    for count in (1, 2, 3, 20):
        np.testing.assert_allclose(one(crops[:count]), three(crops[:count]), atol=1e-5, rtol=0)


def test_the_second_start_needs_neither_keras_nor_a_conversion(
    model_file: Path, cache: Path
) -> None:
    name = installed_engines()[0]
    first = load_encoder(model_file, engine=name)
    crops = random_crops(2)
    script = (
        "import sys, numpy as np\n"
        "from face_encode import load_encoder\n"
        f"encoder = load_encoder({str(model_file)!r}, engine={name!r})\n"
        f"np.save({str(cache / 'embeddings.npy')!r}, encoder.encode(np.load(sys.argv[1])))\n"
        "print(encoder.fingerprint, {'keras', 'tensorflow', 'tf2onnx'} & set(sys.modules))\n"
    )
    np.save(cache / "crops.npy", crops)
    done = subprocess.run(
        [sys.executable, "-c", script, str(cache / "crops.npy")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1) == [first.fingerprint, "set()\n"]
    np.testing.assert_allclose(np.load(cache / "embeddings.npy"), first.encode(crops), atol=1e-6)


def converted_once(cache: Path) -> tuple[Path, Path]:
    (converted,) = cache.glob("*.onnx")
    (note,) = cache.glob("*.onnx.json")
    return converted, note


@pytest.mark.parametrize("damage", ["cut", "other", "note", "no note", "foreign note", "gone"])
def test_a_damaged_copy_is_made_again(
    damage: str, model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = installed_engines()[0]
    crops = random_crops(2)
    expected = load_encoder(model_file, engine=name).encode(crops)
    converted, note = converted_once(cache)
    whole = json.loads(note.read_text())
    match damage:
        case "cut":
            converted.write_bytes(converted.read_bytes()[:500])
        case "other":
            content = bytearray(converted.read_bytes())
            content[len(content) // 2] ^= 1
            converted.write_bytes(content)
        case "note":
            note.write_text(note.read_text()[:100])
        case "no note":
            note.write_text("[]")
        case "foreign note":
            note.write_text(json.dumps({**whole, "parities": {"x": [1, 2]}}))
        case "gone":
            converted.unlink()
    again = load_encoder(model_file, engine=name)
    np.testing.assert_allclose(again.encode(crops), expected, atol=1e-6)
    mended = json.loads(note.read_text())
    assert set(mended) == set(whole)
    assert mended["fingerprint"] == whole["fingerprint"]


def test_what_was_timed_at_different_times_is_timed_again(model_file: Path, cache: Path) -> None:
    name = installed_engines()[0]
    load_encoder(model_file, engine=name)
    _, note = converted_once(cache)
    alone = json.loads(note.read_text())["parities"]
    assert len(alone) == 1
    load_encoder(model_file, engine="auto")
    together = json.loads(note.read_text())["parities"]
    assert len(together) == len(installed_engines()) + 1
    for engine, parity in alone.items():
        assert together[engine]["milliseconds"] != parity["milliseconds"]
        assert together[engine]["difference"] == pytest.approx(parity["difference"], abs=1e-6)


def test_auto_takes_keras_where_nothing_else_is_installed(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {engine.name: replace(engine, module="no_such_library") for engine in ENGINES.values()}
    monkeypatch.setattr(choosing, "ENGINES", absent)
    assert load_encoder(model_file).engine == KERAS
    assert not list(cache.glob("*.onnx*"))
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[onnx\]"'):
        load_encoder(model_file, engine="onnx")


def test_without_a_converter_auto_takes_keras_and_a_name_is_refused(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = installed_engines()[0]
    monkeypatch.setattr(conversion, "_ONNX_CONVERTERS", ("no_such_converter",))
    assert load_encoder(model_file).engine == KERAS
    with pytest.raises(MissingExtraError, match=rf'pip install "face_encode\[{name}\]"'):
        load_encoder(model_file, engine=name)


def test_auto_takes_keras_where_a_copy_cannot_be_kept(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "file"))
    assert load_encoder(model_file).engine == KERAS
    name = installed_engines()[0]
    assert load_encoder(model_file, engine=name).engine == name


def open_inexactly(content: bytes, threads: int) -> Network:
    """An engine that is a little off, as one that computes in half precision is."""
    exact = open_onnx_runtime(content, threads)

    def network(images: ImageArray) -> Embeddings:
        off: Embeddings = exact(images) + np.float32(0.0042)
        return off

    return network


def open_never(content: bytes, threads: int) -> Network:
    raise RuntimeError("no kernel for this layer\nand pages of a graph")


@pytest.fixture
def odd_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("onnxruntime")
    rows = (
        Engine("inexact", "onnxruntime", "onnxruntime", "onnx", open_inexactly),
        Engine("broken", "onnxruntime", "numpy", "onnx", open_never),
    )
    monkeypatch.setattr(choosing, "ENGINES", {row.name: row for row in rows})
    monkeypatch.setattr(choosing, "engine_names", lambda: ("auto", "inexact", "broken"))
    yield


def test_an_engine_that_differs_is_refused(odd_engines: None, model_file: Path) -> None:
    # The second time it is the note that tells.
    for _ in range(2):
        with pytest.raises(EngineError, match=r"'inexact'.*'small'.*0\.001 at most.*0\.00[4-9]"):
            load_encoder(model_file, engine="inexact")
    assert load_encoder(model_file).engine == KERAS


def test_an_engine_that_fails_is_told(odd_engines: None, model_file: Path) -> None:
    for _ in range(2):
        with pytest.raises(EngineError, match=r"'broken'.*no kernel for this layer$"):
            load_encoder(model_file, engine="broken")


def test_auto_takes_an_engine_that_gives_the_same(model_file: Path) -> None:
    encoder = load_encoder(model_file)
    assert encoder.engine in installed_engines()
    assert load_encoder(model_file).engine == encoder.engine


@keras.saving.register_keras_serializable("tests")
class _Sorted(keras.layers.Layer):  # type: ignore[misc]
    """A layer that TensorFlow can run and ONNX has no word for."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        import tensorflow as tf

        return tf.numpy_function(lambda y: np.sort(y, axis=1), [x], tf.float32)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


def test_what_cannot_be_converted_runs_on_keras(tmp_path: Path, cache: Path) -> None:
    inputs = keras.Input((HEIGHT, WIDTH, 3))
    dense = keras.layers.Dense(6)(keras.layers.Flatten()(inputs))
    path = tmp_path / "odd.keras"
    save_encoder(keras.Model(inputs, _Sorted()(dense)), path, replace(CONTRACT, name="odd"))
    for _ in range(2):
        assert load_encoder(path).engine == KERAS
    with pytest.raises(EngineError, match="'odd' cannot be converted to onnx"):
        load_encoder(path, engine=installed_engines()[0])


def test_an_unknown_engine_is_told_with_the_known_ones(model_file: Path) -> None:
    with pytest.raises(InputError, match=r"auto, tensorflow, onnx, openvino.*Received: 'cuda'"):
        load_encoder(model_file, engine="cuda")


def test_a_file_that_changed_is_not_taken_for_the_one_that_was_opened(model_file: Path) -> None:
    name = installed_engines()[0]
    load_encoder(model_file, engine=name)
    second, third = (load_encoder(model_file, engine=name) for _ in range(2))
    assert second.model.output_shape == (None, 6)
    model_file.write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="was changed"):
        _ = third.model
