from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError, MissingExtraError
from face_encode.gallery import approximate
from face_encode.gallery.approximate import ApproximateIndex
from face_encode.gallery.gallery import Ranking
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import open_gallery
from tests.gallery.common import Identity, like_faces

ROWS, PEOPLE, SIZE = 3_000, 1_000, 32


ENCODER = Identity(embedding_size=SIZE)


def filled(path: Path | None = None, *, int8: bool = False) -> MemoryGallery:
    gallery = MemoryGallery(ENCODER, path, int8=int8)
    noise = 0.3 * np.random.default_rng(1).normal(size=(ROWS, SIZE))
    photos = np.tile(like_faces(PEOPLE, size=SIZE), (ROWS // PEOPLE, 1)) + noise
    gallery.add([f"p{number % PEOPLE:03d}" for number in range(ROWS)], photos.astype(np.float32))
    return gallery


@pytest.mark.parametrize("ranking", ["best", "mean"])
@pytest.mark.parametrize("int8", [False, True])
def test_it_finds_what_the_exact_search_finds(int8: bool, ranking: Ranking) -> None:
    gallery, probes = filled(int8=int8), like_faces(100, size=SIZE, seed=3)
    exact = gallery.search(probes, 3, ranking)
    gallery.build_index(approximate=True, progress=False)
    found = gallery.search(probes, 3, ranking)
    recall = np.mean([one[0] == other[0] for one, other in zip(exact, found, strict=True)])
    assert recall >= 0.98
    assert all(len(row) == 3 for row in found)


def test_it_misses_when_it_looks_at_little(monkeypatch: pytest.MonkeyPatch) -> None:
    # The answers come from the cells, and not from an exact search.
    gallery, probes = filled(), like_faces(100, size=SIZE, seed=3)
    exact = gallery.search(probes)
    monkeypatch.setattr(approximate, "_LOOKED_THROUGH", 1)
    gallery.build_index(approximate=True, progress=False)
    assert gallery.search(probes) != exact


def test_as_many_people_are_found_as_there_are() -> None:
    gallery = MemoryGallery(ENCODER)
    gallery.add(["Ada"] * 300 + ["Bo", "Cy"], like_faces(302, size=SIZE))
    gallery.build_index(approximate=True, progress=False)
    (found,) = gallery.search(like_faces(1, size=SIZE, seed=3), 9)
    assert sorted(match.name for match in found) == ["Ada", "Bo", "Cy"]
    assert gallery.search(np.zeros((1, SIZE), np.float32))[0][0].similarity == 0


def test_it_is_gone_when_the_people_change() -> None:
    gallery = filled()
    gallery.build_index(approximate=True, progress=False)
    one = like_faces(1, size=SIZE, seed=8)
    gallery.add(["Zoe"], one)
    assert gallery.search(one)[0][0].name == "Zoe"


def test_opening_builds_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, probes = tmp_path / "people.npz", like_faces(5, size=SIZE, seed=3)
    filled().save(path)
    built = open_gallery(path, encoder=ENCODER, approximate=True)
    files = sorted(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".faiss", ".npz"]

    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(ApproximateIndex, "of", never)
    opened = open_gallery(path, encoder=ENCODER, approximate=True)
    assert opened.search(probes, 3) == built.search(probes, 3)
    assert sorted(tmp_path.iterdir()) == files


def test_what_has_no_index_is_told() -> None:
    with pytest.raises(GalleryError, match="nobody is enrolled"):
        MemoryGallery(ENCODER).build_index(approximate=True)
    with pytest.raises(GalleryError, match="nobody is enrolled"):
        MemoryGallery(ENCODER).build_index()
    by_distance = MemoryGallery(ENCODER, metric="euclidean")
    for is_approximate in (True, False):
        with pytest.raises(InputError, match="direction of an embedding only"):
            by_distance.build_index(approximate=is_approximate)
    with pytest.raises(GalleryError, match="index of Milvus's own"):
        open_gallery("people.db", encoder=ENCODER, approximate=True)


def test_without_faiss_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[index\]"'):
        filled().build_index(approximate=True)
