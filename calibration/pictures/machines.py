"""Looks of machines that sound."""

from __future__ import annotations

import math
from typing import Final

from soundpost.calibration.pictures.parts import Look, Motion, Part

_WASHING_MACHINE = Look(
    (
        Part("box", (0.0, 0.0), (0.42, 0.5), "case", corner=0.04, shade="flat"),
        Part("box", (0.0, 0.38), (0.42, 0.11), "panel", corner=0.03, shade="flat"),
        Part("box", (-0.26, 0.39), (0.11, 0.05), "case", corner=0.02, shade="flat"),
        Part("ellipse", (0.12, 0.39), (0.055, 0.055), "metal"),
        Part(
            "ellipse",
            (0.26, 0.39),
            (0.03, 0.03),
            "lamp",
            shade="glow",
            motion=Motion("blink", 0.7, 1.0),
        ),
        Part("ellipse", (0.0, -0.1), (0.31, 0.31), "metal"),
        Part("ellipse", (0.0, -0.1), (0.24, 0.24), "glass"),
        *(
            Part(
                "ellipse",
                (0.1 * math.cos(2.1 * number), -0.1 + 0.1 * math.sin(2.1 * number)),
                (0.13, 0.06),
                colour,
                turn_deg=70 * number,
                motion=Motion("swing", 150, 0.8, (0.0, -0.1)),
            )
            for number, colour in enumerate(("cloth", "cloth2", "cloth"))
        ),
        Part("ring", (0.0, -0.1), (0.24, 0.24), "case", corner=0.02),
    ),
    {
        "case": ("#e8eaec", "#d6d8da", "#c2c8cc"),
        "panel": ("#b4bac0", "#3c4046"),
        "metal": ("#8a9096",),
        "glass": ("#26343e",),
        "cloth": ("#c04848", "#3a6cb0", "#e0c060"),
        "cloth2": ("#f0f0ec", "#50a070"),
        "lamp": ("#50e070", "#f06030"),
    },
    bounce=0.015,
)

_VACUUM_CLEANER = Look(
    (
        *(
            Part(
                "box",
                at,
                half,
                "hose",
                turn_deg=turn,
                corner=0.03,
                shade="rod",
                texture="stripes",
                motion=Motion("swing", 7, 0.9, (-0.1, -0.2)),
            )
            for at, half, turn in (
                ((0.1, 0.16), (0.25, 0.035), 50),
                ((0.33, 0.1), (0.035, 0.3), 25),
            )
        ),
        Part(
            "box",
            (0.47, -0.22),
            (0.03, 0.14),
            "metal",
            turn_deg=20,
            shade="rod",
            motion=Motion("swing", 7, 0.9, (-0.1, -0.2)),
        ),
        Part(
            "box",
            (0.56, -0.42),
            (0.2, 0.05),
            "dark",
            corner=0.03,
            shade="rod",
            motion=Motion("swing", 7, 0.9, (-0.1, -0.2)),
        ),
        Part("ellipse", (-0.28, -0.2), (0.36, 0.26), "case"),
        Part("box", (-0.28, -0.33), (0.36, 0.1), "dark", corner=0.06),
        Part("ellipse", (-0.5, -0.38), (0.11, 0.11), "wheel"),
        Part("ellipse", (-0.06, -0.38), (0.11, 0.11), "wheel"),
        Part("ellipse", (-0.5, -0.38), (0.045, 0.045), "metal"),
        Part("ellipse", (-0.06, -0.38), (0.045, 0.045), "metal"),
        Part("box", (-0.28, 0.07), (0.14, 0.03), "dark", corner=0.03, shade="rod"),
        Part("box", (-0.36, -0.15), (0.09, 0.02), "stripe", turn_deg=8, shade="flat"),
    ),
    {
        "case": ("#b8322c", "#2f7f8c", "#6a3f86", "#d08a2a"),
        "dark": ("#2c2c30",),
        "hose": ("#5a5c62", "#7c7e82"),
        "wheel": ("#1e1e20",),
        "metal": ("#b4b8bc",),
        "stripe": ("#f0ece0",),
    },
    bounce=0.01,
)

