"""Where an array's microphones really are, from chirps or clicks at places that nobody measured.

Event k at s_k, emitted at e_k, is heard by microphone m at p_m, whose own delay is d_m, at

    t_mk = e_k + |p_m - s_k| / c + d_m.

All of p, s, e and d are found at once by nonlinear least squares (bundle adjustment; Thrun, "Affine
structure from sound", 2005, and Plinge et al., "Acoustic microphone geometry calibration", 2016).
Microphones are held near their drawn places and delays near zero as if these had been measured
once, with the spread that is stated.

Times do not tell where the array as a whole is, nor how it is turned: these six degrees of freedom
are taken from the drawing, on which the result is laid by the rigid motion that fits best (Kabsch,
1976). Nor do they tell a plane array from its mirror image: its sources are taken to be before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from soundpost.calibration.event_times import EventTimes
from soundpost.calibration.position_problem import LEAST_ERROR_S, PositionProblem
from soundpost.device.array.geometry import Floats
from soundpost.device.errors import InputError

LEAST_EVENTS = 12
MOST_UNCERTAIN_M = 2e-3
_STAGES_S = (1e-5, 1e-6, LEAST_ERROR_S)
_MOST_RESIDUAL_S = 3e-5
# Elements of the Jacobian up to which it is factorised whole.
_DENSE = 20_000_000


@dataclass(frozen=True, eq=False)
class Positions:
    """What the times of the events say.

    positions_m : (n_mics, 3), laid on the drawing
    delays_s : (n_mics,) own delays, their mean 0
    sources_m : (n_events, 3)
    residuals_s : (n_events, n_mics) heard minus explained
    errors_m : (n_mics, 3) standard errors, without the motion of the array as a whole
    moved_m : (n_mics,) how far from the drawing
    condition : of the positions: largest over smallest standard error of any combination of them
    """

    positions_m: Floats
    delays_s: Floats
    sources_m: Floats
    residuals_s: Floats
    errors_m: Floats
    moved_m: Floats
    condition: float

    @property
    def residual_s(self) -> float:
        """Root mean square of the residuals."""
        return float(np.sqrt(np.mean(np.square(self.residuals_s))))


def find_positions(
    times: EventTimes,
    drawn_m: Floats,
    sound_m_s: float,
    *,
    spread_m: float = 5e-3,
    delay_spread_s: float = 1e-5,
) -> Positions:
    """Positions of the microphones.

    drawn_m : (n_mics, 3)
    spread_m : standard deviation of the true places from the drawn ones, along each axis
    delay_spread_s : of the microphones' own delays; 0 where they are known to have none

    Raises InputError where events are too few, do not fit, or do not tell the positions.
    """
    n_events, n_mics = times.times_s.shape
    if n_events < LEAST_EVENTS:
        raise InputError(
            f"{n_events} chirps or clicks are heard; expected at least {LEAST_EVENTS} from places "
            "all around, loud and with half a second of quiet between them"
        )
    problem = PositionProblem(times, drawn_m, sound_m_s, spread_m, max(delay_spread_s, 1e-9))
    start = problem.start()
    # A full factorisation converges where directions are known unequally well, as they are here;
    # it is out of reach only for arrays of many hundreds.
    small = (n_events * n_mics + 4 * n_mics) * len(start) <= _DENSE
    options = {} if small else {"maxiter": 20 * (n_mics + n_events), "atol": 1e-12, "btol": 1e-12}
    x = start
    # Coarsely at first: times that are held to far more than the drawing is good for make a narrow
    # winding valley of the way to the minimum.
    for error_s in _STAGES_S:
        problem.errors_s = np.hypot(times.errors_s, error_s)
        x = least_squares(
            problem.residuals,
            x,
            jac=(lambda x: problem.jacobian(x).toarray()) if small else problem.jacobian,
            x_scale=problem.scales,
            loss="soft_l1",
            f_scale=4.0,
            tr_solver="exact" if small else "lsmr",
            tr_options=options,
            xtol=1e-9,
            ftol=1e-9,
            gtol=1e-9,
            max_nfev=60,
        ).x
    mics, sources, _, delays = problem.split(x)
    left = problem.times_left(x)
    good = np.abs(left) < 6 * max(1.48 * float(np.median(np.abs(left))), LEAST_ERROR_S)
    strange = np.flatnonzero(good.mean(axis=1) < 0.5)
    residual_s = float(np.sqrt(np.mean(np.square(left))))
    if residual_s > _MOST_RESIDUAL_S:
        worst = np.sqrt(np.mean(np.square(left), axis=1))
        raise InputError(
            f"positions leave {residual_s * 1e6:.0f} µs of the times unexplained, expected at most "
            f"{_MOST_RESIDUAL_S * 1e6:.0f}; event {int(worst.argmax()) + 1} at "
            f"{times.spans_s[worst.argmax(), 0]:.2f} s fits worst"
            f"{f' ({len(strange)} do not fit)' if len(strange) else ''}: record where it echoes "
            "less, check --temperature and --spread-mm, or cut this event out"
        )
    errors_m, condition = problem.errors(x, max(residual_s, LEAST_ERROR_S))
    turned, motion = rigid_motion(mics, drawn_m)
    typical_m = float(np.sqrt(np.mean(np.square(errors_m))))
    if typical_m > MOST_UNCERTAIN_M:
        axis = "xyz"[int(np.square(errors_m).sum(axis=0).argmax())]
        raise InputError(
            f"the events tell positions to {typical_m * 1e3:.1f} mm only, expected "
            f"{MOST_UNCERTAIN_M * 1e3:g}, worst along {axis}: spread the sources over the whole "
            "half space before the array, near and far, and record more of them"
        )
    return Positions(
        turned,
        delays - delays.mean(),
        motion(sources),
        left,
        errors_m,
        np.linalg.norm(turned - drawn_m, axis=1),
        condition,
    )


def rigid_motion(points_m: Floats, target_m: Floats) -> tuple[Floats, Callable[[Floats], Floats]]:
    """Points turned and moved, not mirrored, so that they lie on the target as well as they can.

    points_m, target_m : (n, 3)

    Returns the points so moved, and what moves others by the same.
    """
    from_centre, to_centre = points_m.mean(axis=0), target_m.mean(axis=0)
    left, _, right = np.linalg.svd((points_m - from_centre).T @ (target_m - to_centre))
    handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ handed @ right

    def move(places_m: Floats) -> Floats:
        moved: Floats = (places_m - from_centre) @ rotation + to_centre
        return moved

    return move(points_m), move
