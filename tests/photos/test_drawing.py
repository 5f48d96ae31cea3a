from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR, draw_boxes, labelled_boxes
from face_encode.types import Box


def test_a_box_is_drawn_on_a_copy() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    drawn = draw_boxes(image, [Box(10, 20, 30, 40)])
    assert not image.any()
    assert drawn.shape == image.shape
    coloured = (drawn == KNOWN_COLOUR).all(axis=2)
    rows, columns = np.nonzero(coloured)
    assert (rows.min(), rows.max()) == (20, 59)
    assert (columns.min(), columns.max()) == (10, 39)
    assert not coloured[21:59, 11:39].any()


def test_a_label_stays_on_the_photo() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    for box in (Box(0, 0, 20, 20), Box(180, 0, 20, 20), Box(180, 80, 20, 20), Box(0, 90, 9, 9)):
        drawn = draw_boxes(image, [box], ["Ada Lovelace"])
        # Letters are white; a label that ran off the photo would lose some.
        white = (drawn == 255).all(axis=2).sum()
        full = (draw_boxes(image, [Box(60, 40, 20, 20)], ["Ada Lovelace"]) == 255).all(axis=2)
        assert white == full.sum()


def test_any_text_can_be_drawn() -> None:
    image = np.zeros((50, 50, 3), np.uint8)
    assert draw_boxes(image, [Box(5, 20, 20, 20)], ["王 Élodie\nسارا"]).any()
    assert draw_boxes(np.zeros((1, 1, 3), np.uint8), [Box(0, 0, 1, 1)], ["x"]).shape == (1, 1, 3)


def test_nothing_to_draw_changes_nothing() -> None:
    image = np.full((9, 9, 3), 7, np.uint8)
    np.testing.assert_array_equal(draw_boxes(image, []), image)


def test_named_faces_have_their_names_and_unknown_ones_none() -> None:
    box, other = (
        {"x": 1, "y": 2, "width": 3, "height": 4},
        {"x": 5, "y": 6, "width": 7, "height": 8},
    )
    known = {"name": "Ada", "similarity": 0.987, "is_match": True, "bounding_box": box}
    stranger = {"name": "Ada", "similarity": 0.4, "is_match": False, "bounding_box": other}
    whole = {"name": "Ada", "similarity": 1.0, "is_match": True, "bounding_box": None}
    boxes, labels, colours = labelled_boxes([known, stranger, whole, box])
    assert boxes == [Box(1, 2, 3, 4), Box(5, 6, 7, 8), Box(1, 2, 3, 4)]
    assert labels == ["Ada 0.99", "unknown 0.40", ""]
    assert colours == [KNOWN_COLOUR, UNKNOWN_COLOUR, KNOWN_COLOUR]


@pytest.mark.parametrize("faces", [None, [3], [{"x": 1}], [{"bounding_box": {"x": "left"}}]])
def test_what_are_no_faces_is_refused(faces: Any) -> None:
    with pytest.raises(InputError, match="what match_image or detect_faces returned"):
        labelled_boxes(faces)
