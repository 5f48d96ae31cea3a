"""Thresholds that people have of their own: kept with them, changed, told, taken along."""

from __future__ import annotations

import io
import json
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError, NotEnrolledError
from face_encode.gallery.audit import Author, ThresholdChange, replayed
from face_encode.gallery.base import Gallery
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.encryption import Cipher
from face_encode.gallery.export import export_parquet, export_person
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import open_gallery
from face_encode.gallery.people_rows import PeopleRows
from face_encode.model import Face_Encode_Model
from face_encode.pipeline.importing import import_people
from tests.conftest import EXAMPLES
from tests.gallery.common import SIXTEEN, like_faces


@pytest.fixture(params=["people.sqlite", "people.npz"])
def gallery(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gallery]:
    """Ada with two photos, Bo and Cleo with one."""
    gallery = open_gallery(tmp_path / request.param, encoder=SIXTEEN)
    gallery.add(["Ada", "Bo", "Ada", "Cleo"], like_faces(4), ["a", "b", "c", "d"])
    yield gallery
    gallery.close()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[DatabaseGallery]:
    with closing(DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN)) as database:
        database.add(["Ada", "Bo", "Ada"], like_faces(3))
        yield database


def test_a_person_may_have_a_threshold(gallery: Gallery, tmp_path: Path) -> None:
    assert gallery.thresholds == {}
    gallery.set_threshold("Ada", 0.95)
    gallery.set_threshold("Bo", 0)
    gallery.set_threshold("Cleo", -1)
    gallery.set_threshold("Cleo", None)
    gallery.rename("Bo", "Bob")
    assert gallery.thresholds == {"Ada": 0.95, "Bob": 0.0}
    # It is kept, also where everybody is enrolled anew.
    gallery.close()
    (path,) = tmp_path.glob("people.*")
    with closing(open_gallery(path, encoder=SIXTEEN)) as again:
        assert again.thresholds == again.rows().thresholds == {"Ada": 0.95, "Bob": 0.0}
        again.replace(["Ada"], like_faces(1), ["a"])
        assert again.thresholds == {"Ada": 0.95}
        # Somebody else of that name, later, has none.
        again.remove("Ada")
        again.add(["Ada"], like_faces(1))
        assert again.thresholds == {}


def test_other_values_and_people_are_refused(gallery: Gallery) -> None:
    for value in (1.01, -1.01, float("nan"), float("inf"), "0.9"):
        with pytest.raises(InputError, match=r"lies within -1\.\.1\. Received"):
            gallery.set_threshold("Ada", value)  # type: ignore[arg-type]
    with pytest.raises(NotEnrolledError, match="nobody named 'Dora'"):
        gallery.set_threshold("Dora", 0.9)
    assert gallery.thresholds == {}


def test_another_program_sees_it_and_it_is_told_and_undone(database: DatabaseGallery) -> None:
    with closing(DatabaseGallery(database.path, SIXTEEN)) as other:
        assert other.thresholds == {}
        signed = database.signed(Author("front desk"))
        signed.set_threshold("ada", 0.9)
        assert other.thresholds == {"Ada": 0.9}
        assert other.person("ada").threshold == 0.9
        signed.set_threshold("Ada", 0.8)
        number = signed.last_change
        # The same again is no change.
        signed.set_threshold("Ada", 0.8)
        assert signed.last_change is None
        told = other.changes()[-1]
        assert (told.id, told.author.name, told.action) == (number, "front desk", "threshold")
        assert told.threshold == ThresholdChange("Ada", 0.9, 0.8)
        assert told.as_dict()["threshold"] == {"name": "Ada", "former": 0.9, "new": 0.8}
        other.undo()
        assert database.thresholds == {"Ada": 0.9}
        other.undo(other.changes()[-1].id)
        assert database.thresholds == {"Ada": 0.8}
        signed.set_threshold("Ada", None)
        with pytest.raises(GalleryError, match="the threshold of 'Ada' has changed since"):
            database.undo(2)
        assert database.thresholds == {}