_CAR_WHEELS = tuple(
    part
    for x in (-0.52, 0.5)
    for part in (
        Part("ellipse", (x, -0.3), (0.2, 0.2), "tyre"),
        Part("ellipse", (x, -0.3), (0.11, 0.11), "metal"),
        Part("box", (x, -0.3), (0.1, 0.02), "tyre", motion=Motion("swing", 170, 0.7, (x, -0.3))),
        Part("box", (x, -0.3), (0.02, 0.1), "tyre", motion=Motion("swing", 170, 0.7, (x, -0.3))),
    )
)
_CAR = Look(
    (
        Part("box", (-0.05, 0.2), (0.45, 0.24), "body", corner=0.18),
        Part("box", (-0.26, 0.2), (0.17, 0.14), "glass", corner=0.07, shade="flat"),
        Part("box", (0.15, 0.2), (0.17, 0.14), "glass", corner=0.07, shade="flat"),
        Part("box", (0.0, -0.1), (0.9, 0.2), "body", corner=0.13),
        Part("box", (0.0, -0.22), (0.88, 0.05), "dark", corner=0.04, shade="flat"),
        Part(
            "ellipse",
            (0.84, -0.06),
            (0.05, 0.065),
            "lamp",
            shade="glow",
            motion=Motion("blink", 0.45, 1.6),
        ),
        Part("ellipse", (-0.86, -0.06), (0.04, 0.06), "red", shade="glow"),
        Part("box", (-0.04, -0.02), (0.05, 0.012), "metal", corner=0.01),
        *_CAR_WHEELS,
    ),
    {
        "body": ("#b82a2a", "#2b5fae", "#3c8a58", "#d9b030", "#c9ccd0", "#44484e"),
        "dark": ("#26282c",),
        "glass": ("#8fb4c8", "#5a7a90"),
        "tyre": ("#1c1c1e",),
        "metal": ("#aab0b4",),
        "lamp": ("#fff2b0",),
        "red": ("#d04030",),
    },
    bounce=0.01,
)

_HELICOPTER = Look(
    (
        Part("box", (-0.66, 0.1), (0.46, 0.045), "body", turn_deg=-3, corner=0.03, shade="rod"),
        Part("box", (-1.08, 0.2), (0.05, 0.14), "body", turn_deg=16, corner=0.02, shade="flat"),
        Part(
            "ellipse",
            (-1.1, 0.2),
            (0.03, 0.16),
            "blade",
            motion=Motion("swing", 180, 2.3, (-1.1, 0.2)),
        ),
        Part("box", (0.0, -0.4), (0.4, 0.022), "metal", corner=0.02, shade="rod"),
        Part("box", (-0.18, -0.3), (0.018, 0.1), "metal", turn_deg=-12, shade="rod"),
        Part("box", (0.2, -0.3), (0.018, 0.1), "metal", turn_deg=12, shade="rod"),
        Part("ellipse", (0.02, -0.02), (0.44, 0.27), "body"),
        Part("ellipse", (0.23, 0.03), (0.2, 0.17), "glass"),
        Part("box", (-0.1, 0.0), (0.1, 0.09), "glass", corner=0.03, shade="flat"),
        Part("box", (-0.1, -0.16), (0.28, 0.02), "stripe", shade="flat"),
        Part("box", (0.0, 0.29), (0.03, 0.09), "metal", shade="rod"),
        Part(
            "box",
            (0.0, 0.39),
            (0.92, 0.022),
            "blade",
            corner=0.02,
            shade="flat",
            motion=Motion("turn", 1.0, 2.7, phase=0.06),
        ),
        Part("ellipse", (0.0, 0.39), (0.06, 0.035), "metal"),
    ),
    {
        "body": ("#3f6b3a", "#c0392b", "#2d5f9a", "#d8a020"),
        "glass": ("#a8cfe0", "#54707e"),
        "blade": ("#303236",),
        "metal": ("#7c8288",),
        "stripe": ("#f0f0ea",),
    },
    bounce=0.03,
)

MACHINES: Final = {
    "washing_machine": _WASHING_MACHINE,
    "vacuum_cleaner": _VACUUM_CLEANER,
    "car": _CAR,
    "helicopter": _HELICOPTER,
}
