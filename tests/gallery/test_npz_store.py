from __future__ import annotations

from pathlib import Path

import pytest

from face_encode.errors import GalleryError
from face_encode.gallery.approximate import ApproximateIndex, find_index
from face_encode.gallery.npz import NpzStore
from face_encode.gallery.opening import load_gallery
from tests.gallery.common import NAMES, SIXTEEN, filled


def test_a_gallery_is_saved_with_its_index_and_without(tmp_path: Path) -> None:
    gallery, store = filled(), NpzStore(tmp_path / "people.npz")
    assert not store.is_current
    index = ApproximateIndex.of(gallery.enrolled, progress=False)
    store.save(gallery.content, index)
    assert store.is_current
    assert load_gallery(tmp_path / "people.npz", SIXTEEN).names.tolist() == NAMES
    assert find_index(tmp_path / "people.npz", 5, 16) is not None
    gallery.remove("Ada")
    store.save(gallery.content, None)
    assert [path.name for path in tmp_path.iterdir()] == ["people.npz"]


def test_without_a_file_of_its_own_it_takes_a_path(tmp_path: Path) -> None:
    gallery, store = filled(), NpzStore(None)
    with pytest.raises(GalleryError, match="save it to a path"):
        store.save(gallery.content, None)
    with pytest.raises(GalleryError, match=r"ends in \.npz. Received: .*people\.json"):
        store.save(gallery.content, None, tmp_path / "people.json")
    assert not store.is_current
    assert list(tmp_path.iterdir()) == []
    store.save(gallery.content, None, tmp_path / "people.npz")
    assert not store.is_current
    assert load_gallery(tmp_path / "people.npz", SIXTEEN).names.tolist() == NAMES
