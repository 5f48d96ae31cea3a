"""Photos: read any of them as RGB, and walk folders of people.

Pillow reads the files, because it tells a photo's size before decoding it (a decompression bomb
is refused in time) and reports a truncated file instead of filling the rest with grey.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from face_encode.errors import DatasetError, ImageError, InputError
from face_encode.files import as_path, open_regular, reason_of
from face_encode.types import ImageArray, Photo

# HEIC and AVIF are read where Pillow can, and otherwise told rather than passed over: telephones
# write them.
PHOTO_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)
# Twice Pillow's own warning level, at which Pillow itself refuses: 0.5 GB as RGB.
MAX_PIXELS = 178_956_970
# The most that these pixels take, uncompressed in RGBA at 16 bits; what is larger is no photo,
# and would be read to its end for nothing.
MAX_BYTES = 8 * MAX_PIXELS
# What is read of bytes whose sender is not known: every decoder more is one more to trust.
_FORMATS_FROM_OUTSIDE = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Read at once while a file's digest is made.
_BLOCK = 1 << 20


def as_rgb(image: Any) -> ImageArray:
    """Check that an array is a photo, and give it as contiguous RGB.

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
        hint = "; multiply values of 0..1 by 255" if image.dtype.kind == "f" else ""
        raise InputError(
            f"a photo has dtype uint8 with values 0..255{hint}. Received: {image.dtype}"
        )
    if image.ndim == 2:
        image = image[:, :, np.newaxis]
    image = np.repeat(image, 3, axis=2) if channels == 1 else image[:, :, :3]
    return np.ascontiguousarray(image)


def read_image(path: str | os.PathLike[str]) -> ImageArray:
    """Read a photo as RGB, turned as its EXIF orientation says.

    Grey becomes RGB, transparency is laid on white, 16 bits are reduced to 8, and of an animation
    the first frame is taken.

    Args:
        path: Any format that Pillow reads: JPEG, PNG, WebP, GIF, BMP, TIFF …

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ImageError: Missing, unreadable, damaged, truncated, of more than ``MAX_PIXELS``, with
            floating-point pixels, or no regular file.
        InputError: The path is none.
    """
    path = as_path(path)
    label = str(path)
    with (
        _opened(path) as file,
        _telling_damage(label, MAX_PIXELS),
        Image.open(file) as photo,
    ):
        return _to_rgb(photo, label, MAX_PIXELS)


def decode_image(
    content: bytes,
    label: str = "the photo",
    *,
    max_pixels: int | None = None,
    any_format: bool = False,
) -> ImageArray:
    """Read a photo's bytes, whose sender may be unknown, as ``read_image`` reads a file.

    Args:
        content: A photo as AVIF, BMP, GIF, JPEG, PNG, PPM, TIFF or WebP; a HEIC one is refused.
        label: What it is called in an error.
        max_pixels: The most that are decoded; None for ``MAX_PIXELS``.
        any_format: Whether whatever ``read_image`` reads is read: for a file of one's own that
            lies elsewhere.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ImageError: Another format, damaged, truncated, or of more pixels or bytes.
    """
    if not content:
        raise ImageError(f"{label}: an empty file")
    if len(content) > MAX_BYTES:
        raise ImageError(f"{label}: too large to be a photo; at most {MAX_BYTES:,} bytes")
    most = MAX_PIXELS if max_pixels is None else max_pixels
    with (
        _telling_damage(label, most),
        Image.open(
            io.BytesIO(content), formats=None if any_format else _FORMATS_FROM_OUTSIDE
        ) as photo,
    ):
        return _to_rgb(photo, label, most)


def rgb_of(photo: Image.Image, label: str = "the photo") -> ImageArray:
    """Turn Pillow's image into an array, upright and RGB, as ``read_image`` does with a file.

    Args:
        photo: Of any mode; it may come from a file that is not decoded yet.
        label: What it is called in an error.

    Returns:
        uint8 ``(H, W, 3)``.

    Raises:
        ImageError: As for ``read_image``.
    """
    with _telling_damage(label, MAX_PIXELS):
        return _to_rgb(photo, label, MAX_PIXELS)


@contextmanager
def _telling_damage(label: str, max_pixels: int) -> Iterator[None]:
    """Make whatever Pillow raises while it decodes an error of ours."""
    try:
        with warnings.catch_warnings():
            # Our own limit stands in for this warning, which comes at half of it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Pillow warns of damaged metadata; the photo itself is what counts here.
            warnings.simplefilter("ignore", UserWarning)
            yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{label}: not a photo in a known format") from error
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{label}: too large to be read safely; at most {max_pixels:,} pixels are "
            f"allowed ({error})"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{label}: not enough memory to decode it") from error
    # Pillow's decoders raise whatever a damaged file trips over: struct.error, SyntaxError,
    # IndexError … A photo from outside must never end the program.
    except Exception as error:
        raise ImageError(f"{label}: damaged or cut off ({error})") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A photo's file, open for reading.

    Raises:
        ImageError: There is no such file, it is empty or larger than any photo, or it cannot be
            opened; the same words whoever opens it.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError as error:
        reason = "a link to nothing" if path.is_symlink() else "no such file"
        raise ImageError(f"{path}: {reason}") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: a folder, not a photo") from error
    except PermissionError as error:
        raise ImageError(f"{path}: no permission to read it") from error
    except OSError as error:
        raise ImageError(f"{path}: {reason_of(error)}") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise ImageError(f"{path}: an empty file")
        if size > MAX_BYTES:
            raise ImageError(f"{path}: too large to be a photo; at most {MAX_BYTES:,} bytes")
        yield file


