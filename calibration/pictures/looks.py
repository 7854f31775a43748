"""All looks by name."""

from __future__ import annotations

from typing import Final

from soundpost.calibration.pictures.animals import ANIMALS
from soundpost.calibration.pictures.furniture import FURNITURE
from soundpost.calibration.pictures.machines import MACHINES
from soundpost.calibration.pictures.parts import Look
from soundpost.calibration.pictures.things import THINGS
from soundpost.device.errors import UsageError
from soundpost.device.settings import nearest

SOUNDING: Final = (*ANIMALS, *MACHINES, *THINGS)
LOOKS: Final = ANIMALS | MACHINES | THINGS | FURNITURE


def look_of(name: str) -> Look:
    """The look of this name; raises UsageError where there is none."""
    if name not in LOOKS:
        hint = nearest(name, [*LOOKS]) or f"; ours: {', '.join(LOOKS)}"
        raise UsageError(f"no look {name!r}{hint}")
    return LOOKS[name]
