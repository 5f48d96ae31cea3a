"""Names of people."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

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


# The characters of the two categories that ``check_name`` refuses, which never grow by others:
# https://www.unicode.org/policies/stability_policy.html, property values of Cc and Cs.
_REFUSED = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_names(names: Sequence[str]) -> None:
    """Refuse what is no person's name among many, a million in a fraction of a second.

    Raises:
        InputError: As for ``check_name``.
    """
    try:
        fine = all(map(str.strip, names)) and not _REFUSED.search("".join(names))
    except TypeError:
        fine = False
    if not fine:
        for name in names:
            check_name(name)
