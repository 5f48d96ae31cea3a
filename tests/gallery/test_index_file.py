from __future__ import annotations

import shutil
from pathlib import Path

import faiss
import numpy as np
import pytest

from face_encode.errors import GalleryError
from face_encode.gallery.approximate import (
    ApproximateIndex,
    find_index,
    remove_stale_indices,
    write_index,
)
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import load_gallery
from tests.gallery.common import SIXTEEN, like_faces


def save(path: Path, seed: int = 0) -> ApproximateIndex:
    """A gallery's file, and an index of its embeddings."""
    gallery = MemoryGallery(SIXTEEN)
    gallery.add(["Ada"] * 50, like_faces(50, seed=seed))
    gallery.save(path)
    return ApproximateIndex.of(gallery.enrolled, progress=False)


def indices(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.faiss"))


def test_an_index_is_found_by_its_gallery(tmp_path: Path) -> None:
    path, other = tmp_path / "people.npz", tmp_path / "people-2.npz"
    first, second = save(path), save(other, seed=1)
    assert find_index(path, 50, 16) is None
    write_index(path, first)
    write_index(other, second)
    assert len(indices(tmp_path)) == 2
    found = find_index(path, 50, 16)
    assert found is not None
    for probe in like_faces(5, seed=2):
        np.testing.assert_array_equal(found.nearest_rows(probe, 7), first.nearest_rows(probe, 7))
    assert [file.suffix for file in tmp_path.iterdir()].count(".faiss") == 2


def test_of_other_embeddings_none_is_found_and_the_stale_one_goes(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    write_index(path, save(path))
    (stale,) = indices(tmp_path)
    later = save(path, seed=1)
    assert indices(tmp_path) == []
    write_index(path, later)
    shutil.copy(tmp_path / indices(tmp_path)[0], tmp_path / stale)
    assert find_index(path, 50, 16) is not None
    remove_stale_indices(path)
    assert len(indices(tmp_path)) == 1
    assert stale not in indices(tmp_path)
    # Whatever does not change the embeddings leaves it.
    gallery = load_gallery(path, SIXTEEN)
    gallery.rename("Ada", "Bo")
    gallery.save()
    assert find_index(path, 50, 16) is not None


@pytest.mark.parametrize("place", [0, 9, 100, 1_000, -1])
def test_a_damaged_index_is_passed_over(place: int, tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    write_index(path, save(path))
    (name,) = indices(tmp_path)
    whole = (tmp_path / name).read_bytes()
    damaged = bytearray(whole)
    damaged[place] ^= 0xFF
    for content in (bytes(damaged), whole[: len(whole) // 2], b""):
        (tmp_path / name).write_bytes(content)
        assert find_index(path, 50, 16) is None
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
        write_index(path, index)
    assert list(tmp_path.iterdir()) == []
