"""Photos: read any of them as RGB.

Pillow reads the files, because it tells a photo's size before decoding it (a decompression bomb
is refused in time) and reports a truncated file instead of filling the rest with grey.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import re
import threading
import warnings
from functools import cache
from typing import Any, BinaryIO, TypeAlias, cast
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from face_encode.downloads import DownloadError, download_bytes
from face_encode.errors import ImageError, InputError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.photos.bounds import BoundedFile, check_scans, check_sides, check_tiff
from face_encode.photos.truncated import END, is_almost_whole, may_lack_its_end
from face_encode.types import ImageArray, Photo

# Twice Pillow's own warning level, at which Pillow itself refuses: 0.5 GB as RGB.
MAX_PIXELS = 178_956_970
# The most that these pixels take, uncompressed in RGBA at 16 bits; a larger file is no photo, and
# would be read to its end for nothing.
MAX_BYTES = 8 * MAX_PIXELS
# The formats read from an unknown sender: every further decoder is one more to trust.
_FORMATS_FROM_OUTSIDE = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
# Of 16 bits a pixel, those that cameras use, and 8, of photos that were only saved as 16.
_FEWER_BITS = (8, 10, 12, 14)
HEIC_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"mif1", b"msf1"),
)
"""Bytes 8 to 12 of a HEIC file, the photos of telephones, behind ``ftyp``; Pillow reads it by a
plug-in."""
# Before Python 3.14, warnings.catch_warnings is for one thread at a time: of two, the last puts
# back what the first had turned off, for the whole process and for good. So the first of the
# threads that decode turns the warnings off, and the last puts them back.
_CATCHING = threading.Lock()
_decoding, _caught = 0, warnings.catch_warnings()


def _alone() -> None:
    """In a forked process the other threads' decoding never ends."""
    global _decoding
    if _decoding:
        _decoding = 0
        _caught.__exit__(None, None, None)
    _CATCHING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_CATCHING.acquire, after_in_parent=_CATCHING.release, after_in_child=_alone
    )


