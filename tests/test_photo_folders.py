"""Walking folders of photos; what is broken or odd is in ``tests/broken_inputs``."""

from __future__ import annotations

from pathlib import Path

import pytest

from face_encode.errors import DatasetError
from face_encode.photos.folders import PHOTO_SUFFIXES, people_in, photos_below, photos_in


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
