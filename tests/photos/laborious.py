"""Photos that keep a decoder busy for minutes, or take a machine's memory; see ``test_bounds``."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

MEGAPIXELS_25 = 25_000_000


def segment(kind: int, content: bytes) -> bytes:
    """A part of a JPEG."""
    return bytes([0xFF, kind]) + struct.pack(">H", len(content) + 2) + content


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG, grey: its mean, then the details as often as that, each time nothing."""
    blocks = (-(-side // 8)) ** 2
    one_code = bytes([1] + [0] * 15)
    # A run of 16,384 blocks without anything is one code and 14 more bits.
    bits = "0" * 15 * (blocks // 16_384 + 3)
    nothing = bytes(len(bits) // 8)
    tables = segment(0xDB, b"\0" + bytes([1] * 64)) + segment(
        0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0])
    )
    tables += segment(0xC4, b"\x00" + one_code + b"\x00")
    tables += segment(0xC4, b"\x10" + one_code + b"\xe0")
    mean = segment(0xDA, bytes([1, 1, 0x00, 0, 0, 0x01])) + bytes(-(-blocks // 8))
    first = segment(0xDA, bytes([1, 1, 0x00, 1, 63, 0x01])) + nothing
    refined = segment(0xDA, bytes([1, 1, 0x00, 1, 63, 0x10])) + nothing
    return b"\xff\xd8" + tables + mean + first + refined * (scans - 2) + b"\xff\xd9"


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    end = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + end


def png(width: int, height: int, between: bytes = b"") -> bytes:
    """A black PNG, grey, with something before its pixels."""
    pixels = zlib.compress(bytes((1 + width) * height))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    parts = header + between + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(entries: dict[int, tuple[int, int]], content: bytes = b"") -> bytes:
    """A grey TIFF: tag -> count and value."""
    told = {256: (1, 10), 257: (1, 10), 258: (1, 8), 262: (1, 1), 277: (1, 1)} | entries
    rows = [struct.pack("<HHII", tag, 4, *value) for tag, value in sorted(told.items())]
    head = b"II*\0" + struct.pack("<IH", 8, len(rows))
    return head + b"".join(rows) + struct.pack("<I", 0) + content


def tiff_of_tiles(side: int) -> bytes:
    """A TIFF of one compressed tile."""
    packed = zlib.compress(bytes(side * min(side, 1000)))
    place = 8 + 2 + 12 * 10 + 4
    tags = {259: (1, 8), 322: (1, side), 323: (1, side), 324: (1, place), 325: (1, len(packed))}
    return tiff(tags, packed)


def tiff_of_strips(count: int) -> bytes:
    """A TIFF with as many strips, all of them the same bytes."""
    place = 8 + 2 + 12 * 9 + 4
    tags = {259: (1, 1), 278: (1, 1), 273: (count, place), 279: (count, place + 4 * count)}
    return tiff(tags, struct.pack("<I", 8) * count + struct.pack("<I", 10) * count)


def bmp_of_runs(side: int, runs: int) -> bytes:
    """A BMP, packed, of runs of one pixel."""
    pixels = b"\x01\x00" * runs
    place = 14 + 40 + 1024
    sizes = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    return (
        b"BM"
        + struct.pack("<IHHI", place + len(pixels), 0, 0, place)
        + sizes
        + bytes(1024)
        + (pixels)
    )


def gif_of_comments(count: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0x80, 0, 0) + bytes(6)
    return head + b"\x21\xfe" + (b"\xff" + b"a" * 255) * count + b"\0;"


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(file, kind, **options)
    return file.getvalue()


def jpeg_with(between: bytes) -> bytes:
    photo = saved("JPEG")
    return photo[:2] + between + photo[2:]


LABORIOUS: dict[str, Callable[[], bytes]] = {
    "scans": lambda: jpeg_of_scans(5000, 3000),
    "scans for as many pixels": lambda: jpeg_of_scans(5000, 20),
    "scans of a small photo": lambda: jpeg_of_scans(100, 3000),
    "comments": lambda: jpeg_with(b"\xff\xfe\x00\x02" * 3_000_000),
    "application segments": lambda: jpeg_with(segment(0xE5, b"a") * 1_000_000),
    "bytes between segments": lambda: jpeg_with(b"a" * 1_000_000),
    "empty PNG chunks": lambda: png(10, 10, chunk(b"IDAT", b"") * 500_000),
    "texts in a PNG": lambda: png(10, 10, chunk(b"tEXt", b"a\0b") * 500_000),
    "a line of pixels": lambda: png(1, MEGAPIXELS_25),
    "a lying line": lambda: png(MEGAPIXELS_25 // 10, 1),
    "tiles": lambda: tiff_of_tiles(32_768),
    "strips": lambda: tiff_of_strips(1_000_000),
    "runs in a BMP": lambda: bmp_of_runs(5000, 5_000_000),
    "a comment in a GIF": lambda: gif_of_comments(70_000),
    "numbers in a PPM": lambda: b"P3 100 100 255\n" + b"#\n" * 5_000_000,
    "a binary PPM of 7 greys": lambda: b"P5 2000 2000 6\n" + bytes(4_000_000),
}
