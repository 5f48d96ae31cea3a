"""The numbers as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scale.growth import Growth
from benchmarks.scale.search import LOOP, READING, SEARCH_KINDS
from face_encode.errors import InputError
from face_encode.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito, "Color Universal Design", 2008: told apart by all, also beside each other.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#000000",
)
_GREY = "#666666"
# Colour, marker and line of each way to search: never by colour alone.
_SEARCH_STYLES = {
    "float32": (BLUE, "o", "-"),
    "indexed": (SKY, "P", "-"),
    "int8": (ORANGE, "s", "-"),
    "approximate": (GREEN, "^", "-"),
    "milvus": (PURPLE, "D", "-"),
    "face_recognition": (VERMILION, "v", "-"),
    "loop": (_GREY, "x", ":"),
    "reading": (BLACK, "", "--"),
}
_ENGINE_STYLES = {
    "tensorflow": (BLUE, "o", "-"),
    "onnx": (ORANGE, "s", "-"),
    "openvino": (GREEN, "^", "-"),
}
_OTHER_STYLES = ((PURPLE, "D", "-"), (VERMILION, "v", "-"), (SKY, "P", "-"))
_DOTS_AN_INCH = 150


def draw_all(parts: dict[str, dict[str, Any]], folder: Path) -> list[Path]:
    """Draw a picture of each part that there is.

    Args:
        parts: See ``Results``.
        folder: Where to.

    Returns:
        The files.
    """
    drawn = []
    for part, name, draw in (
        ("enrolment", "enrolment.png", draw_enrolment),
        ("memory", "enrolment_memory.png", draw_memory),
        ("encoding", "encoding.png", draw_encoding),
        ("search", "search_time.png", draw_search_time),
        ("search", "search_memory.png", draw_search_memory),
    ):
        if parts.get(part, {}).get("rows"):
            _save(draw(parts[part]), folder / name)
            drawn.append(folder / name)
    return drawn


def draw_enrolment(part: dict[str, Any]) -> Figure:
    """Photos a second, a bar a contestant."""
    rows = sorted(part["rows"], key=lambda row: row["photos_a_second"])
    figure, axes = _figure(7.5, 1.1 + 0.5 * len(rows))
    rates = [row["photos_a_second"] for row in rows]
    names = [row["contestant"] for row in rows]
    colours = [BLUE if row["is_ours"] else _GREY for row in rows]
    bars = axes.barh(names, rates, color=colours, height=0.6)
    labels = [f"{row['photos_a_second']:.3g}" for row in rows]
    for place, row in enumerate(rows):
        if not row["is_ours"]:
            ratios = f"{row['ratio']:.1f} and {row['ratio_to_single']:.1f}"
            labels[place] += f"   face_encode: {ratios} times as many"
    axes.bar_label(bars, labels, padding=4)
    axes.set_xlim(0, 1.15 * max(rates))
    axes.set_xlabel("photos enrolled a second")
    axes.grid(False)
    return figure


def draw_memory(part: dict[str, Any]) -> Figure:
    """Peak memory of an enrolment against the number of photos."""
    figure, axes = _figure(6, 3.6)
    photos = [row["photos"] for row in part["rows"]]
    peaks = [row["peak_megabytes"] for row in part["rows"]]
    axes.plot(photos, peaks, color=BLUE, marker="o")
    for x, y in zip(photos, peaks, strict=True):
        axes.annotate(f"{y:,.0f}", (x, y), xytext=(0, 8), textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.set_xticks(photos, [f"{each:,}" for each in photos], minor=False)
    axes.minorticks_off()
    axes.margins(x=0.1)
    axes.set_ylim(0, 1.25 * max(peaks))
    axes.set_xlabel("photos enrolled")
    axes.set_ylabel("peak memory, all processes, MB")
    return figure


def draw_encoding(part: dict[str, Any]) -> Figure:
    """Milliseconds a face against faces in a call, a panel an encoder."""
    rows = part["rows"]
    encoders = list(dict.fromkeys(row["encoder"] for row in rows))
    figure = _empty_figure(1.4 + 3.2 * len(encoders), 3.9)
    panels = figure.subplots(1, len(encoders), sharey=True, squeeze=False)[0]
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    others = iter(_OTHER_STYLES)
    styles = {each: _ENGINE_STYLES.get(each) or next(others) for each in engines}
    handles: dict[str, Any] = {}
    for encoder, axes in zip(encoders, panels, strict=True):
        for engine in engines:
            points = [
                (row["batch"], row["milliseconds_a_face"]["median"])
                for row in rows
                if (row["encoder"], row["engine"]) == (encoder, engine)
            ]
            if points:
                colour, marker, line = styles[engine]
                (handle,) = axes.plot(
                    *zip(*points, strict=True), color=colour, marker=marker, linestyle=line
                )
                handles.setdefault(engine, handle)
        batches = sorted({row["batch"] for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(batches, [str(batch) for batch in batches])
        axes.set_xlabel("faces in a call")
        random = any(row["random_weights"] for row in rows if row["encoder"] == encoder)
        axes.set_title(encoder + (" (random weights)" if random else ""))
        _plain_numbers(axes, (1, 2, 5))
        axes.xaxis.minorticks_off()
        _light_grid(axes)
    panels[0].set_ylabel("milliseconds a face")
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
    )
    return figure


def draw_search_time(part: dict[str, Any]) -> Figure:
    """Milliseconds a search against the faces enrolled, with the fitted growth."""
    figure, axes = _search_axes("milliseconds to look one face up")
    labels = {each.kind: each.label for each in (READING, *SEARCH_KINDS, LOOP)}
    rate = part["bytes_a_second"] / 1e9
    labels["reading"] = f"reading the array once, {rate:.3g} GB/s"
    for kind, label in labels.items():
        points = [
            (row["faces"], row["milliseconds"]["median"])
            for row in part["rows"]
            if row["kind"] == kind
        ]
        if not points:
            continue
        if kind == "reading":
            # The rate itself, of which each size's reading was one more sample.
            array = part["dimensions"] * 4
            points = [(faces, faces * array / part["bytes_a_second"] * 1e3) for faces, _ in points]
        growth = part["growth"].get(kind)
        grows = "" if growth is None else f"\n   grows as {Growth(**growth)}"
        _line(axes, kind, points, label + grows)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def draw_search_memory(part: dict[str, Any]) -> Figure:
    """Memory of a gallery against the faces enrolled."""
    figure, axes = _search_axes("memory of the gallery, MB")
    for each in SEARCH_KINDS:
        points = [
            (row["faces"], row["megabytes"])
            for row in part["rows"]
            # What is below a megabyte is the noise of the measurement.
            if row["kind"] == each.kind and row["megabytes"] >= 1
        ]
        if points:
            _line(axes, each.kind, points, each.label)
    sizes = sorted({row["faces"] for row in part["rows"]})
    array = [(faces, faces * part["dimensions"] * 4 / 1e6) for faces in sizes]
    _line(axes, "reading", array, "the float32 array itself")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _line(axes: Axes, kind: str, points: Sequence[tuple[float, float]], label: str) -> None:
    colour, marker, line = _SEARCH_STYLES[kind]
    axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=line, label=label)


def _search_axes(label: str) -> tuple[Figure, Axes]:
    figure, axes = _figure(9, 5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("faces enrolled")
    axes.set_ylabel(label)
    _plain_numbers(axes)
    axes.xaxis.set_major_formatter(
        lambda value, _: f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:,.0f} million"
    )
    return figure, axes


def _plain_numbers(axes: Axes, digits: Sequence[int] = (1,)) -> None:
    """0.1, 1, 10 at a logarithmic axis, not powers of ten, which are harder to read."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=digits))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _empty_figure(width: float, height: float) -> Figure:
    # Not pyplot, which would pick a backend and keep state for the whole process.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _empty_figure(width, height)
    axes = figure.subplots()
    _light_grid(axes)
    return figure, axes


def _light_grid(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#dddddd")
    axes.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with replacing(path, InputError) as temporary:
        FigureCanvasAgg(figure).print_figure(str(temporary), format="png", dpi=_DOTS_AN_INCH)
