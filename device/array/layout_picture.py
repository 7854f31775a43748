"""A picture of a layout as SVG: where the microphones are, and what a beam hears from elsewhere."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from soundpost.device.array.geometry import ArrayGeometry, Floats
from soundpost.device.array.layouts import Hearing, main_lobe, responses
from soundpost.device.files import write_atomically

# Levels from black to white, in dB.
_RANGE_DB: Final = (-40.0, 0.0)
# At equal steps of that range, dark to light: from "inferno" of van der Walt and Smith.
_COLOURS: Final = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10),
                   (252, 255, 164))  # fmt: skip
_SIZE: Final = 360
_MARGIN: Final = 50
_STEPS = 6


def write_layout_picture(
    path: Path, geometry: ArrayGeometry, hearing: Hearing, diameter_m: float, caption: str
) -> None:
    """Write the picture; raises InputError where that cannot be done."""
    write_atomically(path, layout_svg(geometry, hearing, diameter_m, caption).encode())


def layout_svg(geometry: ArrayGeometry, hearing: Hearing, diameter_m: float, caption: str) -> str:
    """The picture's text.

    diameter_m : of the disc that is drawn around the microphones
    caption : one line below
    """
    step = main_lobe(hearing, diameter_m) / _STEPS
    found, (u, v) = responses(geometry, hearing, step)
    occurs = hearing.counts(u, v, 0.0)
    # Only v from 0 up was looked at: the other half is the same turned by 180 degrees.
    whole = np.concatenate([found[::-1, :0:-1], found], axis=1)
    seen = np.concatenate([occurs[::-1, :0:-1], occurs], axis=1)
    picture = base64.b64encode(_png(_coloured(whole.T[::-1], seen.T[::-1]))).decode()
    tall = _SIZE * v[-1] / u[-1]
    left, top = _SIZE + 3 * _MARGIN, _MARGIN + (_SIZE - tall) / 2
    width, height = 2 * _SIZE + 5 * _MARGIN, _SIZE + 2 * _MARGIN + 30
    middle = _MARGIN + _SIZE / 2
    scale = _SIZE / diameter_m
    dots = "\n".join(
        f'<circle cx="{middle + x * scale:.1f}" cy="{middle - y * scale:.1f}" r="3"/>'
        for x, y, _ in geometry.positions_m.tolist()
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" font-family="sans-serif" font-size="13">
<rect width="100%" height="100%" fill="white"/>
<text x="{_MARGIN}" y="28" font-size="15">{escape(geometry.name)}: {diameter_m:g} m, seen \
from behind</text>
<circle cx="{middle}" cy="{middle}" r="{_SIZE / 2}" fill="none" stroke="#999"/>
<g fill="#1a4a7a">
{dots}
</g>
<text x="{left}" y="28" font-size="15">heard from elsewhere at {hearing.max_hz:g} Hz</text>
<image x="{left}" y="{top:.1f}" width="{_SIZE}" height="{tall:.1f}" preserveAspectRatio="none" \
style="image-rendering:pixelated" href="data:image/png;base64,{picture}"/>
<rect x="{left}" y="{top:.1f}" width="{_SIZE}" height="{tall:.1f}" fill="none" stroke="#999"/>
{_labels(u, v, left, top, tall)}
{_scale(left + _SIZE + 15, top, tall)}
<text x="{_MARGIN}" y="{height - 14}">{escape(caption)}</text>
</svg>
"""


def _labels(u: Floats, v: Floats, left: float, top: float, tall: float) -> str:
    below = top + tall + 16
    return f"""<text x="{left}" y="{below:.1f}">{u[0]:.2f}</text>
<text x="{left + _SIZE / 2}" y="{below:.1f}" text-anchor="middle">difference of direction cosines \
in x</text>
<text x="{left + _SIZE}" y="{below:.1f}" text-anchor="end">{u[-1]:.2f}</text>
<text x="{left - 6}" y="{top + 12:.1f}" text-anchor="end">{v[-1]:.2f}</text>
<text x="{left - 6}" y="{top + tall / 2 + 5:.1f}" text-anchor="end">in y</text>
<text x="{left - 6}" y="{top + tall:.1f}" text-anchor="end">{-v[-1]:.2f}</text>"""


def _scale(left: float, top: float, tall: float) -> str:
    """The colours with their levels."""
    low, high = _RANGE_DB
    n = len(_COLOURS)
    stops = "".join(
        f'<stop offset="{place / (n - 1):.2f}" stop-color="rgb{colour}"/>'
        for place, colour in enumerate(_COLOURS)
    )
    return f"""<defs><linearGradient id="levels" x1="0" y1="1" x2="0" y2="0">{stops}\
</linearGradient></defs>
<rect x="{left}" y="{top:.1f}" width="14" height="{tall:.1f}" fill="url(#levels)" stroke="#999"/>
<text x="{left + 20}" y="{top + 12:.1f}">{high:g} dB</text>
<text x="{left + 20}" y="{top + tall:.1f}">{low:g} dB</text>"""


def _coloured(magnitudes: Floats, seen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Pixels (rows, columns, 4) of |P|; transparent where no difference lies."""
    low, high = _RANGE_DB
    levels = 20 * np.log10(np.maximum(magnitudes, 10 ** (low / 20)))
    place = np.clip((levels - low) / (high - low), 0, 1) * (len(_COLOURS) - 1)
    pixels = np.empty((*magnitudes.shape, 4), np.uint8)
    for part in range(3):
        of_part = [colour[part] for colour in _COLOURS]
        pixels[..., part] = np.rint(np.interp(place, np.arange(len(_COLOURS)), of_part))
    pixels[..., 3] = np.where(seen, 255, 0)
    return pixels


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of (rows, columns, 4) pixels: RFC 2083, without filters."""
    rows, columns, _ = pixels.shape
    lines = np.zeros((rows, 1 + 4 * columns), np.uint8)
    lines[:, 1:] = pixels.reshape(rows, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))
        )

    header = struct.pack("!IIBBBBB", columns, rows, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + chunk(b"IEND", b"")
    )
