"""The indices beside a gallery database, and opening one without its encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError
from face_encode.gallery.database import DatabaseGallery
from face_encode.gallery.encryption import Cipher
from face_encode.gallery.opening import open_gallery
from face_encode.types import Match
from tests.gallery.common import SIXTEEN, like_faces

COUNT = 400
NAMES = [f"person {number % 50}" for number in range(COUNT)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    gallery = DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN)
    gallery.add(NAMES, like_faces(COUNT), [f"{number:064}" for number in range(COUNT)])
    gallery.close()
    return tmp_path / "people.sqlite"


def beside(path: Path, ending: str) -> list[str]:
    return sorted(each.name for each in path.parent.glob(f"*{ending}"))


def search(gallery: DatabaseGallery, count: int = 40) -> list[list[Match]]:
    return gallery.search(like_faces(count, seed=1), k=3)


def assert_same(found: Sequence[list[Match]], expected: Sequence[list[Match]]) -> None:
    assert [[match.name for match in each] for each in found] == [
        [match.name for match in each] for each in expected
    ]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose([m.similarity for m in one], [m.similarity for m in other])


def test_codes_lie_beside_the_file_and_find_the_same_people(path: Path) -> None:
    gallery = DatabaseGallery(path, SIXTEEN)
    exact = search(gallery)
    gallery.build_index()
    assert gallery.snapshot().enrolled.coded is not None
    assert_same(search(gallery), exact)
    (name,) = beside(path, ".codes")
    state = (path.parent / name).stat()
    # The next program uses them, as they are.
    again = DatabaseGallery(path)
    assert_same(search(again), exact)
    assert again.snapshot().enrolled.coded is not None
    assert (path.parent / name).stat().st_mtime_ns == state.st_mtime_ns


def test_codes_follow_each_change_and_are_made_again_when_stale(path: Path) -> None:
    gallery = DatabaseGallery(path, SIXTEEN)
    gallery.build_index()
    (stale,) = beside(path, ".codes")
    other = DatabaseGallery(path, SIXTEEN)
    other.add(["new"] * 5, like_faces(5, seed=2))
    other.remove("person 7")
    other.move_photos([1, 2, 3], "person 9")
    found, coded = search(gallery), gallery.snapshot().enrolled.coded
    assert coded is not None and len(coded.codes) == COUNT + 5 - 8
    plain = DatabaseGallery(path, SIXTEEN, metric="cosine")
    assert beside(path, ".codes") == [stale]
    assert_same(search(plain), found)
    # That one came anew: its codes took the place of the stale ones.
    (fresh,) = beside(path, ".codes")
    assert fresh != stale
    (path.parent / fresh).unlink()
    without = DatabaseGallery(path, SIXTEEN)
    assert_same(search(without), found)
    assert without.snapshot().enrolled.coded is None
    # A damaged file is made again.
    without.build_index()
    (path.parent / fresh).write_bytes(b"no codes")
    assert_same(search(DatabaseGallery(path, SIXTEEN)), found)
    assert (path.parent / fresh).stat().st_size > 1_000


def test_a_copy_that_was_changed_otherwise_has_another_stamp(path: Path) -> None:
    gallery = DatabaseGallery(path, SIXTEEN)
    gallery.copy_to(path.with_name("copy.sqlite"))
    copied = DatabaseGallery(path.with_name("copy.sqlite"), SIXTEEN)
    assert gallery.snapshot().stamp == copied.snapshot().stamp
    gallery.remove("person 1")
    copied.remove("person 2")
    assert gallery.changes()[-1].id == copied.changes()[-1].id
    assert gallery.snapshot().stamp != copied.snapshot().stamp


def test_forgetting_leaves_nothing_in_the_indices(path: Path) -> None:
    pytest.importorskip("faiss")
    gallery = DatabaseGallery(path, SIXTEEN)
    gallery.build_index()
    gallery.build_index(approximate=True, progress=False)
    former = beside(path, ".codes") + beside(path, ".faiss")
    assert len(former) == 2
    DatabaseGallery(path).forget("person 3")
    # The codes are there again, of those who stay.
    (codes,) = beside(path, ".codes")
    assert codes not in former
    assert beside(path, ".faiss") == []
    assert search(gallery)


def test_an_approximate_index_is_found_and_built_again(path: Path) -> None:
    pytest.importorskip("faiss")
    exact = search(DatabaseGallery(path, SIXTEEN))
    gallery = open_gallery(path, encoder=SIXTEEN, approximate=True)
    assert isinstance(gallery, DatabaseGallery)
    assert gallery.snapshot().index is not None
    assert_same(search(gallery), exact)
    (first,) = beside(path, ".faiss")
    DatabaseGallery(path).rename("person 1", "somebody")
    # Others' changes are found at once, by comparing with everybody.
    assert "somebody" in {match.name for each in search(gallery, COUNT) for match in each}
    assert gallery.snapshot().index is None
    open_gallery(path, encoder=SIXTEEN, approximate=True)
    (second,) = beside(path, ".faiss")
    assert first != second


def test_an_encrypted_gallery_has_no_index_beside_it(path: Path) -> None:
    pytest.importorskip("faiss")
    exact = search(DatabaseGallery(path, SIXTEEN))
    gallery = DatabaseGallery(path, SIXTEEN, cipher=Cipher([bytes(32)]))
    gallery.build_index()
    assert_same(search(gallery), exact)
    gallery.build_index(approximate=True, progress=False)
    assert_same(search(gallery), exact)
    assert beside(path, ".codes") + beside(path, ".faiss") == []


def test_an_index_of_nobody_or_of_lengths(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="nobody is enrolled"):
        DatabaseGallery(tmp_path / "people.sqlite", SIXTEEN).build_index()
    by_length = DatabaseGallery(tmp_path / "long.sqlite", SIXTEEN, metric="euclidean")
    by_length.add(["Ada"], like_faces(1))
    with pytest.raises(InputError, match="an index holds"):
        by_length.build_index()


def test_without_an_encoder_everything_but_embedding_works(path: Path) -> None:
    gallery = open_gallery(path)
    assert (gallery.encoder_name, gallery.encoder_fingerprint) == ("one", "f1")
    assert gallery.find_name("PERSON 3") == "person 3"
    assert len(gallery.search(like_faces(2))) == 2
    gallery.rename("person 3", "Ada")
    assert "Ada" in DatabaseGallery(path, SIXTEEN).people()
    with pytest.raises(GalleryError, match="no such gallery"):
        open_gallery(path.with_name("none.sqlite"))
    assert not path.with_name("none.sqlite").exists()
    with pytest.raises(GalleryError, match="no such gallery"):
        open_gallery(path.with_name("none.npz"))
    with pytest.raises(InputError, match="no encoder"):
        open_gallery()


def test_an_npz_file_opens_without_an_encoder(tmp_path: Path) -> None:
    gallery = open_gallery(tmp_path / "people.npz", encoder=SIXTEEN)
    gallery.add(["Ada"], like_faces(1))
    gallery.close()
    again = open_gallery(tmp_path / "people.npz")
    assert again.people() == {"Ada": 1}
    again.rename("Ada", "Grace")
    again.close()
    assert open_gallery(tmp_path / "people.npz", encoder=SIXTEEN).people() == {"Grace": 1}
