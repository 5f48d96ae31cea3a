"""A contact sheet: every probe's face, its true name, the name it was given, in one picture.

Mistakes come first, then faces that were given no name, then those named right: of many pages the
first is the one to look at.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from face_encode.errors import ImageError, InputError
from face_encode.evaluation.faces import cut_out
from face_encode.evaluation.people import Answer, PeopleResult
from face_encode.files import replacing
from face_encode.outputs import SOFTWARE
from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR, label_font

COLOURS = {"right": KNOWN_COLOUR, "wrong": UNKNOWN_COLOUR, "unnamed": (120, 124, 132)}
SUFFIXES = (".png", ".jpg", ".jpeg")
_PER_PAGE = 120
_MAX_COLUMNS = 12
_MIN_COLUMNS = 6
# In pixels.
_PICTURE, _FRAME, _GAP, _LINE, _HEAD = 144, 4, 8, 16, 64
_CELL_WIDTH = _PICTURE + 2 * _FRAME
_CELL_HEIGHT = _CELL_WIDTH + 3 * _LINE + 4


def verdict(answer: Answer) -> str:
    """The line below the true name."""
    if answer.refused:
        return f"refused: {answer.refused}"
    if np.isnan(answer.similarity):
        return "no face found"
    if answer.given is None:
        return "unknown, rightly" if answer.stranger else "unknown"
    return "✓" if answer.kind == "right" else f"→ {answer.given}"


def check_sheet_path(path: str | os.PathLike[str]) -> None:
    """Refuse a sheet before hours of work rather than after.

    Raises:
        InputError: The name does not end in ``.png`` or ``.jpg``, or its folder does not exist.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"a contact sheet ends in {', '.join(SUFFIXES)}. Received: {target}")
    if not target.parent.is_dir():
        raise InputError(f"the contact sheet's folder does not exist. Received: {target.parent}")


def sheet_pages(path: str | os.PathLike[str], faces: int) -> list[Path]:
    """The files of a sheet of this many faces: ``OUT.png``, ``OUT-2.png`` and so on."""
    first, pages = Path(path), -(-faces // _PER_PAGE)
    return [first, *(first.with_stem(f"{first.stem}-{page}") for page in range(2, pages + 1))]


def write_contact_sheet(result: PeopleResult, path: str | os.PathLike[str]) -> list[Path]:
    """Draw the answers, 120 faces a page.

    Args:
        result: The measured folders; the photos are read again.
        path: Ends in ``.png`` or ``.jpg``; the second page's name ends in ``-2``, and so on.

    Returns:
        The pages written.

    Raises:
        InputError: It cannot be written there.
    """
    check_sheet_path(path)
    listed = result.answers()
    targets = sheet_pages(path, len(listed))
    pages = len(targets)
    for number, target in enumerate(targets):
        part = listed[number * _PER_PAGE : (number + 1) * _PER_PAGE]
        drawn = _page(result, part, f"page {number + 1} of {pages}" if pages > 1 else "")
        with replacing(target, InputError) as temporary:
            mark = PngInfo()
            mark.add_text("Software", SOFTWARE)
            drawn.save(temporary, pnginfo=mark, comment=SOFTWARE)
    return targets


def _page(result: PeopleResult, part: Sequence[Answer], page: str) -> Image.Image:
    """Draw one page: the numbers, a legend of the colours, and the faces."""
    # Fewer columns would cut the lines at the top.
    columns = min(_MAX_COLUMNS, max(_MIN_COLUMNS, len(part)))
    rows = -(-len(part) // columns)
    width = columns * (_CELL_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, rows * (_CELL_HEIGHT + _GAP) + _HEAD + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    numbers = result.identification
    share = numbers.correct / numbers.probes
    title = f"{numbers.correct:,} of {numbers.probes:,} right ({share:.1%})  {page}"
    draw.text((_GAP, _GAP), title, fill="black", font=label_font(22))
    left = float(_GAP)
    for text, colour in (
        ("right name", COLOURS["right"]),
        ("wrong name", COLOURS["wrong"]),
        ("no name", COLOURS["unnamed"]),
        (f"threshold {numbers.threshold:.3f}", (0, 0, 0)),
        (f"{result.encoder}, {result.detector}", (0, 0, 0)),
    ):
        draw.text((left, _GAP + 30), text, fill=colour, font=label_font(15))
        left += draw.textlength(text, font=label_font(15)) + 3 * _GAP
    for number, answer in enumerate(part):
        down, across = divmod(number, columns)
        at = (_GAP + across * (_CELL_WIDTH + _GAP), _HEAD + _GAP + down * (_CELL_HEIGHT + _GAP))
        _draw_cell(sheet, at, answer, result)
    return sheet


def _draw_cell(
    sheet: Image.Image, at: tuple[int, int], answer: Answer, result: PeopleResult
) -> None:
    """Draw one face in its frame, with three lines below."""
    draw, colour = ImageDraw.Draw(sheet), COLOURS[answer.kind]
    left, top = at
    bottom = top + _CELL_WIDTH - 1
    frame = (left, top, left + _CELL_WIDTH - 1, bottom)
    draw.rectangle(frame, fill=(236, 238, 240))
    face = result.probes.faces[answer.row]
    # A photo that cannot be read any more leaves its frame empty.
    with suppress(ImageError):
        picture = cut_out(result.probes.photos[answer.row], None if face is None else face.box)
        picture.thumbnail((_PICTURE, _PICTURE))
        across, down = (_CELL_WIDTH - picture.width) // 2, (_CELL_WIDTH - picture.height) // 2
        sheet.paste(picture, (left + across, top + down))
    draw.rectangle(frame, outline=colour, width=_FRAME)
    similarity = "" if np.isnan(answer.similarity) else f"{answer.similarity:.3f}"
    lines = ((answer.true_name, (0, 0, 0)), (verdict(answer), colour), (similarity, (90, 94, 102)))
    for number, (text, fill) in enumerate(lines):
        where = (left, bottom + 3 + number * _LINE)
        shown = _fitting(text, draw)
        draw.text(where, shown, fill=fill, font=label_font(13, shown))


def _fitting(text: str, draw: ImageDraw.ImageDraw) -> str:
    """A text in one line, shortened if it is wider than a cell."""
    line = shown = " ".join(text.split())
    while line and draw.textlength(shown, font=label_font(13, shown)) > _CELL_WIDTH:
        line = line[:-1]
        shown = f"{line}…"
    return shown
