"""Reading photos; what is broken or odd is in ``tests/broken_inputs``."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode import images
from face_encode.errors import ImageError
from face_encode.photos.reading import as_rgb, content_digest, decode_image, read_image, rgb_of

PHOTO = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)


def test_rgb_stays_as_it_is_without_a_copy() -> None:
    np.testing.assert_array_equal(as_rgb(PHOTO), PHOTO)
    assert np.shares_memory(as_rgb(PHOTO), PHOTO)


def test_grey_becomes_rgb() -> None:
    grey = PHOTO[:, :, 0]
    for image in (grey, grey[:, :, np.newaxis]):
        rgb = as_rgb(image)
        assert rgb.shape == PHOTO.shape
        for channel in range(3):
            np.testing.assert_array_equal(rgb[:, :, channel], grey)


def test_of_rgba_the_alpha_is_dropped() -> None:
    rgba = np.dstack([PHOTO, np.full((6, 8), 9, np.uint8)])
    np.testing.assert_array_equal(as_rgb(rgba), PHOTO)


def test_the_result_is_contiguous_and_the_photo_unchanged() -> None:
    before = PHOTO.copy()
    flipped = as_rgb(PHOTO[:, ::-1])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(flipped, before[:, ::-1])
    np.testing.assert_array_equal(PHOTO, before)


def test_a_photo_is_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        image = read_image(path)
        np.testing.assert_array_equal(image, PHOTO)
        assert image.flags.writeable


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files cannot be counted")
def test_the_file_is_closed_again(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    errors = []
    read_image(tmp_path / "a.png")
    # An error that is kept keeps whatever its frames hold.
    for name in ("b.png", "none.png"):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        errors.append(caught.value)
    content_digest(tmp_path / "a.png")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_limits_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(PHOTO).save(path)
    size = path.stat().st_size
    monkeypatch.setattr(images, "MAX_PIXELS", 48)
    monkeypatch.setattr(images, "MAX_BYTES", size)
    assert read_image(path).shape == (6, 8, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 47)
    with pytest.raises(ImageError, match=r"at most 47 pixels are allowed \(8x6 pixels\)"):
        read_image(path)
    monkeypatch.setattr(images, "MAX_BYTES", size - 1)
    with pytest.raises(ImageError, match=r"at most [0-9]+ bytes"):
        read_image(path)


def test_a_large_photo_below_the_limit_gives_no_warning(tmp_path: Path) -> None:
    # Pillow warns from half the limit on; 90 megapixels of one bit are a small file.
    Image.new("1", (10_000, 9_000)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "a.png").shape == (9_000, 10_000, 3)


def test_a_digest_goes_by_content_alone(tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(3_000_000)
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "b.png").write_bytes(content)
    assert content_digest(tmp_path / "a.jpg") == hashlib.sha256(content).hexdigest()
    assert content_digest(tmp_path / "a.jpg") == content_digest(str(tmp_path / "b.png"))


def test_a_digest_of_an_array_goes_by_shape_and_type_too() -> None:
    assert content_digest(PHOTO) == content_digest(np.asfortranarray(PHOTO.copy()))
    digests = {
        content_digest(PHOTO),
        content_digest(PHOTO.reshape(8, 6, 3)),
        content_digest(PHOTO.view(np.int8)),
        content_digest(255 - PHOTO),
    }
    assert len(digests) == 4


def test_bytes_are_decoded_like_files(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(decode_image(content), PHOTO)
    with pytest.raises(ImageError, match=r"hers: too large .* at most 47 pixels"):
        decode_image(content, "hers", max_pixels=47)
    with pytest.raises(ImageError, match="the photo: an empty file"):
        decode_image(b"")


def test_bytes_from_outside_reach_few_decoders(tmp_path: Path) -> None:
    # Read from a file of one's own, refused from a stranger.
    Image.fromarray(PHOTO).save(tmp_path / "a.pcx")
    np.testing.assert_array_equal(read_image(tmp_path / "a.pcx"), PHOTO)
    with pytest.raises(ImageError, match="not a photo in a known format"):
        decode_image((tmp_path / "a.pcx").read_bytes())


def test_pillows_images_become_rgb() -> None:
    np.testing.assert_array_equal(rgb_of(Image.fromarray(PHOTO)), PHOTO)
    grey = rgb_of(Image.fromarray(PHOTO).convert("L"))
    assert grey.shape == PHOTO.shape
    assert grey.dtype == np.uint8
