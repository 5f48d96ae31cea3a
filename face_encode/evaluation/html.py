"""A self-contained HTML page: text, tables, charts and small pictures in one file."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt
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


WIDTH, HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 16, 14, 50


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: What it shows, with the unit.
        lower: Where it begins; above 0 for a logarithmic one.
        upper: Where it ends, above ``lower``.
        logarithmic: Whether equal steps are equal factors.
    """

    label: str
    lower: float
    upper: float
    logarithmic: bool = False

    def __post_init__(self) -> None:
        """Check the range."""
        if not self.lower < self.upper or (self.logarithmic and self.lower <= 0):
            raise InputError(
                "an axis rises, from above 0 where it is logarithmic. "
                f"Received: {self.lower} to {self.upper}"
            )

    def share(self, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Where values lie between the ends, 0..1; values outside lie on the nearer end."""
        inside = np.clip(np.asarray(values, np.float64), self.lower, self.upper)
        if self.logarithmic:
            span = math.log(self.upper / self.lower)
            return np.asarray(np.log(inside / self.lower) / span, np.float64)
        return np.asarray((inside - self.lower) / (self.upper - self.lower), np.float64)

    def ticks(self) -> list[float]:
        """Round values to mark: powers of ten, or about six steps of 1, 2 or 5."""
        if self.logarithmic:
            first = math.ceil(math.log10(self.lower) - 1e-9)
            last = math.floor(math.log10(self.upper) + 1e-9)
            return [10.0**power for power in range(first, last + 1)]
        rough = (self.upper - self.lower) / 6
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough - 1e-12)
        first, last = math.ceil(self.lower / step - 1e-9), math.floor(self.upper / step + 1e-9)
        return [round(number * step, 12) for number in range(first, last + 1)]


class Chart:
    """Lines, bands and areas over two axes.

    Colours are CSS class names (``a``, ``b``, ``c``), so that the page decides how they look.
    """

    def __init__(self, title: str, x: Axis, y: Axis) -> None:
        """Begin an empty chart.

        Args:
            title: What it shows, for readers who do not see it.
            x: The horizontal axis.
            y: The vertical axis.
        """
        self._title, self._x, self._y = title, x, y
        self._parts: list[str] = []
        self._legend: list[tuple[str, str]] = []

    def line(self, x: npt.ArrayLike, y: npt.ArrayLike, colour: str, label: str = "") -> None:
        """A line through points."""
        self._parts.append(f'<polyline class="line {colour}" points="{self._points(x, y)}"/>')
        self._remember(colour, label)

    def band(
        self, x: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike, colour: str
    ) -> None:
        """The area between two lines."""
        there = np.asarray(x, np.float64)
        outline = self._points(
            np.concatenate([there, there[::-1]]),
            np.concatenate([np.asarray(upper), np.asarray(lower)[::-1]]),
        )
        self._parts.append(f'<polygon class="band {colour}" points="{outline}"/>')

    def bars(
        self, edges: npt.ArrayLike, heights: npt.ArrayLike, colour: str, label: str = ""
    ) -> None:
        """A histogram's outline, filled: B heights between B + 1 edges."""
        x = np.repeat(np.asarray(edges, np.float64), 2)
        y = np.concatenate([[0.0], np.repeat(np.asarray(heights, np.float64), 2), [0.0]])
        self._parts.append(f'<polygon class="band {colour}" points="{self._points(x, y)}"/>')
        self._parts.append(f'<polyline class="line {colour}" points="{self._points(x, y)}"/>')
        self._remember(colour, label)

    def marker(self, x: float, label: str, at_top: bool = True) -> None:
        """A vertical line across the chart, its label at the top or at the bottom."""
        ends = self._points([x, x], [self._y.lower, self._y.upper])
        self._parts.append(f'<polyline class="marker" points="{ends}"/>')
        left, top = self._place(x, self._y.upper if at_top else self._y.lower)
        top += 12 if at_top else -8
        anchor, shift = ("end", -5) if left > WIDTH * 0.7 else ("start", 5)
        self._parts.append(
            f'<text x="{left + shift:.1f}" y="{top:.1f}" text-anchor="{anchor}">'
            f"{escape(label)}</text>"
        )

    def svg(self) -> str:
        """The chart as an ``<svg>`` element."""
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self._title)}">'
            f"{self._frame()}{''.join(self._parts)}{self._legend_box()}</svg>"
        )

    def _remember(self, colour: str, label: str) -> None:
        """Put a label into the legend."""
        if label:
            self._legend.append((colour, label))

    def _place(self, x: float, y: float) -> tuple[float, float]:
        """A point of the data in the picture."""
        left = _LEFT + float(self._x.share(x)) * (WIDTH - _LEFT - _RIGHT)
        top = HEIGHT - _BOTTOM - float(self._y.share(y)) * (HEIGHT - _TOP - _BOTTOM)
        return left, top

    def _points(self, x: npt.ArrayLike, y: npt.ArrayLike) -> str:
        """Points of the data as SVG wants them."""
        left = _LEFT + self._x.share(x) * (WIDTH - _LEFT - _RIGHT)
        top = HEIGHT - _BOTTOM - self._y.share(y) * (HEIGHT - _TOP - _BOTTOM)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(left, top, strict=True))

    def _frame(self) -> str:
        """Axes, ticks, grid and labels."""
        parts = []
        for value in self._x.ticks():
            left, _ = self._place(value, self._y.lower)
            parts.append(
                f'<path class="grid" d="M{left:.1f},{_TOP}V{HEIGHT - _BOTTOM}"/>'
                f'<text x="{left:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
                f"{value:g}</text>"
            )
        for value in self._y.ticks():
            _, top = self._place(self._x.lower, value)
            parts.append(
                f'<path class="grid" d="M{_LEFT},{top:.1f}H{WIDTH - _RIGHT}"/>'
                f'<text x="{_LEFT - 8}" y="{top + 4:.1f}" text-anchor="end">{value:g}</text>'
            )
        middle = _TOP + (HEIGHT - _TOP - _BOTTOM) / 2
        parts.append(
            f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
            f"{escape(self._x.label)}</text>"
            f'<text x="16" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 16 {middle})">{escape(self._y.label)}</text>'
        )
        return "".join(parts)

    def _legend_box(self) -> str:
        """The labels, in the middle of the left side, where the curves of a report are not."""
        parts = []
        for row, (colour, label) in enumerate(self._legend):
            top = HEIGHT / 2 - 20 + 20 * row
            parts.append(
                f'<path class="line {colour}" d="M{_LEFT + 14},{top}h22"/>'
                f'<text x="{_LEFT + 42}" y="{top + 4}">{escape(label)}</text>'
            )
        return "".join(parts)
