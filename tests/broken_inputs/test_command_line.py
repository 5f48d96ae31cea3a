"""Broken inputs on the command line: one line on standard error, or a row; never a traceback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode import cli
from tests.broken_inputs.making import BROKEN_FILES, encoded
from tests.conftest import EXAMPLES, REPOSITORY

Options = Callable[[Path], list[str]]


@pytest.fixture
def folder(tmp_path: Path, gallery_file: Path, tiny_file: Path) -> Path:
    """A folder with a gallery, its model, a photo without a face and much that is broken."""
    (tmp_path / "people.npz").write_bytes(gallery_file.read_bytes())
    (tmp_path / "tiny.keras").write_bytes(tiny_file.read_bytes())
    (tmp_path / "cut.npz").write_bytes(gallery_file.read_bytes()[:500])
    (tmp_path / "cut.keras").write_bytes(tiny_file.read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("no photo")
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "taken.npz.unfinished").mkdir()
    (tmp_path / "hollow" / "Ada").mkdir(parents=True)
    (tmp_path / "broken" / "Ada").mkdir(parents=True)
    (tmp_path / "broken" / "Ada" / "1.jpg").write_bytes(encoded("JPEG")[:400])
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "wall.png")
    return tmp_path


MODEL = ["--model", "tiny.keras", "--detector", "dlib_hog"]

REFUSED: dict[str, tuple[list[str], str]] = {
    "no such folder": (["enroll", "none", "-g", "new.npz"], "none: no such folder"),
    "a file for a folder": (["enroll", "file", "-g", "new.npz"], "a file, not a folder"),
    "an empty folder": (["enroll", "empty", "-g", "new.npz"], "a folder without sub-folders"),
    "people without photos": (["enroll", "hollow", "-g", "new.npz"], "no photo in any"),
    "broken photos only": (["enroll", "broken", "-g", "new.npz", *MODEL], "none of the 1 photos"),
    "no name for a folder": (["enroll", "", "-g", "new.npz"], "not empty"),
    "no name for a gallery": (["enroll", "broken", "-g", ""], "not empty"),
    "another ending": (
        ["enroll", "broken", "-g", "new.pkl"],
        "the path of a .sqlite file, of an .npz file or of a .db folder, or an http:// address. "
        "Received: new.pkl",
    ),
    "a gallery at an address of another kind": (
        ["enroll", "broken", "-g", "s3://key:sesame@bucket/new.npz", *MODEL],
        "with http:// or https://. Received: one that begins with s3://",
    ),
    "a folder of Milvus Lite there": (
        ["match", "s3://bucket/new.db", "wall.png", *MODEL],
        "Received: one that begins with s3://",
    ),
    "indexing a shared gallery": (
        ["index", "http://root:sesame@host:1"],
        "one in Milvus has an index of Milvus's own (see docs/galleries.md). Received: http://host:1",
    ),
    "embedding one photo": (
        ["embed", "wall.png", "-o", "e.npz", *MODEL],
        "wall.png: a file, not a",
    ),
    "a folder where the journal goes": (
        ["embed", ".", "-o", "taken.npz", *MODEL],
        "taken.npz.unfinished is in the way: it is a folder",
    ),
    "a gallery cut off": (["enroll", "broken", "-g", "cut.npz", *MODEL], "cut off"),
    "a model cut off": (["match", "people.npz", "wall.png", "--model", "cut.keras"], "damaged"),
    "no such model": (["match", "people.npz", "wall.png", "--model", "vgg"], "'vgg'"),
    "no such detector": (["match", "people.npz", "wall.png", "--detector", "x"], "'x'"),
    "a threshold of 7": (["match", "people.npz", "wall.png", "--threshold", "7"], "-1..1"),
    "a threshold of nan": (["match", "people.npz", "wall.png", "--threshold", "nan"], "-1..1"),
    "matching a gallery cut off": (["match", "cut.npz", "wall.png", *MODEL], "cut off"),
    "matching no gallery": (["match", "none.npz", "wall.png", *MODEL], "no such gallery"),
    "matching nobody": (["match", "hollow", "wall.png", *MODEL], "no photo in any"),
    "drawing into a file": (
        ["match", "people.npz", "wall.png", "--annotate", "file", *MODEL],
        "cannot write to file",
    ),
    "drawing beneath a file": (
        ["match", "people.npz", "wall.png", "--annotate", "file/out", *MODEL],
        "cannot write to file/out",
    ),
    "comparing with a text": (["verify", "text.jpg", "wall.png", *MODEL], "text.jpg: not a photo"),
    "comparing with nothing": (["verify", "wall.png", "none.jpg", *MODEL], "wall.png: no face"),
    "removing a stranger": (["remove", "people.npz", "Zoë", *MODEL], "nobody named 'Zoë'"),
    "removing from a gallery cut off": (["remove", "cut.npz", "Ada", *MODEL], "cut off"),
    "serving a gallery that is shared": (
        ["serve", "--people", "http://root:sesame@host"],
        "the service keeps its people in a gallery database: copy them from Milvus into one (see "
        "docs/galleries.md). Received: http://host",
    ),
    "a shared gallery that is not there": (
        ["match", "new.db", "wall.png", *MODEL],
        "there is no gallery new.db",
    ),
    "a shared gallery in a byte a number": (
        ["enroll", "broken", "-g", "new.db", "--int8", *MODEL],
        "keeps float32",
    ),
    "a name that steers the terminal": (
        ["remove", "people.npz", "\x1b[2J\n", *MODEL],
        r"nobody named '\x1b[2J\n'",
    ),
    "a folder's name that does": (["enroll", "a\x1b[2J\n\u2028b", "-g", "n.npz"], r"a\x1b[2J\n"),
    "half a character": (["enroll", "a\udcffb", "-g", "n.npz"], r"a\udcffb: no such folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_error_of_ours_is_one_line_and_code_1(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, told = REFUSED[case]
    monkeypatch.chdir(folder)
    before = (folder / "people.npz").read_bytes()
    capsys.readouterr()
    assert cli.main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("face-encode: ")]
    assert len(lines) == 1
    assert captured.err.endswith(lines[0] + "\n")
    assert told in lines[0]
    assert "\x1b[2J" not in captured.err
    assert "sesame" not in captured.err
    assert "Traceback" not in captured.err
    assert (folder / "people.npz").read_bytes() == before
    assert not (folder / "new.npz").exists()
    assert not (folder / "s3:").exists()


WRONG_USAGE = {
    "nothing": [],
    "no such command": ["recognise"],
    "no photos": ["match", "people.npz"],
    "one photo": ["verify", "wall.png"],
    "no gallery": ["enroll", "broken"],
    "no faces": ["match", "people.npz", "wall.png", "--max-faces", "0"],
    "faces below none": ["match", "people.npz", "wall.png", "--max-faces", "-1"],
    "half a face": ["match", "people.npz", "wall.png", "--max-faces", "1.5"],
    "faces in words": ["match", "people.npz", "wall.png", "--max-faces", "two"],
    "no workers": ["enroll", "broken", "-g", "n.npz", "--workers", "0"],
    "a threshold in words": ["match", "people.npz", "wall.png", "--threshold", "high"],
    "an unknown option": ["match", "people.npz", "wall.png", "--xml"],
}


@pytest.mark.parametrize("case", WRONG_USAGE)
def test_wrong_usage_is_code_2(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(WRONG_USAGE[case])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("usage: face-encode")
    assert "Traceback" not in captured.err


def test_of_many_photos_each_broken_one_is_a_row(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "photos").mkdir()
    made = {}
    for make, told in BROKEN_FILES.values():
        try:
            made[str(make(folder / "photos"))] = told
        except pytest.skip.Exception:
            continue
    photos = ["wall.png", *made, "", "none.jpg", "a\udcff.jpg"]
    capsys.readouterr()
    assert cli.main(["match", "people.npz", *photos, "--json", *MODEL]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["photo"] for row in rows] == photos
    assert [row["faces"] for row in rows] == [[]] * len(photos)
    # A wall has no face, and is a fine photo.
    assert rows[0]["error"] is None
    errors = {row["photo"]: row["error"] for row in rows}
    for photo, told in made.items():
        assert told in errors[photo], photo
    assert "not empty" in errors[""]
    assert errors["none.jpg"] == errors["a\udcff.jpg"] == "no such file"
    assert cli.main(["match", "people.npz", *photos, *MODEL]) == 0
    table = capsys.readouterr().out
    assert "an empty file" in table
    assert r"a\udcff.jpg" in table


def test_folders_and_patterns_are_matched(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for name in ("party/a.png", "party/night/b.png", "c1.png", "c2.png", "[1].png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "grey").save(name)
    (folder / "party" / "notes.txt").write_text("x")
    words = ["party", "c?.png", "[1].png", "party/**/b.png", "none-*.jpg", "empty"]
    assert cli.main(["match", "people.npz", *words, "--json", *MODEL]) == 0
    rows = {row["photo"]: row["error"] for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == [
        *("party/a.png", "party/night/b.png", "c1.png", "c2.png", "[1].png"),
        *("none-*.jpg", "empty"),
    ]
    assert rows["none-*.jpg"] == "no such file"
    assert rows["empty"] == "a folder, not a photo"
    assert rows["party/a.png"] is None


def test_a_photo_is_never_overwritten_by_its_own_drawing(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = (folder / "wall.png").read_bytes()
    arguments = ["match", "people.npz", "wall.png", "--annotate", ".", *MODEL]
    assert cli.main(arguments) == 0
    assert (folder / "wall.png").read_bytes() == before
    assert (folder / "wall-2.png").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_the_letters(encoding: str, folder: Path) -> None:
    name = "写真🙂é\udcff"
    if sys.platform != "linux":
        pytest.skip("such a name cannot be passed on")
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONIOENCODING": encoding,
        "PYTHONUTF8": "0",
        "LC_ALL": "C.UTF-8",
    }
    command = [sys.executable, "-m", "face_encode.cli"]
    done = subprocess.run(
        [*command, "enroll", f"{name}", "-g", f"{name}.npz"],
        cwd=folder,
        env=environment,
        capture_output=True,
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no such folder" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_in_any_encoding(
    encoding: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "写真🙂é\udcff.jpg"
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.chdir(folder)
    assert cli.main(["match", "people.npz", name, "--json", *MODEL]) == 1
    out.flush()
    (row,) = json.loads(written.getvalue().decode(encoding))
    assert row["photo"] == name


def test_broken_embeddings_make_no_broken_json(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON knows no NaN: an encoder that gives some is an error, not a similarity."""
    import keras

    from face_encode.encoders.contract import save_encoder
    from face_encode.encoders.encoder import Encoder
    from face_encode.gallery.memory import MemoryGallery
    from tests.tiny_parts import TINY_CONTRACT

    monkeypatch.chdir(folder)
    model = keras.saving.load_model("tiny.keras")
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    save_encoder(model, "nan.keras", TINY_CONTRACT)
    gallery = MemoryGallery(Encoder(model, TINY_CONTRACT), "nan.npz")
    gallery.add(["Ada"], np.ones((1, 4), np.float32))
    gallery.save()
    capsys.readouterr()
    arguments = ["match", "nan.npz", str(EXAMPLES / "stranger.jpg"), "--json"]
    assert cli.main([*arguments, "--model", "nan.keras"]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row["faces"] == []
    assert "no usable embedding" in row["error"]
