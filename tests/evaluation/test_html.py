from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from face_encode.errors import InputError
from face_encode.evaluation.html import (
    HEIGHT,
    WIDTH,
    Axis,
    Chart,
    Page,
    check_report_path,
    thumbnail,
)
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
    path = tmp_path / "report.html"
    page.write(path)
    text = path.read_text(encoding="utf-8")
    assert text == page.html()
    for raw in ("<b>", "<script>", "<i>", "<u>", "<c>", "<d>"):
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


def test_a_linear_axis() -> None:
    axis = Axis("x", 0.7, 1.0)
    np.testing.assert_allclose(axis.share([0.7, 0.85, 1.0, 2.0]), [0, 0.5, 1, 1])
    assert axis.ticks() == [0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0]


def test_a_logarithmic_axis() -> None:
    axis = Axis("x", 1e-4, 1, logarithmic=True)
    np.testing.assert_allclose(axis.share([0, 1e-4, 1e-2, 1]), [0, 0, 0.5, 1])
    assert axis.ticks() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])


@pytest.mark.parametrize(("lower", "upper", "logarithmic"), [(1, 1, False), (0, 1, True)])
def test_an_axis_that_does_not_rise_is_refused(
    lower: float, upper: float, logarithmic: bool
) -> None:
    with pytest.raises(InputError, match="rises"):
        Axis("x", lower, upper, logarithmic)


def test_a_chart_is_well_formed_and_everything_lies_inside() -> None:
    chart = Chart("a <title>", Axis("x & y", 0, 1), Axis("rate", 0, 1))
    chart.line([0, 1], [0, 5], "a", "same & different")
    chart.band([0, 1], [0, 0.1], [0.2, 0.3], "b")
    chart.bars([0, 0.5, 1], [0.2, 0.9], "c", "<bars>")
    chart.marker(0.9, "threshold")
    svg = chart.svg()
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "a <title>"
    texts = [element.text for element in root.iter("text")]
    for text in ("x & y", "same & different", "<bars>", "threshold"):
        assert text in texts
    for points in re.findall(r'points="([^"]+)"', svg):
        places = np.array([pair.split(",") for pair in points.split()], float)
        assert (places >= 0).all()
        assert (places <= [WIDTH, HEIGHT]).all()


def test_a_line_goes_where_the_axes_say() -> None:
    chart = Chart("t", Axis("x", 0, 1), Axis("y", 0, 1))
    chart.line([0, 1], [0, 1], "a")
    (points,) = re.findall(r'<polyline class="line a" points="([^"]+)"', chart.svg())
    assert points == "62.0,330.0 544.0,14.0"
