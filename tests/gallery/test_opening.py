from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import GalleryError, InputError
from face_encode.gallery.base import check_name, check_names
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import load_gallery, open_gallery
from tests.gallery.calibrations import BY_HAND
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


@pytest.mark.parametrize("name", ["Ada", "Ada Lovelace", "王小明", "O'Brien-Ñ", "نیم\u200cفاصله"])
def test_names_of_any_script_are_allowed(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[2J", "\ud800", None, 3])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match="a person's name is text"):
        check_name(name)


def test_many_names_are_judged_as_one_is() -> None:
    check_names(["Ada", "نیم\u200cفاصله", "王小明"])
    check_names([])
    for name in ("", " ", "a\nb", "\x7f", "\x9f", "\ud800", "\udfff", None, 3):
        with pytest.raises(InputError, match="a person's name is text"):
            check_names(["Ada", name])  # type: ignore[list-item]


def test_every_character_is_judged_alike() -> None:
    for code in range(0x110000):
        if unicodedata.category(chr(code)) in ("Cc", "Cs"):
            with pytest.raises(InputError):
                check_names([f"a{chr(code)}"])
    check_names(
        [f"a{chr(code)}" for code in range(0x110000) if unicodedata.category(chr(code))[0] != "C"]
    )
