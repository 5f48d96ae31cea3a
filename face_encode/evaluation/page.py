"""A self-contained HTML page: text, tables, charts and small pictures in one file."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from face_encode.errors import ImageError, InputError
from face_encode.files import replacing
from face_encode.photos.reading import read_image
from face_encode.types import Face
from face_encode.version import __version__

_THUMBNAIL = 144
# How much of a face's size is shown around it.
_SURROUNDINGS = 0.5

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --paper: #fdfdfc; --grid: #d9dde3;
  --a: #1668b8; --b: #c2461d; --c: #5a7d2a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #14181e; --grid: #38404c;
  --a: #6db3f2; --b: #f08a63; --c: #a5cc6b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1180px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .25em 1.2em .25em 0; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1em; }
figure { margin: 0; max-width: 620px; } figcaption { font-size: .9em; }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: var(--ink); }
.grid { stroke: var(--grid); } .marker { stroke: var(--ink); stroke-dasharray: 4 3; }
.line { fill: none; stroke-width: 2; }
.line.a { stroke: var(--a); } .line.b { stroke: var(--b); } .line.c { stroke: var(--c); }
.band { opacity: .25; stroke: none; }
.band.a { fill: var(--a); } .band.b { fill: var(--b); } .band.c { fill: var(--c); }
.cards { display: flex; flex-wrap: wrap; gap: 1em; }
.card { border: 1px solid var(--grid); border-radius: 6px; padding: .6em; max-width: 310px;
  overflow-wrap: anywhere; font-size: .85em; }
.card img { width: 144px; height: 144px; object-fit: contain; background: var(--grid); }
"""


class Page:
    """An HTML page that is put together from above to below."""

    def __init__(self, title: str) -> None:
        """Begin with a title."""
        self._title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """A heading."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table of texts."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
        )
        self._parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def charts(self, charts: Sequence[tuple[str, str]]) -> None:
        """SVG charts beside each other, each with its caption."""
        figures = "".join(
            f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
            for svg, caption in charts
        )
        self._parts.append(f'<div class="charts">{figures}</div>')

    def cards(self, cards: Sequence[tuple[Sequence[str], str]]) -> None:
        """Pictures (``<img>`` elements from :func:`thumbnail`) with a text below each group."""
        body = "".join(
            f'<div class="card">{"".join(pictures)}<div>{escape(text)}</div></div>'
            for pictures, text in cards
        )
        self._parts.append(f'<div class="cards">{body}</div>')

    def html(self) -> str:
        """The whole page."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self._title)}</title><style>{_STYLE}</style></head><body>"
            f"<h1>{escape(self._title)}</h1>{''.join(self._parts)}"
            f"<p>face_encode {escape(__version__)}</p></body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page, atomically.

        Raises:
            InputError: It cannot be written there.
        """
        with replacing(Path(path), InputError) as temporary:
            Path(temporary).write_text(self.html(), encoding="utf-8")


def check_report_path(path: str | os.PathLike[str]) -> None:
    """Refuse a report's name before hours of work rather than after.

    Raises:
        InputError: It does not end in ``.html``, or its folder does not exist.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"a report's name ends in .html. Received: {target}")
    if not target.parent.is_dir():
        raise InputError(f"the report's folder does not exist. Received: {target.parent}")


def thumbnail(photo: str | os.PathLike[str], face: Face | None = None) -> str:
    """A photo, small, as an ``<img>`` element that holds its own pixels.

    Args:
        photo: Its path; one that cannot be read becomes an empty frame.
        face: Where given, the part around it.
    """
    name = escape(Path(photo).name)
    image = picture_of(photo, face, _THUMBNAIL)
    if image is None:
        return f'<img alt="{name}: cannot be read" title="{name}">'
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    pixels = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="{name}" title="{name}" src="data:image/jpeg;base64,{pixels}">'


def picture_of(photo: str | os.PathLike[str], face: Face | None, side: int) -> Image.Image | None:
    """A photo, or the part around a face, small.

    Args:
        photo: Its path.
        face: Where given, the part around it.
        side: Width and height at the most, in pixels.

    Returns:
        None where it cannot be read.
    """
    try:
        image = Image.fromarray(read_image(photo))
    except ImageError:
        return None
    if face is not None:
        box, margin = face.box, round(_SURROUNDINGS * max(face.box.width, face.box.height))
        image = image.crop(
            (
                max(0, box.left - margin),
                max(0, box.top - margin),
                min(image.width, box.left + box.width + margin),
                min(image.height, box.top + box.height + margin),
            )
        )
    image.thumbnail((side, side))
    return image