def as_rgb(image: Any) -> ImageArray:
    """Check that an array is a photo, and return it as contiguous RGB.

    Args:
        image: uint8 array, values 0..255: ``(H, W, 3)`` RGB, ``(H, W, 4)`` RGBA (the alpha is
            dropped), ``(H, W)`` or ``(H, W, 1)`` grey.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        InputError: Not an array, another shape or another type. Floating-point photos are
            refused rather than guessed at, since 0..1 and 0..255 are both in use.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(
            "a photo is a numpy array of shape (height, width, 3); read a file with "
            f"face_encode.read_image first. Received: {type(image).__name__}"
        )
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in image.shape:
        raise InputError(
            "a photo has shape (height, width, 3) in RGB, (height, width, 4) in RGBA or "
            f"(height, width) in grey, none of them 0. Received: shape {image.shape}"
        )
    if image.dtype != np.uint8:
        # Written out, since numbers of another type stay refused after the multiplication alone.
        hint = ""
        if image.dtype.kind == "f":
            hint = "; for values of 0..1: (255 * photo).round().astype(numpy.uint8)"
        raise InputError(
            f"a photo has dtype uint8 with values 0..255{hint}. Received: {image.dtype}"
        )
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    image = np.repeat(image, 3, axis=2) if channels == 1 else image[:, :, :3]
    return np.ascontiguousarray(image)


def read_image(path: str | os.PathLike[str]) -> ImageArray:
    """Read a photo as RGB, turned as its EXIF orientation says.

    Grey becomes RGB, transparency is laid on white, 16 bits of grey, or as many of them as are
    used, are reduced to 8, and of an animation the first frame is taken. A JPEG that lacks its end
    is read if almost all of it is there.

    Args:
        path: Any format that Pillow reads: JPEG, HEIC, PNG, WebP, AVIF, GIF, BMP, TIFF …

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ImageError: Missing, unreadable, damaged, truncated, of more than ``MAX_PIXELS``, with
            floating-point pixels, or no regular file.
        InputError: The path is none.
    """
    path = as_path(path)
    return decode_image(read_content(path), str(path), any_format=True)


def read_content(path: str | os.PathLike[str]) -> bytes:
    """Read a photo's file.

    Raises:
        ImageError: The file is missing, empty, larger than any photo, or cannot be read.
        InputError: The path is none.
    """
    path = as_path(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ImageError(f"{path}: an empty file")
            if size > MAX_BYTES:
                raise ImageError(f"{path}: too large to be a photo; at most {MAX_BYTES:,} bytes")
            return file.read(size)
    except FileNotFoundError as error:
        reason = "a link to nothing" if path.is_symlink() else "no such file"
        raise ImageError(f"{path}: {reason}") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: a folder, not a photo") from error
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read it") from error
    except OSError as error:
        raise ImageError(f"{path}: {reason_of(error)}") from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory to read it") from error


def decode_image(
    content: bytes | Image.Image,
    label: str = "the photo",
    *,
    max_pixels: int | None = None,
    any_format: bool = False,
    notes: list[str] | None = None,
) -> ImageArray:
    """Decode a photo, whose sender may be unknown, to upright RGB; see ``read_image``.

    Args:
        content: A file's bytes: AVIF, BMP, GIF, HEIC, JPEG, PNG, TIFF or WebP, but not what
            ``photos.bounds`` finds too laborious. Or an image of Pillow's, of any mode, which may
            not be decoded yet.
        label: The photo's name in an error.
        max_pixels: The most that are decoded; None for ``MAX_PIXELS``.
        any_format: Whether to read every format that ``read_image`` reads: for a file of one's
            own that lies elsewhere.
        notes: Takes remarks: that the end of a JPEG is missing, that few of 16 bits are used, or
            that of several pictures in a file only the first is read.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ImageError: Another format, damaged, truncated, or of more pixels or bytes.
    """
    most = MAX_PIXELS if max_pixels is None else max_pixels
    global _decoding, _caught
    with _CATCHING:
        if not _decoding:
            _caught = warnings.catch_warnings()
            _caught.__enter__()
            # Our own limit stands in for this warning, which comes at half of it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Pillow warns of damaged metadata; the photo itself is what counts here.
            warnings.simplefilter("ignore", UserWarning)
        _decoding += 1
    try:
        if isinstance(content, Image.Image):
            return _to_rgb(content, label, most, notes)
        if not content:
            raise ImageError(f"{label}: an empty file")
        if len(content) > MAX_BYTES:
            raise ImageError(f"{label}: too large to be a photo; at most {MAX_BYTES:,} bytes")
        # AVIF has two of these names, too, and says in the list behind them what it is.
        brands = content[16 : min(int.from_bytes(content[:4], "big"), 256)]
        is_avif = content[4:8] == b"ftyp" and re.search(rb"avi[fs]", brands)
        is_heic = content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS and not is_avif
        if is_heic:
            _register_heic()
        if any_format:
            # HEIC's plug-in, once loaded, would take AVIF for its own.
            with Image.open(io.BytesIO(content), formats=("AVIF",) if is_avif else None) as photo:
                return _to_rgb(photo, label, most, notes)
        formats = ("HEIF",) if is_heic else _FORMATS_FROM_OUTSIDE
        return _to_rgb_from_outside(content, label, most, formats, notes)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{label}: not a photo in a known format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{label}: too large to be read safely; at most {most:,} pixels are allowed ({error})"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{label}: not enough memory to decode it") from error
    # Pillow's decoders raise whatever a damaged file trips over: struct.error, SyntaxError,
    # IndexError … A photo from outside must never end the program.
    except Exception as error:
        if isinstance(content, bytes) and may_lack_its_end(content):
            return _without_its_end(content, label, most, any_format, notes)
        raise ImageError(f"{label}: damaged or cut off ({error})") from error
    finally:
        with _CATCHING:
            _decoding -= 1
            if not _decoding:
                _caught.__exit__(None, None, None)


def _without_its_end(
    content: bytes, label: str, max_pixels: int, any_format: bool, notes: list[str] | None
) -> ImageArray:
    """Decode a JPEG that lacks its end, if little else is missing."""
    # Pillow's own switch for this is one for the whole process, and tells nothing of what is there.
    image = decode_image(content + END, label, max_pixels=max_pixels, any_format=any_format)
    with Image.open(io.BytesIO(content + END), formats=("JPEG", "MPO")) as photo:
        lying = np.asarray(photo.convert("RGB"), np.uint8)
    if not is_almost_whole(lying):
        raise ImageError(f"{label}: damaged or cut off (more than its end is missing)")
    if notes is not None:
        notes.append("the end of the file is missing; almost all of the photo is there")
    return image


@cache
def _register_heic() -> None:
    """Let Pillow read HEIC; only where there is one, since the plug-in takes a while to load."""
    import pi_heif

    pi_heif.register_heif_opener()


def _to_rgb_from_outside(
    content: bytes,
    label: str,
    max_pixels: int,
    formats: tuple[str, ...],
    notes: list[str] | None,
) -> ImageArray:
    """Decode what somebody unknown has sent, unless it costs out of proportion."""
    try:
        check_scans(content)
        check_tiff(content)
        file = BoundedFile(content)
        with Image.open(file, formats=formats) as photo:
            check_sides(photo)
            file.opened()
            return _to_rgb(photo, label, max_pixels, notes)
    except ImageError as error:
        raise ImageError(f"{label}: {str(error).removeprefix(f'{label}: ')}") from error


def _to_rgb(photo: Image.Image, label: str, max_pixels: int, notes: list[str] | None) -> ImageArray:
    """Decode, turn upright, and bring to 8-bit RGB."""
    if photo.width * photo.height > max_pixels:
        raise Image.DecompressionBombError(f"{photo.width}x{photo.height} pixels")
    if photo.format == "EPS":
        # Pillow would start Ghostscript on a stranger's program.
        raise ImageError(f"{label}: a PostScript file, not a photo")
    # A JPEG holds one picture; those of an MPO, a telephone's, are depths or other exposures of the
    # same moment.
    if notes is not None and photo.format not in ("JPEG", "MPO") and _has_others(photo):
        notes.append("the first of several pictures in it is looked at, the others are not")
    photo.load()
    try:
        upright = ImageOps.exif_transpose(photo)
    # As with the decoders: anything at all, and here it costs no more than the orientation.
    except Exception:
        upright = photo
    if upright.mode == "F":
        # No agreed range: taken as 0..255, a photo of 0..1 would silently be black.
        raise ImageError(f"{label}: floating-point pixels; save it with 8 or 16 bits")
    if upright.mode.startswith("I"):  # 16 bits, some of which arrive as 32
        values = np.asarray(upright)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{label}: values outside 0..65535 in a photo of 32 bits")
        # Cameras of science and medicine keep 10, 12 or 14 bits in 16, and programs save 8 so: as
        # such, photos of theirs are all but black.
        used = next(bits for bits in (*_FEWER_BITS, 16) if values.max() < 2**bits)
        if used < 16 and values.any() and notes is not None:
            notes.append(f"{used} of its 16 bits are used; brightened to their range")
        most = 2**used - 1 if values.any() else 65535
        grey = (values * (255 / most)).round().astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    # In RGB, too, a PNG may name a colour that is transparent; one of 16 bits is not that of the
    # 8 that Pillow gives.
    key = upright.info.get("transparency")
    is_colour = isinstance(key, tuple) and len(key) == 3 and max(key) < 256
    if upright.has_transparency_data and (upright.mode != "RGB" or is_colour):
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    if upright.mode != "RGB":
        upright = upright.convert("RGB")
    return cast(ImageArray, np.array(upright, np.uint8))


def _has_others(photo: Image.Image) -> bool:
    """Whether a file holds further pictures: those of an animation, or further pages."""
    try:
        return bool(getattr(photo, "is_animated", False))
    # Damage behind the first picture costs no more than the note.
    except Exception:
        return False


def content_digest(photo: Photo) -> str:
    """SHA-256 of a photo's content, 64 hexadecimal digits: the same whatever its name or date.

    Raises:
        ImageError: The file cannot be read, is empty, or larger than any photo.
        InputError: Neither an array nor a path.
    """
    if isinstance(photo, np.ndarray):
        header = f"{photo.dtype} {photo.shape} ".encode()
        return hashlib.sha256(header + np.ascontiguousarray(photo).tobytes()).hexdigest()
    return hashlib.sha256(read_content(photo)).hexdigest()


PhotoInput: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image"
    " | npt.NDArray[np.uint8]"
)
"""A photo as a caller has it: the path of a file; an ``http://`` or ``https://`` address; a
``data:`` address or plain base64; the content of a file, or a binary file open for reading; an
image of Pillow's; RGB pixels, uint8 ``(H, W, 3)``."""

