from __future__ import annotations

import base64
import io
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from face_encode.errors import InputError, MissingExtraError
from face_encode.evaluation.html import COLOURS, Page, chart_svg, check_report_path, thumbnail
from face_encode.types import Box, Face


def pixels_of(element: str) -> Image.Image:
    found = re.search(r'src="data:image/jpeg;base64,([^"]+)"', element)
    assert found is not None
    return Image.open(io.BytesIO(base64.b64decode(found[1])))


def test_texts_are_escaped(tmp_path: Path) -> None:
    page = Page("<b>")
    page.heading("a & b")
    page.text('"<script>"')
    page.table(["<i>"], [["<u>"]])
    page.charts([("<svg/>", "<c>")])
    page.cards([(["<img>"], "<d>")])
    page.left_out([("<e>", "<f>")])
    path = tmp_path / "report.html"
    page.write(path)
    text = path.read_text(encoding="utf-8")
    assert text == page.html()
    for raw in ("<b>", "<script>", "<i>", "<u>", "<c>", "<d>", "<e>", "<f>"):
        assert raw not in text
    assert "<svg/>" in text
    assert "a &amp; b" in text


def test_a_thumbnail_holds_the_photo_or_the_part_around_a_face(tmp_path: Path) -> None:
    photo = np.zeros((300, 600, 3), np.uint8)
    photo[100:200, 400:500] = (200, 30, 30)
    path = tmp_path / "a<b.png"
    Image.fromarray(photo).save(path)
    whole = thumbnail(path)
    assert "a&lt;b.png" in whole
    assert pixels_of(whole).size == (144, 72)
    part = pixels_of(thumbnail(path, Face(Box(400, 100, 100, 100), 1.0)))
    assert part.size == (144, 144)
    red, green, _ = np.asarray(part)[72, 72]
    assert red > 150 > 100 > green


def test_a_photo_that_cannot_be_read_is_an_empty_frame(tmp_path: Path) -> None:
    assert thumbnail(tmp_path / "none.jpg") == (
        '<img alt="none.jpg: cannot be read" title="none.jpg">'
    )


def test_a_report_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.html"):
        check_report_path(tmp_path / "report.txt")
    with pytest.raises(InputError, match="folder does not exist"):
        check_report_path(tmp_path / "none" / "report.html")
    (tmp_path / "report.html").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        Page("x").write(tmp_path / "report.html")


def test_charts_without_matplotlib_are_refused_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_report_path(tmp_path / "report.html", charts=True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    check_report_path(tmp_path / "report.html")
    with pytest.raises(MissingExtraError, match=re.escape('pip install "face_encode[report]"')):
        check_report_path(tmp_path / "report.html", charts=True)


def test_a_chart_is_one_element_that_refers_to_nothing() -> None:
    def draw(axes: Axes) -> None:
        axes.set(xscale="log", xlim=(1e-3, 1))
        axes.plot([1e-3, 1], [0, 1], color=COLOURS["a"], label="same & different")
        axes.axvline(0.5, label="<marker>")

    svg = chart_svg("a <title>", "x & y", "rate", draw)
    assert svg == chart_svg("a <title>", "x & y", "rate", draw)
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.attrib["aria-label"] == "a <title>"
    texts = ["".join(element.itertext()) for element in root.iter("text")]
    for text in ("x & y", "rate", "same & different", "<marker>"):
        assert text in texts
    for outside in ("http", "url(", "<?xml", "<!DOCTYPE"):
        assert outside not in svg


def test_a_chart_has_the_colours_of_the_page() -> None:
    svg = chart_svg("t", "x", "y", lambda axes: axes.fill_between([0, 1], 1, color=COLOURS["b"]))
    page = Page("t").html()
    for name in ("ink", "grid", "b"):
        assert f"var(--{name})" in svg
        assert f"--{name}: {COLOURS[name]};" in page
    assert not any(colour in svg for colour in COLOURS.values())
