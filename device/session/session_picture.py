"""A picture of a session: levels of all channels over time, gaps, and how pictures came."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any, Final
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import FloatArray
from soundpost.device.png import encode_png
from soundpost.device.session.level_meters import SILENCE_DBFS
from soundpost.device.session.session_reader import Session

_WIDTH: Final = 900
_LEFT: Final = 70
_LEVELS_HEIGHT: Final = 280
_FRAMES_HEIGHT: Final = 70
_LOWEST_DB, _HIGHEST_DB = -80.0, 0.0
# Inferno of matplotlib at seven places: readable in grey, and by the colour-blind.
_INFERNO: Final = np.array(
    [
        *([0, 0, 4], [51, 10, 95], [120, 28, 109], [187, 55, 84]),
        *([237, 105, 37], [252, 181, 25], [252, 255, 164]),
    ],
    np.float64,
)
_STEPS_S: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600)


def channel_levels(
    session: Session, n_columns: int, progress: Callable[[int], object] = lambda n: None
) -> FloatArray:
    """Level of each channel in so many equal parts of the session, (n_channels, n_columns) dBFS.

    Root mean square; NaN where all of a part is a gap.
    """
    edges = np.linspace(0, session.n_samples, n_columns + 1).round().astype(int)
    levels = np.full((session.n_channels, n_columns), np.nan, np.float32)
    for column, (first, last) in enumerate(itertools.pairwise(edges)):
        sums, n_heard = np.zeros(session.n_channels), 0
        for block in session.blocks(session.rate_hz, int(first), int(last)):
            sums += np.einsum("sc,sc->c", block, block)
        n_heard = int(last - first) - _missing(session, int(first), int(last))
        if n_heard:
            rms = np.sqrt(sums / n_heard)
            levels[:, column] = 20 * np.log10(np.maximum(rms, 10 ** (SILENCE_DBFS / 20)))
        progress(int(last - first))
    return levels


def _missing(session: Session, first: int, last: int) -> int:
    return sum(
        max(0, min(gap.first_sample + gap.length, last) - max(gap.first_sample, first))
        for gap in session.gaps
    )


def session_svg(session: Session, progress: Callable[[int], object] = lambda n: None) -> str:
    """The picture as SVG, with nothing from elsewhere."""
    n_columns = min(_WIDTH, max(1, session.n_samples // 64))
    levels = channel_levels(session, n_columns, progress)
    has_video = session.description.video is not None
    height = 60 + _LEVELS_HEIGHT + 30 + (_FRAMES_HEIGHT + 40 if has_video else 0) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + 90}" '
        f'height="{height}" font-family="system-ui, sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="600">{escape(_title(session))}'
        "</text>",
        *_levels_part(session, levels, 44),
    ]
    below = 44 + _LEVELS_HEIGHT
    if has_video:
        parts += _frames_part(session, below + 50)
        below += 50 + _FRAMES_HEIGHT
    parts += _axis(session, below)
    return "\n".join([*parts, "</svg>", ""])


def _title(session: Session) -> str:
    began = f", {session.clock[0].utc:%Y-%m-%d %H:%M:%S} UTC" if session.clock else ""
    return (
        f"{session.folder.name}: {session.device}{began}, {session.duration_s:.1f} s, "
        f"{session.n_channels} channels at {session.rate_hz / 1000:g} kHz"
    )


def _x(session: Session, sample: float) -> float:
    return _LEFT + _WIDTH * sample / max(1, session.n_samples)


def _levels_part(session: Session, levels: FloatArray, top: int) -> list[str]:
    part = (levels - _LOWEST_DB) / (_HIGHEST_DB - _LOWEST_DB)
    picture = _colours(np.nan_to_num(part, nan=0.0))
    picture[np.isnan(levels)] = (200, 200, 200)
    data = base64.b64encode(encode_png(picture)).decode()
    rows = [
        f'<image x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_LEVELS_HEIGHT}" '
        'preserveAspectRatio="none" style="image-rendering: pixelated" '
        f'href="data:image/png;base64,{data}"/>',
        f'<text x="{_LEFT - 8}" y="{top + 12}" text-anchor="end">0</text>',
        f'<text x="{_LEFT - 8}" y="{top + _LEVELS_HEIGHT}" text-anchor="end">'
        f"{session.n_channels - 1}</text>",
        f'<text transform="translate(22 {top + _LEVELS_HEIGHT // 2}) rotate(-90)" '
        'text-anchor="middle">channel</text>',
    ]
    for gap in session.gaps:
        width = max(1.5, _WIDTH * gap.length / session.n_samples)
        seconds = gap.length / session.rate_hz
        rows.append(
            f'<rect x="{_x(session, gap.first_sample):.1f}" y="{top}" width="{width:.1f}" '
            f'height="{_LEVELS_HEIGHT}" fill="#00a0ff" fill-opacity="0.6"><title>no sound for '
            f"{seconds:.3f} s: {escape(gap.cause)}</title></rect>"
        )
    scale = _colours(np.linspace(1, 0, 64)[:, None])
    data = base64.b64encode(encode_png(scale)).decode()
    x = _LEFT + _WIDTH + 16
    rows.append(
        f'<image x="{x}" y="{top}" width="14" height="{_LEVELS_HEIGHT}" '
        f'preserveAspectRatio="none" href="data:image/png;base64,{data}"/>'
    )
    for level in range(int(_LOWEST_DB), 1, 20):
        y = top + _LEVELS_HEIGHT * (1 - (level - _LOWEST_DB) / (_HIGHEST_DB - _LOWEST_DB))
        rows.append(f'<text x="{x + 18}" y="{y + 5:.0f}">{level}</text>')
    rows.append(f'<text x="{x - 6}" y="{top - 8}">dBFS</text>')
    return rows


def _frames_part(session: Session, top: int) -> list[str]:
    """Pictures a second over time."""
    video = session.description.video
    assert video is not None
    samples = session.frame_table.samples
    n_parts = int(min(200, max(1, session.duration_s)))
    counts, edges = np.histogram(samples, bins=n_parts, range=(0, max(1, session.n_samples)))
    rates = counts / ((edges[1] - edges[0]) / session.rate_hz)
    greatest = max(float(rates.max()), 1.0)
    points = []
    for rate, first, last in zip(rates, edges[:-1], edges[1:], strict=True):
        y = top + _FRAMES_HEIGHT * (1 - rate / greatest)
        points += [f"{_x(session, first):.1f},{y:.1f}", f"{_x(session, last):.1f},{y:.1f}"]
    rows = [
        f'<rect x="{_LEFT}" y="{top}" width="{_WIDTH}" height="{_FRAMES_HEIGHT}" fill="#f3f4f6"/>',
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#1f5f8b" stroke-width="1.5"/>',
        f'<text x="{_LEFT - 8}" y="{top + 8}" text-anchor="end">{greatest:.0f}</text>',
        f'<text x="{_LEFT - 8}" y="{top + _FRAMES_HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{_LEFT}" y="{top - 8}">pictures a second ({session.frame_table.n_frames} in '
        f"all, {video.dropped} dropped)</text>",
    ]
    for gap in video.gaps:
        end = session.n_samples if gap.length is None else gap.first_sample + gap.length
        left = _x(session, gap.first_sample)
        width = max(1.5, _x(session, end) - left)
        rows.append(
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{_FRAMES_HEIGHT}" '
            f'fill="#00a0ff" fill-opacity="0.4"><title>{escape(gap.cause)}</title></rect>'
        )
    return rows


def _axis(session: Session, top: int) -> list[str]:
    step = next((step for step in _STEPS_S if session.duration_s / step <= 10), 86_400)
    rows = []
    for number in range(int(session.duration_s / step) + 1):
        x = _x(session, number * step * session.rate_hz)
        rows.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + 5}" stroke="black"/>')
        rows.append(
            f'<text x="{x:.1f}" y="{top + 20}" text-anchor="middle">{number * step:g}</text>'
        )
    rows.append(
        f'<text x="{_LEFT + _WIDTH / 2}" y="{top + 40}" text-anchor="middle">seconds; blue: '
        "nothing was recorded</text>"
    )
    return rows


def _colours(part: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours of values 0 to 1, (..., 3)."""
    at = np.clip(part, 0, 1) * (len(_INFERNO) - 1)
    low = np.minimum(at.astype(int), len(_INFERNO) - 2)
    mixed = _INFERNO[low] + (at - low)[..., None] * (_INFERNO[low + 1] - _INFERNO[low])
    colours: NDArray[np.uint8] = np.round(mixed).astype(np.uint8)
    return colours
