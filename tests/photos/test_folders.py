"""Walking folders of photos; what is broken or odd is in ``tests/broken_inputs``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import DatasetError, EmbeddingFileError, InputError
from face_encode.photos.folders import (
    PHOTO_SUFFIXES,
    Location,
    is_address,
    list_people,
    list_photos,
    location_of,
    people_in,
    photos_below,
    photos_by_label,
    photos_in,
)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_photos_are_listed_by_suffix_and_sorted(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.webp", "c.heic", "notes.txt", "raw", ".hidden.jpg", "sub/d.jpg")
    (tmp_path / "folder.jpg").mkdir()
    assert [path.name for path in photos_in(tmp_path)] == ["a.webp", "b.JPG", "c.heic"]


@pytest.mark.parametrize("suffix", sorted(PHOTO_SUFFIXES))
def test_each_suffix_is_taken(suffix: str, tmp_path: Path) -> None:
    touch(tmp_path, f"a{suffix}", f"b{suffix.upper()}")
    assert len(photos_in(tmp_path)) == 2


def test_people_are_sub_folders(tmp_path: Path) -> None:
    touch(tmp_path, "Bo/2.jpg", "Bo/1.jpg", "Ada/1.png", "Cy/notes.txt", ".git/a.jpg", "loose.jpg")
    people = people_in(str(tmp_path))
    assert {name: [path.name for path in photos] for name, photos in people.items()} == {
        "Ada": ["1.png"],
        "Bo": ["1.jpg", "2.jpg"],
        "Cy": [],
    }
    assert list(people) == ["Ada", "Bo", "Cy"]


def test_no_people_and_no_photos_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected one sub-folder a person"):
        people_in(tmp_path)
    (tmp_path / "Ada").mkdir()
    with pytest.raises(DatasetError, match=r"no photo in any of its 1 sub-folders.*\.jpg"):
        people_in(tmp_path)


def test_photos_below_are_told_by_their_way_from_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "day 2/x/a.PNG", "day 1/c.webp", "day 1/notes.txt", ".git/a.jpg")
    touch(tmp_path, "day 1/.hidden.jpg")
    (tmp_path / "again").symlink_to(tmp_path / "day 1")
    assert photos_below(tmp_path) == (["b.jpg", "day 1/c.webp", "day 2/x/a.PNG"], [])


def test_photos_in_folders_of_a_person_are_that_persons(tmp_path: Path) -> None:
    touch(tmp_path, "Ada/1.jpg", "Ada/2023/06/2.jpg", "Ada/2023/x.txt", "Bo/a/1.png", "loose.jpg")
    (tmp_path / "Bo" / "raw").write_bytes(b"\xff\xd8\xff\xe0 of a JPEG")
    (tmp_path / "Bo" / "again").symlink_to(tmp_path / "Ada")
    listed = list_people(tmp_path)
    assert listed.people == {
        "Ada": [tmp_path / "Ada/1.jpg", tmp_path / "Ada/2023/06/2.jpg"],
        "Bo": [tmp_path / "Bo/a/1.png", tmp_path / "Bo/raw"],
    }
    assert [(Path(row.photo).name, row.name) for row in listed.left_out] == [
        ("again", "Bo"),
        ("loose.jpg", ""),
    ]
    assert listed.others == 1
    assert people_in(tmp_path) == listed.people


WALL = np.full((4, 4, 3), 90, np.uint8)


def test_photos_are_gathered_in_the_order_given() -> None:
    pairs: list[Any] = [("Bo", "1.jpg"), ["Ada", b"2"], ("Bo", WALL)]
    gathered = photos_by_label(iter(pairs))
    assert list(gathered) == ["Bo", "Ada"]
    assert gathered["Bo"][0] == "1.jpg"
    assert gathered["Bo"][1] is WALL
    assert gathered["Ada"] == [b"2"]
    assert photos_by_label([]) == {}


@pytest.mark.parametrize(
    ("photos", "told"),
    [
        (7, r"pairs \(label, photo\)\. Received: int"),
        ("ada.jpg", r"pairs \(label, photo\)\. Received: str"),
        (WALL, r"pairs \(label, photo\)\. Received: ndarray"),
        ([("Ada",)], r"pairs \(label, photo\)\. Received: tuple in it"),
        (["ada.jpg"], r"pairs \(label, photo\)\. Received: str in it"),
        ([(1, WALL)], r"a label is text\. Received: 1"),
    ],
)
def test_what_are_no_labelled_photos_is_refused(photos: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        photos_by_label(photos)


pytest.importorskip("pyarrow")


def test_a_path_an_address_and_what_is_shown_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        location_of("photos")
        == location_of(Path("photos"))
        == Location("", str(tmp_path / "photos"))
    )
    assert location_of(f"file://{tmp_path}/photos") == location_of("photos")
    remote = location_of("s3://KEY:SECRET@bucket/a/b.parquet/?region=us-east-1")
    assert (remote.path, remote.suffix, remote.is_local) == (
        "bucket/a/b.parquet",
        ".parquet",
        False,
    )
    assert str(remote) == "s3://bucket/a/b.parquet"
    assert str(remote.below("c")) == "s3://bucket/a/b.parquet/c"
    assert str(remote.with_ending(".unfinished")) == "s3://bucket/a/b.parquet.unfinished"
    assert is_address("s3://bucket") and not is_address("photos") and not is_address(tmp_path)


@pytest.mark.parametrize("address", ["nothing://x/y", "s3://", "s3://a\0b", "https://x.org/y", ""])
def test_what_is_no_place_is_refused(address: str) -> None:
    with pytest.raises(InputError):
        location_of(address)


def test_files_are_written_whole_read_and_deleted(tmp_path: Path) -> None:
    folder = location_of(tmp_path / "new")
    assert (folder.kind(), folder.names()) == ("nothing", [])
    for name in ("b", "a"):
        with folder.below(name).writing(EmbeddingFileError) as file:
            file.write(name.encode())
    assert (folder.kind(), folder.names()) == ("folder", ["a", "b"])
    with pytest.raises(RuntimeError), folder.below("a").writing(EmbeddingFileError) as file:
        file.write(b"half")
        raise RuntimeError
    assert folder.below("a").read(9) == b"a"
    folder.below("a").delete()
    folder.below("a").delete()
    assert folder.names() == ["b"]
    folder.delete()
    assert folder.kind() == "nothing"


def test_photos_of_a_folder_with_their_states(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/1.PNG", "a.webp", ".hidden/x.jpg", "b/.y.jpg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    os.utime(tmp_path / "a.webp", ns=(5, 7))
    listing = list_photos(location_of(tmp_path))
    assert listing.names == ["a.webp", "b/1.PNG", "b/2.jpg", "gone.jpg"]
    assert listing.states[[0, -1]].tolist() == [[6, 7], [-1, -1]]
    with pytest.raises(DatasetError, match="no such folder"):
        list_photos(location_of(tmp_path / "none"))


def test_a_store_lists_the_same_photos_as_a_folder(bucket: str, tmp_path: Path) -> None:
    names = ["a.webp", "b/1.PNG", "b/2.jpg"]
    others = [".hidden/x.jpg", "b/.y.jpg", "notes.txt"]
    top = location_of(bucket.format("listed"))
    for name in (*names, *others):
        with top.below(name).writing(EmbeddingFileError) as file:
            file.write(name.encode())
    listing = list_photos(top)
    assert listing.names == names
    assert [size for size, _ in listing.states] == [len(name) for name in names]
    assert all(changed > 0 for _, changed in listing.states)
    # What breaks off while it is written is not there.
    with pytest.raises(RuntimeError), top.below("half").writing(EmbeddingFileError) as file:
        file.write(b"half")
        raise RuntimeError
    assert "half" not in top.names()
    with pytest.raises(DatasetError, match="no such folder"):
        list_photos(location_of(bucket.format("none")))
    with pytest.raises(DatasetError, match="a file, not a folder"):
        list_photos(top.below("a.webp"))
    nowhere = Location(top.address, "nobody/x")
    told = pytest.raises(EmbeddingFileError, match="cannot write s3://nobody/x")
    with told, nowhere.writing(EmbeddingFileError) as file:
        file.write(b"x")
