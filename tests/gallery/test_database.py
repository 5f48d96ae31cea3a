"""The gallery database: shared by programs, killed, copied, cut off, encrypted, undone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError, WrongEncoderError
from face_encode.gallery import database_file
from face_encode.gallery.audit import Author, replayed
from face_encode.gallery.base import PhotoDetails
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.encryption import KEY_VARIABLE
from face_encode.gallery.opening import open_gallery
from face_encode.types import Box
from tests.conftest import REPOSITORY
from tests.full_disk import full_disk
from tests.gallery.common import SIXTEEN, Identity, vectors

KEYS = ["ab" * 32, "cd" * 32]


def opened(folder: Path, **options: object) -> DatabaseGallery:
    return DatabaseGallery(folder / "people.sqlite", Identity(), **options)  # type: ignore[arg-type]


def filled(folder: Path) -> DatabaseGallery:
    gallery = opened(folder)
    gallery.add(["Ada", "Bo", "Ada"], vectors((1, 0), (0, 1), (3, 3)), ["a", "b", "c"])
    return gallery


def photos_of(gallery: DatabaseGallery) -> dict[str, set[int]]:
    people: dict[str, set[int]] = {}
    for photo in gallery.photos():
        people.setdefault(photo.name, set()).add(photo.id)
    return people


def assert_sound(gallery: DatabaseGallery) -> None:
    """The file is whole, the memory is what the file holds, and the audit led there."""
    with contextlib.closing(sqlite3.connect(gallery._file.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    photos = photos_of(gallery)
    assert replayed(gallery.changes()) == photos
    assert gallery.people() == {name: len(each) for name, each in photos.items()}
    with contextlib.closing(DatabaseGallery(gallery._file.path, SIZES[gallery._size])) as other:
        np.testing.assert_array_equal(other.embeddings, gallery.embeddings)
        assert other.names.tolist() == gallery.names.tolist()


SIZES = {2: Identity(), 16: SIXTEEN}


def test_a_change_is_seen_by_others_before_their_next_search(tmp_path: Path) -> None:
    one, other = filled(tmp_path), opened(tmp_path)
    assert other.search(vectors((0, 1)))[0][0].name == "Bo"
    one.remove("Bo")
    assert other.search(vectors((0, 1)))[0][0].name == "Ada"
    other.add(["Cy"], vectors((0, 2)), ["d"])
    assert one.search(vectors((0, 1)))[0][0].name == "Cy"
    one.rename("Cy", "Cyd")
    assert other.people() == {"Ada": 2, "Cyd": 1}
    assert_sound(other)


def test_names_that_differ_in_case_spacing_or_unicode_form_are_one_person(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    gallery.add(["Jos\u00e9"], vectors((1, 0)))
    gallery.add(
        ["Jose\u0301", "  JOS\u00c9 ", "Stra\u00dfe 1", "strasse  1"], vectors(*[(1, 1)] * 4)
    )
    assert gallery.people() == {"Jos\u00e9": 3, "Stra\u00dfe 1": 2}
    assert gallery.find_name("jose\u0301") == "Jos\u00e9"
    assert gallery.find_name("nobody") is None
    assert gallery.remove("Jose\u0301") == 3
    # A new form of the same name is how it is shown from then on.
    assert gallery.rename("strasse 1", "STRASSE 1") == 2
    assert gallery.people() == {"STRASSE 1": 2}
    assert_sound(gallery)


def test_photos_are_listed_with_what_is_known_of_them(tmp_path: Path) -> None:
    gallery = opened(tmp_path).signed(Author("door", "10.0.0.1"))
    details = [PhotoDetails("ada/1.jpg", Box(1, 2, 30, 40), 0.7, b"jpeg"), PhotoDetails()]
    gallery.add(["Ada", "Bo"], vectors((1, 0), (0, 1)), ["a", ""], details)
    first, second = gallery.photos()
    assert (first.id, first.name, first.source, first.quality) == (1, "Ada", "ada/1.jpg", 0.7)
    assert (first.box, first.digest, first.has_crop) == (Box(1, 2, 30, 40), "a", True)
    assert (second.source, second.quality, second.box, second.has_crop) == ("", None, None, False)
    assert first.enrolled_by == "door" and first.enrolled_at.endswith("+00:00")
    assert gallery.photos("ADA") == [first]
    assert (gallery.crop(1), gallery.crop(2)) == (b"jpeg", None)
    (change,) = gallery.changes()
    assert (change.author, change.action) == (Author("door", "10.0.0.1"), "enrol")
    gallery.set_note("ada", "of the night shift")
    assert (gallery.person("Ada").note, gallery.person("Bo").note) == ("of the night shift", "")


def test_what_is_enrolled_again_unchanged_stays_as_it_is(tmp_path: Path) -> None:
    gallery = filled(tmp_path)
    before = gallery.photos()
    new = vectors((1, 0), (0, 5), (3, 3), (7, 7))
    gallery.replace(["Ada", "Bo", "Ada", "Di"], new, ["a", "b", "c", "d"])
    after = {photo.digest: photo for photo in gallery.photos()}
    # Bo's has another embedding: it is a new photo.
    assert {photo.digest for photo in before if after[photo.digest] == photo} == {"a", "c"}
    assert after["b"].id > 3 and after["d"].id > 3
    changes = len(gallery.changes())
    gallery.replace(["Ada", "Bo", "Ada", "Di"], new, ["a", "b", "c", "d"])
    assert len(gallery.changes()) == changes
    assert_sound(gallery)


@pytest.mark.parametrize("key", ["", KEYS[0]])
def test_what_is_known_of_a_photo_follows_it_to_another_person(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv(KEY_VARIABLE, key)
    gallery = opened(tmp_path)
    face, other = vectors((1, 0), (0, 1))
    box = Box(1, 2, 30, 40)
    known = [PhotoDetails("Ada/1.jpg", box, 0.7, b"jpeg"), PhotoDetails("Bo/1.jpg", box, 0.8)]
    gallery.replace(["Ada", "Bo"], vectors((1, 0), (0, 1)), ["a", "b"], details=known)
    moved = [PhotoDetails("Cy/1.jpg"), PhotoDetails("Cy/2.jpg", quality=0.9), PhotoDetails()]
    # The first is Ada's, moved; then a photo of another face of hers, and one that Bo has, too.
    gallery.replace(
        ["Cy", "Cy", "Di", "Bo"],
        np.stack([face, other, other, other]),
        ["a", "a", "b", "b"],
        details=[*moved, PhotoDetails("Bo/1.jpg")],
    )
    photos = {(photo.name, photo.quality): photo for photo in gallery.photos()}
    assert list(photos) == [("Bo", 0.8), ("Cy", 0.7), ("Cy", 0.9), ("Di", 0.8)]
    assert [photo.box for photo in photos.values()] == [box, box, None, box]
    assert gallery.crop(photos["Cy", 0.7].id) == b"jpeg"
    assert [photo.has_crop for photo in photos.values()] == [False, True, False, False]
    assert photos["Cy", 0.7].source == "Cy/1.jpg"


@pytest.mark.parametrize("key", ["", KEYS[0]])
def test_a_photo_that_stays_gets_what_it_lacked_and_the_new_name_of_its_file(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv(KEY_VARIABLE, key)
    gallery = opened(tmp_path)
    steps = [
        (PhotoDetails("old.jpg"), ("old.jpg", None, None, False)),
        (PhotoDetails("new.jpg", Box(1, 2, 30, 40), 0.7, b"jpeg"), None),
        (PhotoDetails("", Box(5, 6, 7, 8), 0.8, b"other"), None),
    ]
    for details, expected in steps:
        gallery.replace(["Ada"], vectors((1, 0)), ["a"], details=[details])
        (photo,) = gallery.photos()
        found = photo.source, photo.box, photo.quality, photo.has_crop
        assert found == (expected or ("new.jpg", Box(1, 2, 30, 40), 0.7, True))
    assert (photo.id, gallery.crop(1)) == (1, b"jpeg")


def test_what_others_add_during_an_enrolment_stays(tmp_path: Path) -> None:
    gallery, other = filled(tmp_path), opened(tmp_path)
    mark = gallery.mark()
    other.add(["Eve"], vectors((5, 1)), ["e"])
    gallery.replace(["Bo"], vectors((0, 1)), ["b"], mark=mark)
    assert gallery.people() == {"Bo": 1, "Eve": 1}


def test_photos_are_moved_and_removed_and_people_merged(tmp_path: Path) -> None:
    gallery = filled(tmp_path)
    gallery.set_note("Bo", "tall")
    assert gallery.move_photos([3], "bo") == "Bo"
    assert gallery.people() == {"Ada": 1, "Bo": 2}
    assert gallery.move_photos([1], "Cy") == "Cy"
    assert gallery.people() == {"Cy": 1, "Bo": 2}
    assert gallery.merge("Bo", "Cy") == 3
    assert (gallery.people(), gallery.person("Cy").note) == ({"Cy": 3}, "tall")
    assert gallery.remove_photos([1, 2]) == {"Cy": [1, 2]}
    assert gallery.remove_photos([3]) == {"Cy": [3]}
    assert gallery.people() == {}
    assert_sound(gallery)
    gallery.add(["Ada", "Bo"], vectors((1, 0), (0, 1)))
    with pytest.raises(GalleryError, match="merge the two"):
        gallery.rename("Ada", "BO")
    with pytest.raises(GalleryError, match="are one person already"):
        gallery.merge("Ada", "ada")
    for numbers in ([1], [99, 4], []):
        with pytest.raises(GalleryError, match="no such photo"):
            gallery.remove_photos(numbers)
    with pytest.raises(InputError, match="a person's name"):
        gallery.move_photos([4], " ")
    assert photos_of(gallery) == {"Ada": {4}, "Bo": {5}}


def test_a_photo_is_shown_as_the_picture_as_long_as_it_is_the_persons(tmp_path: Path) -> None:
    gallery = filled(tmp_path)
    crops = [PhotoDetails(f"{name}.jpg", Box(1, 1, 2, 2), 0.5, name.encode()) for name in "xyz"]
    gallery.add(["Di"] * 3, vectors((9, 1), (9, 2), (9, 3)), list("xyz"), crops)
    first, second, third = sorted(photos_of(gallery)["Di"])
    assert gallery.person("Di").crop == first
    assert gallery.set_picture(second) == "Di"
    assert gallery.person("Di").crop == second
    gallery.move_photos([second], "Bo")
    assert (gallery.person("Di").crop, gallery.person("Bo").crop) == (first, second)
    gallery.undo()
    assert gallery.person("Di").crop == second
    gallery.remove_photos([second])
    assert gallery.person("Di").crop == first
    gallery.set_picture(third)
    with pytest.raises(GalleryError, match="no such photo"):
        gallery.set_picture(second)
    with pytest.raises(GalleryError, match="no crop of photo 1 is kept"):
        gallery.set_picture(1)
    assert gallery.person("Di").crop == third
    assert [change.action for change in gallery.changes()].count("picture") == 2


def test_each_change_can_be_undone_back_to_the_beginning(tmp_path: Path) -> None:
    gallery = filled(tmp_path)
    gallery.add(["Di"], vectors((9, 1)), ["d"], [PhotoDetails("d.jpg", Box(1, 1, 2, 2), 0.5, b"j")])
    states = [{}, {"Ada": {1, 3}, "Bo": {2}}]
    for step in (
        lambda: None,
        lambda: gallery.remove("Di"),
        lambda: gallery.rename("Bo", "Bob"),
        lambda: gallery.move_photos([1], "Eve"),
        lambda: gallery.merge("Ada", "Bob"),
        lambda: gallery.remove_photos([2]),
        lambda: gallery.replace(["Eve"], vectors((4, 4)), ["e"], "same people"),
    ):
        step()
        states.append(photos_of(gallery))
    embeddings = {photo.id: photo for photo in gallery.photos()}
    for state in states[-2::-1]:
        gallery.undo()
        assert photos_of(gallery) == state
        if any(4 in photos for photos in state.values()):
            assert gallery.crop(4) == b"j"
    assert embeddings and gallery.people() == {}
    assert_sound(gallery)
    with pytest.raises(GalleryError, match="no change to undo"):
        gallery.undo()


def test_what_cannot_be_undone_is_told_and_nothing_changes(tmp_path: Path) -> None:
    gallery = filled(tmp_path)
    gallery.remove("Bo")
    gallery.move_photos([1], "Cy")
    gallery.merge("Ada", "Cy")
    before = photos_of(gallery)
    for change, message in (
        (1, "changed since; undo the later changes first"),
        (77, "no change 77"),
    ):
        with pytest.raises(GalleryError, match=message):
            gallery.undo(change)
    assert photos_of(gallery) == before
    # Another program does not remember what this one has removed.
    with pytest.raises(GalleryError, match="the photos that it removed are gone"):
        opened(tmp_path).undo(2)
    assert gallery.undo(2).action == "remove"
    with pytest.raises(GalleryError, match="undone already"):
        gallery.undo(2)
    # An undoing is a change as well.
    gallery.undo(len(gallery.changes()))
    assert photos_of(gallery) == before
    gallery.undo(2)
    assert gallery.people()["Bo"] == 1
    assert_sound(gallery)


def test_forgetting_leaves_nothing_in_the_file(tmp_path: Path) -> None:
    gallery = opened(tmp_path)
    details = [PhotoDetails(source=f"folder of {name}", crop=name.encode()) for name in "XYZ"]
    gallery.add(["Xantippe", "Ysolde", "Zeno"], vectors((1, 0), (0, 1), (2, 2)), None, details)
    gallery.staging({"run": 1}).put([(b"x.jpg", b"of Xantippe")])
    gallery.rename("Xantippe", "Xenia")
    gallery.move_photos([3], "Xenia")
    secret = vectors((1, 0)).tobytes()
    gallery.calibration = None
    assert gallery.forget("xenia") == 2
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for trace in (b"Xantippe", b"Xenia", b"folder of X", b"of Xantippe", secret):
        assert trace not in content
    assert b"Ysolde" in content
    # Zeno was somebody of his own before.
    assert {name for change in gallery.changes() for name in change.removed} >= {"(forgotten)"}
    assert gallery.people() == {"Ysolde": 1}
    assert_sound(gallery)


@pytest.mark.parametrize("encrypted", [False, True])
def test_nothing_that_tells_of_people_is_readable_under_a_key(
    encrypted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if encrypted:
        monkeypatch.setenv(KEY_VARIABLE, KEYS[0])
    gallery = opened(tmp_path)
    embedding = vectors((123.25, 7))
    details = [PhotoDetails("holiday.jpg", Box(1, 2, 3, 4), 0.5, b"the crop")]
    gallery.add(["Xantippe"], embedding, ["d1ge5t"], details)
    gallery.set_note("Xantippe", "a note")
    gallery.staging({}).put([(b"staged.jpg", b"staged content")])
    gallery.rename("xantippe", "Xenia")
    gallery.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    traces = [b"Xantippe", b"Xenia", b"xenia", b"holiday", b"the crop", b"a note", b"d1ge5t"]
    for trace in (*traces, b"staged content", b"staged.jpg", embedding.tobytes()):
        assert (trace in content) == (not encrypted and trace != b"staged.jpg"), trace


def test_keys_are_rotated_and_a_plain_gallery_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = filled(tmp_path)
    gallery.staging({}).put([(b"photo", b"content")])
    gallery.close()
    for keys in (KEYS[:1], KEYS[::-1], KEYS[1:]):
        monkeypatch.setenv(KEY_VARIABLE, ",".join(keys))
        gallery = opened(tmp_path)
        assert gallery.people() == {"Ada": 2, "Bo": 1}
        assert gallery.find_name("bo") == "Bo"
        assert set(gallery.known_photos("", {"a", "x"})) == {"a"}
        assert gallery.staging({}).get(b"photo") == b"content"
        gallery.rekey()
        assert gallery.search(vectors((0, 1)))[0][0].name == "Bo"
        gallery.close()
    with contextlib.closing(opened(tmp_path)) as gallery:
        assert replayed(gallery.changes()) == photos_of(gallery)
    monkeypatch.setenv(KEY_VARIABLE, KEYS[0])
    with pytest.raises(GalleryError, match="none of the keys"):
        opened(tmp_path)
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(GalleryError, match=f"is encrypted: its key belongs in {KEY_VARIABLE}"):
        opened(tmp_path)
    with pytest.raises(GalleryError, match="there is no key"):
        opened_elsewhere(tmp_path).rekey()


def opened_elsewhere(folder: Path) -> DatabaseGallery:
    (folder / "other").mkdir()
    return opened(folder / "other")


def test_another_encoder_takes_its_place_only_by_embedding_again(tmp_path: Path) -> None:
    gallery = filled(tmp_path)
    other = Identity("two", "f2", 16)
    with pytest.raises(WrongEncoderError, match=r"'one' \(f1\).*'two' \(f2\)"):
        DatabaseGallery(tmp_path / "people.sqlite", other)
    rng = np.random.default_rng(0)
    new = {photo: rng.normal(size=16).astype(np.float32) for photo in (1, 3)}
    with pytest.raises(GalleryError, match="a photo was removed meanwhile"):
        gallery.reembed(other, {**new, 99: new[1]})
    changed = gallery.reembed(other, new)
    assert changed.people() == {"Ada": 2}
    np.testing.assert_array_equal(changed.embeddings, np.stack([new[1], new[3]]))
    assert replayed(changed.changes()) == {"Ada": {1, 3}}
    with pytest.raises(WrongEncoderError):
        opened(tmp_path)
    # Of nobody, it is anybody's.
    changed.remove("Ada")
    changed.close()
    assert len(opened(tmp_path)) == 0


def test_the_file_is_its_owners_and_nothing_lies_beside_it_at_rest(tmp_path: Path) -> None:
    gallery = filled(tmp_path)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    gallery.close()
    assert [path.name for path in tmp_path.iterdir()] == ["people.sqlite"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no database", "is not a gallery database, or damaged"),
        (b"", "nobody is enrolled yet"),
    ],
)
def test_what_is_no_gallery_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "people.sqlite"
    path.write_bytes(content)
    with pytest.raises(GalleryError, match=message):
        opened(tmp_path, create=False)
    assert path.read_bytes() == content


def test_other_programs_databases_and_later_releases_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "people.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
        connection.commit()
    with pytest.raises(GalleryError, match="database of another program"):
        opened(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 7")
    with pytest.raises(GalleryError, match="database of another program"):
        opened(tmp_path)
    path.unlink()
    filled(tmp_path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(GalleryError, match=r"a later release.*version 99"):
        opened(tmp_path)
    with pytest.raises(GalleryError, match="no such gallery"):
        open_gallery(tmp_path / "nothing.sqlite", encoder=Identity(), create=False)
    assert not (tmp_path / "nothing.sqlite").exists()
    with pytest.raises(GalleryError, match="cannot be read"):
        open_gallery(path / "people.sqlite", encoder=Identity())


def test_missing_folders_above_a_new_file_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "one" / "people.sqlite"
    with pytest.raises(GalleryError, match="no such gallery"):
        open_gallery(path, encoder=Identity(), create=False)
    assert not path.parent.exists()
    with contextlib.closing(open_gallery(path, encoder=Identity())) as gallery:
        gallery.add(["Ada"], vectors((1, 0)))
    assert path.is_file()
    # For their owner only, as other outputs.
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in path.parents[:2]} == {0o700}


def test_a_file_cut_off_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    gallery = DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN)
    rng = np.random.default_rng(0)
    names = [f"person {number % 20}" for number in range(200)]
    gallery.add(
        names, rng.normal(size=(200, 16)).astype(np.float32), [f"{n:064}" for n in range(200)]
    )
    people = gallery.people()
    gallery.close()
    whole = (tmp_path / "people.sqlite").read_bytes()
    for length in range(1_000, len(whole), 1_000):
        folder = tmp_path / str(length)
        folder.mkdir()
        (folder / "people.sqlite").write_bytes(whole[:length])
        with pytest.raises(GalleryError, match=r"people\.sqlite.*(damaged|not a gallery)"):
            DatabaseGallery(folder / "people.sqlite", SIXTEEN).people()
        shutil.rmtree(folder)
    with contextlib.closing(DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN)) as gallery:
        assert gallery.people() == people


def test_a_large_file_that_is_damaged_is_found_out_where_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_file, "_CHECKED_UP_TO_BYTES", 0)
    with contextlib.closing(filled(tmp_path)) as gallery:
        assert len(gallery) == 3
    path = tmp_path / "people.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GalleryError, match="damaged"):
        opened(tmp_path).people()
    for value in (vectors((np.inf, 1)).tobytes(), vectors((0, 0)).tobytes(), b"short"):
        path.write_bytes(whole)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE photo SET embedding = ? WHERE id = 2", [value])
            connection.commit()
        with pytest.raises(GalleryError, match=r"people\.sqlite is damaged: an embedding"):
            _ = opened(tmp_path).embeddings


@pytest.mark.parametrize("room", [0, 4_096, 40_000, 100_000])
def test_a_full_disk_is_told_and_what_was_there_stays(room: int, tmp_path: Path) -> None:
    gallery = DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN)
    rng = np.random.default_rng(0)
    gallery.add(["Ada"], rng.normal(size=(1, 16)).astype(np.float32))
    many = rng.normal(size=(5_000, 16)).astype(np.float32)
    with full_disk(room), pytest.raises(GalleryError, match=r"cannot use .*people\.sqlite"):
        gallery.add([f"person {number}" for number in range(5_000)], many)
    assert gallery.people() == {"Ada": 1}
    gallery.add(["Bo"], many[:1])
    assert_sound(gallery)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_can_be_searched_and_not_changed(tmp_path: Path) -> None:
    filled(tmp_path).close()
    (tmp_path / "people.sqlite").chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        gallery = opened(tmp_path, create=False)
        assert gallery.search(vectors((0, 1)))[0][0].name == "Bo"
        with pytest.raises(GalleryError, match="cannot use"):
            gallery.remove("Bo")
        assert gallery.people() == {"Ada": 2, "Bo": 1}
    finally:
        tmp_path.chmod(0o700)


def test_a_program_that_does_not_end_its_change_is_waited_for_and_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = filled(tmp_path)
    with contextlib.closing(
        sqlite3.connect(tmp_path / "people.sqlite", isolation_level=None, check_same_thread=False)
    ) as other:
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, lambda: other.execute("ROLLBACK")).start()
        gallery.rename("Bo", "Bob")
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(database_file, "BUSY_SECONDS", 0.1)
        with pytest.raises(GalleryError, match="another program is changing"):
            gallery.rename("Bob", "Bo")
        # Whoever reads never waits.
        assert gallery.people() == {"Ada": 2, "Bob": 1}
        other.execute("ROLLBACK")


def test_threads_share_one_gallery(tmp_path: Path) -> None:
    gallery = DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(8, 10, 16)).astype(np.float32)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mine = gallery.signed(Author(f"thread {number}"))
            for turn in range(10):
                mine.add([f"person {number}"], embeddings[number, turn : turn + 1])
                found = mine.search(embeddings[number, turn : turn + 1])[0][0]
                assert found.name == f"person {number}" and found.similarity > 0.999
            mine.rename(f"person {number}", f"somebody {number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert gallery.people() == {f"somebody {number}": 10 for number in range(8)}
    assert {change.author.name for change in gallery.changes()} == {f"thread {n}" for n in range(8)}
    assert_sound(gallery)


# Changes people at random until it is killed, and writes down each change that was acknowledged.
CHANGER = """
import json, random, sys
import numpy as np
from face_encode.errors import GalleryError
from face_encode.gallery.audit import Author
from face_encode.gallery.database import DatabaseGallery
from tests.gallery.common import SIXTEEN

