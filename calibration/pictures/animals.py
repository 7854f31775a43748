"""Looks of animals, seen from the side, facing right."""

from __future__ import annotations

from typing import Final

from soundpost.calibration.pictures.parts import Look, Motion, Part


def _legs(*places: float, y: float, half: tuple[float, float], colour: str) -> tuple[Part, ...]:
    """Legs that walk on the spot, every second one against the others."""
    return tuple(
        Part(
            "box",
            (x, y),
            half,
            colour,
            corner=half[0],
            shade="rod",
            motion=Motion("swing", 14, 2.2, (x, y + half[1]), phase=0.5 * (number % 2)),
        )
        for number, x in enumerate(places)
    )


_DOG = Look(
    (
        Part(
            "box",
            (-0.47, 0.16),
            (0.035, 0.17),
            "coat",
            turn_deg=38,
            corner=0.035,
            shade="rod",
            motion=Motion("swing", 28, 3.0, (-0.37, 0.03)),
        ),
        *_legs(-0.3, -0.22, 0.17, 0.25, y=-0.3, half=(0.045, 0.19), colour="coat"),
        Part("ellipse", (-0.05, -0.03), (0.38, 0.18), "coat", texture="fur"),
        Part("box", (0.25, 0.12), (0.1, 0.17), "coat", turn_deg=-32, corner=0.09, texture="fur"),
        Part(
            "box",
            (0.5, 0.16),
            (0.085, 0.03),
            "mouth",
            corner=0.02,
            motion=Motion("swing", 16, 3.0, (0.42, 0.18)),
        ),
        Part("ellipse", (0.36, 0.27), (0.15, 0.13), "coat", texture="fur"),
        Part("box", (0.5, 0.23), (0.1, 0.05), "coat", corner=0.05),
        Part("ellipse", (0.59, 0.26), (0.028, 0.025), "black"),
        Part("ellipse", (0.4, 0.31), (0.02, 0.024), "black"),
        Part("ellipse", (0.29, 0.26), (0.055, 0.13), "dark", turn_deg=-12),
        Part("box", (0.27, 0.1), (0.11, 0.022), "collar", turn_deg=-32, corner=0.02, shade="flat"),
    ),
    {
        "coat": ("#9a6630", "#c8a266", "#6e5140", "#b9aea0"),
        "dark": ("#45301f", "#2e2a28"),
        "mouth": ("#a8434a",),
        "collar": ("#c02a2a", "#2a55b0", "#d0a020"),
        "black": ("#161412",),
    },
    bounce=0.03,
)

_CAT = Look(
    (
        Part(
            "box",
            (-0.36, -0.1),
            (0.035, 0.26),
            "coat",
            turn_deg=16,
            corner=0.035,
            shade="rod",
            motion=Motion("swing", 20, 1.0, (-0.28, -0.36)),
        ),
        # Sitting upright, seen from the front.
        Part("ellipse", (0.0, -0.24), (0.25, 0.26), "coat", texture="stripes"),
        Part("ellipse", (0.0, -0.2), (0.12, 0.2), "belly"),
        Part("box", (-0.09, -0.42), (0.055, 0.075), "coat", corner=0.05),
        Part("box", (0.09, -0.42), (0.055, 0.075), "coat", corner=0.05),
        Part("wedge", (-0.15, 0.4), (0.075, 0.1), "coat", turn_deg=18, shade="flat"),
        Part("wedge", (0.15, 0.4), (0.075, 0.1), "coat", turn_deg=-18, shade="flat"),
        Part("ellipse", (0.0, 0.22), (0.23, 0.19), "coat", texture="stripes"),
        Part("ellipse", (-0.09, 0.25), (0.045, 0.04), "iris"),
        Part("ellipse", (0.09, 0.25), (0.045, 0.04), "iris"),
        Part("ellipse", (-0.09, 0.25), (0.014, 0.036), "black", shade="flat"),
        Part("ellipse", (0.09, 0.25), (0.014, 0.036), "black", shade="flat"),
        Part("ellipse", (0.0, 0.13), (0.09, 0.06), "belly"),
        Part("wedge", (0.0, 0.165), (0.025, 0.018), "nose", turn_deg=180, shade="flat"),
        Part("ellipse", (0.0, 0.1), (0.035, 0.02), "nose", motion=Motion("pulse", 0.6, 1.6)),
    ),
    {
        "coat": ("#d98a3a", "#8f8f92", "#5c4a3c", "#e6d3b0"),
        "dark": ("#5a3a1c", "#3a3a3e"),
        "belly": ("#f2e6d2",),
        "iris": ("#7fb23a", "#d8b52c"),
        "nose": ("#c9707a",),
        "black": ("#141414",),
    },
)

