from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import load_gallery, open_gallery
from tests.gallery.common import SIXTEEN, Identity, like_faces, vectors


def test_an_int8_gallery_names_the_same_people() -> None:
    embeddings, probes = like_faces(300), like_faces(300) + 0.02 * like_faces(300, seed=1)
    names = [f"p{number % 90}" for number in range(300)]
    exact, small = MemoryGallery(SIXTEEN), MemoryGallery(SIXTEEN, int8=True)
    for gallery in (exact, small):
        # In two steps: the second is quantised by the centre of the first.
        gallery.add(names[:200], embeddings[:200])
        gallery.add(names[200:], embeddings[200:])
    assert (exact.precision, small.precision) == ("float32", "int8")
    assert small.enrolled.rows.nbytes == 300 * 16 == exact.enrolled.rows.nbytes / 4
    for one, other in zip(exact.search(probes), small.search(probes), strict=True):
        assert one[0].name == other[0].name
        assert one[0].similarity == pytest.approx(other[0].similarity, abs=3e-3)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    assert small.embeddings.dtype == np.float32
    np.testing.assert_allclose(small.embeddings, units, atol=5e-3)


def test_an_int8_gallery_does_all_that_others_do(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    gallery = MemoryGallery(SIXTEEN, path, int8=True)
    gallery.add(["Ada", "Bo", "Ada"], like_faces(3), ["a", "b", "c"])
    gallery.detector_name = "eyes"
    gallery.close()
    with np.load(path) as stored:
        assert stored["embeddings"].dtype == np.int8
        assert stored["centre"].shape == (16,)
    loaded = load_gallery(path, SIXTEEN)
    assert loaded.precision == "int8"
    np.testing.assert_array_equal(loaded.enrolled.rows, gallery.enrolled.rows)
    known = loaded.known_photos("eyes")
    assert sorted(known) == ["a", "b", "c"]
    # Photos that have not changed are enrolled again from what is kept: nothing is rounded twice.
    loaded.replace(["Ada", "Bo"], np.stack([known["a"], known["b"]]), ["a", "b"])
    np.testing.assert_array_equal(loaded.enrolled.rows, gallery.enrolled.rows[:2])
    with pytest.raises(InputError):
        loaded.replace(["Cy"], np.zeros((1, 16), np.float32), [""])
    assert loaded.people() == {"Ada": 1, "Bo": 1}
    assert loaded.remove("Ada") == 1
    np.testing.assert_array_equal(loaded.enrolled.rows, gallery.enrolled.rows[1:2])
    assert loaded.search(like_faces(2)[1:])[0][0].name == "Bo"
    loaded.remove("Bo")
    loaded.add([], np.empty((0, 16), np.float32))
    loaded.close()
    assert open_gallery(path, encoder=SIXTEEN).precision == "int8"


def test_a_float32_gallery_goes_over_to_int8_once(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    gallery = open_gallery(path, encoder=SIXTEEN)
    gallery.add(["Ada", "Bo"], like_faces(2))
    gallery.close()
    with np.load(path) as stored:
        assert stored["embeddings"].dtype == np.float32
    gallery = open_gallery(path, encoder=SIXTEEN, int8=True)
    assert isinstance(gallery, MemoryGallery)
    former = gallery.enrolled.rows
    gallery.quantize()
    assert gallery.enrolled.rows is former
    assert gallery.search(like_faces(2))[1][0].name == "Bo"
    gallery.close()
    with np.load(path) as stored:
        assert stored["embeddings"].dtype == np.int8
    empty = MemoryGallery(SIXTEEN)
    empty.quantize()
    empty.add(["Ada"], like_faces(1))
    assert empty.search(like_faces(1))[0][0].similarity == pytest.approx(1, abs=1e-5)


def test_a_search_by_euclidean_distance_minds_the_lengths(tmp_path: Path) -> None:
    gallery = MemoryGallery(Identity(), metric="euclidean")
    gallery.add(["Ada", "Bo", "Ada"], vectors((1, 0), (0, 2), (3, 3)))
    # (0, 5) is 3 from Bo's, sqrt(13) from Ada's nearer one; (2, 2) is sqrt(2) from Ada's.
    found = gallery.search(vectors((0, 5), (2, 2), (1, 0)), k=2)
    assert [[match.name for match in row] for row in found] == [
        ["Bo", "Ada"],
        ["Ada", "Bo"],
        ["Ada", "Bo"],
    ]
    values = [[match.similarity for match in row] for row in found]
    expected = -np.sqrt([[9, 13], [2, 4], [0, 5]])
    np.testing.assert_allclose(values, expected, atol=1e-6)
    # By the angle alone it would be the other way round.
    gallery.add(["Cy"], vectors((0, 100)))
    assert gallery.search(vectors((0, 5)))[0][0].name == "Bo"

    gallery.save(tmp_path / "people.npz")
    read = load_gallery(tmp_path / "people.npz", Identity(), metric=None)
    assert read.metric == "euclidean"
    assert read.search(vectors((0, 5), (2, 2)), k=3) == gallery.search(vectors((0, 5), (2, 2)), k=3)


def test_a_gallery_saved_elsewhere_is_still_written_to_its_own_file(tmp_path: Path) -> None:
    own, other = tmp_path / "people.npz", tmp_path / "backup.npz"
    gallery = MemoryGallery(Identity(), own)
    gallery.add(["Ada"], vectors((1, 0)))
    gallery.save(other)
    gallery.close()
    assert load_gallery(own, Identity()).people() == {"Ada": 1}


def test_a_copy_does_not_write_the_file_of_the_gallery(tmp_path: Path) -> None:
    gallery = MemoryGallery(Identity(), tmp_path / "people.npz")
    gallery.add(["Ada"], vectors((1, 0)))
    gallery.save()
    copied = gallery.copy()
    copied.remove("Ada")
    copied.close()
    assert load_gallery(tmp_path / "people.npz", Identity()).people() == {"Ada": 1}
    with pytest.raises(GalleryError, match="save it to a path"):
        copied.save()


def test_a_person_is_found_in_whatever_case_and_spacing_as_in_a_gallery_database() -> None:
    gallery = MemoryGallery(SIXTEEN)
    gallery.add(["Ada", "Bo", "Ada"], like_faces(3))
    gallery.set_threshold("ada", 0.9)
    assert gallery.thresholds == {"Ada": 0.9}
    with pytest.raises(GalleryError, match="'Ada' is enrolled already"):
        gallery.rename("bo", " ADA")
    assert gallery.rename("ADA", "ada") == gallery.rename("Ada ", "Ada Lovelace") == 2
    assert gallery.thresholds == {"Ada Lovelace": 0.9}
    assert gallery.remove("ada  lovelace") == 2
    assert list(gallery.people()) == ["Bo"]


def test_who_is_enrolled_under_just_that_name_comes_before_who_has_a_name_alike() -> None:
    gallery = MemoryGallery(SIXTEEN)
    gallery.add(["Ada", "ada", "Ada"], like_faces(3))
    gallery.set_threshold("Ada", 0.9)
    assert gallery.thresholds == {"Ada": 0.9}
    assert (gallery.remove("ada"), gallery.remove("ada")) == (1, 2)
