"""What leaves a gallery database."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from face_encode.errors import GalleryError
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.export import (
    export_crops,
    export_parquet,
    export_person,
    folder_name,
    read_people_parquet,
)
from face_encode.types import Box
from tests.gallery.calibrations import BY_HAND
from tests.gallery.common import SIXTEEN, like_faces


@pytest.fixture
def gallery(tmp_path: Path) -> DatabaseGallery:
    """Ada has two photos, one with a crop; Bo one, without anything known of it."""
    gallery = DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN)
    details = [PhotoDetails("a.jpg", Box(1, 2, 3, 4), 0.5, b"jpeg"), PhotoDetails(), PhotoDetails()]
    gallery.add(["Ada", "Bo", "Ada"], like_faces(3), ["a", "b", "c"], details)
    return gallery


def test_a_persons_whole_data_and_nobody_elses(gallery: DatabaseGallery) -> None:
    gallery.rename("Ada", "Ada Lovelace")
    gallery.set_note("Ada Lovelace", "met in March")
    gallery.move_photos([2], "Ada Lovelace")
    gallery.move_photos([2], "Bo")
    file = io.BytesIO()
    assert export_person(gallery, "ada  lovelace", file) == 2
    with zipfile.ZipFile(file) as archive:
        assert archive.namelist() == ["person.json", "embeddings.npy", "crops/1.jpg"]
        assert archive.read("crops/1.jpg") == b"jpeg"
        told = json.loads(archive.read("person.json"))
        with archive.open("embeddings.npy") as opened:
            np.testing.assert_array_equal(np.load(opened), like_faces(3)[[0, 2]])
        assert b"Bo" not in archive.read("person.json")
    assert (told["name"], told["note"], told["encoder"]) == ("Ada Lovelace", "met in March", "one")
    first, second = told["photos"]
    assert (first["id"], first["source"], first["quality"]) == (1, "a.jpg", 0.5)
    assert first["box"] == {"x": 1, "y": 2, "width": 3, "height": 4}
    assert second["box"] is None and not second["has_crop"]
    audit = [(row["action"], row["removed"], row["added"], row["renamed"]) for row in told["audit"]]
    assert audit == [
        ("enrol", {}, {"Ada": [1, 3]}, None),
        ("rename", {}, {}, ["Ada", "Ada Lovelace"]),
        ("move", {}, {"Ada Lovelace": [2]}, None),
        ("move", {"Ada Lovelace": [2]}, {}, None),
    ]


def test_what_was_said_of_somebody_else_who_has_the_former_name_stays_out(
    gallery: DatabaseGallery,
) -> None:
    gallery.rename("Ada", "Grace")
    gallery.add(["Ada"], like_faces(1, seed=1))
    file = io.BytesIO()
    export_person(gallery, "Grace", file)
    with zipfile.ZipFile(file) as archive:
        told = json.loads(archive.read("person.json"))
    assert [row["action"] for row in told["audit"]] == ["rename"]


def test_crops_in_a_folder_a_person(
    gallery: DatabaseGallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.rename("Ada", "AC/DC 100%")
    written, without = export_crops(gallery, tmp_path / "out")
    assert written == 1
    assert [(photo.id, photo.name) for photo in without] == [(2, "Bo"), (3, "AC/DC 100%")]
    (crop,) = (tmp_path / "out").glob("*/*")
    assert crop.read_bytes() == b"jpeg"
    assert unquote(crop.parent.name) == "AC/DC 100%"
    with pytest.raises(GalleryError, match="not empty"):
        export_crops(gallery, tmp_path / "out")
    gallery.add(["Zoe"], like_faces(1, seed=1), ["d"], [PhotoDetails(crop=b"jpeg")])
    named = {"AC/DC 100%": "AC", "Zoe": "z" * 300}
    monkeypatch.setattr("face_encode.gallery.export.folder_name", named.__getitem__)
    with pytest.raises(GalleryError, match="cannot write to "):
        export_crops(gallery, tmp_path / "half")
    assert list((tmp_path / "half").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["José", ".hidden", "..", "a/b\\c:d*?", "%41", "王 小明", "O'Brien"]
)
def test_any_name_is_a_folders_name(name: str, tmp_path: Path) -> None:
    folder = folder_name(name)
    assert unquote(folder) == name
    assert not set('/\\:*?"<>|') & set(folder) and not folder.startswith(".")
    (tmp_path / folder).mkdir()


def test_parquet_and_back(gallery: DatabaseGallery, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    gallery.calibration = BY_HAND
    path = tmp_path / "people.parquet"
    assert export_parquet(gallery, path) == 3
    read = read_people_parquet(path)
    assert read is not None
    rows, encoder, details = read
    assert (encoder.name, encoder.fingerprint, encoder.embedding_size) == ("one", "f1", 16)
    assert rows.names.tolist() == ["Ada", "Bo", "Ada"]
    np.testing.assert_array_equal(rows.embeddings, like_faces(3))
    assert rows.digests.tolist() == ["a", "b", "c"]
    assert rows.calibration == BY_HAND
    assert (details[0].source, details[0].box, details[0].quality) == (
        "a.jpg",
        Box(1, 2, 3, 4),
        0.5,
    )
    assert (details[1].source, details[1].box, details[1].quality) == ("", None, None)


def test_another_parquet_file_and_a_damaged_one(gallery: DatabaseGallery, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"name": ["Ada"]}), tmp_path / "other.parquet")
    assert read_people_parquet(tmp_path / "other.parquet") is None
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(GalleryError, match=r"broken\.parquet cannot be read"):
        read_people_parquet(tmp_path / "broken.parquet")
    with pytest.raises(GalleryError, match="no such file"):
        read_people_parquet(tmp_path / "none.parquet")
    export_parquet(gallery, tmp_path / "people.parquet")
    content = bytearray((tmp_path / "people.parquet").read_bytes())
    content[content.index(like_faces(3)[0].tobytes())] ^= 1
    (tmp_path / "people.parquet").write_bytes(content)
    with pytest.raises(GalleryError, match=r"people\.parquet cannot be read: .*(CRC|checksum)"):
        read_people_parquet(tmp_path / "people.parquet")


def test_a_copy_is_whole_and_another_file(gallery: DatabaseGallery, tmp_path: Path) -> None:
    gallery.set_note("Ada", "met in March")
    gallery.copy_to(tmp_path / "copy.sqlite")
    gallery.remove("Bo")
    copied = DatabaseGallery(tmp_path / "copy.sqlite")
    assert copied.people() == {"Ada": 2, "Bo": 1}
    assert copied.person("Ada").note == "met in March"
    assert copied.crop(1) == b"jpeg"
    assert [change.action for change in copied.changes()] == ["enrol", "note"]
    with pytest.raises(GalleryError, match="which exists"):
        gallery.copy_to(tmp_path / "copy.sqlite")