def test_who_stays_of_two_keeps_the_own_one(database: DatabaseGallery) -> None:
    database.set_threshold("Ada", 0.95)
    database.merge("Ada", into="Bo")
    assert database.thresholds == {}
    database.undo()
    database.set_threshold("Bo", 0.97)
    database.merge("Ada", into="Bo")
    assert database.thresholds == {"Bo": 0.97}


def test_who_is_forgotten_leaves_none(database: DatabaseGallery) -> None:
    database.set_threshold("Ada", 0.95)
    database.forget("Ada")
    assert database.thresholds == {}
    (told,) = (change for change in database.changes() if change.threshold)
    assert told.threshold == ThresholdChange("(forgotten)", None, 0.95)


def test_another_encoders_similarities_are_others(database: DatabaseGallery) -> None:
    from tests.gallery.common import Identity

    database.set_threshold("Ada", 0.95)
    other = Identity("two", "f2", 16)
    embeddings = like_faces(3, seed=5)
    photos = {photo: embeddings[photo - 1] for photo in (1, 2, 3)}
    with closing(database.reembed(other, photos)) as changed:
        assert changed.thresholds == {}
        assert changed.people() == {"Ada": 2, "Bo": 1}


def test_it_is_taken_along(database: DatabaseGallery, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    database.set_threshold("Ada", 0.95)
    database.set_threshold("Bo", 0.5)
    file = io.BytesIO()
    export_person(database, "Ada", file)
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read("person.json"))
    assert told["threshold"] == 0.95
    assert [change["threshold"] for change in told["audit"]] == [
        None,
        {"name": "Ada", "former": None, "new": 0.95},
    ]
    export_parquet(database, tmp_path / "people.parquet")
    MemoryGallery.from_rows(database.rows(), SIXTEEN).save(tmp_path / "people.npz")
    for source in ("people.parquet", "people.npz"):
        target = tmp_path / f"from-{source}.sqlite"
        with closing(DatabaseGallery(target, SIXTEEN)) as held:
            held.add(["ada"], like_faces(1, seed=3))
            held.set_threshold("ada", 0.99)
        import_people(tmp_path / source, target)
        with closing(DatabaseGallery(target, SIXTEEN)) as held:
            # The target's own goes before that of the source.
            assert held.thresholds == {"ada": 0.99, "Bo": 0.5}


