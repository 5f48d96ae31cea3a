"""Makes broken photos: each function takes a folder and gives the path of what it made there."""

from __future__ import annotations

import errno
import io
import os
import pickle
import socket
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Maker = Callable[[Path], Path]


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A photo in colour that does not compress to nothing."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(kind: str, **options: object) -> bytes:
    """A whole photo in a file format."""
    buffer = io.BytesIO()
    picture().save(buffer, kind, **options)
    return buffer.getvalue()


def content(name: str, make: Callable[[], bytes]) -> Maker:
    """A file with this content."""

    def maker(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(make())
        return path

    return maker


def cut(name: str, kind: str, share: float, **options: object) -> Maker:
    """A photo that ends after a share of its bytes."""
    return content(
        name, lambda: (whole := encoded(kind, **options))[: max(1, int(len(whole) * share))]
    )


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Length, kind, data and checksum."""
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colours: int = 2) -> bytes:
    """A PNG file with a header of any size."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def black_png(side: int) -> bytes:
    """A whole, black, square PNG of one bit a pixel: a small file of a great many pixels."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    return png(side, side, png_chunk(b"IDAT", data), bits=1, colours=0)


def damaged_png() -> bytes:
    """A PNG with a byte of its pixels changed, against its checksum."""
    whole = bytearray(encoded("PNG"))
    whole[len(whole) // 2] ^= 0xFF
    return bytes(whole)


def huge_bmp() -> bytes:
    """A BMP whose header claims 60,000 x 60,000 pixels."""
    whole = bytearray(encoded("BMP"))
    whole[18:26] = struct.pack("<ii", 60_000, 60_000)
    return bytes(whole)


def huge_gif() -> bytes:
    """A GIF whose header claims the largest size there is."""
    whole = bytearray(encoded("GIF"))
    whole[6:10] = struct.pack("<HH", 65_535, 65_535)
    return bytes(whole)


@contextmanager
def little_memory(extra: int = 150_000_000) -> Iterator[None]:
    """Give the process no more than so many further bytes, where the system can."""
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    former = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + extra, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, former)


class Explosive:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (Path("exploded.txt"), "the pickle was run"))


def zip_archive() -> bytes:
    """An archive with a photo in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.jpg", encoded("JPEG"))
    return buffer.getvalue()


def tiff(mode: str, low: float, high: float) -> bytes:
    """A TIFF of 32-bit pixels."""
    values = np.linspace(low, high, 64 * 48).reshape(48, 64)
    kind = np.float32 if mode == "F" else np.int32
    buffer = io.BytesIO()
    Image.fromarray(values.astype(kind)).save(buffer, "TIFF")
    return buffer.getvalue()


def folder_named_as_a_photo(folder: Path) -> Path:
    path = folder / "folder.jpg"
    path.mkdir()
    picture().save(path / "inside.jpg")
    return path


def pipe(folder: Path) -> Path:
    path = folder / "pipe.jpg"
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(path)
    return path


def unix_socket(folder: Path) -> Path:
    path = folder / "socket.jpg"
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("this system has no Unix sockets")
    former = Path.cwd()
    os.chdir(folder)  # a socket's path is at most 108 bytes long
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(former)
    return path


def device(name: str) -> Maker:
    """A link to a device."""

    def maker(folder: Path) -> Path:
        if not Path(name).is_char_device():
            pytest.skip(f"this system has no {name}")
        path = folder / f"device-{Path(name).name}.jpg"
        path.symlink_to(name)
        return path

    return maker


def link(name: str, target: str) -> Maker:
    """A link to somewhere else in the folder."""

    def maker(folder: Path) -> Path:
        path = folder / name
        path.symlink_to(target)
        return path

    return maker


def unreadable(folder: Path) -> Path:
    path = folder / "unreadable.jpg"
    picture().save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        path.unlink()
        pytest.skip("nothing can be forbidden to this user")
    return path


def sparse(folder: Path) -> Path:
    """Two gigabytes that take no room on the disk."""
    path = folder / "sparse.jpg"
    with path.open("wb") as file:
        file.write(encoded("JPEG"))
        try:
            file.truncate(2_000_000_000)
        except OSError as error:
            if error.errno not in (errno.EFBIG, errno.ENOSPC):
                raise
            path.unlink()
            pytest.skip("this file system has no sparse files")
    return path


NO_PHOTO = "not a photo in a known format"
TOO_LARGE = "too large to be read safely"
NOT_A_FILE = "a pipe, socket or device, not a regular file"

# What is broken: how it is made, and what the user is told.
BROKEN_FILES: dict[str, tuple[Maker, str]] = {
    "zero bytes": (content("zero.jpg", bytes), "an empty file"),
    "a text": (content("text.jpg", lambda: b"Dear Ada,\n"), NO_PHOTO),
    "a web page": (content("page.png", lambda: b"<!DOCTYPE html><html></html>"), NO_PHOTO),
    "one byte of a JPEG": (content("byte.jpg", lambda: b"\xff"), NO_PHOTO),
    "the first bytes of a JPEG": (cut("start.jpg", "JPEG", 0.01), "damaged or cut off"),
    "a tenth of a JPEG": (cut("tenth.jpg", "JPEG", 0.1), "damaged or cut off"),
    "half a JPEG": (cut("half.jpg", "JPEG", 0.5), "damaged or cut off"),
    "half a progressive JPEG": (
        cut("progressive.jpg", "JPEG", 0.5, progressive=True),
        "damaged or cut off",
    ),
    "half a PNG": (cut("half.png", "PNG", 0.5), "damaged or cut off"),
    "half a WebP": (cut("half.webp", "WEBP", 0.5), "damaged or cut off"),
    "half a GIF": (cut("half.gif", "GIF", 0.5), "damaged or cut off"),
    "half a BMP": (cut("half.bmp", "BMP", 0.5), "damaged or cut off"),
    "half a TIFF": (cut("half.tif", "TIFF", 0.5), "damaged or cut off"),
    "half a PPM": (cut("half.ppm", "PPM", 0.5), "damaged or cut off"),
    "half a JPEG 2000": (cut("half-2000.jpg", "JPEG2000", 0.5), "damaged or cut off"),
    "a PNG with a wrong checksum": (content("checksum.png", damaged_png), "damaged or cut off"),
    "a PNG without pixels": (content("no-pixels.png", lambda: png(8, 8)), "damaged or cut off"),
    "a PNG with a packed text of megabytes": (
        content(
            "text-bomb.png",
            lambda: png(8, 8, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5_000_000)))),
        ),
        "damaged or cut off",
    ),
    "a PPM with words for numbers": (
        content("words.ppm", lambda: b"P6 wide high 255\n"),
        "damaged or cut off",
    ),
    "20,000 x 20,000": (content("large.png", lambda: black_png(20_000)), TOO_LARGE),
    "a PNG header of the largest size": (
        content("largest.png", lambda: png(2**31 - 1, 2**31 - 1)),
        TOO_LARGE,
    ),
    "a PNG header of 178,956,971 pixels in a row": (
        content("row.png", lambda: png(178_956_971, 1)),
        TOO_LARGE,
    ),
    "a BMP header of 60,000 x 60,000": (content("huge.bmp", huge_bmp), TOO_LARGE),
    "a GIF header of 65,535 x 65,535": (content("huge.gif", huge_gif), TOO_LARGE),
    "a film": (content("film.jpg", lambda: b"\0\0\0\x18ftypisom" + bytes(99)), NO_PHOTO),
    "a HEIC photo": (content("phone.heic", lambda: b"\0\0\0\x18ftypheic" + bytes(99)), NO_PHOTO),
    "a PostScript file": (
        content("program.jpg", lambda: encoded("EPS")),
        "a PostScript file, not a photo",
    ),
    "a PDF": (content("letter.jpg", lambda: encoded("PDF")), NO_PHOTO),
    "a drawing": (content("drawing.png", lambda: b"<svg xmlns='x'/>"), NO_PHOTO),
    "an archive": (content("archive.jpg", zip_archive), NO_PHOTO),
    "a pickle": (content("pickle.jpg", lambda: pickle.dumps(Explosive())), NO_PHOTO),
    "random bytes": (
        content("random.jpg", lambda: np.random.default_rng(4).bytes(5_000)),
        NO_PHOTO,
    ),
    "floating-point pixels of 0..1": (
        content("float.tif", lambda: tiff("F", 0, 1)),
        "floating-point pixels",
    ),
    "floating-point pixels that are no numbers": (
        content("nan.tif", lambda: tiff("F", np.nan, np.nan)),
        "floating-point pixels",
    ),
    "negative pixels": (
        content("negative.tif", lambda: tiff("I", -5, 99)),
        "values outside 0..65535",
    ),
    "pixels above 16 bits": (
        content("bright.tif", lambda: tiff("I", 0, 99_999)),
        "values outside 0..65535",
    ),
    "a pipe": (pipe, NOT_A_FILE),
    "a socket": (unix_socket, NOT_A_FILE),
    "a device that never ends": (device("/dev/zero"), NOT_A_FILE),
    "a device that is empty": (device("/dev/null"), NOT_A_FILE),
    "a dangling link": (link("dangling.jpg", "gone.jpg"), "a link to nothing"),
    "a link to itself": (link("loop.jpg", "loop.jpg"), "too many levels of symbolic links"),
    "no permission": (unreadable, "no permission to read it"),
    "two gigabytes": (sparse, "too large to be a photo"),
}

# A folder of photos never lists these, so that they can only be named one by one.
BROKEN_PATHS: dict[str, tuple[Maker, str]] = {
    "a folder": (folder_named_as_a_photo, "a folder, not a photo"),
    "missing": (lambda folder: folder / "missing.jpg", "no such file"),
    "a missing folder": (lambda folder: folder / "none" / "a.jpg", "no such file"),
    "a name that is too long": (lambda folder: folder / ("a" * 300 + ".jpg"), "name too long"),
    "a file inside a file": (
        lambda folder: content("file.jpg", lambda: b"x")(folder) / "a.jpg",
        "not a directory",
    ),
    "half a character in the name": (lambda folder: folder / "\ud800.jpg", "no such file"),
}
