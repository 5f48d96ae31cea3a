"""Labelled photos: pairs of a label and a photo, gathered by label."""

from __future__ import annotations

from collections.abc import Iterable

from face_encode.errors import InputError
from face_encode.photo_inputs import PhotoInput, is_one_photo


def photos_by_label(photos: Iterable[tuple[str, PhotoInput]]) -> dict[str, list[PhotoInput]]:
    """Gather photos by their labels, both in the order given.

    Args:
        photos: Pairs of a label and a photo in any form that ``read_photo`` takes. A label may
            come several times. No photo is opened.

    Raises:
        InputError: Not such pairs.
    """
    if not isinstance(photos, Iterable) or is_one_photo(photos):
        raise InputError(
            f"photos are a list of pairs (label, photo). Received: {type(photos).__name__}"
        )
    gathered: dict[str, list[PhotoInput]] = {}
    for pair in photos:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"photos are a list of pairs (label, photo). Received: {type(pair).__name__} in it"
            )
        label, photo = pair
        if not isinstance(label, str):
            raise InputError(f"a label is text. Received: {label!r}")
        gathered.setdefault(label, []).append(photo)
    return gathered