def test_damaged_ones_are_refused(tmp_path: Path) -> None:
    gallery = MemoryGallery(SIXTEEN)
    gallery.add(["Ada"], like_faces(1))
    gallery.set_threshold("Ada", 0.5)
    gallery.save(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    for text in ('{"Bo": 0.5}', '{"Ada": 2.0}', '{"Ada": "x"}', '{"Ada": null}', "[]", "{", "3"):
        np.savez(tmp_path / "bad.npz", **{**arrays, "thresholds": np.array(text)})
        with pytest.raises(GalleryError, match=r"bad\.npz is damaged: .*threshold"):
            open_gallery(tmp_path / "bad.npz", encoder=SIXTEEN)


def test_a_database_of_before_gets_them(database: DatabaseGallery) -> None:
    database.close()
    with closing(sqlite3.connect(database.path)) as connection:
        (newest,) = connection.execute("PRAGMA user_version").fetchone()
        for column in ("threshold", "picture"):
            connection.execute(f"ALTER TABLE person DROP COLUMN {column}")
        connection.execute(f"PRAGMA user_version = {newest - 2}")
    with closing(DatabaseGallery(database.path, SIXTEEN)) as opened:
        assert opened.thresholds == {}
        opened.set_threshold("Ada", 0.9)
        assert opened.thresholds == {"Ada": 0.9}
        assert opened.people() == {"Ada": 2, "Bo": 1}


def test_an_encrypted_gallery_keeps_them(tmp_path: Path) -> None:
    cipher = Cipher([b"k" * 32])
    with closing(DatabaseGallery(tmp_path / "p.sqlite", SIXTEEN, cipher=cipher)) as gallery:
        gallery.add(["Ada"], like_faces(1))
        gallery.set_threshold("Ada", 0.9)
    with closing(DatabaseGallery(tmp_path / "p.sqlite", SIXTEEN, cipher=cipher)) as again:
        assert again.thresholds == {"Ada": 0.9}


def test_it_decides_who_is_named(fitted_model: Face_Encode_Model, tmp_path: Path) -> None:
    from face_encode.photos.reading import read_image

    ada = read_image(EXAMPLES / "ada_mirova.jpg")
    fitted_model.save_gallery(tmp_path / "people.npz")
    model = Face_Encode_Model(fitted_model.encoder)
    model.load_gallery(tmp_path / "people.npz")
    (before,) = model.match_image(ada)
    assert before["is_match"] and "threshold" not in before
    assert model.threshold_of("Ada_Mirova") == model.threshold
    for value, is_match in ((0.999, False), (before["similarity"], True), (None, True)):
        model.gallery.set_threshold("Ada_Mirova", value)
        (face,) = model.match_image(ada)
        assert (face["name"], face["is_match"]) == ("Ada_Mirova", is_match)
        assert face.get("threshold") == value
    # Before what holds for everybody, also where that was set.
    model.threshold = 1.0
    model.gallery.set_threshold("Ada_Mirova", 0.5)
    assert model.match_image(ada)[0]["is_match"]
    assert model.threshold_of("Bruno_Castell") == 1.0
    model.save_gallery(tmp_path / "people.sqlite")
    model.load_gallery(tmp_path / "people.sqlite")
    assert model.gallery.thresholds == {"Ada_Mirova": 0.5}


def test_a_gallery_saved_over_another_brings_its_own(
    fitted_model: Face_Encode_Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "people.sqlite"
    fitted_model.save_gallery(path)
    with closing(DatabaseGallery(path, fitted_model.encoder)) as gallery:
        gallery.set_threshold("Bruno_Castell", 0.2)
    fitted_model.save_gallery(tmp_path / "people.npz")
    model = Face_Encode_Model(fitted_model.encoder)
    model.load_gallery(tmp_path / "people.npz")
    model.gallery.remove("Elin_Sorrel")
    model.gallery.set_threshold("Ada_Mirova", 0.99)
    # In one step: where the thresholds cannot be written, nothing is.
    with monkeypatch.context() as patch:
        patch.setattr(PeopleRows, "set_threshold", refusing)
        with pytest.raises(GalleryError, match="no space"):
            model.save_gallery(path)
    with closing(DatabaseGallery(path, fitted_model.encoder)) as gallery:
        assert gallery.thresholds == {"Bruno_Castell": 0.2}
        assert "Elin_Sorrel" in gallery.people()
    model.save_gallery(path)
    with closing(DatabaseGallery(path, fitted_model.encoder)) as gallery:
        assert gallery.thresholds == {"Ada_Mirova": 0.99}
        assert gallery.people() == model.gallery.people()


def test_a_gallery_saved_over_another_is_undone_step_by_step(
    fitted_model: Face_Encode_Model, tmp_path: Path
) -> None:
    encoder = fitted_model.encoder
    rows = np.eye(2, encoder.embedding_size, dtype=np.float32)
    model = Face_Encode_Model(encoder)
    model.gallery.add(["Old", "New"], rows, ["a", "b"])
    model.gallery.set_threshold("New", 0.9)
    model.gallery.set_threshold("Old", 0.8)
    with closing(DatabaseGallery(tmp_path / "people.sqlite", encoder)) as gallery:
        gallery.add(["Old"], rows[:1], ["a"])
    model.save_gallery(tmp_path / "people.sqlite")
    with closing(DatabaseGallery(tmp_path / "people.sqlite", encoder)) as gallery:
        assert gallery.thresholds == {"New": 0.9, "Old": 0.8}
        for people, thresholds in (({"Old": 1}, {"Old": 0.8}), ({"Old": 1}, {}), ({}, {})):
            gallery.undo()
            assert (gallery.people(), gallery.thresholds) == (people, thresholds)
            counted = {name: len(photos) for name, photos in replayed(gallery.changes()).items()}
            assert counted == people
        with pytest.raises(GalleryError, match="no change to undo"):
            gallery.undo()


def refusing(*arguments: object) -> NoReturn:
    raise GalleryError("no space left on device")
