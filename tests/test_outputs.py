"""What a command may replace: its own files of the same kind, and nothing else unasked."""

from __future__ import annotations

import io
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode import cli
from face_encode.attributes import load_attributes
from face_encode.encoders.encoder import Encoder
from face_encode.errors import InputError
from face_encode.evaluation.html import Page
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.outputs import check_output
from face_encode.pipeline.analysis import analyze_folder
from face_encode.pipeline.embedding_file import write_embeddings
from face_encode.pipeline.embedding_table import EmbeddingSettings
from face_encode.video.output import Recorder
from tests.pipeline.drawn import faces
from tests.tiny_parts import Halves, save_tiny_attributes

SETTINGS = EmbeddingSettings("one", "f1", 8, "eyes")
DRAWN = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


def recording(path: Path) -> None:
    with Recorder(path, 10.0) as recorder:
        for number in range(3):
            recorder.write(DRAWN, number / 10)


def report(path: Path) -> None:
    page = Page("A report")
    page.write(path)


def saved_gallery(path: Path, tiny: Encoder) -> None:
    gallery = MemoryGallery(tiny)
    gallery.add(["Ada"], np.ones((1, 4), np.float32), ["d"])
    gallery.save(path)


def database(path: Path, tiny: Encoder) -> None:
    with closing(DatabaseGallery(path, tiny)) as gallery:
        gallery.add(["Ada"], np.ones((1, 4), np.float32), ["d"])


def table(path: Path) -> None:
    network = load_attributes(save_tiny_attributes(path.with_name("attributes.keras")), "onnx")
    photos = path.with_name("photos")
    photos.mkdir(exist_ok=True)
    Image.fromarray(DRAWN).save(photos / "a.png")
    analyze_folder(photos, path, Halves(), network, workers=1, progress=False)


Write = Callable[[Path, Encoder, Path], object]
OURS: dict[str, tuple[str, str, Write]] = {
    "embeddings": (
        "file of embeddings",
        "e.npz",
        lambda path, *_: write_embeddings(path, SETTINGS, iter([faces("a.jpg", 2)])),
    ),
    "embeddings in Parquet": (
        "file of embeddings",
        "e.parquet",
        lambda path, *_: write_embeddings(path, SETTINGS, iter([faces("a.jpg", 2)])),
    ),
    "a gallery": ("gallery", "g.npz", lambda path, tiny, _: saved_gallery(path, tiny)),
    "a gallery database": ("gallery", "g.sqlite", lambda path, tiny, _: database(path, tiny)),
    "an encoder": ("encoder", "m.keras", lambda path, _, file: shutil.copy(file, path)),
    "attributes": (
        "network of attributes",
        "a.keras",
        lambda path, *_: save_tiny_attributes(path),
    ),
    "a table of attributes": ("table of attributes", "a.parquet", lambda path, *_: table(path)),
    "a report": ("report", "r.html", lambda path, *_: report(path)),
    "a recording": ("recording", "r.mp4", lambda path, *_: recording(path)),
}


@pytest.mark.parametrize("name", OURS)
def test_its_own_files_are_replaced_and_those_of_another_kind_are_not(
    name: str, tmp_path: Path, tiny: Encoder, tiny_file: Path
) -> None:
    if "Parquet" in name:
        pytest.importorskip("pyarrow")
    kind, file, write = OURS[name]
    path = tmp_path / file
    assert check_output(path, kind) == path
    write(path, tiny, tiny_file)
    assert check_output(path, kind) == path
    for other in {kind for kind, _, _ in OURS.values()} - {kind}:
        with pytest.raises(InputError, match=f"no {other} that face-encode wrote; --overwrite"):
            check_output(path, other)
        assert check_output(path, other, overwrite=True)
    with pytest.raises(InputError, match="is an input of this command"):
        check_output(path, kind, inputs=[tmp_path / "." / file])
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(InputError, match="is an input of this command"):
        check_output(tmp_path / "link", kind, inputs=[path])


def users_video(path: Path) -> None:
    recording(path)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"free") - 4])


def users_picture(path: Path) -> None:
    Image.fromarray(DRAWN).save(path)


def users_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()


def users_archive(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, numbers=DRAWN, settings=DRAWN)


def users_log(path: Path) -> None:
    path.write_text('{"level": "info", "event": "started"}\n')


