from __future__ import annotations

import errno
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from face_encode.encoders import conversion, engines, registry
from face_encode.encoders.contract import EncoderContract, read_quality_head, save_encoder
from face_encode.encoders.conversion import convert
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.engines import (
    ENGINES,
    KERAS,
    MAX_DIFFERENCE,
    MAX_PIECE,
    Engine,
    Network,
    largest_difference,
    open_onnx_runtime,
    pieces_of,
    probe_crops,
)
from face_encode.encoders.quality import QualityHead
from face_encode.encoders.registry import load_encoder
from face_encode.errors import EngineError, InputError, MissingExtraError, ModelFileError
from face_encode.types import CropRecipe, Embeddings, ImageArray

HEIGHT, WIDTH = 24, 20
# The rounded ones are tested in test_int8.py.
EXACT = [name for name, engine in ENGINES.items() if not engine.is_rounded]
INSTALLED = [name for name in EXACT if ENGINES[name].is_installed]
_converted_once: dict[str, bytes] = {}
# For tests that convert a network for each engine.
SLOW_OPENVINO = pytest.mark.parametrize(
    "name", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)], indirect=True
)


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


def random_crops(count: int, seed: int = 0) -> ImageArray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model file and a cache in which every engine has its network."""
    folder = tmp_path_factory.mktemp("converted")
    save_encoder(small_network(), folder / "small.keras", CONTRACT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACE_ENCODE_CACHE", str(folder / "cache"))
        for name in INSTALLED:
            load_encoder(folder / "small.keras", engine=name)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model_file(converted: Path, cache: Path) -> Path:
    """A model file whose network is not converted."""
    return converted / "small.keras"


@pytest.fixture
def converted_file(converted: Path, model_file: Path, cache: Path) -> Path:
    """A model file whose network is in the cache, for every engine."""
    shutil.copytree(converted / "cache", cache)
    return model_file


@pytest.fixture(params=sorted(EXACT))
def name(request: pytest.FixtureRequest) -> str:
    if request.param not in INSTALLED:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the encoders converted from now on; the work is done once a module."""
    names: list[str] = []

    def counting(model: keras.Model, contract: EncoderContract, *rest: str, mirror: bool) -> bytes:
        names.append(contract.name)
        if contract.name not in _converted_once:
            _converted_once[contract.name] = convert(model, contract, "onnx", mirror=mirror)
        return _converted_once[contract.name]

    monkeypatch.setattr(engines, "convert", counting)
    return names


@pytest.mark.parametrize("mirror", [False, True])
def test_an_engine_gives_what_keras_gives(
    name: str, mirror: bool, tmp_path: Path, converted_file: Path
) -> None:
    path = converted_file
    if not mirror:
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


def test_the_fingerprint_does_not_depend_on_the_engine(converted_file: Path) -> None:
    prints = {
        load_encoder(converted_file, engine=engine).fingerprint
        for engine in (KERAS, "auto", *INSTALLED)
    }
    assert prints == {Encoder(small_network(), CONTRACT).fingerprint}


@SLOW_OPENVINO
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


@SLOW_OPENVINO
def test_the_default_encoder_gives_what_keras_gives(
    name: str, encoder: Encoder, colour_crops: ImageArray
) -> None:
    expected = load_encoder(engine=KERAS).encode(colour_crops)
    on_engine = load_encoder(engine=name)
    assert on_engine.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(on_engine.encode(colour_crops), expected, atol=1e-5, rtol=0)


def test_many_threads_may_encode_at_once(name: str, converted_file: Path) -> None:
    encoder = load_encoder(converted_file, engine=name)
    batches = [random_crops(count, count) for count in range(1, 25)] * 4
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(encoder.encode, batches))
    for crops, embeddings in zip(batches, together, strict=True):
        np.testing.assert_allclose(embeddings, encoder.encode(crops), atol=1e-6, rtol=0)


