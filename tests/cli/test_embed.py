from __future__ import annotations

from pathlib import Path

import pytest

from face_encode import cli
from tests.conftest import VERIFY_DATASET

pytest.importorskip("ray")
pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    ("output", "options", "told"),
    [
        ("e.npz", ["--engine", "ray"], "written as .parquet"),
        ("e.parquet", ["--engine", "ray", "--workers", "2"], "--finders and --encoders"),
        ("e.parquet", ["--engine", "ray", "--encoder-engine", "onnx"], "Keras runs the encoder"),
        ("folder.parquet", ["--engine", "ray"], "it is a folder"),
        ("folder.parquet", ["--engine", "ray", "--parts"], "with other things in it"),
        ("file.parquet", ["--engine", "ray", "--parts"], "cannot take its place"),
        ("e.parquet", ["--address", "head:6379"], "--address needs --engine ray"),
        ("e.parquet", ["--parts"], "--parts needs --engine ray"),
        ("e.parquet", ["--gpus-per-actor", "0"], "--gpus-per-actor needs --engine ray"),
        ("s3://bucket/e.parquet", [], "an address needs --engine ray"),
        ("zip://bucket/e.parquet", ["--engine", "ray"], "an address begins with"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_the_work(
    output: str,
    options: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "folder.parquet" / "notes.txt").touch()
    (tmp_path / "file.parquet").touch()
    assert cli.main(["embed", str(VERIFY_DATASET), "-o", output, *options]) == 1
    printed = capsys.readouterr()
    assert told in printed.err and printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert len(list(tmp_path.iterdir())) == 2
