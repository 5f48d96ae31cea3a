"""Photos in whatever form they are at hand: file, address, bytes, base64, Pillow, array.

The rest of the package works on files and arrays. What takes photos from its caller in any form
brings them to one of these two here, once.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import queue
import threading
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias
from urllib.parse import urljoin, urlsplit

import numpy as np
import numpy.typing as npt

from face_encode.errors import ImageError, InputError
from face_encode.files import as_path
from face_encode.images import MAX_BYTES, as_rgb, decode_image, read_image, rgb_of
from face_encode.types import ImageArray, Photo

if TYPE_CHECKING:
    from PIL import Image

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
MAX_REDIRECTS = 3

_DOWNLOAD_BLOCK_BYTES = 1 << 16
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
    from PIL import Image

    if isinstance(photo, np.ndarray | os.PathLike):
        return photo
    if isinstance(photo, str):
        return _photo_of_text(photo, urls)
    if isinstance(photo, bytes | bytearray | memoryview):
        return decode_image(bytes(photo), "the bytes received")
    if isinstance(photo, Image.Image):
        return rgb_of(photo, "the image received")
    if callable(getattr(photo, "read", None)):
        return decode_image(_content_of(photo), "the file received")
    raise InputError(
        "a photo is the path of a file, an http or https address, base64, bytes, a binary file, "
        f"an image of Pillow's or a numpy array. Received: {type(photo).__name__}"
    )


def is_one_photo(value: object) -> bool:
    """Whether something that can be gone through is one photo rather than a list of them."""
    return isinstance(value, str | bytes | bytearray | memoryview | np.ndarray | io.IOBase)


def place_of(photo: PhotoInput) -> str | None:
    """Where a photo comes from, as it may be shown: its path or address, without a password.

    Returns:
        None for a photo that has no place of its own: pixels, bytes, base64.
    """
    if not isinstance(photo, str | os.PathLike):
        return None
    text = os.fspath(photo)
    if isinstance(text, str) and text.lower().startswith(("http://", "https://")):
        return _without_password(text)
    return text if isinstance(text, str) and not _is_base64(text) else None


def path_of(photo: PhotoInput) -> str | None:
    """The absolute path of a photo that is given by its path; None for any other."""
    place = place_of(photo)
    if place is None or (isinstance(photo, str) and "://" in photo) or "\0" in place:
        return None
    return os.path.abspath(place)


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
    """What a text stands for: an address, a path or base64."""
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

    A text that no path can be as long as is, right or wrong.
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
    """What is left to read of an open file, as far as it can be a photo."""
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
    """What an address holds, within the time and size that a photo may take.

    A server that sends a byte now and then would keep any single read, and any loop of them,
    waiting for ever: so the fetching has a thread of its own, which is left to itself when the
    time is over.
    """
    outcomes: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    deadline = time.monotonic() + DOWNLOAD_SECONDS

    def fetch() -> None:
        try:
            outcomes.put(_download(url, name, deadline))
        except Exception as error:
            outcomes.put(error)

    threading.Thread(target=fetch, daemon=True, name="face_encode download").start()
    try:
        outcome = outcomes.get(timeout=DOWNLOAD_SECONDS)
    except queue.Empty:
        outcome = _too_slow(name)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _download(url: str, name: str, deadline: float) -> bytes:
    """Fetch an address; ends soon after the deadline, unless the server drips."""
    import requests

    # Compressed, a small answer could become a large one.
    headers = {"Accept-Encoding": "identity"}
    try:
        with requests.Session() as session:
            # Redirections are followed here, because requests reads all of each one's body.
            for _ in range(MAX_REDIRECTS + 1):
                with session.get(
                    url,
                    stream=True,
                    timeout=DOWNLOAD_SECONDS,
                    headers=headers,
                    allow_redirects=False,
                ) as answer:
                    target = session.get_redirect_target(answer)
                    if target is None:
                        _check_status(answer.status_code, answer.reason, name)
                        blocks = answer.iter_content(_DOWNLOAD_BLOCK_BYTES)
                        return _body_of(blocks, name, deadline)
                    url = urljoin(url, target)
            raise ImageError(f"{name}: more than {MAX_REDIRECTS} redirections")
    except requests.Timeout as error:
        raise _too_slow(name) from error
    # The address may be none (InvalidURL and UnicodeError among others) or lead to another
    # scheme; the connection may be refused or cut off.
    except (requests.RequestException, ValueError) as error:
        raise ImageError(f"{name}: cannot be fetched ({type(error).__name__})") from error


def _check_status(code: int, reason: str | None, name: str) -> None:
    """Refuse every answer but the one that brings the photo."""
    if code != HTTPStatus.OK:
        raise ImageError(f"{name}: the server answers {code} {reason or ''}".rstrip())


def _body_of(blocks: Iterable[bytes], name: str, deadline: float) -> bytes:
    """The blocks together, as long as they are no more than a photo takes."""
    content = bytearray()
    for block in blocks:
        content += block
        if len(content) > MAX_DOWNLOAD_BYTES:
            raise ImageError(f"{name}: larger than {MAX_DOWNLOAD_BYTES:,} bytes, which is the most")
        if time.monotonic() > deadline:
            raise _too_slow(name)
    return bytes(content)


def _too_slow(name: str) -> ImageError:
    """The error of a fetch that took too long."""
    return ImageError(f"{name}: not there within {DOWNLOAD_SECONDS} seconds")


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