_ROOSTER = Look(
    (
        *_legs(-0.06, 0.05, y=-0.4, half=(0.016, 0.1), colour="yellow"),
        *(
            Part(
                "ellipse",
                (-0.3, 0.06 + 0.06 * number),
                (0.2, 0.045),
                "tail",
                turn_deg=-50 + 22 * number,
                motion=Motion("swing", 8, 2.0, (-0.17, -0.05), phase=0.1 * number),
            )
            for number in range(4)
        ),
        Part("ellipse", (-0.02, -0.13), (0.24, 0.19), "coat", texture="fur"),
        Part("box", (0.15, 0.08), (0.075, 0.2), "neck", turn_deg=-18, corner=0.075, texture="fur"),
        Part(
            "ellipse",
            (-0.06, -0.12),
            (0.15, 0.1),
            "wing",
            turn_deg=14,
            texture="stripes",
            motion=Motion("swing", 26, 3.0, (0.06, -0.08)),
        ),
        *(
            Part("ellipse", (0.13 + 0.055 * number, 0.4), (0.035, 0.07), "red", turn_deg=-10)
            for number in range(3)
        ),
        Part("ellipse", (0.2, 0.28), (0.09, 0.085), "neck"),
        Part("ellipse", (0.25, 0.18), (0.03, 0.065), "red"),
        Part(
            "wedge",
            (0.32, 0.28),
            (0.035, 0.055),
            "yellow",
            turn_deg=-90,
            motion=Motion("swing", 14, 2.0, (0.26, 0.28)),
        ),
        Part("ellipse", (0.22, 0.3), (0.018, 0.018), "black", shade="flat"),
    ),
    {
        "coat": ("#8a3216", "#6b2a20", "#a8521e"),
        "neck": ("#d98a20", "#c86a14", "#e0b040"),
        "dark": ("#3a1a10",),
        "wing": ("#7a3a1a", "#4a2a20"),
        "tail": ("#16463a", "#1c2a4a", "#202020"),
        "red": ("#cc1f1f",),
        "yellow": ("#e0b030",),
        "black": ("#101010",),
    },
    bounce=0.02,
)

_CROW = Look(
    (
        Part("wedge", (-0.5, -0.08), (0.11, 0.17), "coat", turn_deg=-80, shade="flat"),
        Part(
            "ellipse",
            (-0.12, 0.26),
            (0.12, 0.34),
            "dark",
            turn_deg=22,
            motion=Motion("swing", 34, 2.5, (-0.03, 0.02)),
        ),
        Part("ellipse", (-0.05, 0.0), (0.36, 0.15), "coat", turn_deg=4, texture="fur"),
        Part("ellipse", (0.3, 0.09), (0.13, 0.115), "coat"),
        Part(
            "wedge",
            (0.49, 0.07),
            (0.045, 0.1),
            "beak",
            turn_deg=-94,
            motion=Motion("swing", 9, 2.5, (0.38, 0.08)),
        ),
        Part("ellipse", (0.35, 0.13), (0.022, 0.022), "eye", shade="flat"),
        Part(
            "ellipse",
            (-0.06, -0.18),
            (0.12, 0.3),
            "coat",
            turn_deg=-30,
            texture="stripes",
            motion=Motion("swing", -34, 2.5, (0.0, 0.02)),
        ),
    ),
    {
        "coat": ("#26262e", "#2c3038", "#1e2228"),
        "dark": ("#121216",),
        "beak": ("#4a4a50", "#3a3630"),
        "eye": ("#e8e0c0",),
    },
    bounce=0.06,
)