# Far above any photo on the web, far below what would fill a machine's memory.
MAX_DOWNLOAD_BYTES = 32 * 2**20
DOWNLOAD_SECONDS = 30

# The shortest photo that Pillow reads takes more; a shorter text is a path.
_FEWEST_BASE64_CHARACTERS = 48
# Linux' own limit, above those of other systems.
_LONGEST_PATH_CHARACTERS = 4096
_SHOWN_CHARACTERS = 60


def read_photo(photo: PhotoInput, *, urls: bool = True) -> ImageArray:
    """Read a photo in any form as RGB.

    Args:
        photo: See ``PhotoInput``. Text is taken for what it begins with, then for a path where
            a file of that name exists, then for base64.
        urls: Whether photos are fetched from ``http://`` and ``https://`` addresses. Turn it off
            where the text comes from somebody else: their address would be fetched from inside
            your network, and their path read from your disk.

    Returns:
        uint8 ``(H, W, 3)``, upright.

    Raises:
        ImageError: It cannot be read, fetched or decoded.
        InputError: None of these forms, or an address where they are turned off.
    """
    local = local_photo(photo, urls=urls)
    return as_rgb(local) if isinstance(local, np.ndarray) else read_image(local)


def local_photo(photo: PhotoInput, *, urls: bool = True) -> Photo:
    """Bring a photo in any form to one of the two that the package works on.

    Args:
        photo: See ``PhotoInput``.
        urls: As for ``read_photo``.

    Returns:
        Paths and arrays as they are, whether they hold a photo or not; all else as RGB, uint8
        ``(H, W, 3)``.

    Raises:
        ImageError: It cannot be fetched or decoded.
        InputError: None of these forms, or an address where they are turned off.
    """
    if isinstance(photo, np.ndarray | os.PathLike):
        return photo
    if isinstance(photo, str):
        return _photo_of_text(photo, urls)
    if isinstance(photo, bytes | bytearray | memoryview):
        return decode_image(bytes(photo), "the bytes received")
    if isinstance(photo, Image.Image):
        return decode_image(photo, "the image received")
    if callable(getattr(photo, "read", None)):
        return decode_image(_content_of(photo), "the file received")
    raise InputError(
        "a photo is the path of a file, an http or https address, base64, bytes, a binary file, "
        f"an image of Pillow's or a numpy array. Received: {type(photo).__name__}"
    )