path, log, number, seconds = sys.argv[1:]
gallery = DatabaseGallery(path, SIXTEEN, author=Author(number))
choose = random.Random(int(number))
rng = np.random.default_rng(int(number))
print("ready", flush=True)
with open(log, "a") as told:
    for turn in range(10**9):
        name, other = (f"person {choose.randrange(12)}" for _ in range(2))
        try:
            action = choose.choice(["enrol", "enrol", "enrol", "remove", "merge", "move", "undo"])
            if action == "enrol":
                count = choose.randrange(1, 40)
                gallery.replace([name] * count, rng.normal(size=(count, 16)).astype(np.float32),
                                [f"{number}-{turn}-{each}" for each in range(count)],
                                choose.choice(["nothing", "same people"]))
            elif action == "remove":
                gallery.remove(name)
            elif action == "merge":
                gallery.merge(name, other)
            elif action == "move":
                photo = choose.choice(gallery.photos(name))
                gallery.move_photos([photo.id], other)
            else:
                gallery.undo()
        except GalleryError as error:
            assert any(words in str(error) for words in (
                "nobody named", "one person already", "no such photo", "undo", "to undo"
            )), error
            continue
        mine = [change.id for change in gallery.changes(count=-200) if change.author.name == number]
        told.write(json.dumps(mine[-1:]) + "\\n")
        told.flush()
