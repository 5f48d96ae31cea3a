from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from face_encode.errors import GalleryError
from face_encode.gallery.npz import read_content
from face_encode.gallery.opening import load_gallery, read_gallery
from tests.gallery.common import DIGESTS, KINDS, SIXTEEN, filled, like_faces


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(kind: str, is_mapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    gallery = filled(kind)
    gallery.save(path)
    read = load_gallery(path, SIXTEEN)
    one, other = gallery.enrolled, read.enrolled
    assert other.rows.flags.writeable is not is_mapped
    assert (other.people, other.quantizer is None) == (one.people, one.quantizer is None)
    for first, second in [
        (one.rows, other.rows),
        (one.scales, other.scales),
        (one.owners, other.owners),
        (one.digests, other.digests),
    ]:
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    assert read.digests.tolist() == DIGESTS
    probes = like_faces(6, seed=4)
    assert read.search(probes, 3) == gallery.search(probes, 3)
    if one.coded is not None and other.coded is not None:
        assert (one.coded.reach, one.coded.blur) == (other.coded.reach, other.coded.blur)
    # And from bytes, as the service reads it.
    again = read_gallery(io.BytesIO(path.read_bytes()), SIXTEEN, "bytes")
    assert again.search(probes, 3) == gallery.search(probes, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapped_gallery_is_changed_and_written_to_its_own_file(
    kind: str, is_mapped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz"
    filled(kind).save(path)
    mapped, bystander = (load_gallery(path, SIXTEEN) for _ in range(2))
    mapped.add(["Di"], like_faces(1, seed=2), ["ab"])
    mapped.remove("Ada")
    mapped.save()
    assert load_gallery(path, SIXTEEN).people() == mapped.people()
    assert list(mapped.people()) == ["Bo", "Élodie 王", "سارا\u200cجان", "Di"]
    assert bystander.people()["Ada"] == 1
    assert bystander.search(like_faces(1))[0][0].name == "Bo"


def test_the_same_people_give_the_same_bytes(tmp_path: Path) -> None:
    for kind in KINDS:
        filled(kind).save(tmp_path / "one.npz")
        load_gallery(tmp_path / "one.npz", SIXTEEN).save(tmp_path / "two.npz")
        assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_is_refused(kind: str, is_mapped: bool, tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    filled(kind).save(path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(GalleryError, match=r"cut off|damaged"):
            load_gallery(path, SIXTEEN)


@pytest.mark.parametrize("kind", ["float32", "indexed"])
def test_a_damaged_embedding_is_refused_when_it_is_read_or_searched(
    kind: str, is_mapped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz"
    gallery = filled(kind)
    gallery.save(path)
    number = gallery.embeddings[0, :2].tobytes()
    path.write_bytes(path.read_bytes().replace(number, np.full(2, np.nan, np.float32).tobytes()))
    # A file that is read has its checksums looked at, one that is mapped has not.
    with pytest.raises(GalleryError, match="damaged"):
        load_gallery(path, SIXTEEN).search(like_faces(1))


def test_only_large_files_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    filled().save(path)
    assert read_content(path).enrolled.rows.flags.writeable
