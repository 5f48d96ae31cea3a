"""Photos that look odd and are fine: each is read right."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from face_encode.photos.reading import content_digest, decode_image, read_image
from face_encode.types import ImageArray

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
Colours = Sequence[tuple[int, ...]]


def quarters() -> Image.Image:
    """Red, green / blue, white: whatever is swapped or turned is seen."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:] = RED, GREEN
    pixels[16:, :24], pixels[16:, 24:] = BLUE, WHITE
    return Image.fromarray(pixels)


def corners(image: ImageArray) -> list[tuple[int, ...]]:
    """The colours a little inside the four corners, row by row."""
    height, width = image.shape[:2]
    return [
        tuple(image[y, x].tolist())
        for y in (height // 8, height - 1 - height // 8)
        for x in (width // 8, width - 1 - width // 8)
    ]


def check(image: ImageArray, expected: Colours, tolerance: int) -> None:
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert image.flags.c_contiguous
    np.testing.assert_allclose(corners(image), expected, atol=tolerance)


COLOURS = [RED, GREEN, BLUE, WHITE]
# The weights of ITU-R BT.601, by which Pillow makes grey: red 76, green 150, blue 29.
GREYS = [(76,) * 3, (150,) * 3, (29,) * 3, WHITE]

SAVED: dict[str, tuple[str, str, dict[str, Any], Colours, int]] = {
    "JPEG": ("RGB", "a.jpg", {"quality": 95}, COLOURS, 8),
    "progressive JPEG": ("RGB", "a.jpg", {"progressive": True, "quality": 95}, COLOURS, 8),
    "grey JPEG": ("L", "a.jpg", {"quality": 95}, GREYS, 8),
    "CMYK JPEG": ("CMYK", "a.jpg", {"quality": 95}, COLOURS, 12),
    "PNG": ("RGB", "a.png", {}, COLOURS, 0),
    "a PNG named JPEG": ("RGB", "a.jpg", {"format": "PNG"}, COLOURS, 0),
    "no suffix": ("RGB", "photo", {"format": "PNG"}, COLOURS, 0),
    "grey PNG": ("L", "a.png", {}, GREYS, 1),
    "grey PNG with alpha": ("LA", "a.png", {}, GREYS, 1),
    "RGBA": ("RGBA", "a.png", {}, COLOURS, 0),
    "palette": ("P", "a.png", {}, COLOURS, 30),
    "GIF": ("P", "a.gif", {}, COLOURS, 30),
    "lossless WebP": ("RGB", "a.webp", {"lossless": True}, COLOURS, 0),
    "BMP": ("RGB", "a.bmp", {}, COLOURS, 0),
    "TIFF": ("RGB", "a.tiff", {}, COLOURS, 0),
    "CMYK TIFF": ("CMYK", "a.tif", {}, COLOURS, 2),
    "compressed TIFF": ("RGB", "a.tif", {"compression": "tiff_lzw"}, COLOURS, 0),
    "PPM": ("RGB", "a.ppm", {}, COLOURS, 0),
    "JPEG 2000": ("RGB", "a.jp2", {}, COLOURS, 2),
    "spaces in the name": ("RGB", "my own photo .png", {}, COLOURS, 0),
    "Japanese and Arabic in the name": ("RGB", "写真 صورة.png", {}, COLOURS, 0),
    "a face for a name": ("RGB", "🙂.png", {}, COLOURS, 0),
    "a line break in the name": ("RGB", "two\nlines.png", {}, COLOURS, 0),
    "brackets and stars in the name": ("RGB", "[red]*?%s{}.png", {}, COLOURS, 0),
    "a name that looks like an option": ("RGB", "--json.png", {}, COLOURS, 0),
    "capitals": ("RGB", "DSC0001.JPG", {"quality": 95}, COLOURS, 8),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_photo_of_any_kind_is_read_right(case: str, tmp_path: Path) -> None:
    mode, name, options, expected, tolerance = SAVED[case]
    quarters().convert(mode).save(tmp_path / name, **options)
    image = read_image(tmp_path / name)
    assert image.shape == (32, 48, 3)
    check(image, expected, tolerance)
    assert len(content_digest(tmp_path / name)) == 64


# What each orientation of EXIF makes of the four corners: the photo as it is to be seen.
ORIENTATIONS = {
    1: [RED, GREEN, BLUE, WHITE],
    2: [GREEN, RED, WHITE, BLUE],
    3: [WHITE, BLUE, GREEN, RED],
    4: [BLUE, WHITE, RED, GREEN],
    5: [RED, BLUE, GREEN, WHITE],
    6: [BLUE, RED, WHITE, GREEN],
    7: [WHITE, GREEN, BLUE, RED],
    8: [GREEN, WHITE, RED, BLUE],
    9: [RED, GREEN, BLUE, WHITE],
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_photo_is_turned_upright(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    quarters().save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == ((48, 32, 3) if 5 <= orientation <= 8 else (32, 48, 3))
    check(image, ORIENTATIONS[orientation], 8)


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"],
)
def test_damaged_exif_data_cost_no_more_than_the_orientation(exif: bytes, tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.jpg", exif=exif, quality=95)
    check(read_image(tmp_path / "a.jpg"), COLOURS, 8)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_of_an_animation_the_first_picture_is_taken(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"moving.{suffix}"
    black = Image.new("RGB", (48, 32))
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    quarters().save(path, save_all=True, append_images=[black, black], **options)
    with Image.open(path) as saved:
        assert saved.n_frames > 1
    check(read_image(path), COLOURS, 30 if suffix == "gif" else 0)
    for any_format in (True, False):
        notes: list[str] = []
        decode_image(path.read_bytes(), any_format=any_format, notes=notes)
        assert notes == ["the first of several pictures in it is looked at, the others are not"]


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "jpg", "mpo"])
def test_a_file_of_one_photo_has_no_note(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"still.{suffix}"
    # A telephone's JPEG holds further pictures of the same moment.
    further = {"append_images": [quarters()]} if suffix == "mpo" else {}
    quarters().save(path, None, save_all=bool(further), **further)
    notes: list[str] = []
    decode_image(path.read_bytes(), any_format=True, notes=notes)
    assert notes == []


def test_damage_behind_the_first_picture_of_an_animation_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    quarters().save(path, save_all=True, append_images=[Image.new("RGB", (48, 32))])
    content = path.read_bytes()
    for cut in range(1, 60):
        notes: list[str] = []
        check(decode_image(content[:-cut], notes=notes), COLOURS, 30)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_of_grey_become_8(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"deep.{suffix}"
    values = np.repeat(np.arange(256, dtype=np.uint16)[np.newaxis] * 257, 4, axis=0)
    assert cv2.imwrite(str(path), values)
    image = read_image(path)
    np.testing.assert_array_equal(image[2], np.repeat(np.arange(256)[:, np.newaxis], 3, axis=1))


def test_16_bits_of_colour_become_8(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    bgr = np.ascontiguousarray(np.asarray(quarters())[:, :, ::-1])
    assert cv2.imwrite(str(path), bgr.astype(np.uint16) * 257)
    check(read_image(path), COLOURS, 0)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_is_laid_on_white(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "cut-out.png"
    if mode == "P":
        photo = Image.new("P", (32, 32), 0)
        photo.putpalette([200, 10, 10, 0, 0, 0])
        photo.paste(1, (16, 0, 32, 32))
        photo.save(path, transparency=0)
    elif mode == "RGB":
        photo = Image.new("RGB", (32, 32), (200, 10, 10))
        photo.paste((0, 0, 0), (16, 0, 32, 32))
        photo.save(path, transparency=(200, 10, 10))
    else:
        photo = Image.new("RGBA", (32, 32), (200, 10, 10, 0))
        photo.paste((0, 0, 0, 255), (16, 0, 32, 32))
        photo.convert(mode).save(path)
    check(read_image(path), [WHITE, (0, 0, 0)] * 2, 0)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_a_photo_of_any_shape_is_read(width: int, height: int, tmp_path: Path) -> None:
    Image.new("RGB", (width, height), RED).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (height, width, 3)
    assert (image == RED).all()


def test_one_bit_a_pixel(tmp_path: Path) -> None:
    photo = Image.new("1", (32, 32), 1)
    photo.paste(0, (16, 0, 32, 32))
    photo.save(tmp_path / "a.png")
    check(read_image(tmp_path / "a.png"), [WHITE, (0, 0, 0)] * 2, 0)


def test_what_follows_the_photo_is_passed_over(tmp_path: Path) -> None:
    # Telephones append films and depth maps to their photos.
    path = tmp_path / "live.jpg"
    quarters().save(path, quality=95)
    path.write_bytes(path.read_bytes() + b"\0\0\0\x18ftypmp42" * 999)
    check(read_image(path), COLOURS, 8)


def test_a_link_to_a_photo_is_the_photo(tmp_path: Path) -> None:
    quarters().save(tmp_path / "a.png")
    (tmp_path / "b.jpg").symlink_to("a.png")
    check(read_image(tmp_path / "b.jpg"), COLOURS, 0)
    assert content_digest(tmp_path / "a.png") == content_digest(tmp_path / "b.jpg")


def test_a_name_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"M\xfcller.png")
    try:
        with open(path, "wb") as file:
            quarters().save(file, "PNG")
    except OSError:
        pytest.skip("this file system takes text only")
    check(read_image(os.fsdecode(path)), COLOURS, 0)


def test_metadata_are_passed_over(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 10_000, zip=True)
    quarters().save(tmp_path / "a.png", pnginfo=text, icc_profile=b"no profile")
    check(read_image(tmp_path / "a.png"), COLOURS, 0)
