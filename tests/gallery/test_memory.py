from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError
from face_encode.gallery.loading import load_gallery
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import open_gallery
from tests.gallery.common import SIXTEEN, Identity, like_faces, vectors
from tests.test_calibration import BY_HAND


@pytest.fixture
def gallery() -> MemoryGallery:
    filled = MemoryGallery(Identity())
    filled.add(["Ada", "Bo", "Ada"], vectors((1, 0), (0, 2), (3, 3)), ["a", "b", "c"])
    return filled


def test_a_saved_gallery_is_read_as_it_was(gallery: MemoryGallery, tmp_path: Path) -> None:
    gallery.detector_name = "eyes"
    gallery.add(["Élodie 王 سارا\u200cجان"], vectors((1, 1)))
    path = tmp_path / "people.npz"
    gallery.save(path)
    loaded = load_gallery(path, Identity())
    np.testing.assert_array_equal(loaded.embeddings, gallery.embeddings)
    assert loaded.names.tolist() == gallery.names.tolist()
    assert loaded.digests.tolist() == ["a", "b", "c", ""]
    assert sorted(loaded.known_photos("eyes")) == ["a", "b", "c"]
    assert loaded.known_photos("nose") == {}
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_gallery_can_be_saved(tmp_path: Path) -> None:
    MemoryGallery(Identity()).save(tmp_path / "nobody.npz")
    assert len(load_gallery(tmp_path / "nobody.npz", Identity())) == 0


def test_opening_by_a_path_reads_and_close_writes(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    first = open_gallery(path, encoder=Identity())
    first.add(["Ada"], vectors((1, 0)))
    first.close()
    second = open_gallery(path, encoder=Identity())
    assert second.people() == {"Ada": 1}
    written = path.stat().st_mtime_ns
    second.close()  # nothing changed, nothing written
    assert path.stat().st_mtime_ns == written


def test_opening_in_memory() -> None:
    for uri in (None, ":memory:"):
        gallery = open_gallery(uri, encoder=Identity())
        assert isinstance(gallery, MemoryGallery)
        gallery.close()
        with pytest.raises(GalleryError, match="not opened from a file"):
            gallery.save()


def test_opening_another_kind_is_refused() -> None:
    with pytest.raises(GalleryError, match=r"\.npz file .* Received: people\.pkl"):
        open_gallery("people.pkl", encoder=Identity())


def test_files_without_a_calibration_are_read(gallery: MemoryGallery, tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    gallery.save(path)
    assert load_gallery(path, Identity()).calibration is None
    with np.load(path) as archive:
        older = {name: archive[name] for name in archive.files if name != "calibration"}
    np.savez(path, **older)
    assert load_gallery(path, Identity()).calibration is None
    gallery.calibration = BY_HAND
    gallery.save(path)
    assert load_gallery(path, Identity()).calibration == BY_HAND
    np.savez(path, **older, calibration=np.array("{}"))
    with pytest.raises(GalleryError, match="calibration is damaged"):
        load_gallery(path, Identity())


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"centre": None}, "have a 'centre'"),
        ({"centre": np.zeros(3, np.float32)}, "have a 'centre'"),
        ({"centre": np.full(16, 9, np.float32)}, "length 1 at the most"),
        ({"embeddings": np.ones((2, 16), np.int64)}, "are int8"),
        ({"embeddings": np.ones((2, 9), np.int8)}, r"of shape \(9,\)"),
    ],
)
def test_a_damaged_int8_gallery_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz"
    gallery = MemoryGallery(SIXTEEN, path, int8=True)
    gallery.add(["Ada", "Bo"], like_faces(2))
    gallery.save()
    with np.load(path) as stored:
        whole = dict(stored) | change
    np.savez(path, **{name: array for name, array in whole.items() if array is not None})
    with pytest.raises(GalleryError, match=message):
        load_gallery(path, SIXTEEN)


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


def test_a_file_for_another_metric_is_refused(gallery: MemoryGallery, tmp_path: Path) -> None:
    by_distance = MemoryGallery(Identity(), tmp_path / "people.npz", metric="euclidean")
    by_distance.add(["Ada"], vectors((1, 0)))
    by_distance.close()
    refused = pytest.raises(GalleryError, match=r"'euclidean', here it is 'cosine'")
    with refused:
        load_gallery(tmp_path / "people.npz", Identity())
    with refused:
        open_gallery(tmp_path / "people.npz", encoder=Identity())
    with pytest.raises(InputError, match="one of cosine, euclidean"):
        MemoryGallery(Identity(), metric="euclidean_l2")
    with pytest.raises(InputError, match="direction of an embedding only"):
        MemoryGallery(Identity(), metric="euclidean", int8=True)
    # Files from before there was a choice are searched by cosine.
    with np.load(tmp_path / "people.npz") as archive:
        arrays = {name: archive[name] for name in archive.files if name != "metric"}
    np.savez(tmp_path / "old.npz", allow_pickle=False, **arrays)
    assert load_gallery(tmp_path / "old.npz", Identity()).metric == "cosine"
