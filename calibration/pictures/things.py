"""Looks of things that sound."""

from __future__ import annotations

import math
from typing import Final

from soundpost.calibration.pictures.parts import Look, Motion, Part

_CLOCK = Look(
    (
        Part("box", (-0.2, -0.42), (0.035, 0.09), "metal", turn_deg=-24, corner=0.03, shade="rod"),
        Part("box", (0.2, -0.42), (0.035, 0.09), "metal", turn_deg=24, corner=0.03, shade="rod"),
        Part(
            "box",
            (0.0, 0.42),
            (0.03, 0.075),
            "metal",
            shade="rod",
            motion=Motion("swing", 26, 5.0, (0.0, 0.34)),
        ),
        Part("ellipse", (-0.2, 0.36), (0.15, 0.1), "bell", turn_deg=32),
        Part("ellipse", (0.2, 0.36), (0.15, 0.1), "bell", turn_deg=-32),
        Part("ellipse", (0.0, -0.04), (0.4, 0.4), "case"),
        Part("ellipse", (0.0, -0.04), (0.32, 0.32), "dial", shade="flat"),
        *(
            Part(
                "box",
                (
                    0.27 * math.sin(math.radians(30 * hour)),
                    -0.04 + 0.27 * math.cos(math.radians(30 * hour)),
                ),
                (0.012, 0.03),
                "black",
                turn_deg=-30 * hour,
                shade="flat",
            )
            for hour in range(12)
        ),
        Part("box", (0.05, 0.03), (0.02, 0.1), "black", turn_deg=-40, shade="flat"),
        Part("box", (-0.05, 0.06), (0.014, 0.14), "black", turn_deg=26, shade="flat"),
        Part(
            "box",
            (0.0, 0.06),
            (0.007, 0.15),
            "red",
            shade="flat",
            motion=Motion("swing", 40, 0.5, (0.0, -0.04)),
        ),
        Part("ellipse", (0.0, -0.04), (0.028, 0.028), "metal"),
    ),
    {
        "case": ("#b5302a", "#2c6aa8", "#2f8a58", "#d8c8a0"),
        "dial": ("#f4f1e6",),
        "bell": ("#d2aa3c", "#b8bcc2"),
        "metal": ("#8c9096",),
        "black": ("#1c1c1e",),
        "red": ("#d02020",),
    },
)

_SWINGS = Motion("swing", 18, 1.1, (0.0, 0.3), phase=0.2)
_BELL = Look(
    (
        Part("box", (0.0, 0.44), (0.3, 0.04), "wood", corner=0.01, shade="rod"),
        Part("box", (0.0, 0.36), (0.03, 0.09), "metal", shade="rod"),
        Part(
            "ellipse",
            (0.0, -0.39),
            (0.07, 0.075),
            "metal",
            motion=Motion("swing", 26, 1.1, (0.0, 0.3)),
        ),
        Part("wedge", (0.0, 0.02), (0.38, 0.35), "bell", motion=_SWINGS),
        Part("box", (0.0, 0.05), (0.19, 0.2), "bell", corner=0.16, motion=_SWINGS),
        Part("box", (0.0, -0.3), (0.38, 0.035), "bell", corner=0.03, motion=_SWINGS),
    ),
    {
        "bell": ("#c79a2e", "#a87a34", "#8f8a5c"),
        "metal": ("#5c5a56",),
        "wood": ("#6a4526", "#4c3620"),
    },
)

_SIREN = Look(
    (
        Part("box", (0.0, -0.36), (0.42, 0.13), "base", corner=0.03, shade="rod"),
        Part("box", (0.0, -0.2), (0.34, 0.05), "metal", corner=0.02, shade="rod"),
        Part(
            "box",
            (0.0, 0.08),
            (0.29, 0.28),
            "lamp",
            corner=0.26,
            shade="rod",
            motion=Motion("blink", 0.35, 2.0),
        ),
        Part(
            "ellipse",
            (0.0, 0.04),
            (0.13, 0.18),
            "glow",
            shade="glow",
            motion=Motion("blink", 0.75, 2.0),
        ),
        *(
            Part(
                "wedge",
                (0.44 * math.sin(turn), 0.06 + 0.44 * math.cos(turn)),
                (0.05, 0.08),
                "glow",
                turn_deg=-math.degrees(turn),
                shade="glow",
                motion=Motion("blink", 0.65, 2.0),
            )
            for turn in (-1.3, -0.65, 0.0, 0.65, 1.3)
        ),
    ),
    {
        "base": ("#2e3034", "#54585e"),
        "metal": ("#b0b4b8",),
        "lamp": ("#c81e1e", "#d86a10", "#1e50c8"),
        "glow": ("#ffe9a0", "#fff6dc"),
    },
)

