"""A self-contained HTML page: text, tables, charts and small pictures in one file."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Callable, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from face_encode.errors import ImageError, InputError, MissingExtraError
from face_encode.evaluation.faces import cut_out
from face_encode.files import replacing
from face_encode.outputs import SOFTWARE
from face_encode.types import Face
from face_encode.version import __version__

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_THUMBNAIL_PIXELS = 144

# On a light page; the style sheet has those of a dark page.
COLOURS = {"ink": "#1c2430", "grid": "#d9dde3", "a": "#1668b8", "b": "#c2461d", "c": "#5a7d2a"}
_CHART_STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "lines.linewidth": 2,
    # Texts stay texts, and equal charts are equal files.
    "svg.fonttype": "none",
    "svg.hashsalt": "face_encode",
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(
        ("axes.labelcolor", "text.color", "xtick.labelcolor", "ytick.labelcolor"), COLOURS["ink"]
    ),
    **dict.fromkeys(
        ("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), COLOURS["grid"]
    ),
}

_STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; LIGHT }
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
svg { width: 100%; height: auto; }
.cards { display: flex; flex-wrap: wrap; gap: 1em; }
.card { border: 1px solid var(--grid); border-radius: 6px; padding: .6em; max-width: 310px;
  overflow-wrap: anywhere; font-size: .85em; }
.card img { width: 144px; height: 144px; object-fit: contain; background: var(--grid); }
""".replace("LIGHT", "".join(f"--{name}: {colour}; " for name, colour in COLOURS.items()))


class Page:
    """An HTML page, built from top to bottom."""

    def __init__(self, title: str) -> None:
        """Start an empty page.

        Args:
            title: The heading and the browser's title.
        """
        self._title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """Add a heading."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table of texts."""
        head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
        )
        self._parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def charts(self, charts: Sequence[tuple[str, str]]) -> None:
        """Add SVG charts (from ``chart_svg``) beside each other, each with its caption."""
        figures = "".join(
            f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
            for svg, caption in charts
        )
        self._parts.append(f'<div class="charts">{figures}</div>')

    def cards(self, cards: Sequence[tuple[Sequence[str], str]]) -> None:
        """Add pictures (from ``thumbnail``) in groups, with a text below each group."""
        body = "".join(
            f'<div class="card">{"".join(pictures)}<div>{escape(text)}</div></div>'
            for pictures, text in cards
        )
        self._parts.append(f'<div class="cards">{body}</div>')

    def left_out(self, photos: Sequence[tuple[str, str]]) -> None:
        """Add the table of photos that were left out, if there are any, with the reasons."""
        if photos:
            self.heading("Left out")
            self.table(["photo", "reason"], photos)

    def html(self) -> str:
        """The whole page."""
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="generator" content="{SOFTWARE}">'
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


def check_report_path(path: str | os.PathLike[str], charts: bool = False) -> None:
    """Refuse a report before hours of work rather than after.

    Args:
        path: Where the report goes.
        charts: Whether the report has charts.

    Raises:
        InputError: The name does not end in ``.html``, or its folder does not exist.
        MissingExtraError: The charts need matplotlib, which is not installed.
    """
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"a report's name ends in .html. Received: {target}")
    if not target.parent.is_dir():
        raise InputError(f"the report's folder does not exist. Received: {target.parent}")
    if charts and find_spec("matplotlib") is None:
        raise MissingExtraError(
            'the report\'s charts need matplotlib: pip install "face_encode[report]"'
        )


def thumbnail(photo: str | os.PathLike[str], face: Face | None = None) -> str:
    """A photo, small, as an ``<img>`` element that holds its own pixels.

    Args:
        photo: Its path; one that cannot be read becomes an empty frame.
        face: Where given, the part around it.
    """
    name = escape(Path(photo).name)
    try:
        image = cut_out(photo, None if face is None else face.box)
    except ImageError:
        return f'<img alt="{name}: cannot be read" title="{name}">'
    image.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=85)
    pixels = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="{name}" title="{name}" src="data:image/jpeg;base64,{pixels}">'


def chart_svg(title: str, x_label: str, y_label: str, draw: Callable[[Axes], object]) -> str:
    """Draw a chart with matplotlib, as an ``<svg>`` element in the page's colours.

    Args:
        title: The text for readers who do not see the chart.
        x_label: The label of the horizontal axis.
        y_label: The label of the vertical axis.
        draw: Draws on the empty axes, in ``COLOURS``; labelled artists make a legend.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    content = io.StringIO()
    with style.context(["default", _CHART_STYLE]):
        # Not pyplot, which would pick a backend and keep state for the whole process.
        figure = Figure(figsize=(7, 4.75), layout="constrained")
        axes = figure.subplots()
        axes.set(xlabel=x_label, ylabel=y_label)
        draw(axes)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        for artist in figure.findobj():
            # Clip paths have identifiers, which would have to differ from chart to chart.
            artist.set_clip_on(False)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(content, format="svg", metadata=nothing)
    svg = content.getvalue()
    # The element alone: inside a page it needs neither a prologue nor namespaces.
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"|xlink:(?=href)', "", svg[svg.index("<svg") :])
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
