from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode.detectors.base import Detector
from face_encode.detectors.registry import load_detector
from face_encode.encoders.encoder import Encoder
from face_encode.errors import FaceEncodeError
from face_encode.photos.reading import read_image
from face_encode.pipeline.embedding import (
    NO_FACE,
    embed_photos,
    find_crops,
    find_in_photos,
)
from face_encode.types import Face, ImageArray, Photo
from tests.conftest import EXAMPLES


def test_a_file_read_elsewhere_gives_what_the_file_gives(
    encoder: Encoder, people_photos: list[Path], tmp_path: Path
) -> None:
    broken, empty, text = tmp_path / "broken.jpg", tmp_path / "empty.jpg", tmp_path / "text.jpg"
    broken.write_bytes(people_photos[0].read_bytes()[:2000])
    empty.touch()
    text.write_text("no photo")
    detector, recipe = load_detector("dlib_hog"), encoder.contract.crop
    for path in (people_photos[0], EXAMPLES / "group.jpg", broken, empty, text):
        content = (path.name, path.read_bytes())
        (read,) = find_in_photos([content], detector, recipe, None, digests=True)
        (opened,) = find_in_photos([path], detector, recipe, None, digests=True)
        assert (read.photo, opened.photo) == (path.name, str(path))
        assert [face.box for face in read.faces] == [face.box for face in opened.faces]
        assert read.size == opened.size
        assert (read.error, read.digest) == (opened.error, opened.digest)
        np.testing.assert_array_equal(read.crops, opened.crops)


def test_all_faces_are_told_and_as_many_as_asked_for_are_cut_out(
    encoder: Encoder, people_photos: list[Path]
) -> None:
    two = np.concatenate([read_image(photo)[:300, :300] for photo in people_photos[:2]], axis=1)
    recipe = encoder.contract.crop
    for max_faces, count in ((1, 1), (2, 2), (None, 2)):
        (found,) = find_crops([two], load_detector(), recipe, max_faces=max_faces)
        assert len(found.faces) == 2
        assert found.crops.shape == (count, 150, 150, 3)
        assert found.size == (two.shape[1], two.shape[0])


class Deadly:
    """A detector that ends its process, as lack of memory does."""

    name = "deadly"

    def detect(self, image: ImageArray) -> list[Face]:
        import os

        os._exit(1)


def test_a_worker_that_dies_is_told(encoder: Encoder, people_photos: list[Path]) -> None:
    deadly: Detector = Deadly()
    with pytest.raises(FaceEncodeError, match="ended abruptly"):
        list(find_crops(people_photos, deadly, encoder.contract.crop, workers=2))
    # The next call starts afresh.
    found = find_crops(people_photos[:2], load_detector(), encoder.contract.crop, workers=2)
    assert all(item.error is None for item in found)


def test_workers_find_what_one_process_finds(
    encoder: Encoder, people_photos: list[Path], tmp_path: Path
) -> None:
    # Photos are looked at in groups: small ones, a large one that ends its group, and among them
    # some that cannot be read or hold nobody.
    broken, nobody, large = (tmp_path / f"{name}.png" for name in ("broken", "nobody", "large"))
    broken.write_bytes(b"no photo")
    Image.new("RGB", (120, 90)).save(nobody)
    Image.open(people_photos[0]).resize((1_100, 1_100)).save(large)
    photos = [*people_photos[:3], broken, large, nobody, *people_photos[3:6]]
    detector, recipe = load_detector("dlib_hog"), encoder.contract.crop
    alone = list(find_crops(photos, detector, recipe, workers=1, digests=True))
    together = list(find_crops(photos, detector, recipe, workers=2, digests=True))
    assert [found.photo for found in together] == list(map(str, photos))
    assert [found.error for found in together].count(None) == 7
    for one, other in zip(alone, together, strict=True):
        assert (one.error, one.size, one.digest) == (other.error, other.size, other.digest)
        assert [face.box for face in one.faces] == [face.box for face in other.faces]
        np.testing.assert_array_equal(one.crops, other.crops)


def test_photos_come_back_in_their_order_whatever_is_wrong_with_some(
    encoder: Encoder, people_photos: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(people_photos[0].read_bytes()[:2000])
    photos = [people_photos[0], broken, people_photos[1], tmp_path / "none.jpg"]
    blank = np.zeros((90, 90, 3), np.uint8)
    # Photos may come one by one.
    one_by_one: Iterator[Photo] = iter([*photos, blank])
    results = list(embed_photos(one_by_one, load_detector(), encoder))
    assert [result.photo for result in results] == [*map(str, photos), "array"]
    assert [len(result.embeddings) for result in results] == [1, 0, 1, 0, 0]
    assert results[0].error is None
    assert "cut off" in str(results[1].error)
    assert results[3].error == "no such file"
    assert results[4].error == NO_FACE


def test_workers_give_what_one_process_gives(encoder: Encoder, people_photos: list[Path]) -> None:
    photos = [*people_photos, *people_photos[:9]]
    alone = list(embed_photos(photos, load_detector(), encoder, workers=1))
    together = list(embed_photos(photos, load_detector(), encoder, workers=2))
    for one, other in zip(alone, together, strict=True):
        assert one.photo == other.photo
        assert [face.box for face in one.faces] == [face.box for face in other.faces]
        np.testing.assert_allclose(one.embeddings, other.embeddings, atol=1e-6)
