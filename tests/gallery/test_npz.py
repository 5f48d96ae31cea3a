from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import GalleryError
from face_encode.gallery.approximate import find_index
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.npz import read_content, read_open_content, stamp_of
from face_encode.gallery.opening import load_gallery
from tests.gallery.calibrations import BY_HAND
from tests.gallery.common import DIGESTS, KINDS, NAMES, SIXTEEN, filled, like_faces


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
    # And from bytes, as an encrypted one is imported.
    content = read_open_content(io.BytesIO(path.read_bytes()), "bytes")
    again = MemoryGallery.from_content(content, SIXTEEN)
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


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (1, "before its first release; this one reads version 3.* Received: version 1"),
        (2, "before its first release; this one reads version 3.* Received: version 2"),
        (4, "later release.* Received: version 4"),
    ],
)
def test_a_file_of_another_version_is_refused(
    version: int, message: str, is_mapped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz"
    np.savez(
        path,
        format_version=np.array(version),
        encoder_name=np.array("one"),
        encoder_fingerprint=np.array("f1"),
        detector_name=np.array("eyes"),
        names=np.array(NAMES),
        digests=np.array(DIGESTS),
        embeddings=like_faces(5),
    )
    with pytest.raises(GalleryError, match=message) as caught:
        load_gallery(path, SIXTEEN)
    assert str(path) in str(caught.value)
    with pytest.raises(GalleryError, match=message):
        read_open_content(io.BytesIO(path.read_bytes()), "bytes")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("float32", {"people": None}, "no array 'people'"),
        ("float32", {"owners": None}, "no array 'owners'"),
        ("float32", {"scales": None}, "no array 'scales'"),
        ("float32", {"packed_digests": None}, "no array 'digests'"),
        ("float32", {"owners": np.zeros(4, np.int32)}, "are as many. Received: 5, 5, 4 and 5"),
        ("float32", {"owners": np.array([0, 1, 0, 2, 4])}, "somebody's of 4 people"),
        ("float32", {"owners": np.array([0, 1, 0, 2, -1])}, "somebody's of 4 people"),
        ("float32", {"owners": np.zeros(5, np.int32)}, "at least one embedding"),
        ("float32", {"people": np.frombuffer(b"A\nB\nC\nA", np.uint8)}, "listed twice"),
        ("float32", {"people": np.frombuffer(b"A\nB\n\nD", np.uint8)}, "a person's name"),
        ("float32", {"people": np.frombuffer(b"A\nB\nC\n\xff", np.uint8)}, "UTF-8"),
        ("float32", {"scales": np.array([1, 1, 1, 1, np.nan], np.float32)}, "finite"),
        ("float32", {"scales": np.zeros(5, np.float32)}, "zeros"),
        ("float32", {"scales": np.ones(5, np.float32)}, "as long as its scale says"),
        (
            "float32",
            {"embeddings": np.ones((5, 9), np.float32), "scales": np.full(5, 3, np.float32)},
            r"shape \(5, 16\)",
        ),
        ("float32", {"metric": np.array("taste")}, "a metric is one of"),
        ("int8", {"centre": None}, "have a 'centre'"),
        ("int8", {"reach": np.array(np.inf)}, "'reach' lies within"),
        ("int8", {"reach": None}, "no array 'reach'"),
        ("int8", {"scales": -np.ones(5, np.float32)}, "damaged"),
        ("indexed", {"index_codes": np.zeros((4, 16), np.int8)}, "as many codes"),
        ("indexed", {"index_codes": np.zeros((5, 16), np.int16)}, "are int8"),
        ("indexed", {"index_steps": np.full(5, np.nan, np.float32)}, "steps of an index"),
        ("indexed", {"blur": np.array(-1.0)}, "'blur' lies within"),
        ("indexed", {"blur": None}, "no array 'blur'"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    kind: str, change: dict[str, Any], message: str, is_mapped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz"
    filled(kind).save(path)
    with np.load(path) as stored:
        whole = dict(stored) | change
    np.savez(path, **{name: array for name, array in whole.items() if array is not None})
    with pytest.raises(GalleryError, match=message):
        load_gallery(path, SIXTEEN)


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


def test_a_gallery_is_saved_with_its_index_and_without(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    gallery = MemoryGallery(SIXTEEN, path)
    gallery.add(NAMES, like_faces(5), DIGESTS)
    gallery.build_index(approximate=True, progress=False)
    gallery.close()
    assert load_gallery(path, SIXTEEN).names.tolist() == NAMES
    assert find_index(path.with_suffix(""), stamp_of(path), 5, 16) is not None
    gallery.remove("Ada")
    gallery.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["people.npz"]


def test_without_a_file_of_its_own_it_takes_a_path(tmp_path: Path) -> None:
    gallery = filled()
    with pytest.raises(GalleryError, match="save it to a path"):
        gallery.save()
    with pytest.raises(GalleryError, match=r"ends in \.npz. Received: .*people\.json"):
        gallery.save(tmp_path / "people.json")
    gallery.close()
    assert list(tmp_path.iterdir()) == []
    gallery.save(tmp_path / "people.npz")
    assert load_gallery(tmp_path / "people.npz", SIXTEEN).names.tolist() == NAMES


def test_only_what_has_changed_is_written_by_close(tmp_path: Path) -> None:
    path = tmp_path / "people.npz"
    filled().save(path)
    gallery = load_gallery(path, SIXTEEN)
    changes: list[Callable[[], object]] = [
        lambda: gallery.remove("Ada"),
        lambda: setattr(gallery, "calibration", BY_HAND),
        lambda: setattr(gallery, "detector_name", "other eyes"),
        lambda: gallery.build_index(approximate=True, progress=False),
    ]
    for change in changes:
        change()
        gallery.close()
        assert path.exists()
        path.unlink()
        gallery.search(like_faces(1))
        gallery.close()
        assert not path.exists()
