from __future__ import annotations

import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.photos.drawing import (
    KNOWN_COLOUR,
    UNKNOWN_COLOUR,
    draw_boxes,
    drawn_labels,
    labelled_boxes,
)
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


def test_what_no_font_has_is_a_number_with_a_legend() -> None:
    # A private letter, which no font may have.
    labels = ["Ada 0.97", "\U0010fffd\U000f1234 0.91", "Mei"]
    texts, legend = drawn_labels(labels)
    assert texts == ["Ada 0.97", "#2", "Mei"]
    assert legend == {"#2": "\U0010fffd\U000f1234 0.91"}


def test_another_script_is_drawn_by_a_font_that_has_it() -> None:
    listed = (
        shutil.which("fc-list")
        and subprocess.run(
            ["fc-list", ":charset=738b 5c0f 660e", "file"], capture_output=True, check=True
        ).stdout
    )
    texts, legend = drawn_labels(["王小明"])
    if listed:
        assert (texts, legend) == (["王小明"], {})
        image = np.zeros((60, 200, 3), np.uint8)
        one, other = (draw_boxes(image, [Box(9, 40, 9, 9)], [text]) for text in ("王王", "明明"))
        # Not a box for each letter.
        assert (one != other).any()
    else:
        assert (texts, legend) == (["#1"], {"#1": "王小明"})


def test_greek_and_cyrillic_need_no_legend() -> None:
    assert drawn_labels(["Élodie", "Œuvre 0.5"])[1] == {}


def test_labels_in_a_crowd_do_not_cover_each_other() -> None:
    image = np.zeros((300, 900, 3), np.uint8)
    boxes = [Box(20 + 70 * index, 120, 60, 60) for index in range(12)]
    colours = [(10 + index, 200, 7) for index in range(12)]
    labels = [f"Ada Lovelace {index}" for index in range(12)]
    drawn = draw_boxes(image, boxes, labels, colours)
    alone = [
        (draw_boxes(image, [box], [label], [colour]) == colour).all(axis=2).sum()
        for box, label, colour in zip(boxes, labels, colours, strict=True)
    ]
    for index, colour in enumerate(colours):
        # Of the first labels nothing is hidden, of the last ones little.
        shown = (drawn == colour).all(axis=2).sum()
        assert shown > 0.6 * alone[index]
    first = (drawn == colours[0]).all(axis=2).sum()
    assert first >= 0.95 * alone[0]


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
