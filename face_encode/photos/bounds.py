"""What a photo from an unknown sender may ask of its decoder, found out before it is decoded.

The bytes and pixels of a photo bound neither time nor memory: a JPEG may hold thousands of scans of
the whole photo, any file millions of tiny parts, and a TIFF tiles far larger than the photo.
"""

from __future__ import annotations

import io
import re

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from face_encode.errors import ImageError

# Reads of the file until its size is known: a photo with as many JPEG segments as an ICC profile
# and a long XMP record have takes some 2,000. And until it is decoded: 20 MB of PNG in pieces of
# 8 kB take some 10,000.
_MAX_READS_TO_OPEN = 5_000
_MAX_READS = 50_000
# JPEG's own limit. Pillow keeps a pointer for each row, libraries more.
_MAX_SIDE = 65_535
# A TIFF is decoded tile by tile, each as a whole; small photos have tiles larger than themselves.
# Pillow keeps an object for each tile or strip.
_MIN_LARGEST_TILE = 4_000_000
_MAX_TIFF_PARTS = 65_535
_TIFF, _BIG = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), b"+"
# Tags of TIFF 6.0.
_WIDTH, _HEIGHT, _STRIP_OFFSETS = 256, 257, 273
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 322, 323, 324
# Each scan of a JPEG goes over all its pixels. Encoders write ten or so.
_USUAL_SCANS = 12
_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 400_000_000
# Any marker but those that stand inside a scan: a filled-up byte, and restarts.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_JPEG, _SCAN, _END, _START = b"\xff\xd8\xff", 0xDA, 0xD9, 0xD8
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class BoundedFile(io.BytesIO):
    """A photo's content as a file that ends the reading of one in too many parts."""

    def __init__(self, content: bytes) -> None:
        """Take the content."""
        super().__init__(content)
        self._left = _MAX_READS_TO_OPEN

    def opened(self) -> None:
        """Allow the reads of decoding."""
        self._left = _MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as any file.

        Raises:
            ImageError: The photo consists of too many parts.
        """
        self._left -= 1
        if self._left < 0:
            raise ImageError("made of too many parts to be a photo")
        return super().read(size)


def check_scans(content: bytes) -> None:
    """Refuse a JPEG with more scans than time; every other file passes.

    Raises:
        ImageError: It has.
    """
    if not content.startswith(_JPEG) or content.count(b"\xff\xda") <= _USUAL_SCANS:
        return
    scans, pixels, place = 0, 0, len(_JPEG) - 1
    for _ in range(_MAX_READS_TO_OPEN):
        found = _MARKER.search(content, place)
        if found is None or found[1][0] == _END:
            return
        kind, place = found[1][0], found.end()
        if kind == _START:
            continue
        if kind in _FRAMES and not pixels:
            height, width = content[place + 3 : place + 5], content[place + 5 : place + 7]
            pixels = int.from_bytes(height, "big") * int.from_bytes(width, "big")
        scans += kind == _SCAN
        if scans > _USUAL_SCANS and scans > min(_MAX_SCANS, _MAX_SCANNED_PIXELS // max(1, pixels)):
            raise ImageError("a JPEG of more scans than any photo has")
        place += int.from_bytes(content[place : place + 2], "big")
    raise ImageError("made of too many parts to be a photo")


def check_tiff(content: bytes) -> None:
    """Refuse a TIFF of very many strips or very large tiles; every other file passes.

    Raises:
        ImageError: It has.
        Exception: Whatever Pillow raises where the file is damaged.
    """
    if content[:4] not in _TIFF:
        return
    file = BoundedFile(content)
    tags = ImageFileDirectory_v2(file.read(16 if _BIG in content[2:4] else 8))
    file.seek(tags.next)
    tags.load(file)
    parts = max(len(tags.get(name, ())) for name in (_STRIP_OFFSETS, _TILE_OFFSETS))
    if parts > _MAX_TIFF_PARTS:
        raise ImageError(f"a TIFF in {parts:,} parts; at most {_MAX_TIFF_PARTS:,}")
    if _TILE_WIDTH in tags:
        pixels = tags[_WIDTH] * tags[_HEIGHT]
        tile = tags[_TILE_WIDTH] * tags[_TILE_HEIGHT]
        if tile > max(_MIN_LARGEST_TILE, 4 * pixels):
            raise ImageError(f"a TIFF of {pixels:,} pixels with tiles of {tile:,}")


def check_sides(photo: Image.Image) -> None:
    """Refuse a photo, opened and not yet decoded, that is hardly more than a line.

    Raises:
        ImageError: A side is too long.
    """
    if max(photo.size) > _MAX_SIDE:
        raise ImageError(f"a side of more than {_MAX_SIDE:,} pixels: {photo.width}x{photo.height}")