FORKING = """
import os, sys
import numpy as np
from face_encode import load_encoder
encoder = load_encoder(sys.argv[1], engine=sys.argv[2])
crops = np.load(sys.argv[3])
expected = encoder.encode(crops)
child = os.fork()
if not child:
    # Ended by the interpreter's normal exit, which destroys everything.
    sys.exit(7 if np.allclose(encoder.encode(crops), expected, atol=1e-6) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert np.allclose(encoder.encode(crops), expected, atol=1e-6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process")
def test_a_forked_process_encodes(name: str, converted_file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "crops.npy", random_crops(20))
    arguments = str(converted_file), name, str(tmp_path / "crops.npy")
    command = [sys.executable, "-c", FORKING, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


USED_AND_FORKED = """
import multiprocessing, sys
import numpy as np
from face_encode import load_encoder
encoder = load_encoder(sys.argv[1], engine="tensorflow")
crops = np.load(sys.argv[2])
def encode(results):
    try:
        if sys.argv[3] == "load":
            load_encoder(sys.argv[1], engine="tensorflow")
        results.put(encoder.encode(crops))
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")
context = multiprocessing.get_context("fork")
results = context.SimpleQueue()
context.Process(target=encode, args=(results,)).start()
print(results.get())
assert encoder.encode(crops).any()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process")
@pytest.mark.parametrize("what", ["encode", "load"])
def test_keras_in_a_forked_process_is_refused_at_once(
    what: str, converted_file: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "crops.npy", random_crops(2))
    arguments = str(converted_file), str(tmp_path / "crops.npy"), what
    command = [sys.executable, "-c", USED_AND_FORKED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("EngineError: this process was forked from one in which Keras")
    assert "'spawn'" in done.stdout


def test_a_single_core_and_many_give_the_same(name: str) -> None:
    content = convert(small_network(), CONTRACT, "onnx", mirror=False)
    crops = random_crops(60)
    one, three = (ENGINES[name].open(content, cores) for cores in (1, 3))
    for count in (1, 2, 3, 20, 60):
        np.testing.assert_allclose(one(crops[:count]), three(crops[:count]), atol=1e-5, rtol=0)


def test_the_second_start_needs_neither_keras_nor_a_conversion(
    name: str, converted_file: Path, tmp_path: Path
) -> None:
    first = load_encoder(converted_file, engine=name)
    crops = random_crops(2)
    script = (
        "import sys, numpy as np\n"
        "from face_encode import load_encoder\n"
        f"encoder = load_encoder({str(converted_file)!r}, engine={name!r})\n"
        f"np.save({str(tmp_path / 'embeddings.npy')!r}, encoder.encode(np.load(sys.argv[1])))\n"
        "print(encoder.fingerprint, {'keras', 'tensorflow', 'tf2onnx'} & set(sys.modules))\n"
    )
    np.save(tmp_path / "crops.npy", crops)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "crops.npy")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(maxsplit=1) == [first.fingerprint, "set()\n"]
    found = np.load(tmp_path / "embeddings.npy")
    np.testing.assert_allclose(found, first.encode(crops), atol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "a byte", "the record", "empty", "foreign", "gone"])
def test_a_damaged_copy_is_made_again(
    damage: str, converted_file: Path, cache: Path, conversions: list[str]
) -> None:
    crops = random_crops(2)
    expected = load_encoder(converted_file).encode(crops)
    assert not conversions
    for path in cache.glob("*.network"):
        whole = path.read_bytes()
        match damage:
            case "cut":
                path.write_bytes(whole[:500])
            case "a byte":
                middle = len(whole) // 2
                flipped = bytes([whole[middle] ^ 1])
                path.write_bytes(whole[:middle] + flipped + whole[middle + 1 :])
            case "the record":
                path.write_bytes(whole.replace(b'"embedding_size": 6', b'"embedding_size": 7', 1))
                assert path.read_bytes() != whole
            case "empty":
                path.write_bytes(b"")
            case "foreign":
                path.write_bytes(b"something else\nof several\nlines")
            case "gone":
                path.unlink()
    for _ in range(2):
        again = load_encoder(converted_file)
        np.testing.assert_allclose(again.encode(crops), expected, atol=1e-6)
        assert (again.engine, again.embedding_size) == (INSTALLED[0], 6)
    assert conversions == ["small"]


def test_starts_at_once_convert_once(model_file: Path, conversions: list[str]) -> None:
    with ThreadPoolExecutor(3) as threads:
        encoders = list(threads.map(load_encoder, [model_file] * 3))
    assert {encoder.engine for encoder in encoders} == {INSTALLED[0]}
    assert conversions == ["small"]


def test_another_release_of_an_engine_is_compared_again(
    converted_file: Path, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "release_of", lambda name: f"{name} 99")
    assert load_encoder(converted_file).engine == INSTALLED[0]
    assert conversions == ["small"]


