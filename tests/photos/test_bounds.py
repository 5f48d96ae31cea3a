"""Photos whose decoding would cost out of proportion, and ordinary ones that look alike."""

from __future__ import annotations

import time

import pytest

from face_encode.errors import ImageError
from face_encode.photos.reading import decode_image
from tests.photos.laborious import (
    LABORIOUS,
    MEGAPIXELS_25,
    chunk,
    jpeg_of_scans,
    jpeg_with,
    png,
    saved,
    segment,
    tiff_of_strips,
    tiff_of_tiles,
)


@pytest.mark.parametrize("name", LABORIOUS)
def test_a_laborious_photo_is_refused_at_once(name: str) -> None:
    content = LABORIOUS[name]()
    begun = time.process_time()
    with pytest.raises(
        ImageError, match=r"^sent: (?!sent: )(a JPEG of|made of|a side|a TIFF|not a)"
    ):
        decode_image(content, "sent", max_pixels=MEGAPIXELS_25)
    # The quickest of them took 4 seconds, the slowest 142.
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    ("content", "shape"),
    [
        (saved("JPEG", progressive=True), (300, 400)),
        (jpeg_of_scans(200, 12), (200, 200)),
        (jpeg_of_scans(200, 90), (200, 200)),
        (jpeg_with(segment(0xE2, b"ICC_PROFILE\0" + bytes(60_000)) * 300), (300, 400)),
        # As telephones put a film behind a photo.
        (saved("JPEG") + b"\xff\xda" * 5_000, (300, 400)),
        (jpeg_with(segment(0xFE, b"\xff\xda" * 5_000)), (300, 400)),
        (saved("PNG"), (300, 400)),
        (png(10, 10, chunk(b"tEXt", b"a\0b") * 500), (10, 10)),
        (saved("TIFF"), (300, 400)),
        (saved("TIFF", compression="tiff_lzw"), (300, 400)),
        (saved("TIFF", big_tiff=True), (300, 400)),
        (tiff_of_tiles(256), (10, 10)),
        (tiff_of_strips(10), (10, 10)),
        (saved("GIF"), (300, 400)),
        (saved("BMP"), (300, 400)),
        (saved("WEBP"), (300, 400)),
    ],
)
def test_what_cameras_and_programs_write_is_read(content: bytes, shape: tuple[int, int]) -> None:
    assert decode_image(content, max_pixels=MEGAPIXELS_25).shape == (*shape, 3)
