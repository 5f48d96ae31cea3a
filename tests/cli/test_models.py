from __future__ import annotations

import json
from pathlib import Path

import keras
import pytest

from face_encode import cli
from face_encode.encoders.registry import load_encoder

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
    assert parse(words).encoder_engine == "auto"
    assert parse([*words, "--encoder-engine", "onnx"]).encoder_engine == "onnx"


def test_an_unknown_engine_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "one.jpg", "other.jpg", "--encoder-engine", "cuda"]) == 1
    assert "the engine is one of auto, tensorflow" in capsys.readouterr().err
