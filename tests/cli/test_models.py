from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import keras
import pytest

from face_encode import cli
from face_encode.encoders.contract import EncoderContract
from face_encode.encoders.registry import KNOWN_ENCODERS, ConvertedEncoder, load_encoder
from face_encode.liveness.judging import LivenessJudge
from face_encode.liveness.minifasnet import PARTS
from face_encode.types import CropRecipe
from face_encode.weights import KNOWN_WEIGHTS, KnownWeights
from tests.loopback import Served, serving

pytest.importorskip("tf2onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    inputs = keras.Input((12, 12, 3))
    keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(inputs))).save(
        tmp_path / "tiny.keras"
    )
    return tmp_path / "tiny.keras"


def test_an_encoder_is_written_with_its_note(
    model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tiny.onnx"
    assert cli.main(["export", str(model_file), "-o", str(output), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["output"] == str(output)
    assert told["fingerprint"] == load_encoder(model_file, engine="tensorflow").fingerprint
    assert told["largest_difference_from_keras"] < 1e-3
    note = json.loads(Path(told["note"]).read_text("utf-8"))
    assert note["encoder"]["fingerprint"] == told["fingerprint"]
    assert cli.main(["export", str(model_file), "-o", str(output)]) == 0
    assert "within" in capsys.readouterr().out


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Served]]:
    """An encoder "far", and weights "near" that may not be used for everything, on two servers."""

    def build(content: bytes) -> keras.Model:
        inputs = keras.Input((12, 12, 3))
        return keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Flatten()(inputs)))

    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("FACE_ENCODE_ACCEPT_LICENCE", raising=False)
    with serving(Served(b"one")) as far, serving(Served(b"other")) as near:
        for name, served, free in (("far", far, True), ("near", near, False)):
            known = KnownWeights(None, f"{name}.bin", None, "of tests", "tests", served.url, free)
            monkeypatch.setitem(KNOWN_WEIGHTS, name, known)
        contract = EncoderContract("far", CropRecipe("box", 12, 12), 0.5)
        monkeypatch.setitem(KNOWN_ENCODERS, "far", ConvertedEncoder(contract, build, "far"))
        yield [far, near]


def test_weights_are_fetched_ahead(
    servers: list[Served], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "get", "far", "near", "--accept-licence", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cache"] == str(tmp_path / "cache")
    paths = [tmp_path / "cache" / name for name in ("far.bin", "near.bin")]
    assert [row["path"] for row in told["weights"]] == [str(path) for path in paths]
    assert [path.read_bytes() for path in paths] == [b"one", b"other"]
    # Converted, too: the encoder opens without its original, and without the servers.
    paths[0].unlink()
    assert load_encoder("far").embedding_size == 4
    assert [len(server.asked) for server in servers] == [1, 1]


def test_the_network_of_liveness_is_fetched_and_converted_ahead(
    drawn_liveness_files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FACE_ENCODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ExitStack() as stack:
        for part, file in zip(PARTS, drawn_liveness_files, strict=True):
            content = file.read_bytes()
            served = stack.enter_context(serving(Served(content)))
            digest = hashlib.sha256(content).hexdigest()
            known = replace(KNOWN_WEIGHTS[part.name], url=served.url, sha256=digest)
            monkeypatch.setitem(KNOWN_WEIGHTS, part.name, known)
        assert cli.main(["models", "get", "liveness", "--json"]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)["weights"]
    paths = [Path(row["path"]) for row in rows]
    assert [path.name for path in paths] == [file.name for file in drawn_liveness_files]
    assert {row["licence"] for row in rows} == {"Apache-2.0"}
    assert "github.com/minivision-ai" in told.err
    # Converted, too: it opens without its originals, and without the servers.
    for path in paths:
        path.unlink()
    assert LivenessJudge().engine == "onnx"


def test_a_licence_that_does_not_allow_every_use_is_asked_for(
    servers: list[Served], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "get", "near"]) == 1
    assert "models get near --accept-licence" in capsys.readouterr().err
    assert cli.main(["models", "get", "near", "--accept-licence"]) == 0
    assert "FACE_ENCODE_CACHE" in capsys.readouterr().out
    assert [len(server.asked) for server in servers] == [0, 1]


def test_a_wrong_ending_is_told_before_the_model_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(tmp_path / "missing.keras"), "-o", str(tmp_path / "tiny.pb")]
    assert cli.main(arguments) == 1
    assert "ends in .onnx or .tflite" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["enroll", "people", "-g", "people.npz"],
        ["match", "people.npz", "photo.jpg"],
        ["verify", "one.jpg", "other.jpg"],
        ["remove", "people.npz", "Ada"],
        ["embed", "photos", "-o", "out.npz"],
        ["watch", "0", "--people", "people"],
        ["serve", "--people", "people.npz"],
        ["calibrate", "people.npz"],
        ["check", "people"],
        ["cluster", "photos", "-o", "out"],
        ["evaluate", "pairs", "--photos", "photos", "--pairs", "pairs.txt"],
        ["evaluate", "people", "gallery", "probes"],
    ],
)
def test_every_command_with_an_encoder_takes_an_engine(words: list[str]) -> None:
    parse = cli.build_parser().parse_args
    # The engine of the model, whatever that is.
    assert parse(words).encoder_engine is None
    assert parse([*words, "--encoder-engine", "onnx"]).encoder_engine == "onnx"


def test_an_unknown_engine_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "one.jpg", "other.jpg", "--encoder-engine", "cuda"]) == 1
    assert "the engine is one of auto, fastest, tensorflow" in capsys.readouterr().err
