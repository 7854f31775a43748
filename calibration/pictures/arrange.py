"""Who looks like whom, what stands about, and what hides something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from soundpost.calibration.pictures.backdrop import Place
from soundpost.calibration.pictures.camera import Camera
from soundpost.calibration.pictures.looks import SOUNDING, look_of
from soundpost.calibration.pictures.painting import CAMERA_HEIGHT_M
from soundpost.calibration.pictures.view import NEAREST_M, SeenObject, covered_share
from soundpost.calibration.trajectory import Trajectory
from soundpost.device.errors import UsageError

_INDOORS = ("plant", "ball", "crate", "lamp", "balloon", "chair")
_OUTDOORS = ("plant", "ball", "crate", "balloon", "bush", "bush")
_HEIGHTS_M = {
    "plant": 0.8,
    "ball": 0.35,
    "crate": 0.5,
    "lamp": 1.3,
    "balloon": 0.6,
    "chair": 0.95,
    "bush": 0.9,
}
# A cover stands so far along the way to what it hides.
_COVER_AT = 0.75
# Where it stands is found to one part in a thousand of its way.
_HALVINGS = 10


def looks_for(classes: Sequence[str], alike: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """A look for each class: that of its name where there is one, else one that is free.

    alike : pairs of classes of which the second gets the look of the first

    Raises UsageError where there are not enough looks, or a pair names no class.
    """
    follows: dict[str, str] = {}
    for first, second in alike:
        if first not in classes or second not in classes or first == second:
            raise UsageError(f"alike: {first}, {second}; expected two of {', '.join(classes)}")
        if first in follows or second in follows or second in follows.values():
            raise UsageError(f"alike: {first}, {second}; expected no class in two pairs like this")
        follows[second] = first
    own = [name for name in classes if name not in follows]
    free = [name for name in SOUNDING if name not in own]
    others = [name for name in own if name not in SOUNDING]
    if len(others) > len(free):
        raise UsageError(
            f"{len(own)} classes with a look of their own; expected at most {len(SOUNDING)}"
        )
    given = dict(zip(others, free, strict=False))
    looks = {name: given.get(name, name) for name in own}
    return {name: looks[follows.get(name, name)] for name in classes}


def draw_clutter(place: Place, seed: int, count: int) -> tuple[SeenObject, ...]:
    """Things that stand on the floor, roll over it or hang in the air, and never sound."""
    rng = np.random.default_rng([seed])
    names = _OUTDOORS if place == "garden" else _INDOORS
    clutter = []
    for _ in range(count):
        look = str(rng.choice(names))
        height_m = _HEIGHTS_M[look] * rng.uniform(0.8, 1.25)
        depth_m = rng.uniform(2.2, 4.5)
        x_m = depth_m * rng.uniform(-0.95, 0.95)
        y_m = height_m / 2 - CAMERA_HEIGHT_M
        if look == "balloon":
            y_m += rng.uniform(0.6, 1.6)
        start = np.array([x_m, y_m, depth_m])
        if look in ("ball", "balloon"):
            drift = np.array([rng.uniform(-0.4, 0.4), 0.0, 0.0])
            trajectory = Trajectory(
                np.array([0.0, 60.0]), np.stack([start - 5 * drift, start + 55 * drift])
            )
        else:
            trajectory = Trajectory.at_rest(start)
        clutter.append(
            SeenObject(look, trajectory, height_m, idle=1.0, seed=int(rng.integers(2**31)))
        )
    return tuple(clutter)


def hide(
    target: SeenObject,
    camera: Camera,
    share: float,
    *,
    time_s: float = 0.0,
    look: str = "screen",
    seed: int = 0,
) -> SeenObject:
    """Something that stands before an object and covers this share of it, from its left on.

    Of an object that moves, at time_s. Raises UsageError for a share outside 0 to 1, and for an
    object that is too near for anything to stand before it.
    """
    place_m = target.place.at(time_s)
    depth_m = _COVER_AT * float(place_m[2])
    if not 0 <= share <= 1 or depth_m < NEAREST_M:
        raise UsageError(
            f"hide: share {share:g} of an object {place_m[2]:.2f} m away; expected 0 to 1, and at "
            f"least {NEAREST_M / _COVER_AT:.2f} m"
        )
    wide, high = look_of(target.look).reach
    own = look_of(look).reach
    # In heights of the target: large enough for all of it.
    size = 1.1 * max(high / own[1], wide / own[0])
    height_m = size * target.height_m * _COVER_AT

    def cover(along: float) -> SeenObject:
        """From beside the target (0) to before it (1)."""
        shift_m = (1 - along) * (wide + own[0] * size) * target.height_m
        at_m = _COVER_AT * (place_m - np.array([shift_m, 0.0, 0.0]))
        return SeenObject(look, Trajectory.at_rest(at_m), height_m, seed=seed)

    below, above = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if covered_share(camera, target, cover(middle), time_s) < share:
            below = middle
        else:
            above = middle
    return cover(above)
