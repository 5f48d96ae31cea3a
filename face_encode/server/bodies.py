"""Request bodies: photos and fields, in multipart or as base64 in JSON; never paths or URLs."""

from __future__ import annotations

import asyncio
import base64
import json
import unicodedata
from collections.abc import Iterator, Sequence
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

MAX_NAME_CHARACTERS = 200
MAX_NOTE_CHARACTERS = 2_000
_MAX_TEXT_BYTES = 10_000
_MAX_LABEL_CHARACTERS = 100
# A body in JSON has a few fields and a list; what a text holds of these signs counts, too.
_SIGNS_OF_STRUCTURE, _MAX_SIGNS = b"[{,:", 20_000
# A slash ends a path segment, here or at a proxy; embeddings and overrides of the writing direction
# can make one name look like another.
_FORBIDDEN_CHARACTERS = frozenset("/\\\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_FORBIDDEN_CATEGORIES = frozenset({"Zl", "Zp", "Cn", "Co"})


@dataclass(frozen=True)
class SentPhoto:
    """A photo of a request.

    Attributes:
        label: Its name in reports: the file's name where one was sent, else the field's.
        content: Its bytes.
    """

    label: str
    content: bytes


@dataclass(frozen=True)
class Body:
    """The content of a request.

    Attributes:
        photos: Field -> photos.
        texts: Field -> text.
    """

    photos: dict[str, list[SentPhoto]]
    texts: dict[str, Any]

    def photo(self, field: str) -> SentPhoto:
        """Return the one photo of a field.

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
        max_files, max_fields = limits.photos + 1, len(text_fields) + 8
        items = iter(await _multipart_items(request, max_files, max_fields))
    elif media_type == "application/json":
        content = await request.body()
        # Decoding megabytes of base64 must not keep other requests waiting.
        items = iter(await asyncio.to_thread(list, _json_items(content, photo_fields)))
    else:
        raise Problem(
            415,
            "media-type",
            "Photos are sent as multipart/form-data, or as base64 in application/json.",
        )
    body = Body({}, {})
    for field, value in items:
        if isinstance(value, SentPhoto) and field in photo_fields:
            body.photos.setdefault(field, []).append(value)
        elif not isinstance(value, SentPhoto) and field in text_fields and field not in body.texts:
            body.texts[field] = value
        else:
            known = ", ".join([*photo_fields, *text_fields])
            raise Problem(
                422,
                "unknown-field",
                f"The fields are: {known} (photos as files), each text once. "
                f"Received: {field[:50]!r}.",
            )
    if sum(map(len, body.photos.values())) > limits.photos:
        raise Problem(422, "too-many-photos", f"A request holds at most {limits.photos} photos.")
    return body


class _InMemoryParser(MultiPartParser):
    """Keeps photos in memory: they are bounded already, and have no business on a disk."""

    spool_max_size = 2**40


async def _multipart_items(
    request: Request, max_files: int, max_fields: int
) -> list[tuple[str, Any]]:
    """Field and photo or text, in the order of a multipart body."""
    parser = _InMemoryParser(
        request.headers,
        request.stream(),
        max_files=max_files,
        max_fields=max_fields,
        max_part_size=_MAX_TEXT_BYTES,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Problem(
            422, "not-multipart", f"The multipart body is not valid: {error.message}"
        ) from error
    except (UnicodeError, ValueError, LookupError) as error:
        raise Problem(422, "not-multipart", "The multipart body is not valid.") from error
    items: list[tuple[str, Any]] = []
    count = 0
    for field, value in form.multi_items():
        if isinstance(value, UploadFile):
            label = printable(value.filename or "")[:_MAX_LABEL_CHARACTERS] or f"photo {count}"
            items.append((field, SentPhoto(label, await value.read())))
            count += 1
        else:
            items.append((field, value))
    await form.close()
    return items


def _json_items(content: bytes, photo_fields: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Field and photo or text, in the order of a JSON object."""
    # Counted first: parsing a million empty lists takes a second, in which no thread can run.
    if sum(content.count(sign) for sign in _SIGNS_OF_STRUCTURE) > _MAX_SIGNS:
        raise Problem(422, "not-json", "The body is a JSON object of a few fields.")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "not-json", "The body is no valid JSON.") from error
    if not isinstance(values, dict):
        raise Problem(422, "not-json", "The body is a JSON object.")
    for field, value in values.items():
        if field not in photo_fields:
            yield field, value
        elif field.endswith("s") and isinstance(value, list):
            for number, item in enumerate(value):
                yield field, SentPhoto(f"{field} {number}", _from_base64(item, field))
        else:
            label = f"{field} 0" if field.endswith("s") else field
            yield field, SentPhoto(label, _from_base64(value, field))


def _from_base64(value: Any, field: str) -> bytes:
    """Decode a photo's bytes."""
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except ValueError:
        pass
    raise Problem(422, "not-base64", f"The field {field!r} is a photo's bytes in base64.")


def person_name(value: object) -> str:
    """Return the form in which a name is enrolled: trimmed, and in Unicode's normal form NFC.

    Raises:
        InputError: No text, empty, too long, or with characters that no name has.
    """
    if not isinstance(value, str):
        raise InputError(f"a person's name is text. Received: {type(value).__name__}")
    name = value
    if len(value) <= 4 * MAX_NAME_CHARACTERS:
        check_name(value)
        name = unicodedata.normalize("NFC", value.strip())
    if (
        len(name) > MAX_NAME_CHARACTERS
        or name.startswith(".")
        or not _FORBIDDEN_CHARACTERS.isdisjoint(name)
        or not _FORBIDDEN_CATEGORIES.isdisjoint(map(unicodedata.category, name))
    ):
        raise InputError(
            f"a person's name has at most {MAX_NAME_CHARACTERS} characters, does not begin with a "
            "dot, and holds no slash, line break or mark of the writing direction. "
            f"Received: {name[:80]!r}"
        )
    return name
