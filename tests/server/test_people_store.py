from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path

import pytest

from face_encode.errors import GalleryError
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import load_gallery
from face_encode.model import Face_Encode_Model
from face_encode.server.audit import AuditLog, Author
from face_encode.server.people import GalleryFile, PeopleStore, Remove, Rename

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


@pytest.fixture
def file(tmp_path: Path) -> SlowFile:
    return SlowFile(tmp_path / "people.npz")


@pytest.fixture
def store(fitted_model: Face_Encode_Model, tmp_path: Path, file: SlowFile) -> Iterator[PeopleStore]:
    model = copy.copy(fitted_model)
    model.gallery = fitted_model.gallery.copy()
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
