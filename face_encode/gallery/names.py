"""Names of people."""

from __future__ import annotations

import unicodedata

from face_encode.errors import InputError


def check_name(name: str) -> None:
    """Refuse what is no person's name.

    Raises:
        InputError: No text, empty, or with control characters or broken encoding in it. Joiners
            without a width are allowed: Persian and Hindi names are written with them.
    """
    if (
        not isinstance(name, str)
        or not name.strip()
        or any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    ):
        raise InputError(
            f"a person's name is text without control characters, not empty. Received: {name!r}"
        )
