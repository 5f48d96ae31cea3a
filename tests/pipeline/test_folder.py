from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from face_encode.cli import main
from face_encode.detectors.alignment import crop_faces
from face_encode.encoders.encoder import Encoder
from face_encode.errors import DatasetError, EmbeddingFileError, InputError
from face_encode.photos.reading import content_digest, read_image
from face_encode.pipeline.embedding_file import read_embeddings
from face_encode.pipeline.folder import embed_folder
from face_encode.types import Box
from tests.conftest import EXAMPLES
from tests.tiny_parts import Halves, embed, write_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


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


@dataclass(frozen=True)
class Noting(Halves):
    def notes(self, width: int, height: int) -> tuple[str, ...]:
        return (f"looked at {width} x {height}",)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_notes_on_a_photo_are_told(suffix: str, tiny: Encoder, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    top, output = tmp_path / "photos", tmp_path / f"embeddings.{suffix}"
    top.mkdir()
    (top / "cut.jpg").write_bytes((EXAMPLES / "ada_mirova.jpg").read_bytes()[:-150])
    Image.new("RGB", (40, 16), "red").save(top / "two.png")
    Image.new("RGB", (20, 20)).save(top / "none.png")
    report = embed_folder(top, output, Noting(), tiny, workers=1, progress=False)
    end = "the end of the file is missing; almost all of the photo is there"
    told = {
        "cut.jpg": [end, "looked at 385 x 468"],
        "none.png": ["looked at 20 x 20"],
        "two.png": ["looked at 40 x 16"],
    }
    assert list(report.notes) == [f"{name}: {note}" for name in told for note in told[name]]
    assert len(read_embeddings(output)) == report.faces
    if suffix == "parquet":
        rows = parquet.read_table(output).to_pylist()
        assert len(rows) == report.faces + 1
        assert {row["photo"] for row in rows} == set(told)
        assert all(row["notes"] == told[row["photo"]] for row in rows)


def test_the_command_prints_the_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top, output = tmp_path / "photos", str(tmp_path / "embeddings.npz")
    top.mkdir()
    (top / "cut.jpg").write_bytes((EXAMPLES / "ada_mirova.jpg").read_bytes()[:-150])
    command = ["embed", str(top), "-o", output, "--detector", "dlib_hog"]
    assert main(command) == 0
    assert "  note: cut.jpg: the end of the file is missing" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert note.startswith("cut.jpg: the end of the file is missing")


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
    with pytest.raises(InputError, match="batch_size is a whole number"):
        embed(folder, tmp_path / "e.npz", tiny, batch_size=0)
    assert not list(tmp_path.glob("e.npz*"))
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
