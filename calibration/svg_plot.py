"""Plots as inline SVG: a page that shows them needs nothing beside itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import ArrayLike

from soundpost.device.array.geometry import Floats

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 68, 12, 30, 46
# Okabe and Ito's colours, which people of all kinds of sight tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass
class Plot:
    """Lines and points over two axes.

    equal : a unit is as long on either axis, as on a map
    least_y : what the y axis spans at least, so that next to nothing looks like it
    """

    title: str
    x_label: str
    y_label: str
    log_x: bool = False
    equal: bool = False
    least_y: float = 0.0
    _items: list[tuple[str, Floats, Floats, str, str, tuple[str, ...]]] = field(
        default_factory=list
    )

    def line(self, x: ArrayLike, y: ArrayLike, colour: str = COLOURS[0], name: str = "") -> None:
        """A line through points; gaps where a value is not a number."""
        self._add("line", x, y, colour, name, ())

    def points(
        self,
        x: ArrayLike,
        y: ArrayLike,
        colour: str = COLOURS[0],
        name: str = "",
        labels: Sequence[str] = (),
    ) -> None:
        """Points, each with a label that shows when it is pointed at."""
        self._add("points", x, y, colour, name, tuple(labels))

    def _add(
        self,
        kind: str,
        x: ArrayLike,
        y: ArrayLike,
        colour: str,
        name: str,
        labels: tuple[str, ...],
    ) -> None:
        xs, ys = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
        if self.log_x:
            xs = np.log10(np.maximum(xs, 1e-12))
        self._items.append((kind, xs, ys, colour, name, labels))

    def svg(self) -> str:
        """The plot as an `<svg>` element."""
        x_range, y_range = self._ranges()
        inner_w, inner_h = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        if self.equal:
            x_range, y_range = _equal(x_range, y_range, inner_w / inner_h)

        def across(value: float) -> float:
            return _LEFT + (value - x_range[0]) / (x_range[1] - x_range[0]) * inner_w

        def down(value: float) -> float:
            return _TOP + (y_range[1] - value) / (y_range[1] - y_range[0]) * inner_h

        parts = [
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(self.title)}">',
            f'<text x="{_LEFT}" y="18" class="t">{escape(self.title)}</text>',
        ]
        x_ticks = _decades(x_range) if self.log_x else _ticks(x_range)
        for value, text in x_ticks:
            parts.append(_line_of(across(value), _TOP, across(value), _TOP + inner_h, "g"))
            parts.append(_text(across(value), _TOP + inner_h + 16, text, "middle"))
        for value, text in _ticks(y_range):
            parts.append(_line_of(_LEFT, down(value), _LEFT + inner_w, down(value), "g"))
            parts.append(_text(_LEFT - 6, down(value) + 4, text, "end"))
        parts.append(_text(_LEFT + inner_w / 2, _HEIGHT - 8, self.x_label, "middle"))
        middle = _TOP + inner_h / 2
        parts.append(
            f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y_label)}</text>"
        )
        names = [(name, colour) for _, _, _, colour, name, _ in self._items if name]
        for kind, xs, ys, colour, _, labels in self._items:
            draw = _polyline if kind == "line" else _circles
            good = np.isfinite(xs) & np.isfinite(ys)
            at = [
                (across(x), down(y)) if ok else None for x, y, ok in zip(xs, ys, good, strict=True)
            ]
            parts.append(draw(at, colour, labels))
        for index, (name, colour) in enumerate(dict.fromkeys(names)):
            x, y = _LEFT + inner_w - 8, _TOP + 14 + 15 * index
            parts.append(
                f'<text x="{x}" y="{y}" text-anchor="end" style="fill:{colour}">'
                f"{escape(name)}</text>"
            )
        return "\n".join([*parts, "</svg>"])

    def _ranges(self) -> tuple[tuple[float, float], tuple[float, float]]:
        both = []
        for axis in (1, 2):
            values = np.concatenate([item[axis] for item in self._items] or [np.zeros(1)])
            values = values[np.isfinite(values)]
            low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
            lacking = max(self.least_y - (high - low), 0.0) if axis == 2 else 0.0
            room = lacking / 2 + (high - low) * 0.06 or max(abs(high) * 0.1, 1e-9)
            both.append((low - room, high + room))
        return both[0], both[1]


def _equal(
    x: tuple[float, float], y: tuple[float, float], shape: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    width, height = x[1] - x[0], y[1] - y[0]
    wider, higher = max(width, height * shape), max(height, width / shape)
    x_middle, y_middle = sum(x) / 2, sum(y) / 2
    return (
        (x_middle - wider / 2, x_middle + wider / 2),
        (y_middle - higher / 2, y_middle + higher / 2),
    )


def _ticks(span: tuple[float, float]) -> list[tuple[float, str]]:
    length = span[1] - span[0]
    step = 10 ** math.floor(math.log10(length / 4))
    step *= next(of for of in (1, 2, 5, 10) if length / (step * of) <= 7)
    first = math.ceil(span[0] / step)
    values = [number * step for number in range(first, math.floor(span[1] / step) + 1)]
    return [(value, f"{round(value / step) * step:.6g}") for value in values]


def _decades(span: tuple[float, float]) -> list[tuple[float, str]]:
    ticks = []
    for decade in range(math.floor(span[0]), math.ceil(span[1]) + 1):
        for of in (1, 2, 5):
            value = decade + math.log10(of)
            if span[0] <= value <= span[1]:
                ticks.append((value, f"{of * 10.0**decade:g}"))
    return ticks


def _polyline(at: list[tuple[float, float] | None], colour: str, labels: tuple[str, ...]) -> str:
    path, pen = [], "M"
    for place in at:
        if place is None:
            pen = "M"
            continue
        path.append(f"{pen}{place[0]:.1f} {place[1]:.1f}")
        pen = "L"
    return f'<path d="{" ".join(path)}" fill="none" stroke="{colour}" stroke-width="1.3"/>'


def _circles(at: list[tuple[float, float] | None], colour: str, labels: tuple[str, ...]) -> str:
    circles = []
    for index, place in enumerate(at):
        if place is None:
            continue
        label = f"<title>{escape(labels[index])}</title>" if index < len(labels) else ""
        circles.append(
            f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3.5" fill="{colour}" '
            f'fill-opacity="0.75">{label}</circle>'
        )
    return "".join(circles)


def _line_of(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{name}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
