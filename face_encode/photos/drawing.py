"""Drawing boxes and names on photos, and making faces unrecognisable."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeAlias

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from face_encode.errors import InputError
from face_encode.types import Box, ImageArray

Marks: TypeAlias = tuple[list[Box], list[str], list[tuple[int, int, int]]]
"""Boxes, labels and colours, as ``draw_boxes`` takes them."""

KNOWN_COLOUR = (22, 138, 64)
UNKNOWN_COLOUR = (186, 48, 40)

# Fonts of Linux, macOS and Windows, those with the most scripts first; Pillow's own knows Latin
# letters only, and OpenCV's draws ASCII alone. For other scripts fontconfig is asked.
_FONTS = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "PingFang.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
    "Nirmala.ttc",
)
# No font has a letter for this: what is drawn for it stands for all letters that a font lacks.
_NO_LETTER = "\U0010fffe"
_FONTCONFIG_SECONDS = 10
# The costs of a label beside its box, against those of hiding the same share of itself.
_BELOW, _INSIDE, _SHIFTED = 0.1, 0.3, 0.05

# How far the blur reaches out of a face's box, as a share of its sides.
_BLUR_MARGIN = 0.3
_BLUR_LATTICE = 6


def draw_boxes(
    image: ImageArray,
    boxes: Sequence[Box],
    labels: Sequence[str] | None = None,
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> ImageArray:
    """Draw boxes, with a label each, on a copy of a photo.

    Args:
        image: RGB, uint8, ``(H, W, 3)``; not changed.
        boxes: In pixels of this photo.
        labels: A text for each, in any script, or None; see ``drawn_labels``. Labels do not cover
            each other where there is room.
        colours: RGB for each, or None for the colour of known people.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(image).copy()
    draw = ImageDraw.Draw(picture)
    # Lines and letters grow with the photo, so that they show on its thumbnail.
    line = max(1, round(min(height, width) / 200))
    size = max(11, round(min(height, width) / 28))
    if colours is None:
        colours = [KNOWN_COLOUR] * len(boxes)
    for box, colour in zip(boxes, colours, strict=True):
        right, bottom = box.left + box.width - 1, box.top + box.height - 1
        draw.rectangle((box.left, box.top, right, bottom), outline=colour, width=line)
    texts, _ = drawn_labels([""] * len(boxes) if labels is None else labels)
    placed: list[Box] = []
    for box, text, colour in zip(boxes, texts, colours, strict=True):
        if not text:
            continue
        font = label_font(size, text)
        text_width = round(draw.textlength(text, font=font)) + 2 * line
        # Of tall and hanging letters, so that every label is as high as the next one.
        text_height = round(draw.textbbox((0, 0), "Ágj", font=font)[3]) + 1
        others = [other for other in boxes if other is not box]
        place = _place(box, (text_width, text_height), placed, others, (width, height))
        placed.append(place)
        right, bottom = place.left + place.width, place.top + place.height
        draw.rectangle((place.left, place.top, right, bottom), fill=colour)
        draw.text((place.left + line, place.top), text, fill="white", font=font)
    return np.array(picture, np.uint8)


def drawn_labels(labels: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """What is drawn for labels: themselves, or numbers where no font here has their letters.

    Args:
        labels: In any script. Line breaks become spaces: a label is one line.

    Returns:
        The texts that ``draw_boxes`` draws; and what each number stands for, such as
        ``{"#2": "王小明 0.97"}``.
    """
    texts, legend = [], {}
    for number, label in enumerate(labels, start=1):
        text = " ".join(label.split())
        if text and _font_for(text, 16) is None:
            legend[f"#{number}"] = text
            text = f"#{number}"
        texts.append(text)
    return texts, legend


def _place(
    box: Box,
    size: tuple[int, int],
    placed: Sequence[Box],
    others: Sequence[Box],
    photo: tuple[int, int],
) -> Box:
    """Choose the place of a label: near its box, in the photo, hiding little.

    Args:
        box: The label's own.
        size: Width and height of the label.
        placed: Labels that have their places.
        others: The other boxes.
        photo: Width and height of the photo.
    """
    width, height = size
    best, lowest = box, float("inf")
    rows = ((box.top - height, 0.0), (box.top + box.height, _BELOW), (box.top, _INSIDE))
    columns = ((box.left, 0.0), (box.left + box.width - width, _SHIFTED))
    for top, row_cost in rows:
        for left, column_cost in columns:
            inside = Box(
                max(0, min(left, photo[0] - width)), max(0, min(top, photo[1] - height)), *size
            )
            # Above the photo's edge a label slides into its box.
            moved = abs(inside.top - top) / height
            hidden = 4 * _covered(inside, placed) + _covered(inside, others)
            cost = row_cost + column_cost + moved + hidden / inside.area
            if cost < lowest:
                best, lowest = inside, cost
    return best


def _covered(place: Box, boxes: Sequence[Box]) -> int:
    """How many pixels of a place lie on these boxes."""
    pixels = 0
    for box in boxes:
        width = min(place.left + place.width, box.left + box.width) - max(place.left, box.left)
        height = min(place.top + place.height, box.top + box.height) - max(place.top, box.top)
        pixels += max(0, width) * max(0, height)
    return pixels


def labelled_boxes(
    faces: Iterable[Mapping[str, Any]],
) -> Marks:
    """Boxes, labels and colours of named faces, as ``draw_boxes`` takes them.

    Args:
        faces: What ``match_image`` returned, or boxes as ``detect_faces`` gives them. A face that
            does not match is labelled "unknown"; one without a box is passed over.

    Raises:
        InputError: Not such faces.
    """
    boxes, labels, colours = [], [], []
    try:
        for face in faces:
            box = face.get("bounding_box", face)
            if box is None:
                continue  # the whole photo was taken as the face
            boxes.append(Box(*(int(box[side]) for side in ("x", "y", "width", "height"))))
            known = face.get("is_match", True)
            text = face.get("name", "") if known else "unknown"
            labels.append(f"{text} {face['similarity']:.2f}" if "similarity" in face else text)
            colours.append(KNOWN_COLOUR if known else UNKNOWN_COLOUR)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            "faces are what match_image or detect_faces returned, a list of dicts with 'x', "
            f"'y', 'width' and 'height': {error!r}"
        ) from error
    return boxes, labels, colours