"""


def changer(path: Path, log: Path, number: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHANGER, str(path), str(log), str(number), "0"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def acknowledged(log: Path) -> set[int]:
    """The changes that a changer was told are done; the last line may be cut off."""
    lines = log.read_text().splitlines() if log.exists() else []
    found: set[int] = set()
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError):
            found.update(json.loads(line))
    return found


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="kills processes the POSIX way")
def test_killed_at_any_moment_every_acknowledged_change_is_there_and_no_half_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "people.sqlite"
    moments = random.Random(0)
    for kill in range(25):
        log = tmp_path / f"{kill}.log"
        process = changer(path, log, kill)
        time.sleep(moments.uniform(0, 0.4))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()
        with contextlib.closing(DatabaseGallery(path, SIXTEEN)) as gallery:
            assert_sound(gallery)
            assert acknowledged(log) <= {change.id for change in gallery.changes()}
    with contextlib.closing(DatabaseGallery(path, SIXTEEN)) as gallery:
        assert len(gallery.changes()) > 25


@pytest.mark.slow
def test_programs_that_change_one_gallery_at_once(tmp_path: Path) -> None:
    path = tmp_path / "people.sqlite"
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    processes = [changer(path, log, number) for number, log in enumerate(logs)]
    watcher = DatabaseGallery(path, SIXTEEN)
    probe = np.ones((1, 16), np.float32)
    deadline = time.monotonic() + 120
    # Each of them has got through some changes, while this one searched.
    while min(len(acknowledged(log)) for log in logs) < 20:
        assert time.monotonic() < deadline
        watcher.search(probe, k=20)
    for process in processes:
        process.kill()
        process.communicate()
    done = set.union(*map(acknowledged, logs))
    assert done <= {change.id for change in watcher.changes()}
    assert_sound(watcher)
