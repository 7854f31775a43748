"""Objects made of simple parts, and how they are drawn.

A part is an ellipse, a box, a ring or a wedge, with a colour, a shade that makes it round, and
perhaps a texture and a motion. It is drawn from its distance to the outline, which gives smooth
edges at every size. Coordinates are in heights of the object from its middle: x to the right, y up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from soundpost.device.audio import FloatArray

Pair = tuple[float, float]
Shape = Literal["ellipse", "box", "ring", "wedge"]
Shade = Literal["ball", "rod", "flat", "glow"]
Texture = Literal["fur", "stripes", "spots", "checks"]

# From the upper left, before the object.
_LIGHT = np.array([-0.45, 0.62, 0.64])
# Outlines are darker over this width, in heights of the object, or over so many pixels.
_EDGE, _EDGE_PX = 0.018, 1.2
# Hues and lightnesses differ from one object of a kind to the next by about so much, of 255.
_COLOUR_JITTER = 9.0
# Turns of a swinging part that are tried to find how far it reaches.
_TRIED = 25
_BLACK = np.zeros(3, np.float32)
# In radians per height of the object.
_TEXTURE_WAVES = {"fur": 46.0, "stripes": 30.0, "spots": 24.0, "checks": 26.0}


@dataclass(frozen=True)
class Motion:
    """How a part moves while its object is active.

    kind : "swing" turns to and fro about pivot by amount degrees; "bob" goes up and down by amount;
        "turn" shows a plate that turns about its vertical axis; "pulse" grows and shrinks by the
        share amount; "blink" goes dark by the share amount
    phase : in turns, so that parts do not move as one
    """

    kind: Literal["swing", "bob", "turn", "pulse", "blink"]
    amount: float
    rate_hz: float
    pivot: Pair = (0.0, 0.0)
    phase: float = 0.0


@dataclass(frozen=True)
class Part:
    """One shape of an object, over those before it.

    at, half : its middle, and half of its width and height before it is turned
    colour : of the look's palette
    turn_deg : to the left
    corner : radius of a box's corners, half of the thickness of a ring
    ink : colour of the palette that the texture is drawn in
    """

    shape: Shape
    at: Pair
    half: Pair
    colour: str
    turn_deg: float = 0.0
    corner: float = 0.0
    shade: Shade = "ball"
    texture: Texture | None = None
    ink: str = "dark"
    motion: Motion | None = None


@dataclass(frozen=True)
class Look:
    """How objects of one kind look.

    palette : by name, the colours of which each object has one, as "#rrggbb"
    bounce : of the whole object while it is active, in its heights
    """

    parts: tuple[Part, ...]
    palette: Mapping[str, tuple[str, ...]]
    bounce: float = 0.0

    @cached_property
    def reach(self) -> Pair:
        """Half of the width and of the height that it never leaves, in its heights."""
        wide = high = 0.0
        for part in self.parts:
            motion = part.motion
            swing = motion is not None and motion.kind == "swing"
            turns = np.linspace(-1, 1, _TRIED) if swing else np.zeros(1)
            for by in turns:
                (x, y), (half_x, half_y), turn = _at_furthest(part, float(by))
                cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
                wide = max(wide, abs(x) + cos * half_x + sin * half_y)
                high = max(high, abs(y) + sin * half_x + cos * half_y)
        # Between two turns that were tried it may reach a little further.
        return 1.02 * wide, 1.02 * high + self.bounce


@dataclass(frozen=True, eq=False)
class Pose:
    """An object of a look at one moment.

    colours : (3,) each, 0 to 255, by name
    waves : of its textures, random numbers (8,)
    active_s : seconds that it has been active
    activity : 0 at rest to 1
    """

    colours: Mapping[str, FloatArray]
    waves: FloatArray
    active_s: float = 0.0
    activity: float = 0.0
    mirrored: bool = False


def pick_colours(look: Look, rng: np.random.Generator) -> dict[str, FloatArray]:
    """One colour of each name, a little different every time."""
    colours = {}
    for name, choices in look.palette.items():
        chosen = choices[int(rng.integers(len(choices)))]
        value = np.array([int(chosen[i : i + 2], 16) for i in (1, 3, 5)], np.float64)
        value += _COLOUR_JITTER * (rng.standard_normal() + 0.5 * rng.standard_normal(3))
        colours[name] = np.clip(value, 4, 250).astype(np.float32)
    return colours


def draw(look: Look, pose: Pose, columns: FloatArray, rows: FloatArray, px: float) -> FloatArray:
    """An object as it covers some pixels.

    Parameters
    ----------
    columns, rows : (n_columns,), (n_rows,) middles of the pixels in heights of the object, x and y
    px : pixels per height of the object

    Returns
    -------
    (4, n_rows, n_columns) float32: red, green and blue (0 to 255), each times the coverage, and the
    coverage (0 to 1). Planes, for numpy is slow where the last axis is short
    """
    sprite = np.zeros((4, len(rows), len(columns)), np.float32)
    if pose.mirrored:
        columns = -columns
    rows = rows - look.bounce * pose.activity * abs(math.sin(2 * math.pi * 2.2 * pose.active_s))
    for part in look.parts:
        _add(sprite, part, pose, columns, rows, px)
    return sprite


def _at_furthest(part: Part, swung: float) -> tuple[Pair, Pair, float]:
    """Middle, halves and turn of a part in motion, swung by a share of its amount."""
    motion = part.motion
    x, y = part.at
    half_x, half_y = part.half
    turn = math.radians(part.turn_deg)
    if motion is None:
        return (x, y), (half_x, half_y), turn
    if motion.kind == "swing":
        by = swung * math.radians(motion.amount)
        return _turned((x, y), motion.pivot, by), (half_x, half_y), turn + by
    if motion.kind == "bob":
        return (x, y), (half_x, half_y + motion.amount), turn
    grown = 1 + motion.amount if motion.kind == "pulse" else 1.0
    return (x, y), (half_x * grown, half_y * grown), turn


def _turned(at: Pair, pivot: Pair, by: float) -> Pair:
    from_x, from_y = at[0] - pivot[0], at[1] - pivot[1]
    return (
        pivot[0] + from_x * math.cos(by) - from_y * math.sin(by),
        pivot[1] + from_x * math.sin(by) + from_y * math.cos(by),
    )


def _add(
    sprite: FloatArray, part: Part, pose: Pose, columns: FloatArray, rows: FloatArray, px: float
) -> None:
    (x, y), (half_x, half_y), turn, dim = _moved(part, pose)
    cos, sin = math.cos(turn), math.sin(turn)
    margin = 1.0 / px
    wide = abs(cos) * half_x + abs(sin) * half_y + margin
    high = abs(sin) * half_x + abs(cos) * half_y + margin
    across, down = _within(columns, x, wide), _within(rows, y, high)
    if across.start >= across.stop or down.start >= down.stop:
        return
    dx, dy = columns[None, across] - np.float32(x), rows[down, None] - np.float32(y)
    p, q = dx * cos + dy * sin, dy * cos - dx * sin
    outside = _distance(part, p, q, half_x, half_y)
    cover = np.clip(0.5 - outside * px, 0.0, 1.0)
    if part.shade == "glow":
        # Light that is out shows what is behind it.
        cover *= dim
    light = _light(part, p / half_x, q / half_y, turn, pose.mirrored)
    if part.shade != "glow":
        edge = max(_EDGE, _EDGE_PX / px)
        light *= 1 - 0.42 * np.clip(1 + outside / edge, 0.0, 1.0)
    light *= dim
    light *= cover
    inked = None
    if part.texture is not None:
        inked = light * _ink(part.texture, p, q, pose.waves, px)
    target = sprite[:, down, across]
    target *= 1 - cover
    for plane, colour, ink in zip(
        target, pose.colours[part.colour], pose.colours.get(part.ink, _BLACK), strict=False
    ):
        plane += light * colour
        if inked is not None:
            plane += inked * (ink - colour)
    target[3] += cover


def _moved(part: Part, pose: Pose) -> tuple[Pair, Pair, float, float]:
    """Middle, halves, turn in radians and brightness of a part at this moment."""
    (x, y), (half_x, half_y), turn = part.at, part.half, math.radians(part.turn_deg)
    motion = part.motion
    if motion is None:
        return (x, y), (half_x, half_y), turn, 1.0
    wave = math.sin(2 * math.pi * (motion.rate_hz * pose.active_s + motion.phase))
    amount = motion.amount * pose.activity
    dim = 1.0
    if motion.kind == "swing":
        by = math.radians(amount) * wave
        x, y = _turned((x, y), motion.pivot, by)
        turn += by
    elif motion.kind == "bob":
        y += amount * wave
    elif motion.kind == "turn":
        # It stops where it is.
        angle = 2 * math.pi * (motion.rate_hz * pose.active_s + motion.phase)
        half_x *= max(abs(math.cos(angle)), 0.12)
    elif motion.kind == "pulse":
        half_x, half_y = half_x * (1 + amount * wave), half_y * (1 + amount * wave)
    else:
        dim = 1 - motion.amount * (1 - pose.activity * (wave > 0))
    return (x, y), (half_x, half_y), turn, dim


def _within(values: FloatArray, middle: float, half: float) -> slice:
    """Those of evenly spaced values that lie in a range."""
    if len(values) < 2:
        return slice(0, len(values))
    step = float(values[1] - values[0])
    ends = sorted(((middle - half - values[0]) / step, (middle + half - values[0]) / step))
    return slice(
        min(max(math.floor(ends[0]), 0), len(values)),
        min(max(math.ceil(ends[1]) + 1, 0), len(values)),
    )


def _distance(part: Part, p: FloatArray, q: FloatArray, half_x: float, half_y: float) -> FloatArray:
    """Distance to the outline, negative inside; exact for boxes, close near an ellipse's line."""
    if part.shape == "box":
        corner = min(part.corner, half_x, half_y)
        beyond_x, beyond_y = np.abs(p) - (half_x - corner), np.abs(q) - (half_y - corner)
        inside = np.minimum(np.maximum(beyond_x, beyond_y), 0.0)
        found: FloatArray = (
            np.hypot(np.maximum(beyond_x, 0), np.maximum(beyond_y, 0)) + inside - corner
        )
        return found
    if part.shape == "wedge":
        length = math.hypot(half_x, 2 * half_y)
        side = ((np.abs(p) - half_x) * (2 * half_y) + (q + half_y) * half_x) / length
        return np.maximum(side, -half_y - q)
    ratio = np.sqrt((p / half_x) ** 2 + (q / half_y) ** 2)
    slope = np.sqrt((p / half_x**2) ** 2 + (q / half_y**2) ** 2)
    ellipse: FloatArray = (ratio - 1) * ratio / np.maximum(slope, 1e-6)
    return np.abs(ellipse + part.corner) - part.corner if part.shape == "ring" else ellipse


