from __future__ import annotations

import os
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError, MissingExtraError
from face_encode.gallery import approximate
from face_encode.gallery.approximate import ApproximateIndex, find_index, save_index
from face_encode.gallery.base import Ranking
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz import stamp_of
from face_encode.gallery.opening import load_gallery, open_gallery
from tests.gallery.common import SIXTEEN, Identity, like_faces

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
    monkeypatch.setattr(approximate, "_CELLS_SEARCHED", 1)
    gallery.build_index(approximate=True, progress=False)
    assert gallery.search(probes) != exact


def test_as_many_people_are_found_as_there_are() -> None:
    gallery = MemoryGallery(ENCODER)
    gallery.add(["Ada"] * 300 + ["Bo", "Cy"], like_faces(302, size=SIZE))
    gallery.build_index(approximate=True, progress=False)
    (found,) = gallery.search(like_faces(1, size=SIZE, seed=3), 9)
    assert sorted(match.name for match in found) == ["Ada", "Bo", "Cy"]
    assert gallery.search(np.zeros((1, SIZE), np.float32))[0][0].similarity == 0


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_a_few_are_found_too(rows: int) -> None:
    gallery = MemoryGallery(ENCODER)
    gallery.add([f"p{number}" for number in range(rows)], like_faces(rows, size=SIZE))
    probes = like_faces(3, size=SIZE, seed=3)
    exact = gallery.search(probes, rows)
    gallery.build_index(approximate=True, progress=False)
    assert gallery.search(probes, rows) == exact


def test_where_the_nearest_cells_hold_too_few_others_are_looked_through() -> None:
    # 283 cells, most of them of the crowd, which is one person and farther away than all others.
    random = np.random.default_rng(0)
    others = like_faces(5, size=SIZE, seed=1)
    crowd = -others.mean(axis=0) + 0.01 * random.normal(size=(20_000, SIZE)).astype(np.float32)
    gallery = MemoryGallery(ENCODER)
    gallery.add(["crowd"] * 20_000, crowd)
    gallery.add(["Ada", "Bo", "Cy", "Di", "Ed"], others)
    gallery.build_index(approximate=True, progress=False)
    for probe in (others[:1], crowd[:1]):
        (found,) = gallery.search(probe, 6)
        assert sorted(match.name for match in found) == ["Ada", "Bo", "Cy", "Di", "Ed", "crowd"]


def test_rows_that_are_all_the_same_are_found() -> None:
    gallery = MemoryGallery(ENCODER)
    gallery.add(["Ada"] * 20_000, np.tile(like_faces(1, size=SIZE), (20_000, 1)))
    gallery.build_index(approximate=True, progress=False)
    assert gallery.search(like_faces(1, size=SIZE, seed=3))[0][0].name == "Ada"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_and_many_threads_search_too() -> None:
    gallery, probes = filled(), like_faces(40, size=SIZE, seed=3)
    gallery.build_index(approximate=True, progress=False)
    expected = gallery.search(probes, 3)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda probe: gallery.search(probe[np.newaxis], 3)[0], probes))
    assert found == expected
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # a search that waits for threads that are not there would last for ever
        same = gallery.search(probes, 3) == expected
        gallery.build_index(approximate=True, progress=False)
        os._exit(0 if same and len(gallery.search(probes)) == 40 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("row", [0, 1_234])
def test_a_damaged_embedding_is_told(row: int) -> None:
    gallery = filled()
    gallery.enrolled.rows[row, 0] = np.nan
    with pytest.raises(GalleryError, match="an embedding in it is not finite"):
        gallery.build_index(approximate=True, progress=False)


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
    # What was read is whole: it can be saved again, here and elsewhere, and read from there.
    copy = tmp_path / "Kopie für 王" / "people.npz"
    copy.parent.mkdir()
    assert isinstance(opened, MemoryGallery)
    for target in (path, copy):
        opened.save(target)
        again = open_gallery(target, encoder=ENCODER, approximate=True)
        assert again.search(probes, 3) == built.search(probes, 3)


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
    approximate._faiss.cache_clear()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r'pip install "face_encode\[index\]"'):
        filled().build_index(approximate=True)


def save(path: Path, seed: int = 0) -> ApproximateIndex:
    """A gallery's file, and an index of its embeddings."""
    gallery = MemoryGallery(SIXTEEN)
    gallery.add(["Ada"] * 50, like_faces(50, seed=seed))
    gallery.save(path)
    return ApproximateIndex.of(gallery.enrolled, progress=False)


def indices(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.faiss"))


def find(path: Path) -> ApproximateIndex | None:
    return find_index(path.with_suffix(""), stamp_of(path), 50, 16)


def keep(path: Path, index: ApproximateIndex | None) -> None:
    save_index(path.with_suffix(""), stamp_of(path), index)


def test_an_index_is_found_by_its_gallery(tmp_path: Path) -> None:
    path, other = tmp_path / "people.npz", tmp_path / "people-2.npz"
    first, second = save(path), save(other, seed=1)
    assert find(path) is None
    keep(path, first)
    keep(other, second)
    assert len(indices(tmp_path)) == 2
    found = find(path)
    assert found is not None
    for probe in like_faces(5, seed=2):
        np.testing.assert_array_equal(found.nearest_rows(probe, 7), first.nearest_rows(probe, 7))
    assert [file.suffix for file in tmp_path.iterdir()].count(".faiss") == 2


def test_of_other_embeddings_none_is_found_and_the_stale_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    keep(path, save(path))
    (stale,) = indices(tmp_path)
    later = save(path, seed=1)
    assert indices(tmp_path) == []
    keep(path, later)
    shutil.copy(tmp_path / indices(tmp_path)[0], tmp_path / stale)
    assert find(path) is not None
    keep(path, None)
    assert len(indices(tmp_path)) == 1
    assert stale not in indices(tmp_path)
    # Whatever does not change the embeddings leaves it.
    gallery = load_gallery(path, SIXTEEN)
    gallery.rename("Ada", "Bo")
    gallery.save()
    assert find(path) is not None


@pytest.mark.parametrize("place", [0, 9, 100, 1_000, -1])
def test_a_damaged_index_is_passed_over(place: int, tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    keep(path, save(path))
    (name,) = indices(tmp_path)
    whole = (tmp_path / name).read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 0xFF
    for content in (bytes(damaged), whole[: len(whole) // 2], b""):
        (tmp_path / name).write_bytes(content)
        assert find(path) is None
    # Of the right checksum, and none at all.
    with pytest.raises(GalleryError, match="is damaged"):
        (tmp_path / "x.faiss").write_bytes(b"no index")
        ApproximateIndex.read(tmp_path / "x.faiss", 50, 16)
    with pytest.raises(GalleryError, match="holds no cells"):
        faiss.write_index(faiss.IndexFlatIP(16), str(tmp_path / "flat.faiss"))
        ApproximateIndex.read(tmp_path / "flat.faiss", 0, 16)
    (tmp_path / name).write_bytes(whole)
    with pytest.raises(GalleryError, match=r"of \(51, 16\) embeddings"):
        ApproximateIndex.read(tmp_path / name, 51, 16)


def test_what_cannot_be_written_is_told_and_leaves_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    index = save(path)
    path.unlink()
    with pytest.raises(GalleryError, match=r"people\.npz cannot be read"):
        keep(path, index)
    assert list(tmp_path.iterdir()) == []
