from __future__ import annotations

from pathlib import Path

import pytest

from face_encode.errors import GalleryError
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import open_gallery
from tests.gallery.common import Identity, vectors


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
