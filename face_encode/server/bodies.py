"""Request bodies: photos and fields, in multipart or as base64 in JSON; never paths or URLs."""

from __future__ import annotations

import base64
import binascii
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from face_encode.errors import InputError
from face_encode.gallery.base import check_name
from face_encode.server.problems import Problem
from face_encode.server.settings import Limits
from face_encode.terminal import printable

_MOST_TEXT_BYTES = 10_000
_MOST_LABEL_CHARACTERS = 100


@dataclass(frozen=True)
class SentPhoto:
    """A photo as it was sent.

    Attributes:
        label: What it is called in reports: its file's name where one was sent, else its field.
        content: Its bytes.
    """

    label: str
    content: bytes


@dataclass(frozen=True)
class Body:
    """What was sent.

    Attributes:
        photos: Field -> photos.
        texts: Field -> text.
    """

    photos: dict[str, list[SentPhoto]]
    texts: dict[str, Any]

    def photo(self, field: str) -> SentPhoto:
        """The one photo of a field.

        Raises:
            Problem: There is none, or several.
        """
        sent = self.photos.get(field, [])
        if len(sent) != 1:
            raise Problem(
                422, "photo-missing", f"The field {field!r} holds one photo. Received: {len(sent)}."
            )
        return sent[0]


async def read_body(
    request: Request, photo_fields: Sequence[str], text_fields: Sequence[str], limits: Limits
) -> Body:
    """Read a request's body.

    Args:
        request: The request.
        photo_fields: Fields that hold photos: files of multipart, base64 in JSON; a list of them
            in JSON where the field's name ends in ``s``.
        text_fields: Fields that hold text.
        limits: Bounds.

    Raises:
        Problem: Another media type, no valid body, or other fields.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _from_multipart(request, photo_fields, text_fields, limits)
    if media_type == "application/json":
        return _from_json(await request.body(), photo_fields, text_fields, limits)
    raise Problem(
        415,
        "media-type",
        "Photos are sent as multipart/form-data, or as base64 in application/json.",
    )


class _InMemoryParser(MultiPartParser):
    """Keeps photos in memory: they are bounded already, and have no business on a disk."""

    spool_max_size = 2**40


async def _from_multipart(
    request: Request, photo_fields: Sequence[str], text_fields: Sequence[str], limits: Limits
) -> Body:
    parser = _InMemoryParser(
        request.headers,
        request.stream(),
        max_files=limits.photos + 1,
        max_fields=len(text_fields) + 8,
        max_part_size=_MOST_TEXT_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(
            422, "not-multipart", f"The multipart body is not valid: {error.message}"
        ) from error
    except (UnicodeError, ValueError, LookupError) as error:
        raise Problem(422, "not-multipart", "The multipart body is not valid.") from error
    photos: dict[str, list[SentPhoto]] = {}
    texts: dict[str, Any] = {}
    for field, value in form.multi_items():
        if isinstance(value, UploadFile) and field in photo_fields:
            content = await value.read()
            label = printable(value.filename or "")[:_MOST_LABEL_CHARACTERS]
            count = sum(map(len, photos.values()))
            photos.setdefault(field, []).append(SentPhoto(label or f"photo {count}", content))
        elif not isinstance(value, UploadFile) and field in text_fields and field not in texts:
            texts[field] = value
        else:
            raise _unknown_field(field, photo_fields, text_fields)
    await form.close()
    _check_number(photos, limits)
    return Body(photos, texts)


def _from_json(
    content: bytes, photo_fields: Sequence[str], text_fields: Sequence[str], limits: Limits
) -> Body:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "not-json", "The body is no valid JSON.") from error
    if not isinstance(values, dict):
        raise Problem(422, "not-json", "The body is a JSON object.")
    photos: dict[str, list[SentPhoto]] = {}
    texts: dict[str, Any] = {}
    for field, value in values.items():
        if field in photo_fields:
            several = value if isinstance(value, list) and field.endswith("s") else [value]
            if len(several) > limits.photos:
                raise _too_many(limits)
            photos[field] = [
                SentPhoto(
                    f"{field} {place}" if field.endswith("s") else field, _decoded(item, field)
                )
                for place, item in enumerate(several)
            ]
        elif field in text_fields:
            texts[field] = value
        else:
            raise _unknown_field(field, photo_fields, text_fields)
    _check_number(photos, limits)
    return Body(photos, texts)


def _decoded(value: Any, field: str) -> bytes:
    """The bytes of a photo in base64."""
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise Problem(422, "not-base64", f"The field {field!r} is a photo's bytes in base64.")


def _check_number(photos: dict[str, list[SentPhoto]], limits: Limits) -> None:
    if sum(map(len, photos.values())) > limits.photos:
        raise _too_many(limits)


def _too_many(limits: Limits) -> Problem:
    return Problem(422, "too-many-photos", f"A request holds at most {limits.photos} photos.")


def _unknown_field(field: str, photo_fields: Sequence[str], text_fields: Sequence[str]) -> Problem:
    known = ", ".join([*photo_fields, *text_fields])
    return Problem(
        422,
        "unknown-field",
        f"The fields are: {known} (photos as files), each text once. Received: {field[:50]!r}.",
    )


MOST_CHARACTERS = 200
# They end a path segment, here or at a proxy.
_SEPARATORS = frozenset("/\\")
# Embeddings and overrides of the writing direction can make one name look like another.
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def person_name(value: object) -> str:
    """A name as it is enrolled: trimmed, and of the many ways to write an é always the same one.

    Returns:
        In Unicode's normal form NFC.

    Raises:
        InputError: No text, empty, too long, or with characters that no name has.
    """
    if not isinstance(value, str):
        raise InputError(f"a person's name is text. Received: {type(value).__name__}")
    if len(value) > 4 * MOST_CHARACTERS:
        raise InputError(_allowed(value))
    check_name(value)
    name = unicodedata.normalize("NFC", value.strip())
    if (
        len(name) > MOST_CHARACTERS
        or name.startswith(".")
        or any(
            character in _SEPARATORS
            or character in _DIRECTIONS
            or unicodedata.category(character) in ("Zl", "Zp", "Cn", "Co")
            for character in name
        )
    ):
        raise InputError(_allowed(name))
    return name


def _allowed(name: str) -> str:
    return (
        f"a person's name has at most {MOST_CHARACTERS} characters, does not begin with a dot, and "
        f"holds no slash, line break or mark of the writing direction. Received: {name[:80]!r}"
    )
