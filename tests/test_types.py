from __future__ import annotations

from dataclasses import FrozenInstanceError
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.types import (
    Box,
    CropRecipe,
    EnrolmentReport,
    Face,
    LeftOut,
    Match,
    check_count,
    check_number,
)


@pytest.mark.parametrize("value", [1, 7, np.int32(7), np.uint8(255)])
def test_a_count_is_a_whole_number(value: Any) -> None:
    counted = check_count(value, "n")
    assert counted == value
    assert type(counted) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", True, None, float("nan"), np.float32(1)])
def test_anything_else_is_no_count(value: Any) -> None:
    with pytest.raises(InputError, match=r"n is a whole number, at least 1\. Received: "):
        check_count(value, "n")


def test_the_least_count_can_be_chosen() -> None:
    assert check_count(0, "n", least=0) == 0
    with pytest.raises(InputError, match="at least 2"):
        check_count(1, "n", least=2)


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.5), np.int8(1), Fraction(1, 3)])
def test_a_number_is_whole_or_not(value: Any) -> None:
    number = check_number(value, "x", 0, 1)
    assert number == float(value)
    assert type(number) is float


@pytest.mark.parametrize(
    "value", ["0.5", b"1", None, True, [0.5], 1j, Path("x"), float("nan"), np.float32("nan")]
)
def test_anything_else_is_no_number(value: Any) -> None:
    with pytest.raises(InputError, match=r"x lies within 0\.\.1\. Received: "):
        check_number(value, "x", 0, 1)


def test_a_number_has_bounds() -> None:
    for value in (-0.1, 1.1, float("inf")):
        with pytest.raises(InputError, match=r"x lies within 0\.\.1\. Received: "):
            check_number(value, "x", 0, 1)
    for value in (0, 1):
        with pytest.raises(InputError, match=r"x lies between 0 and 1\. Received: "):
            check_number(value, "x", 0, 1, ends=False)
    assert check_number(1e300, "x", -1) == 1e300
    for infinite in (float("inf"), 10**400):
        with pytest.raises(InputError, match=r"x is a number, at least -1\. Received: "):
            check_number(infinite, "x", -1)
    with pytest.raises(InputError, match=r"x is a number above 0\. Received: 0"):
        check_number(0, "x", 0, ends=False)


def test_a_box_knows_its_area_and_its_dict() -> None:
    box = Box(1, 2, 3, 4)
    assert box.area == 12
    assert box.as_dict() == {"x": 1, "y": 2, "width": 3, "height": 4}


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (-1, 5)])
def test_a_box_without_a_pixel_is_refused(width: int, height: int) -> None:
    with pytest.raises(InputError, match=f"width {width}, height {height}"):
        Box(0, 0, width, height)


@pytest.mark.parametrize(
    ("box", "clamped"),
    [
        (Box(2, 3, 4, 5), Box(2, 3, 4, 5)),
        (Box(-2, -3, 10, 10), Box(0, 0, 8, 7)),
        (Box(95, 45, 10, 10), Box(95, 45, 5, 5)),
        (Box(-5, -5, 200, 200), Box(0, 0, 100, 50)),
        # Wholly outside: the nearest row, column or pixel.
        (Box(-20, 10, 5, 5), Box(0, 10, 1, 5)),
        (Box(10, 99, 5, 5), Box(10, 49, 5, 1)),
        (Box(300, 300, 5, 5), Box(99, 49, 1, 1)),
    ],
)
def test_a_box_is_clamped_to_the_photo(box: Box, clamped: Box) -> None:
    assert box.clamped(100, 50) == clamped


def test_boxes_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Box(0, 0, 1, 1).left = 3  # type: ignore[misc]


def test_a_face_has_five_landmarks_or_none() -> None:
    assert Face(Box(0, 0, 1, 1), 0.5).landmarks is None
    landmarks = np.zeros((5, 2), np.float32)
    assert Face(Box(0, 0, 1, 1), 0.5, landmarks).landmarks is landmarks
    with pytest.raises(InputError, match=r"\(5, 2\). Received: \(68, 2\)"):
        Face(Box(0, 0, 1, 1), 0.5, np.zeros((68, 2), np.float32))


def test_matches_are_equal_by_value() -> None:
    assert Match("Ada", 0.5) == Match("Ada", 0.5) != Match("Bo", 0.5)


def test_a_recipe_as_plain_values() -> None:
    recipe = CropRecipe("box", 112, 96, 0.25)
    assert recipe.as_dict() == {"method": "box", "height": 112, "width": 96, "margin": 0.25}
    assert CropRecipe(**recipe.as_dict()) == recipe
    stack = CropRecipe.stacked([recipe, CropRecipe("arcface", 112, 112)])
    assert CropRecipe.from_dict(stack.as_dict()) == stack
    assert (stack.height, stack.width) == (224, 112)
    assert str(stack) == "box 112x96 + arcface 112x112"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"method": "oval"}, "'arcface', 'openface', 'stack'. Received: 'oval'"),
        ({"method": "stack"}, "at least two parts, and no other crop has any. Received: 'stack'"),
        ({"parts": (CropRecipe("box", 8, 8),) * 2}, "no other crop has any. Received: 'box' of 2"),
        (
            {"method": "stack", "parts": (CropRecipe("box", 8, 8),) * 2},
            "as wide as the widest, 16x8. Received: 8x8",
        ),
        ({"height": 0}, "height is a whole number, at least 1. Received: 0"),
        ({"width": -8}, "width is a whole number, at least 1. Received: -8"),
        ({"width": 8.0}, "Received: 8.0"),
        ({"width": "8"}, "Received: '8'"),
        ({"method": "dlib_chip", "height": 9}, "an aligned crop is square"),
        ({"margin": -0.1}, "0..2. Received: -0.1"),
        ({"margin": 2.1}, "0..2. Received: 2.1"),
        ({"margin": float("nan")}, "0..2. Received: nan"),
    ],
)
def test_an_impossible_recipe_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        CropRecipe(**{"method": "box", "height": 8, "width": 8, **values})
    assert told in str(caught.value)


def test_a_report_reads_as_text() -> None:
    report = EnrolmentReport(
        enrolled=3,
        per_person={"Ada": 2, "Bo": 1, "Cy": 0},
        left_out=(LeftOut("Cy/1.jpg", "Cy", "no face found"),),
        reused=1,
        notes=("Ada/1.jpg: 2 faces, the largest is enrolled",),
    )
    assert str(report).splitlines() == [
        "3 photos of 2 people enrolled (1 unchanged), 1 left out",
        "  left out: Cy/1.jpg: no face found",
        "  note: Ada/1.jpg: 2 faces, the largest is enrolled",
    ]
    assert str(EnrolmentReport(2, {"Ada": 2})) == "2 photos of 1 people enrolled"