def blur_boxes(image: ImageArray, boxes: Sequence[Box]) -> ImageArray:
    """Make faces unrecognisable on a copy of a photo.

    A face is reduced to six by six averages, which are then smoothed: a blur alone could be
    sharpened again, averages cannot.

    Args:
        image: RGB, uint8, ``(H, W, 3)``; not changed.
        boxes: In pixels of this photo. The ellipse around each is blurred, since a detector's
            box cuts off chin and forehead.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    picture: ImageArray = image.copy()
    height, width = image.shape[:2]
    for box in boxes:
        around = Box(
            box.left - round(box.width * _BLUR_MARGIN),
            box.top - round(box.height * _BLUR_MARGIN),
            box.width + 2 * round(box.width * _BLUR_MARGIN),
            box.height + 2 * round(box.height * _BLUR_MARGIN),
        )
        inside = around.clamped(width, height)
        rows = slice(inside.top, inside.top + inside.height)
        columns = slice(inside.left, inside.left + inside.width)
        part = picture[rows, columns]
        few = cv2.resize(part, (_BLUR_LATTICE, _BLUR_LATTICE), interpolation=cv2.INTER_AREA)
        blurred = cv2.resize(few, (inside.width, inside.height), interpolation=cv2.INTER_LINEAR)
        centre = (
            around.left - inside.left + around.width // 2,
            around.top - inside.top + around.height // 2,
        )
        mask = np.zeros(part.shape[:2], np.uint8)
        axes = (around.width // 2, around.height // 2)
        cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, thickness=cv2.FILLED)
        part[mask == 1] = blurred[mask == 1]
    return picture


def label_font(size: int, text: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the first font that has all letters of a text, or Pillow's own where none has.

    Args:
        size: Height of the letters, in pixels.
        text: What is to be drawn, in any script.
    """
    return _font_for(text, size) or ImageFont.load_default(size)


def _font_for(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    """A font that has all letters of a text; None where the system has none."""
    # Numbers come and go; every font has them.
    letters = {letter for letter in text if not letter.isspace() and letter not in "0123456789"}
    name = _font_name("".join(sorted(letters)))
    if name is None:
        return None
    return ImageFont.load_default(size) if name == "" else _font(name, size)


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """Load a font of the system."""
    return ImageFont.truetype(name, size)


@lru_cache(maxsize=1024)
def _font_name(letters: str) -> str | None:
    """The file of the first font with all these letters; empty for Pillow's own, None for none."""
    for name in chain(_FONTS, _fonts_of_system(letters)):
        try:
            font = _font(name, 16)
        except OSError:
            continue
        if _has_all(font, letters):
            return name
    return "" if _has_all(ImageFont.load_default(16), letters) else None


def _has_all(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letters: str) -> bool:
    """Whether a font has all these letters, by what it draws for those that it lacks."""
    try:
        lacking = bytes(font.getmask(_NO_LETTER))
        return all(bytes(font.getmask(letter)) != lacking for letter in letters)
    except (OSError, UnicodeError, ValueError):
        return False


def _fonts_of_system(letters: str) -> list[str]:
    """The files of fonts that fontconfig has for these letters; none where it is not there."""
    if not letters:
        return []
    wanted = f":charset={' '.join(f'{ord(letter):x}' for letter in letters)}"
    try:
        listed = subprocess.run(
            ["fc-list", "--format=%{file}\\n", wanted],
            capture_output=True,
            timeout=_FONTCONFIG_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    # Upright and plain ones first, by what their names say.
    names = sorted(set(os.fsdecode(listed.stdout).splitlines()))
    return sorted(names, key=lambda name: ("Regular" not in name, "Sans" not in name, name))
