from __future__ import annotations

import copy
import io
import json
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode.encoders.encoder import Encoder
from face_encode.errors import GalleryError
from face_encode.gallery.encryption import Cipher, is_encrypted
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import load_gallery
from face_encode.model import Face_Encode_Model
from face_encode.server.audit import AuditLog, Author
from face_encode.server.people import CropFolder, GalleryFile, PeopleStore, Remove, Rename
from face_encode.types import ImageArray

pytest.importorskip("cryptography")

SOMEBODY = Author("front-desk", "10.0.0.7")


class SlowFile(GalleryFile):
    """A gallery file on a slow disk: a write waits until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writing, self.go = threading.Event(), threading.Event()
        self.writes = 0

    def write(self, gallery: MemoryGallery) -> None:
        self.writing.set()
        assert self.go.wait(120)
        self.writes += 1
        super().write(gallery)


def in_memory(model: Face_Encode_Model) -> MemoryGallery:
    """The enrolled people in a gallery of their own."""
    return MemoryGallery.from_rows(model.gallery.rows(), model.encoder)


@pytest.fixture
def file(tmp_path: Path) -> SlowFile:
    return SlowFile(tmp_path / "people.npz")


@pytest.fixture
def store(fitted_model: Face_Encode_Model, tmp_path: Path, file: SlowFile) -> Iterator[PeopleStore]:
    model = copy.copy(fitted_model)
    model.gallery = in_memory(fitted_model)
    audit = AuditLog(tmp_path / "audit.jsonl")
    store = PeopleStore(model, file, audit)
    yield store
    file.go.set()
    store.close()
    audit.close()


def test_nothing_is_answered_or_seen_before_it_is_saved(store: PeopleStore, file: SlowFile) -> None:
    before = store.people
    change = store.submit(Remove("Teo_Varga"), SOMEBODY)
    assert file.writing.wait(60)
    assert not change.done()
    assert store.people is before and "Teo_Varga" in store.people.photos
    file.go.set()
    assert change.result(60) == 4
    assert "Teo_Varga" not in store.people.photos
    # Who reads on keeps seeing one moment.
    assert "Teo_Varga" in before.photos and before.model.gallery.people() == before.photos


def test_changes_that_come_at_once_are_saved_together(
    store: PeopleStore, file: SlowFile, tmp_path: Path, fitted_model: Face_Encode_Model
) -> None:
    first = store.submit(Rename("Teo_Varga", "Teo"), SOMEBODY)
    assert file.writing.wait(60)
    others = [store.submit(Rename("Teo", "T"), SOMEBODY), store.submit(Remove("T"), SOMEBODY)]
    missing = store.submit(Remove("Nobody"), SOMEBODY)
    others.append(store.submit(Rename("Mei_Oshara", "Mei"), SOMEBODY))
    file.go.set()
    wait([first, missing, *others], 60)
    assert [change.result() for change in (first, *others)] == [4, 4, 4, 4]
    with pytest.raises(GalleryError, match="nobody named 'Nobody'"):
        missing.result()
    assert file.writes == 2
    saved = load_gallery(file.path, fitted_model.encoder)
    assert sorted(saved.people()) == [
        "Ada_Mirova",
        "Bruno_Castell",
        "Dario_Okonma",
        "Elin_Sorrel",
        "Mei",
    ]
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["rename", "rename", "remove", "rename"]
    assert {(line["token"], line["address"]) for line in lines} == {("front-desk", "10.0.0.7")}


def test_what_was_asked_for_is_saved_before_the_end(store: PeopleStore, file: SlowFile) -> None:
    change = store.submit(Remove("Teo_Varga"), SOMEBODY)
    file.go.set()
    store.close()
    assert change.result(0) == 4


@pytest.fixture
def cipher() -> Cipher:
    return Cipher([secrets.token_bytes(32)])


def test_where_there_is_no_file_nobody_is_enrolled(tmp_path: Path, encoder: Encoder) -> None:
    assert len(GalleryFile(tmp_path / "new.npz").read(encoder)) == 0
    assert not (tmp_path / "new.npz").exists()


@pytest.mark.parametrize("encrypted", [False, True])
def test_what_was_written_is_read(
    encrypted: bool, tmp_path: Path, cipher: Cipher, fitted_model: Face_Encode_Model
) -> None:
    file = GalleryFile(tmp_path / "people.npz", cipher if encrypted else None)
    file.write(in_memory(fitted_model))
    assert file.read(fitted_model.encoder).people() == fitted_model.gallery.people()
    assert is_encrypted((tmp_path / "people.npz").read_bytes()) == encrypted
    assert len(list(tmp_path.iterdir())) == 1


def test_a_plain_file_is_encrypted_as_soon_as_there_is_a_key(
    tmp_path: Path, cipher: Cipher, fitted_model: Face_Encode_Model
) -> None:
    path, encoder = tmp_path / "people.npz", fitted_model.encoder
    GalleryFile(path).write(in_memory(fitted_model))
    assert len(GalleryFile(path, cipher).read(encoder)) == len(fitted_model.gallery)
    assert is_encrypted(path.read_bytes())
    assert len(GalleryFile(path, cipher).read(encoder)) == len(fitted_model.gallery)
    with pytest.raises(GalleryError, match="FACE_ENCODE_GALLERY_KEY"):
        GalleryFile(path).read(encoder)


def test_a_new_key_takes_over_at_the_next_start(
    tmp_path: Path, fitted_model: Face_Encode_Model
) -> None:
    path, encoder = tmp_path / "people.npz", fitted_model.encoder
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    GalleryFile(path, Cipher([old])).write(in_memory(fitted_model))
    GalleryFile(path, Cipher([new, old])).read(encoder)
    assert len(GalleryFile(path, Cipher([new])).read(encoder)) == len(fitted_model.gallery)
    with pytest.raises(GalleryError, match="none of the keys"):
        GalleryFile(path, Cipher([old])).read(encoder)


def test_a_damaged_file_is_reported(tmp_path: Path, cipher: Cipher, encoder: Encoder) -> None:
    path = tmp_path / "people.npz"
    for content in (b"", b"nonsense", cipher.encrypt(b"nonsense"), cipher.encrypt(b"")[:-1]):
        path.write_bytes(content)
        with pytest.raises(GalleryError, match=r"people\.npz"):
            GalleryFile(path, cipher).read(encoder)


def test_another_place_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match=r"ends in \.npz"):
        GalleryFile(tmp_path / "people.db")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(GalleryError, match="a folder"):
        GalleryFile(tmp_path / "folder.npz")


def test_a_gallery_of_the_command_line_is_served(
    tmp_path: Path, fitted_model: Face_Encode_Model
) -> None:
    fitted_model.save_gallery(tmp_path / "people.npz")
    gallery = GalleryFile(tmp_path / "people.npz").read(fitted_model.encoder)
    assert isinstance(gallery, MemoryGallery)
    assert gallery.people() == fitted_model.gallery.people()


@pytest.fixture
def crop() -> ImageArray:
    return np.full((150, 150, 3), (200, 40, 40), np.uint8)


def test_a_crop_is_kept_renamed_and_forgotten(tmp_path: Path, crop: ImageArray) -> None:
    crops = CropFolder(tmp_path / "crops")
    assert crops.read("../Zoe") is None and not crops.has("../Zoe")
    crops.keep("../Zoe", crop)
    content = crops.read("../Zoe")
    assert content is not None
    picture = np.asarray(Image.open(io.BytesIO(content)))
    assert picture.shape == (96, 96, 3)
    assert np.abs(picture.mean((0, 1)) - (200, 40, 40)).max() < 4
    crops.rename("../Zoe", "Zoe")
    assert crops.read("Zoe") == content and not crops.has("../Zoe")
    crops.forget("Zoe")
    crops.forget("Zoe")
    assert list((tmp_path / "crops").iterdir()) == []
    assert list(tmp_path.iterdir()) == [tmp_path / "crops"]  # no name became a path


def test_what_a_crash_left_behind_goes(tmp_path: Path, crop: ImageArray) -> None:
    crops = CropFolder(tmp_path)
    crops.tidy(["A"])
    for name in "ABC":
        crops.keep(name, crop)
    (tmp_path / ".half-1234.jpg").write_bytes(b"half")
    crops.tidy(["A", "C"])
    assert [crops.has(name) for name in "ABC"] == [True, False, True]
    assert len(list(tmp_path.iterdir())) == 2


def test_crops_are_encrypted_under_the_first_key(tmp_path: Path, crop: ImageArray) -> None:
    CropFolder(tmp_path).keep("A", crop)
    plain = CropFolder(tmp_path).read("A")
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    for keys in ([old], [new, old], [new]):
        crops = CropFolder(tmp_path, Cipher(keys))
        crops.tidy(["A"])
        assert crops.read("A") == plain
        assert all(is_encrypted(path.read_bytes()) for path in tmp_path.iterdir())
    assert CropFolder(tmp_path, Cipher([old])).read("A") is None
    assert CropFolder(tmp_path).read("A") is None
