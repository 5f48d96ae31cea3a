from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import GalleryError
from face_encode.gallery.memory import MemoryGallery
from face_encode.gallery.opening import load_gallery
from face_encode.gallery.quantization import Quantizer
from tests.gallery.common import DIGESTS, NAMES, SIXTEEN, filled, like_faces


def old_file(path: Path, version: int, **changes: Any) -> None:
    """A file as releases before version 3 wrote it."""
    arrays: dict[str, Any] = {
        "format_version": np.array(version),
        "encoder_name": np.array("one"),
        "encoder_fingerprint": np.array("f1"),
        "detector_name": np.array("eyes"),
        "names": np.array(NAMES),
        "digests": np.array(DIGESTS),
        "embeddings": like_faces(5),
    }
    np.savez(path, **(arrays | changes))


def test_files_of_former_versions_are_read(is_mapped: bool, tmp_path: Path) -> None:
    path, probes = tmp_path / "people.npz", like_faces(6, seed=4)
    old_file(path, 1)
    read = load_gallery(path, SIXTEEN)
    assert read.names.tolist() == NAMES
    assert read.digests.tolist() == DIGESTS
    assert read.search(probes, 3) == filled().search(probes, 3)
    quantizer = Quantizer.fitted_to([like_faces(5)])
    codes = quantizer.quantize(like_faces(5))
    old_file(path, 2, embeddings=codes, centre=quantizer.centre, metric=np.array("cosine"))
    read = load_gallery(path, SIXTEEN)
    assert read.precision == "int8"
    assert read.search(probes, 3) == filled("int8").search(probes, 3)
    old_file(path, 2, metric=np.array("euclidean"))
    assert load_gallery(path, SIXTEEN, metric=None).metric == "euclidean"
    old_file(path, 4)
    with pytest.raises(GalleryError, match="later release"):
        load_gallery(path, SIXTEEN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": np.array(["Ada", "", "Bo", "Cy", "Di"])}, "a person's name is text"),
        ({"names": np.array(["Ada"])}, r"1 names take (as many digests|embeddings of shape)"),
        ({"digests": np.array(["d1"])}, "5 names take as many digests"),
        ({"embeddings": like_faces(4)}, r"5 names take embeddings of shape \(5, 16\)"),
        ({"embeddings": np.full((5, 16), np.nan, np.float32)}, "finite and not all zeros"),
        ({"embeddings": np.zeros((5, 16), np.float32)}, "finite and not all zeros"),
        ({"embeddings": np.ones((4, 16), np.int8), "centre": np.zeros(16)}, r"shape \(5, 16\)"),
        ({"embeddings": np.ones((5, 16), np.int8)}, "have a 'centre'"),
    ],
)
def test_damaged_files_of_former_versions_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "people.npz"
    old_file(path, 2, **changes)
    with pytest.raises(GalleryError, match=message):
        load_gallery(path, SIXTEEN)


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