def absent(*names: str) -> dict[str, Engine]:
    """The engines, as if the libraries of some were not installed."""
    return {
        engine.name: replace(engine, library="no_such_library") if engine.name in names else engine
        for engine in ENGINES.values()
    }


def test_auto_takes_the_first_engine_that_is_installed(
    name: str, converted_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ENGINES", absent(*(set(ENGINES) - {name})))
    assert load_encoder(converted_file).engine == name


def test_auto_takes_keras_where_nothing_else_is_installed(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "ENGINES", absent(*ENGINES))
    assert load_encoder(model_file).engine == KERAS
    assert not list(cache.glob("*.network*"))
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[onnx\]"'):
        load_encoder(model_file, engine="onnx")


def test_without_a_converter_auto_takes_keras_and_a_name_is_refused(
    model_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(conversion, "ONNX_CONVERTERS", ("no_such_converter",))
    assert load_encoder(model_file).engine == KERAS
    assert "Keras runs the encoder: converting to ONNX needs no_such_converter" in caplog.text
    with pytest.raises(MissingExtraError, match="pip install no_such_converter"):
        load_encoder(model_file, engine=INSTALLED[0])


def test_auto_takes_keras_if_the_cache_cannot_be_written(
    model_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "file"))
    assert load_encoder(model_file).engine == KERAS
    assert "nothing can be kept in" in caplog.text
    assert load_encoder(model_file, engine=INSTALLED[0]).engine == INSTALLED[0]


def test_a_cache_that_is_only_read_is_enough_for_what_it_holds(
    converted_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("filelock.FileLock", refuse)
    assert load_encoder(converted_file).engine == INSTALLED[0]


def open_inexactly(content: bytes, cores: int) -> Network:
    """An engine that is a little off, as one that computes in half precision is."""
    exact = open_onnx_runtime(content, cores)

    def network(images: ImageArray) -> Embeddings:
        off: Embeddings = exact(images) + np.float32(0.0042)
        return off

    return network


def open_without_numbers(content: bytes, cores: int) -> Network:
    return lambda images: np.full((len(images), 6), np.nan, np.float32)


def open_never(content: bytes, cores: int) -> Network:
    raise RuntimeError("no kernel for this layer\nand pages of a graph")


@pytest.mark.parametrize(
    ("open_network", "reason"),
    [
        (open_inexactly, r"'odd'.*'small'.*0\.001 at most.*0\.00[4-9]"),
        (open_without_numbers, r"'odd'.*'small'.*0\.001 at most.*nan"),
        (open_never, r"'odd'.*no kernel for this layer$"),
    ],
)
def test_an_engine_that_differs_or_fails_is_refused_and_auto_takes_keras(
    open_network: Callable[[bytes, int], Network],
    reason: str,
    model_file: Path,
    conversions: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(engines, "ENGINES", {"odd": Engine("odd", "numpy", open_network)})
    # The second time the cache knows.
    for _ in range(2):
        with pytest.raises(EngineError, match=reason):
            load_encoder(model_file, engine="odd")
    assert load_encoder(model_file).engine == KERAS
    assert re.search(f"Keras runs the encoder: .*{reason}", caplog.text, re.MULTILINE)
    assert conversions == ["small"]


@keras.saving.register_keras_serializable("tests")
class _Sorted(keras.layers.Layer):  # type: ignore[misc]
    """A layer that TensorFlow can run and ONNX has no word for."""

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        import tensorflow as tf

        return tf.numpy_function(lambda y: np.sort(y, axis=1), [x], tf.float32)

    def compute_output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape


def test_what_cannot_be_converted_runs_on_keras(
    tmp_path: Path, cache: Path, conversions: list[str]
) -> None:
    inputs = keras.Input((HEIGHT, WIDTH, 3))
    dense = keras.layers.Dense(6)(keras.layers.Flatten()(inputs))
    path = tmp_path / "odd.keras"
    save_encoder(keras.Model(inputs, _Sorted()(dense)), path, replace(CONTRACT, name="odd"))
    for _ in range(2):
        assert load_encoder(path).engine == KERAS
    with pytest.raises(EngineError, match="'odd' cannot be converted to onnx"):
        load_encoder(path, engine=INSTALLED[0])
    assert conversions == ["odd"]


@pytest.mark.parametrize("step", ["conversion", "comparison"])
def test_what_fails_in_passing_is_tried_again(
    step: str, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> Network:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if step == "conversion":
            patch.setattr(conversion, "_export", fail)
        else:
            patch.setitem(ENGINES, "onnx", replace(ENGINES["onnx"], open=fail))
        with pytest.raises(EngineError, match="No space left"):
            load_encoder(model_file, engine="onnx")
    assert load_encoder(model_file, engine="onnx").engine == "onnx"


def test_an_unknown_engine_is_told_with_the_known_ones(model_file: Path) -> None:
    known = r"auto, fastest, tensorflow, onnx, openvino, int8.*Received: 'cuda'"
    with pytest.raises(InputError, match=known):
        load_encoder(model_file, engine="cuda")


def test_a_file_that_changed_is_not_taken_for_the_one_that_was_opened(
    converted_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.keras"
    shutil.copy(converted_file, path)
    second, third = (load_encoder(path, engine=INSTALLED[0]) for _ in range(2))
    assert second.model.output_shape == (None, 6)
    path.write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="was changed"):
        _ = third.model


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.keras"
    shutil.copy(model_file, path)

    def replaced(path: Path) -> QualityHead | None:
        # Behind the contract, which is read already.
        save_encoder(small_network(), path, replace(CONTRACT, threshold=0.9))
        return read_quality_head(path)

    monkeypatch.setattr(registry, "read_quality_head", replaced)
    with pytest.raises(ModelFileError, match="was changed"):
        load_encoder(path, engine=INSTALLED[0])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 23, 24, 25, 50])
def test_the_pieces_of_a_batch_are_in_order_and_small(count: int) -> None:
    images = np.zeros((count, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    pieces = pieces_of(images, 3)
    assert np.array_equal(np.concatenate(pieces), images)
    assert max(map(len, pieces)) <= MAX_PIECE
    assert len(pieces) >= min(3, count) - 1


def test_probes_are_always_the_same_and_use_the_whole_range() -> None:
    recipe = CropRecipe("box", 60, 41)
    crops = probe_crops(recipe)
    assert crops.shape == (8, 60, 41, 3)
    assert crops.dtype == np.uint8
    assert np.array_equal(crops, probe_crops(recipe))
    assert (crops.min(), crops.max()) == (0, 255)
    spread = crops[:-1].std(axis=(1, 2))
    assert spread.min() > 25


def test_probes_are_smooth_as_photographs_are() -> None:
    crops = probe_crops(CropRecipe("box", 150, 150))[:-1].astype(np.float64)
    neighbours = np.abs(np.diff(crops, axis=2)).mean()
    strangers = np.abs(crops[:, :, :75] - crops[:, :, 75:]).mean()
    assert neighbours < strangers / 3


def test_probes_find_as_large_a_difference_as_faces_do(
    encoder: Encoder, colour_crops: ImageArray
) -> None:
    """The errors of an inexact engine on faces must show on the probes."""
    import keras

    coarse = keras.models.clone_model(encoder.model)
    coarse.set_weights(
        [
            # bfloat16 keeps eight bits of the mantissa.
            (weight.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
            for weight in encoder.model.get_weights()
        ]
    )
    inexact, exact = (Encoder(model, encoder.contract) for model in (coarse, encoder.model))

    def difference(crops: ImageArray) -> float:
        return largest_difference(exact.encode(crops), inexact.encode(crops))

    on_faces = difference(colour_crops)
    assert on_faces > MAX_DIFFERENCE
    assert difference(probe_crops(encoder.contract.crop)) > on_faces / 2


@pytest.mark.parametrize(
    ("expected", "received", "difference"),
    [
        ([[3.0, 4.0]], [[3.0, 4.5]], 0.5),  # length 5: as it is
        ([[0.3, 0.4]], [[0.3, 0.45]], 0.1),  # length 0.5: in proportion
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0),
        ([[0.0, 0.0]], [[0.0, 0.1]], np.inf),
        ([[3.0, 4.0], [1.0, 0.0]], [[3.0, 4.0], [1.0, 0.25]], 0.25),
        ([[1.0]], [[1.0], [1.0]], np.inf),
    ],
)
def test_the_largest_difference(
    expected: list[list[float]], received: list[list[float]], difference: float
) -> None:
    arrays = np.array(expected, np.float32), np.array(received, np.float32)
    assert largest_difference(*arrays) == pytest.approx(difference, abs=1e-6)
