"""Names of people from outside: stricter than those of folders, because they travel in URLs."""

from __future__ import annotations

import unicodedata

from face_encode.errors import InputError
from face_encode.gallery.base import check_name

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