def _to_rgb(photo: Image.Image, label: str, max_pixels: int) -> ImageArray:
    """Decode, turn upright, and bring to 8-bit RGB."""
    if photo.width * photo.height > max_pixels:
        raise Image.DecompressionBombError(f"{photo.width}x{photo.height} pixels")
    if photo.format == "EPS":
        # Pillow would start Ghostscript on a stranger's program.
        raise ImageError(f"{label}: a PostScript file, not a photo")
    # A photo of plain RGB without an orientation takes the first two steps only.
    photo.load()
    upright = _upright(photo)
    if upright.mode.startswith("I;16"):
        grey = (np.asarray(upright, np.uint16) / 257).round().astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if upright.mode == "F":
        # No agreed range: taken as 0..255, a photo of 0..1 would silently be black.
        raise ImageError(f"{label}: floating-point pixels; save it with 8 or 16 bits")
    if upright.mode == "I":  # how some 16-bit files arrive
        values = np.asarray(upright)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"{label}: values outside 0..65535 in a photo of 32 bits")
        grey = (values / 257).round().astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    if upright.mode != "RGB":
        if upright.has_transparency_data:
            layer = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        upright = upright.convert("RGB")
    return cast(ImageArray, np.array(upright, np.uint8))


def _upright(photo: Image.Image) -> Image.Image:
    """Turned as its EXIF data says; as it is, where they are damaged."""
    try:
        return ImageOps.exif_transpose(photo)
    # As with the decoders: anything at all, and here it costs no more than the orientation.
    except Exception:
        return photo


def content_digest(photo: Photo) -> str:
    """SHA-256 of a photo's content, 64 hexadecimal digits: the same whatever its name or date.

    Raises:
        ImageError: The file cannot be read, is empty, or larger than any photo.
        InputError: Neither an array nor a path.
    """
    if isinstance(photo, np.ndarray):
        header = f"{photo.dtype} {photo.shape} ".encode()
        return hashlib.sha256(header + np.ascontiguousarray(photo).tobytes()).hexdigest()
    path = as_path(photo)
    digest = hashlib.sha256()
    with _opened(path) as file:
        try:
            while block := file.read(_BLOCK):
                digest.update(block)
        except OSError as error:
            raise ImageError(f"{path}: {reason_of(error)}") from error
    return digest.hexdigest()


def photos_in(folder: str | os.PathLike[str]) -> list[Path]:
    """The photos directly in a folder, by suffix, sorted by name; hidden files are passed over.

    Raises:
        DatasetError: The folder is missing, is no folder, or cannot be listed.
    """
    return sorted(
        path
        for path in _visible(folder)
        if path.suffix.lower() in PHOTO_SUFFIXES and not os.path.isdir(path)
    )


def photos_below(
    folder: str | os.PathLike[str],
) -> tuple[list[str], list[tuple[str, str]]]:
    """The photos in a folder and all folders below it, by suffix.

    Hidden files and folders are passed over, and links to folders are not followed.

    Returns:
        The photos' paths relative to the folder, with ``/`` between the parts, sorted; and each
        folder below that cannot be listed, with the reason.

    Raises:
        DatasetError: The folder is missing, is no folder, or cannot be listed.
    """
    top = os.fspath(as_path(folder))
    _visible(top)  # told in the same words as for other folders
    photos: list[str] = []
    unlisted: list[tuple[str, str]] = []

    def skip(error: OSError) -> None:
        where = os.path.relpath(error.filename, top).replace(os.sep, "/")
        unlisted.append((where, reason_of(error)))

    for path, folders, files in os.walk(top, onerror=skip):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = os.path.relpath(path, top).replace(os.sep, "/")
        start = "" if inside == "." else f"{inside}/"
        photos += [
            start + name
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in PHOTO_SUFFIXES
        ]
    return sorted(photos), sorted(unlisted)


def people_in(folder: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The photos of a folder with one sub-folder a person.

    Args:
        folder: Its sub-folders' names are the people's names; files beside them, hidden files
            and files that are no photos by their suffix are passed over.

    Returns:
        Name -> photos, both sorted. A person whose folder holds no photo has an empty list.

    Raises:
        DatasetError: The folder is missing, is no folder, or holds no sub-folder.
    """
    # os.path, because pathlib raises where a link cannot be followed or a folder not be searched.
    folders = [path for path in sorted(_visible(folder)) if os.path.isdir(path)]
    people = {path.name: photos_in(path) for path in folders}
    if not people:
        raise DatasetError(
            f"{folder}: expected one sub-folder a person, with that person's photos in it. "
            "Received: a folder without sub-folders"
        )
    if not any(people.values()):
        raise DatasetError(
            f"{folder}: no photo in any of its {len(people)} sub-folders; photos are files "
            f"ending in {', '.join(sorted(PHOTO_SUFFIXES))}"
        )
    return people


def no_photo_below(folder: object, unlisted: Sequence[tuple[str, str]] = ()) -> DatasetError:
    """What to raise where ``photos_below`` found none, with the folders that hide some.

    Args:
        folder: Where was looked.
        unlisted: Folders that cannot be listed, each with the reason.
    """
    message = f"{folder}: no photo in it or below it"
    if unlisted:
        where, reason = unlisted[0]
        message += f", and of its folders {len(unlisted)} cannot be listed: {where}: {reason}"
        message += ", …" if len(unlisted) > 1 else ""
    return DatasetError(message)


def _visible(folder: str | os.PathLike[str]) -> Iterable[Path]:
    """The entries of a folder that are not hidden."""
    folder = as_path(folder)
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except FileNotFoundError as error:
        raise DatasetError(f"{folder}: no such folder") from error
    except NotADirectoryError as error:
        raise DatasetError(f"{folder}: a file, not a folder") from error
    except OSError as error:
        raise DatasetError(f"{folder}: {reason_of(error)}") from error
