from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode import bulk
from face_encode.alignment import crop_faces
from face_encode.bulk import embed_folder
from face_encode.embedding_files.opening import read_embeddings
from face_encode.encoders.contract import EncoderContract, save_encoder
from face_encode.encoders.encoder import Encoder
from face_encode.encoders.loading import load_encoder
from face_encode.errors import DatasetError, EmbeddingFileError, InputError
from face_encode.images import content_digest, read_image
from face_encode.journal import Journal
from face_encode.types import Box, CropRecipe, Face, ImageArray
from tests.conftest import REPOSITORY


class Halves:
    """A detector for photos that are faces: wide ones show two, black ones nobody."""

    name = "halves"

    def detect(self, image: ImageArray) -> list[Face]:
        height, width = image.shape[:2]
        if not image.any():
            return []
        if width < 2 * height:
            return [Face(Box(0, 0, width, height), 1.0)]
        half = width // 2
        return [
            Face(Box(0, 0, width - half, height), 2.0),
            Face(Box(width - half, 0, half, height), 1.0),
        ]


def save_tiny_encoder(path: Path) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    save_encoder(model, path, EncoderContract("tiny", CropRecipe("box", 8, 8), 0.5))
    return path


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny.keras")


@pytest.fixture(scope="module")
def tiny(tiny_file: Path) -> Encoder:
    return load_encoder(tiny_file)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 photos, every tenth with two faces; further ones that cannot be used."""
    top = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(150):
        where = top / f"day {number // 30}"
        where.mkdir(exist_ok=True)
        width = 40 if number % 10 == 0 else 20
        pixels = random.integers(0, 256, (16, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(where / f"{number:03}.png")
    Image.new("RGB", (20, 20)).save(top / "black.png")
    (top / "broken.jpg").write_text("no photo")
    (top / "notes.txt").write_text("no photo either, and not meant to be one")
    (top / ".hidden").mkdir()
    Image.new("RGB", (20, 20), "red").save(top / ".hidden" / "x.png")
    return top


def embed(folder: Path, output: Path, encoder: Encoder, **options: Any) -> bulk.EmbeddingReport:
    options = {"workers": 1, "progress": False} | options
    return embed_folder(folder, output, Halves(), encoder, **options)


@pytest.fixture(scope="module")
def whole(folder: Path, tiny: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "embeddings.npz"
    report = embed(folder, path, tiny)
    assert (report.photos, report.faces, report.resumed) == (152, 165, 0)
    assert str(report) == "165 faces in 152 photos embedded, 2 left out"
    return path


def test_every_face_has_a_row(whole: Path, folder: Path, tiny: Encoder) -> None:
    table = read_embeddings(whole)
    assert len(table) == 165
    assert table.left_out == (
        ("black.png", "no face found"),
        ("broken.jpg", "not a photo in a known format"),
    )
    assert (table.settings.encoder, table.settings.fingerprint) == ("tiny", tiny.fingerprint)
    assert table.photos.tolist() == sorted(table.photos.tolist())
    assert table.photos[:3].tolist() == ["day 0/000.png"] * 2 + ["day 0/001.png"]
    assert table.faces[:3].tolist() == [0, 1, 0]
    assert table.digests[2] == content_digest(folder / "day 0/001.png")
    assert table.box(1) == Box(20, 0, 20, 16)
    assert [path.name for path in whole.parent.iterdir()] == ["embeddings.npz"]
    np.testing.assert_allclose(np.linalg.norm(table.embeddings, axis=1), 1, atol=1e-6)
    # A face worked out apart from the rest.
    photo = read_image(folder / "day 4/149.png")
    alone = tiny.encode(crop_faces(photo, Halves().detect(photo), tiny.contract.crop))[0]
    np.testing.assert_allclose(table.embeddings[-1], alone / np.linalg.norm(alone), atol=1e-5)


def test_the_largest_face_alone_and_raw(
    whole: Path, folder: Path, tiny: Encoder, tmp_path: Path
) -> None:
    embed(folder, tmp_path / "raw.npz", tiny, faces="largest", raw=True)
    raw, both = read_embeddings(tmp_path / "raw.npz"), read_embeddings(whole)
    assert (len(raw), raw.settings.raw, raw.settings.faces) == (150, True, "largest")
    lengths = np.linalg.norm(raw.embeddings, axis=1, keepdims=True)
    assert lengths.std() > 0.01
    first = both.embeddings[both.faces == 0]
    np.testing.assert_allclose(raw.embeddings / lengths, first, atol=1e-5)


def test_int8_parquet_and_workers_give_the_same(
    whole: Path, folder: Path, tiny: Encoder, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    embed(folder, tmp_path / "small.parquet", tiny, int8=True, workers=2)
    small, exact = read_embeddings(tmp_path / "small.parquet"), read_embeddings(whole)
    assert small.kept.dtype == np.int8
    assert small.photos.tolist() == exact.photos.tolist()
    assert small.digests.tolist() == exact.digests.tolist()
    np.testing.assert_array_equal(small.boxes, exact.boxes)
    np.testing.assert_allclose(small.embeddings, exact.embeddings, atol=0.02)


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
    real = Journal.append
    records: list[bytes] = []

    def interrupted(journal: Journal, record: bytes) -> int:
        # The heading is a record too.
        if len(records) > after:
            raise KeyboardInterrupt
        records.append(record)
        return real(journal, record)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Journal, "append", interrupted)
        embed(folder, output, tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.npz.unfinished"]
    encoded: list[int] = []
    encode = tiny.encode

    def counted(crops: ImageArray) -> Any:
        encoded.append(len(crops))
        return encode(crops)

    monkeypatch.setattr(tiny, "encode", counted)
    report = embed(folder, output, tiny)
    assert (report.faces, len(report.left_out)) == (165, 2)
    assert bool(report.resumed) == (after > 0)
    # Nothing that the journal holds goes through the encoder again.
    assert sum(encoded) <= 165 - 32 * after
    assert output.read_bytes() == whole.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.npz"]


KILLED = """
import os, signal, sys
from pathlib import Path
from face_encode.encoders.loading import load_encoder
from face_encode.journal import Journal
from tests.test_bulk import embed