def _light(part: Part, x: FloatArray, y: FloatArray, turn: float, mirrored: bool) -> FloatArray:
    """Brightness over a part; x and y are -1 to 1 over it."""
    if part.shade == "glow":
        centre: FloatArray = 1.25 - 0.5 * np.clip(x**2 + y**2, 0, 1)
        return centre
    light_x = -_LIGHT[0] if mirrored else _LIGHT[0]
    along = light_x * math.cos(turn) + _LIGHT[1] * math.sin(turn)
    up = _LIGHT[1] * math.cos(turn) - light_x * math.sin(turn)
    if part.shade == "flat":
        flat: FloatArray = np.broadcast_to(0.9 + 0.1 * (along * x + up * y), x.shape).copy()
        return flat
    if part.shade == "rod":
        # Round about its longer axis.
        if part.half[0] < part.half[1]:
            y = np.zeros_like(y)
        else:
            x = np.zeros_like(x)
    depth = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    ball: FloatArray = 0.58 + 0.5 * (along * x + up * y + _LIGHT[2] * depth)
    return ball


def _ink(
    texture: Texture, p: FloatArray, q: FloatArray, waves: FloatArray, px: float
) -> NDArray[np.float32]:
    """How much of the ink there is, 0 to 1; none where the pixels are too coarse for it."""
    k = _TEXTURE_WAVES[texture] * float(1 + 0.15 * waves[0])
    # From three pixels a wave down to two.
    shown = min(max(2 * math.pi * px / k - 2, 0.0), 1.0)
    a, b, c, d = (float(value) for value in 6.3 * waves[1:5])
    if texture == "fur":
        grain = np.sin(k * p + a + 2 * np.sin(0.6 * k * q + b)) * np.sin(0.8 * k * q + c)
        ink = 0.28 * shown * (1 + grain)
    elif texture == "stripes":
        ink = shown * np.clip(0.5 + 3 * np.sin(k * p + a + 0.8 * np.sin(0.3 * k * q + b)), 0, 1)
    elif texture == "spots":
        field = np.sin(0.5 * k * p + a + np.sin(0.4 * k * q + c)) * np.sin(0.5 * k * q + b)
        ink = shown * np.clip(6 * (field - 0.25 + 0.1 * np.sin(d)), 0, 1)
    else:
        ink = shown * np.clip(0.5 + 4 * np.sin(k * p) * np.sin(k * q), 0, 1)
    return np.asarray(ink, np.float32)