_TAP = Look(
    (
        Part("box", (-0.34, 0.06), (0.07, 0.44), "metal", corner=0.02, shade="rod"),
        Part("box", (-0.08, 0.32), (0.3, 0.07), "metal", corner=0.06, shade="rod"),
        Part("box", (0.18, 0.24), (0.07, 0.11), "metal", corner=0.03, shade="rod"),
        Part(
            "box",
            (-0.12, 0.43),
            (0.13, 0.03),
            "handle",
            corner=0.03,
            shade="rod",
            motion=Motion("swing", 24, 0.6, (-0.12, 0.43)),
        ),
        Part("box", (-0.12, 0.38), (0.03, 0.05), "handle", shade="rod"),
        Part(
            "box",
            (0.18, -0.12),
            (0.035, 0.27),
            "water",
            corner=0.03,
            shade="rod",
            texture="stripes",
            ink="foam",
            motion=Motion("pulse", 0.25, 5.0),
        ),
        *(
            Part(
                "ellipse",
                (0.18 + x, y),
                (0.05, 0.06),
                "foam",
                motion=Motion("bob", 0.07, 3.0, phase=phase),
            )
            for x, y, phase in ((-0.12, -0.34, 0.0), (0.12, -0.33, 0.4), (0.0, -0.3, 0.7))
        ),
        Part("box", (0.05, -0.44), (0.52, 0.06), "bowl", corner=0.05, shade="rod"),
    ),
    {
        "metal": ("#a8b0b8", "#c8a860"),
        "handle": ("#c03030", "#3060b0", "#e8e8e4"),
        "water": ("#6fb4de", "#8cc8e8"),
        "foam": ("#dff0f8",),
        "bowl": ("#e6e4dc", "#6c7480"),
    },
)

_FIRE = Look(
    (
        Part(
            "box",
            (0.0, -0.4),
            (0.44, 0.055),
            "wood",
            turn_deg=12,
            corner=0.05,
            shade="rod",
            texture="fur",
        ),
        Part(
            "box",
            (0.0, -0.4),
            (0.44, 0.055),
            "wood",
            turn_deg=-12,
            corner=0.05,
            shade="rod",
            texture="fur",
        ),
        *(
            Part(
                "ellipse",
                (x, y),
                half,
                colour,
                shade="glow",
                motion=Motion("swing", 13, rate, (x, y - half[1]), phase=phase),
            )
            for x, y, half, colour, rate, phase in (
                (-0.2, -0.12, (0.14, 0.24), "outer", 1.7, 0.0),
                (0.2, -0.1, (0.14, 0.26), "outer", 2.1, 0.3),
                (0.0, 0.04, (0.18, 0.4), "outer", 1.3, 0.6),
                (-0.1, -0.16, (0.1, 0.2), "middle", 2.3, 0.2),
                (0.12, -0.14, (0.1, 0.21), "middle", 1.9, 0.7),
                (0.0, -0.1, (0.1, 0.25), "middle", 2.7, 0.5),
                (0.0, -0.2, (0.08, 0.15), "inner", 3.1, 0.1),
            )
        ),
        Part("box", (0.0, -0.44), (0.36, 0.05), "wood", corner=0.05, shade="rod", texture="fur"),
    ),
    {
        "wood": ("#5a3a20", "#46301e"),
        "dark": ("#1c1410",),
        "outer": ("#e0561a", "#d8441c"),
        "middle": ("#f79a24",),
        "inner": ("#ffe680",),
    },
)

THINGS: Final = {
    "clock": _CLOCK,
    "bell": _BELL,
    "siren": _SIREN,
    "tap": _TAP,
    "fire": _FIRE,
}
