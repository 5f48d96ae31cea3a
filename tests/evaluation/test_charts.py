from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from face_encode.errors import InputError
from face_encode.evaluation.html import HEIGHT, WIDTH, Axis, Chart


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