def is_one_photo(value: object) -> bool:
    """Whether something that can be gone through is one photo rather than a list of them."""
    return isinstance(value, str | bytes | bytearray | memoryview | np.ndarray | io.IOBase)


def shown_name(photo: PhotoInput) -> str | None:
    """The path or address of a photo as it may be shown, without a password.

    Returns:
        None for a photo that has neither: pixels, bytes, base64.
    """
    if isinstance(photo, os.PathLike):
        path = os.fspath(photo)
        return path if isinstance(path, str) else None
    if not isinstance(photo, str):
        return None
    if photo.lower().startswith(("http://", "https://")):
        return _without_password(photo)
    return None if _is_base64(photo) else photo


def decode_base64(text: str) -> bytes:
    """The bytes of plain base64, or of a ``data:`` address in base64 (RFC 2397).

    Raises:
        InputError: Not base64, or a ``data:`` address in another encoding.
    """
    if text[:5].lower() == "data:":
        header, _, text = text.partition(",")
        if not header.lower().endswith(";base64"):
            raise InputError(
                "a data address holds a photo in base64, 'data:image/…;base64,…'. "
                f"Received: {_shown(header)!r}"
            )
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"not base64: {error}. Received: {_shown(text)!r}") from error


def _photo_of_text(text: str, urls: bool) -> Photo:
    """The photo that a text stands for: an address, a path or base64."""
    scheme, separator, _ = text.partition("://")
    if separator and scheme.isalnum():
        if scheme.lower() not in ("http", "https"):
            raise InputError(
                f"photos are fetched by http and https alone. Received: {_shown(text)!r}"
            )
        if not urls:
            raise InputError(f"photos are not fetched here. Received: {_shown(text)!r}")
        name = _without_password(text)
        return decode_image(_fetched(text, name), name)
    if not _is_base64(text):
        return as_path(text)
    return decode_image(decode_base64(text), "the base64 received")


def _is_base64(text: str) -> bool:
    """Whether a text without an address is meant as base64 rather than as a path.

    A text longer than any path is, whether or not it decodes.
    """
    if text[:5].lower() == "data:" or len(text) > _LONGEST_PATH_CHARACTERS:
        return True
    if len(text) < _FEWEST_BASE64_CHARACTERS or os.path.exists(text):
        return False
    try:
        decode_base64(text)
    except InputError:
        return False
    return True


def _content_of(file: Any) -> bytes:
    """The rest of an open file, up to the size of a photo."""
    try:
        content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"the file received cannot be read: {error}") from error
    if not isinstance(content, bytes):
        raise InputError(
            "a photo's file is open for reading bytes, mode 'rb'. "
            f"Received: one that gives {type(content).__name__}"
        )
    return content


def _fetched(url: str, name: str) -> bytes:
    """Download a photo, within the time and size that one may take."""
    try:
        return download_bytes(url, max_bytes=MAX_DOWNLOAD_BYTES, seconds=DOWNLOAD_SECONDS)
    except DownloadError as error:
        raise ImageError(f"{name}: {error}") from error


def _without_password(url: str) -> str:
    """An address as it may be shown: user, password and query may be secrets."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return _shown(url.partition("?")[0].rpartition("@")[2])
    return _shown(f"{parts.scheme}://{host}{parts.path}")


def _shown(text: str) -> str:
    """The beginning of a text that may be megabytes long."""
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
