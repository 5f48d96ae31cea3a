from __future__ import annotations

from pathlib import Path

import pytest

from face_encode import cli
from face_encode.errors import InputError
from face_encode.photos.folders import location_of
from face_encode.pipeline.cluster.run import check_output
from face_encode.pipeline.embedding_file import write_embeddings
from face_encode.pipeline.embedding_table import EmbeddingSettings
from tests.conftest import VERIFY_DATASET
from tests.pipeline.drawn import faces

pytest.importorskip("ray")
pytest.importorskip("pyarrow")


def test_a_foreign_file_of_a_store_takes_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs = pytest.importorskip("pyarrow.fs")
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr(
        "face_encode.photos.folders._opened", lambda address: (store, address.split("//")[1])
    )
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "mine.parquet").write_text("another program's")
    mine, ours, none = (
        location_of(f"s3://bucket/{name}.parquet") for name in ("mine", "ours", "none")
    )
    settings = EmbeddingSettings("one", "f1", 8, "eyes")
    write_embeddings(tmp_path / "bucket" / "ours.parquet", settings, [faces("a.jpg", 1)])
    with pytest.raises(InputError, match=r"s3://bucket/mine\.parquet exists.*--overwrite"):
        check_output(mine, parts=False, overwrite=False)
    check_output(mine, parts=False, overwrite=True)
    for target in (ours, none):
        check_output(target, parts=False, overwrite=False)


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
