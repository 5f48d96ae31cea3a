from __future__ import annotations

import numpy as np

from face_encode.drawing import KNOWN_COLOUR, draw_boxes
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