FOREIGN: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "a film": ("recording", "film.mp4", users_video),
    "a picture": ("picture", "a.png", users_picture),
    "a database": ("gallery", "songs.sqlite", users_database),
    "an archive for embeddings": ("file of embeddings", "a.npz", users_archive),
    "an archive for a gallery": ("gallery", "a.npz", users_archive),
    "a page": ("report", "a.html", lambda path: path.write_text("<h1>Mine</h1>")),
    "a log for events": ("event file", "a.jsonl", users_log),
    "a text for events": ("event file", "a.txt", lambda path: path.write_text("Mine")),
    "an exported network": ("encoder", "a.onnx", lambda path: path.write_bytes(b"ab")),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_users_own_file_is_never_replaced_unasked(name: str, tmp_path: Path) -> None:
    kind, file, write = FOREIGN[name]
    write(tmp_path / file)
    with pytest.raises(InputError, match=f"no {kind} that face-encode wrote; --overwrite"):
        check_output(tmp_path / file, kind)
    assert check_output(tmp_path / file, kind, overwrite=True) == tmp_path / file


def test_an_empty_file_and_a_link_to_nothing_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("empty", "link"):
        assert check_output(tmp_path / name, "report")


@pytest.fixture
def folder(tmp_path: Path, tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery, a recording, a film, a page and a text of the user's own."""
    saved_gallery(tmp_path / "people.npz", tiny)
    recording(tmp_path / "in.mp4")
    users_video(tmp_path / "film.mp4")
    (tmp_path / "page.html").write_text("<h1>Mine</h1>")
    (tmp_path / "photos" / "Ada").mkdir(parents=True)
    Image.fromarray(DRAWN).save(tmp_path / "photos" / "Ada" / "a.png")
    (tmp_path / "pairs.csv").write_text("photo_a,photo_b,same\nAda/a.png,Ada/a.png,1\n")
    (tmp_path / "mine.keras").write_text("mine")
    database(tmp_path / "people.sqlite", tiny)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "file"),
    [
        ("watch in.mp4 --people people.npz --headless --output in.mp4", "in.mp4"),
        ("watch in.mp4 --people people.npz --headless --output film.mp4", "film.mp4"),
        ("watch in.mp4 --people people.npz --headless --events page.html", "page.html"),
        ("embed photos -o people.npz", "people.npz"),
        ("evaluate pairs --photos photos --pairs pairs.csv --report page.html", "page.html"),
        ("evaluate people photos photos --report page.html", "page.html"),
        ("evaluate people photos photos --contact-sheet photos/Ada/a.png", "photos/Ada/a.png"),
        ("check photos --report page.html", "page.html"),
        ("export people.sqlite -o people.sqlite", "people.sqlite"),
        ("train head photos -o mine.keras", "mine.keras"),
        ("train distill photos -o mine.keras", "mine.keras"),
        ("train quality photos -o mine.keras", "mine.keras"),
    ],
)
def test_no_command_replaces_what_is_not_its_own(
    words: str, file: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / file).read_bytes()
    assert cli.main(words.split()) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith(f"face-encode: {file}") and "--overwrite" in told
    assert (folder / file).read_bytes() == before


def test_asked_to_it_is_replaced(
    folder: Path, tiny_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["watch", "in.mp4", "--people", "people.npz", "--headless", "--output", "in.mp4"]
    words += ["--overwrite", "--model", str(tiny_file), "--detector", "haar"]
    assert cli.main(words) == 0
    assert b"face_encode" in (folder / "in.mp4").read_bytes()


def test_annotated_photos_are_numbered_past_a_users_own(
    folder: Path, tiny_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "out").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "out" / "a.png")
    mine = (folder / "out" / "a.png").read_bytes()
    words = ["match", "people.npz", "photos/Ada/a.png", "--annotate", "out"]
    words += ["--model", str(tiny_file)]
    for _ in range(2):  # its own drawing is replaced the second time
        assert cli.main(words) == 0
        assert sorted(path.name for path in (folder / "out").iterdir()) == ["a-2.png", "a.png"]
        assert (folder / "out" / "a.png").read_bytes() == mine
    assert cli.main([*words, "--overwrite"]) == 0
    with Image.open(io.BytesIO((folder / "out" / "a.png").read_bytes())) as drawn:
        assert drawn.info["Software"] == "face_encode"