real, records = Journal._write, []

def dying(journal, content):
    records.append(content)
    if len(records) == 5:
        real(journal, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    real(journal, content)

Journal._write = dying
embed(Path(sys.argv[1]), Path(sys.argv[2]), load_encoder(sys.argv[3]))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills processes the POSIX way")
def test_killed_in_the_middle_of_a_record_it_goes_on(
    whole: Path, folder: Path, tiny: Encoder, tiny_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "embeddings.npz"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, folder, output, tiny_file],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.npz.unfinished"]
    report = embed(folder, output, tiny)
    # The signature, the heading and two whole batches were written before.
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
        patch.setattr(bulk, "write_embeddings", interrupted)
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
        patch.setattr(bulk, "write_embeddings", lambda *_: (_ for _ in ()).throw(RuntimeError))
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
        patch.setattr(bulk, "write_embeddings", lambda *_: (_ for _ in ()).throw(RuntimeError))
        embed(folder, output, on_onnx)
    with pytest.raises(EmbeddingFileError, match=r"--encoder-engine onnx.*Received: .*tensorflow"):
        embed(folder, output, on_keras)
    assert embed(folder, output, on_onnx).resumed > 0


def test_a_former_file_stays_until_the_new_one_is_done(
    folder: Path, tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "embeddings.npz"
    output.write_text("former")

    def full(journal: Journal, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(EmbeddingFileError, match="No space left"):
        patch.setattr(Journal, "_write", full)
        embed(folder, output, tiny)
    assert output.read_text() == "former"
    embed(folder, output, tiny)
    assert len(read_embeddings(output)) == 165


def test_a_folder_without_a_single_face(tiny: Encoder, tmp_path: Path) -> None:
    top = tmp_path / "photos"
    top.mkdir()
    with pytest.raises(DatasetError, match="no photo in it"):
        embed(top, tmp_path / "embeddings.npz", tiny)
    Image.new("RGB", (20, 20)).save(top / "black.png")
    (top / "gone.jpg").symlink_to("nowhere")
    os.symlink(top, top / "again")
    for int8 in (False, True):
        report = embed(top, tmp_path / "embeddings.npz", tiny, int8=int8)
        assert report.faces == 0
        assert dict(report.left_out) == {
            "black.png": "no face found",
            "gone.jpg": "a link to nothing",
        }
        assert len(read_embeddings(tmp_path / "embeddings.npz")) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="names of other bytes need such a file system")
def test_a_name_that_is_no_text_is_left_out(tiny: Encoder, tmp_path: Path) -> None:
    top = tmp_path / "photos"
    top.mkdir()
    for name in (b"caf\xe9.png", "café.png".encode()):
        with open(os.path.join(os.fsencode(top), name), "wb") as file:
            Image.new("RGB", (20, 20), "red").save(file, "PNG")
    report = embed(top, tmp_path / "embeddings.npz", tiny)
    assert (report.photos, report.faces) == (2, 1)
    ((photo, reason),) = report.left_out
    assert photo == r"caf\xe9.png" and "UTF-8" in reason
    assert read_embeddings(tmp_path / "embeddings.npz").photos.tolist() == ["café.png"]


def test_what_cannot_be_is_refused_before_the_work(
    folder: Path, tiny: Encoder, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="choose one of the two"):
        embed(folder, tmp_path / "e.npz", tiny, raw=True, int8=True)
    with pytest.raises(EmbeddingFileError, match="Received"):
        embed(folder, tmp_path / "e.csv", tiny)
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(EmbeddingFileError, match="it is a folder"):
        embed(folder, tmp_path / "folder.npz", tiny)
    with pytest.raises(DatasetError, match="no such folder"):
        embed(tmp_path / "none", tmp_path / "e.npz", tiny)
    (tmp_path / "e.npz.unfinished").write_text("my own notes")
    with pytest.raises(EmbeddingFileError, match="in the way"):
        embed(folder, tmp_path / "e.npz", tiny, restart=True)


def test_folders_that_hide_all_photos_are_told(
    tiny: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos" / "Ada").mkdir(parents=True)
    listed = os.scandir

    def scandir(path: Any) -> Any:
        # Asked of the operating system, it would be granted where the tests run as root.
        if Path(path).name == "Ada":
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DatasetError, match=r"its folders 1 cannot be listed: Ada: permission den"):
        embed(tmp_path / "photos", tmp_path / "e.npz", tiny)
