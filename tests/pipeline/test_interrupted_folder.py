"""Embedding a folder that is interrupted, killed or short of space, and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode.encoders.encoder import Encoder
from face_encode.encoders.registry import load_encoder
from face_encode.errors import EmbeddingFileError
from face_encode.pipeline import folder as module
from face_encode.pipeline.checkpoint import Checkpoint, StoreFile
from face_encode.pipeline.embedding_file import read_embeddings
from face_encode.types import ImageArray
from tests.conftest import REPOSITORY
from tests.tiny_parts import embed, write_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def whole(folder: Path, tiny: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "embeddings.npz"
    embed(folder, path, tiny)
    return path


@pytest.mark.parametrize("after", [0, 1, 4])
def test_interrupted_it_goes_on_and_ends_with_the_same_file(
    after: int,
    whole: Path,
    folder: Path,
    tiny: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "embeddings.npz"
    real = Checkpoint.keep
    batches: list[Any] = []

    def interrupted(checkpoint: Checkpoint, results: Any) -> None:
        if len(batches) == after:
            raise KeyboardInterrupt
        batches.append(results)
        real(checkpoint, results)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "keep", interrupted)
        embed(folder, output, tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.npz.unfinished"]
    encoded: list[int] = []
    embed_crops = tiny.embed

    def counted(crops: ImageArray, **options: Any) -> Any:
        encoded.append(len(crops))
        return embed_crops(crops, **options)

    monkeypatch.setattr(tiny, "embed", counted)
    report = embed(folder, output, tiny)
    assert (report.faces, len(report.left_out)) == (165, 2)
    assert bool(report.resumed) == (after > 0)
    # Nothing that the checkpoint holds goes through the encoder again.
    assert 0 < sum(encoded) <= 165 - 32 * after
    assert output.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.npz"]


KILLED = """
import os, signal, sys
from pathlib import Path
from face_encode.encoders.registry import load_encoder
from face_encode.pipeline.checkpoint import Checkpoint
from tests.tiny_parts import embed

real, batches = Checkpoint.keep, []

def dying(checkpoint, results):
    def half():
        for number, result in enumerate(results):
            if len(batches) == 3 and number == 16:
                os.kill(os.getpid(), signal.SIGKILL)
            yield result

    batches.append(results)
    real(checkpoint, half())

Checkpoint.keep = dying
embed(Path(sys.argv[1]), Path(sys.argv[2]), load_encoder(sys.argv[3]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills processes the POSIX way")
def test_killed_in_the_middle_of_a_batch_it_goes_on(
    whole: Path, folder: Path, tiny: Encoder, tiny_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "embeddings.npz"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, folder, output, tiny_file],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == -signal.SIGKILL
    # The second is SQLite's log of the first.
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["embeddings.npz.unfinished", "embeddings.npz.unfinished-wal"]
    report = embed(folder, output, tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.npz"]
    # Two whole batches were written before.
    assert 2 * 29 <= report.resumed < 3 * 32
    assert output.read_bytes() == whole.read_bytes()


def test_what_changed_in_between_is_done_again(
    folder: Path, tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = tmp_path / "photos"
    top.mkdir()
    for number in range(80):
        pixels = np.full((16, 20, 3), 1 + number, np.uint8)
        Image.fromarray(pixels).save(top / f"{number:03}.png")
    output = tmp_path / "embeddings.npz"

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        # All is done but the file.
        patch.setattr(module, "write_embeddings", interrupted)
        embed(top, output, tiny)
    (top / "000.png").unlink()
    Image.new("RGB", (30, 30), "red").save(top / "001.png")
    Image.new("RGB", (20, 20), "blue").save(top / "zebra.png")
    report = embed(top, output, tiny)
    assert (report.photos, report.resumed) == (80, 78)
    resumed = read_embeddings(output)
    embed(top, output, tiny)
    anew = read_embeddings(output)
    assert resumed.photos.tolist() == anew.photos.tolist()
    assert resumed.digests.tolist() == anew.digests.tolist()
    np.testing.assert_allclose(resumed.embeddings, anew.embeddings, atol=1e-6)


def test_other_settings_are_refused_unless_anew(
    folder: Path, tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "embeddings.npz"
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(module, "write_embeddings", lambda *_: (_ for _ in ()).throw(RuntimeError))
        embed(folder, output, tiny)
    with pytest.raises(EmbeddingFileError, match=r"other settings.*--restart"):
        embed(folder, output, tiny, faces="largest")
    assert embed(folder, output, tiny, faces="largest", restart=True).faces == 150


def test_another_engine_does_not_go_on_with_a_run(
    folder: Path, tiny_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    output = tmp_path / "embeddings.npz"
    on_keras, on_onnx = (load_encoder(tiny_file, engine=name) for name in ("tensorflow", "onnx"))
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(module, "write_embeddings", lambda *_: (_ for _ in ()).throw(RuntimeError))
        embed(folder, output, on_onnx)
    with pytest.raises(EmbeddingFileError, match=r"--encoder-engine onnx.*Received: .*tensorflow"):
        embed(folder, output, on_keras)
    assert embed(folder, output, on_onnx).resumed > 0


def test_a_former_file_stays_until_the_new_one_is_done(
    folder: Path, tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "embeddings.npz"
    output.write_text("former")

    real = Checkpoint.keep

    def full(checkpoint: Checkpoint, results: Any) -> None:
        assert isinstance(checkpoint._store, StoreFile)
        checkpoint._store._database.execute("PRAGMA max_page_count = 4")
        real(checkpoint, results)

    with monkeypatch.context() as patch, pytest.raises(EmbeddingFileError, match="disk is full"):
        patch.setattr(Checkpoint, "keep", full)
        embed(folder, output, tiny)
    assert output.read_text() == "former"
    embed(folder, output, tiny)
    assert len(read_embeddings(output)) == 165
