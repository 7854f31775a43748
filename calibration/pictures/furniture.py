"""Looks of what only stands in the way: clutter, and covers to hide behind."""

from __future__ import annotations

from typing import Final

from soundpost.calibration.pictures.parts import Look, Motion, Part

_PLANT = Look(
    (
        *(
            Part(
                "ellipse",
                (x, y),
                half,
                "leaf",
                turn_deg=turn,
                texture="fur",
                motion=Motion("swing", 5, 0.35, (0.0, -0.2), phase=phase),
            )
            for x, y, half, turn, phase in (
                (-0.22, 0.12, (0.07, 0.26), 36, 0.0),
                (0.22, 0.1, (0.07, 0.26), -38, 0.2),
                (-0.11, 0.2, (0.07, 0.3), 16, 0.4),
                (0.12, 0.22, (0.07, 0.28), -18, 0.6),
                (0.0, 0.16, (0.07, 0.33), 2, 0.8),
            )
        ),
        Part("box", (0.0, -0.3), (0.17, 0.2), "pot", corner=0.05, shade="rod"),
        Part("box", (0.0, -0.14), (0.21, 0.05), "pot", corner=0.02, shade="rod"),
    ),
    {
        "leaf": ("#3c7a38", "#4f8f3a", "#2f6044"),
        "dark": ("#1f4020",),
        "pot": ("#a8603a", "#7a7a78", "#d8d4c8"),
    },
)
_BALL = Look(
    (Part("ellipse", (0.0, 0.0), (0.5, 0.5), "body", texture="stripes"),),
    {"body": ("#d04040", "#4060c0", "#e0b040", "#50a060"), "dark": ("#f0f0ea", "#303030")},
    bounce=0.1,
)
_CRATE = Look(
    (
        Part("box", (0.0, 0.0), (0.5, 0.5), "wood", corner=0.02, shade="flat", texture="fur"),
        Part("box", (0.0, 0.0), (0.06, 0.56), "board", turn_deg=42, shade="flat"),
        Part("box", (0.0, 0.44), (0.5, 0.06), "board", shade="flat"),
        Part("box", (0.0, -0.44), (0.5, 0.06), "board", shade="flat"),
        Part("box", (-0.44, 0.0), (0.06, 0.5), "board", shade="flat"),
        Part("box", (0.44, 0.0), (0.06, 0.5), "board", shade="flat"),
    ),
    {
        "wood": ("#a97f4a", "#8a6236", "#7c7468"),
        "board": ("#c29a62", "#9a744a"),
        "dark": ("#553a1e",),
    },
)
_LAMP = Look(
    (
        Part("box", (0.0, -0.2), (0.02, 0.28), "metal", shade="rod"),
        Part("box", (0.0, -0.47), (0.14, 0.03), "metal", corner=0.02, shade="rod"),
        Part("wedge", (0.0, 0.24), (0.24, 0.26), "shade", shade="flat"),
        Part("ellipse", (0.0, 0.0), (0.19, 0.025), "light", shade="glow"),
    ),
    {
        "metal": ("#6a6258", "#3a3a3c"),
        "shade": ("#d8c49a", "#b0543c", "#5a7a8c"),
        "light": ("#fff0c0",),
    },
)
_BALLOON = Look(
    (
        Part("box", (0.0, -0.3), (0.006, 0.2), "string", shade="flat"),
        Part("wedge", (0.0, -0.13), (0.05, 0.04), "body"),
        Part("ellipse", (0.0, 0.18), (0.26, 0.32), "body"),
    ),
    {"body": ("#d83a4a", "#3a8ad8", "#f0c030", "#8a4ac0"), "string": ("#58524c",)},
)
_CHAIR = Look(
    (
        Part("box", (-0.2, -0.26), (0.025, 0.24), "wood", shade="rod"),
        Part("box", (0.2, -0.26), (0.025, 0.24), "wood", shade="rod"),
        Part("box", (-0.2, 0.24), (0.025, 0.26), "wood", shade="rod"),
        Part("box", (0.0, 0.4), (0.22, 0.06), "wood", corner=0.02, shade="flat"),
        Part("box", (0.0, 0.2), (0.22, 0.04), "wood", corner=0.02, shade="flat"),
        Part("box", (0.0, -0.02), (0.26, 0.05), "seat", corner=0.03, shade="rod"),
    ),
    {"wood": ("#7a5230", "#3a2c24", "#c8b090"), "seat": ("#8c3a34", "#3e5c78", "#c8b890")},
)
_BUSH = Look(
    tuple(
        Part(
            "ellipse",
            (x, y),
            half,
            "leaf",
            texture="spots",
            motion=Motion("swing", 3, 0.3, (0.0, -0.5), phase=x),
        )
        for x, y, half in (
            (-0.42, -0.2, (0.26, 0.28)),
            (0.42, -0.18, (0.27, 0.3)),
            (-0.2, 0.12, (0.3, 0.32)),
            (0.22, 0.14, (0.3, 0.33)),
            (0.0, -0.14, (0.42, 0.36)),
        )
    ),
    {"leaf": ("#4a7a34", "#5c8a3c", "#38643a"), "dark": ("#2a4a20", "#7a9a4a")},
)
_SCREEN = Look(
    (
        # Behind the panels, so that nothing is seen through the gaps between them.
        Part("box", (0.0, 0.0), (0.5, 0.49), "frame", shade="flat"),
        *(
            part
            for x in (-0.34, 0.0, 0.34)
            for part in (
                Part("box", (x, 0.0), (0.17, 0.5), "frame", shade="flat"),
                Part(
                    "box", (x, 0.0), (0.14, 0.46), "cloth", shade="rod", texture="checks", ink="ink"
                ),
            )
        ),
    ),
    {
        "frame": ("#5c3c24", "#2c2c2e"),
        "cloth": ("#d8ccae", "#9ab0a8", "#b08878"),
        "ink": ("#c0b090", "#8a9c94"),
    },
)

# What stands about: looks for indoors, for outdoors, and those that cover what is behind them.
FURNITURE: Final = {
    "plant": _PLANT,
    "ball": _BALL,
    "crate": _CRATE,
    "lamp": _LAMP,
    "balloon": _BALLOON,
    "chair": _CHAIR,
    "bush": _BUSH,
    "screen": _SCREEN,
}
