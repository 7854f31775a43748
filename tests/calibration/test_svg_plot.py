"""Plots: values are where the axes say, text cannot break out, and nothing is loaded."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from soundpost.calibration.report import Report, Table
from soundpost.calibration.svg_plot import Plot


def circles(plot):
    root = ElementTree.fromstring(plot.svg())
    return np.array([[float(of.get("cx")), float(of.get("cy"))] for of in root.iter("circle")])


def ticks(plot):
    """Numbers at the axes with their places: {x: across}, {y: down}."""
    texts = [of for of in ElementTree.fromstring(plot.svg()).iter("text") if of.text]
    number = re.compile(r"-?[\d.]+(e-?\d+)?")
    of_x = {
        float(of.text): float(of.get("x"))
        for of in texts
        if of.get("text-anchor") == "middle" and number.fullmatch(of.text)
    }
    of_y = {
        float(of.text): float(of.get("y")) - 4
        for of in texts
        if of.get("text-anchor") == "end" and number.fullmatch(of.text)
    }
    return of_x, of_y


@pytest.mark.parametrize("log_x", [False, True])
def test_points_are_where_the_axes_say(log_x):
    plot = Plot("t", "x", "y", log_x=log_x)
    x, y = np.array([100.0, 250.0, 1000.0, 8000.0]), np.array([-3.0, 0.5, 2.0, 7.0])
    plot.points(x, y)
    of_x, of_y = ticks(plot)
    scale = np.log10 if log_x else np.asarray
    across = np.polyfit(scale(list(of_x)), list(of_x.values()), 1)
    down = np.polyfit(list(of_y), list(of_y.values()), 1)
    expected = np.stack([np.polyval(across, scale(x)), np.polyval(down, y)], axis=1)
    np.testing.assert_allclose(circles(plot), expected, atol=0.2)


def test_equal_axes_have_equal_units():
    plot = Plot("map", "x", "y", equal=True)
    plot.points([0, 1, 0], [0, 0, 1])
    at = circles(plot)
    assert at[1, 0] - at[0, 0] == pytest.approx(at[0, 1] - at[2, 1], abs=0.15)


def test_next_to_nothing_looks_like_it():
    plot = Plot("level", "x", "y", least_y=1.0)
    plot.points([0, 1], [2.0, 2.001])
    assert abs(np.diff(circles(plot)[:, 1])[0]) < 1


def test_gaps_and_single_values_are_drawn():
    plot = Plot("t", "x", "y")
    plot.line([0, 1, 2, 3], [1, np.nan, 3, 4])
    plot.points([5], [5])
    path = next(ElementTree.fromstring(plot.svg()).iter("path")).get("d")
    assert path.count("M") == 2
    assert "nan" not in plot.svg()
    assert len(circles(plot)) == 1
    assert Plot("empty", "x", "y").svg().startswith("<svg")


def test_text_cannot_break_out_of_the_page(tmp_path):
    bad = '<script>alert(1)</script>&"'
    plot = Plot(bad, bad, bad)
    plot.points([1], [1], name=bad, labels=[bad])
    page = tmp_path / "page.html"
    Report(bad, (bad,), (plot,), (Table((bad,), ((bad,),)),), (bad,)).write(page)
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert re.search(r"https?://|src=|href=", text) is None
