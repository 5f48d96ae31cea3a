"""Drawing boxes and names on photos, and making faces unrecognisable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from face_encode.errors import InputError
from face_encode.types import Box, ImageArray

KNOWN_COLOUR = (22, 138, 64)
UNKNOWN_COLOUR = (186, 48, 40)

# Fonts with many scripts, where the system has one; Pillow's own knows Latin letters only, and
# OpenCV's draws ASCII alone.
_FONTS = ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "Arial Unicode.ttf", "arial.ttf")

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
        labels: A text for each, or None.
        colours: RGB for each, or None for the colour of known people.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(image).copy()
    draw = ImageDraw.Draw(picture)
    # Lines and letters grow with the photo, so that they show on its thumbnail.
    line = max(1, round(min(height, width) / 200))
    font = label_font(max(11, round(min(height, width) / 28)))
    for index, box in enumerate(boxes):
        colour = KNOWN_COLOUR if colours is None else colours[index]
        right, bottom = box.left + box.width - 1, box.top + box.height - 1
        draw.rectangle((box.left, box.top, right, bottom), outline=colour, width=line)
        # A name may hold line breaks; a label is one line.
        label = "" if labels is None else " ".join(labels[index].split())
        if not label:
            continue
        text_width = draw.textlength(label, font=font)
        # Of tall and hanging letters, so that every label is as high as the next one.
        text_height = round(draw.textbbox((0, 0), "Ágj", font=font)[3]) + 1
        # Above the box where there is room, otherwise inside it; never off the photo.
        at_y = box.top - text_height if box.top >= text_height else box.top
        at_x = max(0, min(box.left, width - round(text_width) - 2 * line))
        background = (at_x, at_y, at_x + text_width + 2 * line, at_y + text_height)
        draw.rectangle(background, fill=colour)
        draw.text((at_x + line, at_y), label, fill="white", font=font)
    return np.array(picture, np.uint8)


def labelled_boxes(
    faces: Iterable[Mapping[str, Any]],
) -> tuple[list[Box], list[str], list[tuple[int, int, int]]]:
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


@lru_cache(maxsize=32)
def label_font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load the first font with many scripts that the system has.

    Args:
        size: Height of the letters, in pixels.
    """
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
