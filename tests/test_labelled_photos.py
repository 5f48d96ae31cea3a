from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.photos.folders import photos_by_label

WALL = np.full((4, 4, 3), 90, np.uint8)


def test_photos_are_gathered_in_the_order_given() -> None:
    pairs: list[Any] = [("Bo", "1.jpg"), ["Ada", b"2"], ("Bo", WALL)]
    gathered = photos_by_label(iter(pairs))
    assert list(gathered) == ["Bo", "Ada"]
    assert gathered["Bo"][0] == "1.jpg"
    assert gathered["Bo"][1] is WALL
    assert gathered["Ada"] == [b"2"]
    assert photos_by_label([]) == {}


@pytest.mark.parametrize(
    ("photos", "told"),
    [
        (7, r"pairs \(label, photo\)\. Received: int"),
        ("ada.jpg", r"pairs \(label, photo\)\. Received: str"),
        (WALL, r"pairs \(label, photo\)\. Received: ndarray"),
        ([("Ada",)], r"pairs \(label, photo\)\. Received: tuple in it"),
        (["ada.jpg"], r"pairs \(label, photo\)\. Received: str in it"),
        ([(1, WALL)], r"a label is text\. Received: 1"),
    ],
)
def test_what_are_no_labelled_photos_is_refused(photos: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        photos_by_label(photos)
