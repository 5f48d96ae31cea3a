"""A contact sheet: every probe's face, its true name, the name it was given, in one picture.

Mistakes come first, then faces that were given no name, then those named right, so that the first
page shows what is worth looking at, however many pages there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from face_encode.errors import InputError
from face_encode.evaluation.html import picture_of
from face_encode.evaluation.people import PeopleResult
from face_encode.files import replacing
from face_encode.photos.drawing import KNOWN_COLOUR, UNKNOWN_COLOUR, label_font

RIGHT_COLOUR, WRONG_COLOUR, UNNAMED_COLOUR = KNOWN_COLOUR, UNKNOWN_COLOUR, (120, 124, 132)
SUFFIXES = (".png", ".jpg", ".jpeg")
_PER_PAGE = 120
_COLUMNS = 12
_FEWEST_COLUMNS = 6
# In pixels.
_PICTURE, _FRAME, _GAP, _LINE, _HEAD = 144, 4, 8, 16, 64
_CELL_WIDTH = _PICTURE + 2 * _FRAME
_CELL_HEIGHT = _CELL_WIDTH + 3 * _LINE + 4


@dataclass(frozen=True)
class Answer:
    """What a search said of a probe.

    Attributes:
        row: Which probe.
        true_name: Whom it shows.
        given: The name given, or None for none.
        similarity: To the nearest person; NaN where no face was found.
        stranger: Whether the person is not enrolled.
    """

    row: int
    true_name: str
    given: str | None
    similarity: float
    stranger: bool

    @property
    def colour(self) -> tuple[int, int, int]:
        """Green for the right name, red for a wrong one, grey for none."""
        if self.given is None:
            return UNNAMED_COLOUR
        return RIGHT_COLOUR if self.given == self.true_name else WRONG_COLOUR

    @property
    def verdict(self) -> str:
        """The line below the true name."""
        if np.isnan(self.similarity):
            return "no face found"
        if self.given is None:
            return "unknown, rightly" if self.stranger else "unknown"
        return "✓" if self.given == self.true_name else f"→ {self.given}"


def answers(result: PeopleResult) -> list[Answer]:
    """What was said of each probe.

    Returns:
        Wrong names first, the nearest of them leading; then faces that were given no name; then
        right names; the last two in the order of the folder.
    """
    threshold, enrolled = result.identification.threshold, set(result.gallery_names)
    listed = []
    for row, (true_name, row_of) in enumerate(
        zip(result.true_names, result.similarities, strict=True)
    ):
        nearest = int(row_of.argmax())
        similarity = float(row_of[nearest])
        given = result.gallery_names[nearest] if similarity >= threshold else None
        listed.append(Answer(row, true_name, given, similarity, true_name not in enrolled))

    def order(answer: Answer) -> tuple[int, float]:
        if answer.colour == WRONG_COLOUR:
            return 0, -answer.similarity
        return (1 if answer.given is None else 2), answer.row

    return sorted(listed, key=order)


def check_sheet_path(path: str | os.PathLike[str]) -> None:
    """Refuse a sheet's name before the work rather than after.

    Raises:
        InputError: It does not end in ``.png`` or ``.jpg``, or its folder does not exist.
    """
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"a contact sheet ends in {', '.join(SUFFIXES)}. Received: {target}")
    if not target.parent.is_dir():
        raise InputError(f"the contact sheet's folder does not exist. Received: {target.parent}")


def write_contact_sheet(result: PeopleResult, path: str | os.PathLike[str]) -> list[Path]:
    """Draw the answers, 120 faces a page.

    Args:
        result: What was measured; its photos are read again.
        path: Ends in ``.png`` or ``.jpg``; the second page has ``-2`` behind the name, and so on.

    Returns:
        The pages written.

    Raises:
        InputError: It cannot be written there.
    """
    check_sheet_path(path)
    first, listed = Path(path), answers(result)
    pages = -(-len(listed) // _PER_PAGE)
    written = []
    for number in range(pages):
        part = listed[number * _PER_PAGE : (number + 1) * _PER_PAGE]
        drawn = _page(result, part, f"page {number + 1} of {pages}" if pages > 1 else "")
        target = first if number == 0 else first.with_stem(f"{first.stem}-{number + 1}")
        with replacing(target, InputError) as temporary:
            drawn.save(temporary)
        written.append(target)
    return written


def _page(result: PeopleResult, part: Sequence[Answer], page: str) -> Image.Image:
    """One page: the numbers, what the colours mean, and the faces."""
    # Few faces leave columns free, which the line above them needs all the same.
    columns = min(_COLUMNS, max(_FEWEST_COLUMNS, len(part)))
    rows = -(-len(part) // columns)
    width = columns * (_CELL_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, rows * (_CELL_HEIGHT + _GAP) + _HEAD + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    numbers = result.identification
    share = (
        f"{numbers.correct:,} of {numbers.probes:,} right ({numbers.correct / numbers.probes:.1%})"
    )
    draw.text((_GAP, _GAP), f"{share}  {page}", fill="black", font=label_font(22))
    left = float(_GAP)
    for text, colour in (
        ("right name", RIGHT_COLOUR),
        ("wrong name", WRONG_COLOUR),
        ("no name", UNNAMED_COLOUR),
        (f"threshold {numbers.threshold:.3f}", (0, 0, 0)),
        (f"{result.encoder}, {result.detector}", (0, 0, 0)),
    ):
        draw.text((left, _GAP + 30), text, fill=colour, font=label_font(15))
        left += draw.textlength(text, font=label_font(15)) + 3 * _GAP
    for place, answer in enumerate(part):
        across, down = place % columns, place // columns
        at = (_GAP + across * (_CELL_WIDTH + _GAP), _HEAD + _GAP + down * (_CELL_HEIGHT + _GAP))
        _cell(sheet, draw, at, answer, result)
    return sheet


def _cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    answer: Answer,
    result: PeopleResult,
) -> None:
    """One face in its frame, with three lines below."""
    left, top = at
    right, bottom = left + _CELL_WIDTH - 1, top + _CELL_WIDTH - 1
    draw.rectangle((left, top, right, bottom), fill=(236, 238, 240))
    faces = result.probes.faces
    picture = picture_of(result.probes.photos[answer.row], faces[answer.row], _PICTURE)
    if picture is not None:
        middle = (_CELL_WIDTH - picture.width) // 2, (_CELL_WIDTH - picture.height) // 2
        sheet.paste(picture, (left + middle[0], top + middle[1]))
    draw.rectangle((left, top, right, bottom), outline=answer.colour, width=_FRAME)
    similarity = "" if np.isnan(answer.similarity) else f"{answer.similarity:.3f}"
    lines = ((answer.true_name, (0, 0, 0)), (answer.verdict, answer.colour))
    for number, (text, colour) in enumerate((*lines, (similarity, (90, 94, 102)))):
        where = (left, bottom + 3 + number * _LINE)
        draw.text(where, _fitting(text, draw), fill=colour, font=label_font(13))


def _fitting(text: str, draw: ImageDraw.ImageDraw) -> str:
    """A text in one line, cut where it is wider than a cell."""
    line = " ".join(text.split())
    if draw.textlength(line, font=label_font(13)) <= _CELL_WIDTH:
        return line
    while line and draw.textlength(f"{line}…", font=label_font(13)) > _CELL_WIDTH:
        line = line[:-1]
    return f"{line}…"