_FROG = Look(
    (
        Part("ellipse", (-0.42, -0.32), (0.2, 0.1), "coat", turn_deg=22),
        Part("ellipse", (0.42, -0.32), (0.2, 0.1), "coat", turn_deg=-22),
        Part("ellipse", (0.0, -0.1), (0.48, 0.36), "coat", texture="spots"),
        Part(
            "ellipse",
            (0.0, -0.27),
            (0.3, 0.19),
            "belly",
            motion=Motion("pulse", 0.28, 2.4),
        ),
        Part("ellipse", (-0.25, 0.27), (0.15, 0.15), "coat"),
        Part("ellipse", (0.25, 0.27), (0.15, 0.15), "coat"),
        Part("ellipse", (-0.25, 0.29), (0.1, 0.1), "iris"),
        Part("ellipse", (0.25, 0.29), (0.1, 0.1), "iris"),
        Part("box", (-0.25, 0.29), (0.07, 0.025), "black", corner=0.02, shade="flat"),
        Part("box", (0.25, 0.29), (0.07, 0.025), "black", corner=0.02, shade="flat"),
        Part("box", (0.0, 0.01), (0.3, 0.014), "dark", corner=0.014, shade="flat"),
        Part("ellipse", (-0.25, -0.43), (0.14, 0.05), "coat"),
        Part("ellipse", (0.25, -0.43), (0.14, 0.05), "coat"),
    ),
    {
        "coat": ("#4f9a36", "#6fae3c", "#3f7f55"),
        "dark": ("#24541c",),
        "belly": ("#dfe6a6", "#d8d0a0"),
        "iris": ("#e2c040", "#d98a2c"),
        "black": ("#141414",),
    },
    bounce=0.12,
)

_COW = Look(
    (
        Part(
            "box",
            (-0.58, 0.02),
            (0.02, 0.24),
            "horn",
            turn_deg=-8,
            corner=0.02,
            motion=Motion("swing", 22, 1.4, (-0.56, 0.24)),
        ),
        *_legs(-0.44, -0.32, 0.26, 0.38, y=-0.32, half=(0.05, 0.18), colour="coat"),
        Part("ellipse", (-0.28, -0.2), (0.1, 0.09), "pink"),
        Part("box", (-0.04, 0.03), (0.54, 0.23), "coat", corner=0.2, texture="spots", ink="dark"),
        Part("box", (0.48, 0.2), (0.13, 0.16), "coat", turn_deg=-30, corner=0.1),
        Part("wedge", (0.5, 0.43), (0.03, 0.075), "horn", turn_deg=12),
        Part("wedge", (0.62, 0.44), (0.03, 0.075), "horn", turn_deg=-14),
        Part("ellipse", (0.46, 0.34), (0.09, 0.045), "dark", turn_deg=16),
        Part("box", (0.62, 0.26), (0.12, 0.13), "coat", turn_deg=-16, corner=0.1),
        Part(
            "ellipse",
            (0.71, 0.17),
            (0.1, 0.085),
            "pink",
            motion=Motion("swing", 14, 1.2, (0.6, 0.26)),
        ),
        Part("ellipse", (0.75, 0.2), (0.016, 0.022), "black", shade="flat"),
        Part("ellipse", (0.63, 0.31), (0.022, 0.024), "black", shade="flat"),
    ),
    {
        "coat": ("#eeeae2", "#e8dcc8"),
        "dark": ("#22201e", "#6a3e22", "#4a2c1c"),
        "pink": ("#e0a8a0",),
        "horn": ("#c8bca0",),
        "black": ("#161412",),
    },
)

_SHEEP = Look(
    (
        *_legs(-0.26, -0.16, 0.16, 0.25, y=-0.36, half=(0.035, 0.14), colour="face"),
        *(
            Part("ellipse", (x, y), (0.17, 0.16), "wool", texture="fur", ink="shade")
            for x, y in (
                (-0.34, 0.0),
                (-0.2, 0.16),
                (0.0, 0.2),
                (0.2, 0.16),
                (0.28, -0.02),
                (0.14, -0.14),
                (-0.06, -0.17),
                (-0.25, -0.13),
                (0.0, 0.02),
            )
        ),
        Part("ellipse", (0.34, 0.22), (0.1, 0.04), "face", turn_deg=24),
        Part(
            "ellipse",
            (0.46, 0.12),
            (0.11, 0.16),
            "face",
            turn_deg=22,
            motion=Motion("swing", 12, 1.8, (0.36, 0.14)),
        ),
        Part("ellipse", (0.4, 0.26), (0.1, 0.07), "wool"),
        Part("ellipse", (0.45, 0.17), (0.02, 0.024), "eye", shade="flat"),
    ),
    {
        "wool": ("#ece6d6", "#f4f2ec", "#d8ccb4"),
        "shade": ("#b8ac94",),
        "face": ("#2a2624", "#4a3a30", "#d8c0a0"),
        "eye": ("#f4f4f0", "#101010"),
    },
    bounce=0.02,
)

ANIMALS: Final = {
    "dog": _DOG,
    "cat": _CAT,
    "rooster": _ROOSTER,
    "crow": _CROW,
    "frog": _FROG,
    "cow": _COW,
    "sheep": _SHEEP,
}
