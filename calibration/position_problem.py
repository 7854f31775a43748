"""The least squares behind positions.py: unknowns, residuals, derivatives and standard errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import least_squares

from soundpost.calibration.event_times import EventTimes
from soundpost.device.array.geometry import Floats

# Times cannot be better than a source is a point: 0.03 mm.
LEAST_ERROR_S = 1e-7
# Of the width: with less depth than this, a source before and one behind sound alike.
_PLANE = 0.1
# How far sources may be, and what is taken for their distance at first.
_SOURCE_SPREAD_M = 10.0
_DISTANCES_M = (0.5, 1.0, 2.0, 4.0, 8.0)


class PositionProblem:
    """The least squares of all unknowns: microphones, sources, emission times, delays."""

    def __init__(
        self,
        times: EventTimes,
        drawn_m: Floats,
        sound_m_s: float,
        spread_m: float,
        delay_spread_s: float,
    ) -> None:
        self.drawn_m, self.sound_m_s = drawn_m, sound_m_s
        self.spread_m, self.delay_spread_s = spread_m, delay_spread_s
        self.n_events, self.n_mics = times.times_s.shape
        # Of each event from a moment of its own on, so that small differences keep their digits.
        self.heard_s = times.times_s - times.times_s.mean(axis=1, keepdims=True)
        self.errors_s = np.hypot(times.errors_s, LEAST_ERROR_S)
        n_mics, n_events = self.n_mics, self.n_events
        depths = np.linalg.svd(drawn_m - drawn_m.mean(axis=0), compute_uv=False)
        self.plane = bool(depths[2] < _PLANE * depths[0])
        self.scales = np.concatenate(
            [
                np.full(3 * n_mics, spread_m),
                np.full(3 * n_events, 1.0),
                np.full(n_events, 1e-3),
                np.full(n_mics, delay_spread_s),
            ]
        )
        self._rows, self._columns = self._pattern()

    def split(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Microphones (n_mics, 3), sources (n_events, 3), emissions (n_events,), delays."""
        n_mics, n_events = self.n_mics, self.n_events
        mics, sources, emitted, delays = np.split(
            x, np.cumsum([3 * n_mics, 3 * n_events, n_events])
        )
        return mics.reshape(-1, 3), sources.reshape(-1, 3), emitted, delays

    def times_left(self, x: Floats) -> Floats:
        """Heard minus explained, (n_events, n_mics)."""
        mics, sources, emitted, delays = self.split(x)
        travel_s = np.linalg.norm(mics - sources[:, None], axis=2) / self.sound_m_s
        left: Floats = self.heard_s - travel_s - emitted[:, None] - delays
        return left

    def residuals(self, x: Floats) -> Floats:
        """Times, then what holds microphones, sources and delays, each over its spread."""
        mics, sources, _, delays = self.split(x)
        return np.concatenate(
            [
                (self.times_left(x) / self.errors_s).ravel(),
                ((mics - self.drawn_m) / self.spread_m).ravel(),
                (sources / _SOURCE_SPREAD_M).ravel(),
                delays / self.delay_spread_s,
            ]
        )

    def jacobian(self, x: Floats) -> sparse.csr_matrix:
        """Derivatives of the residuals, sparse: a time depends on 8 unknowns."""
        mics, sources, _, _ = self.split(x)
        away = mics - sources[:, None]
        away = away / np.linalg.norm(away, axis=2, keepdims=True) / self.sound_m_s
        over = 1 / self.errors_s
        values = np.concatenate(
            [
                (-away * over[..., None]).ravel(),
                (away * over[..., None]).ravel(),
                -over.ravel(),
                -over.ravel(),
                np.full(3 * self.n_mics, 1 / self.spread_m),
                np.full(3 * self.n_events, 1 / _SOURCE_SPREAD_M),
                np.full(self.n_mics, 1 / self.delay_spread_s),
            ]
        )
        n_times = self.n_events * self.n_mics
        shape = (n_times + 4 * self.n_mics + 3 * self.n_events, len(x))
        return sparse.csr_matrix((values, (self._rows, self._columns)), shape)

    def _pattern(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        n_mics, n_events = self.n_mics, self.n_events
        n_times = n_events * n_mics
        event, mic = (of.ravel() for of in np.indices((n_events, n_mics)))
        row, axis = np.arange(n_times), np.arange(3)
        of_sources, of_emitted, of_delays = 3 * n_mics, 3 * (n_mics + n_events), 0
        of_delays = of_emitted + n_events
        held = n_times + np.arange(4 * n_mics + 3 * n_events)
        rows = [np.repeat(row, 3), np.repeat(row, 3), row, row, held]
        columns = [
            (3 * mic[:, None] + axis).ravel(),
            (of_sources + 3 * event[:, None] + axis).ravel(),
            of_emitted + event,
            of_delays + mic,
            np.concatenate([np.arange(of_emitted), of_delays + np.arange(n_mics)]),
        ]
        return np.concatenate(rows), np.concatenate(columns)

    def start(self) -> Floats:
        """The drawing, and the source that fits it best for each event alone."""
        sources = np.stack([self._source(heard) for heard in self.heard_s])
        travel_s = np.linalg.norm(self.drawn_m - sources[:, None], axis=2) / self.sound_m_s
        emitted = (self.heard_s - travel_s).mean(axis=1)
        zeros = np.zeros(self.n_mics)
        return np.concatenate([self.drawn_m.ravel(), sources.ravel(), emitted, zeros])

    def _source(self, heard_s: Floats) -> Floats:
        centre = self.drawn_m.mean(axis=0)
        u, v = np.meshgrid(np.linspace(-0.95, 0.95, 15), np.linspace(-0.95, 0.95, 15))
        inside = u**2 + v**2 < 0.98
        u, v = u[inside], v[inside]
        directions = np.stack([u, v, np.sqrt(1 - u**2 - v**2)], axis=1)
        if not self.plane:
            directions = np.concatenate([directions, directions * [1, 1, -1]])
        candidates = centre + np.concatenate([directions * of for of in _DISTANCES_M])
        travel_s = np.linalg.norm(self.drawn_m - candidates[:, None], axis=2) / self.sound_m_s
        left = heard_s - travel_s
        left -= left.mean(axis=1, keepdims=True)
        best = candidates[np.square(left).sum(axis=1).argmin()]
        doubt_s = self.spread_m / self.sound_m_s

        def misfit(x: Floats) -> Floats:
            late = heard_s - np.linalg.norm(self.drawn_m - x[:3], axis=1) / self.sound_m_s
            return np.concatenate([(late - late.mean()) / doubt_s, (x[:3] - centre) / 5.0])

        source: Floats = least_squares(misfit, best).x
        if self.plane:
            # Behind it is where the same is heard as before it.
            source[2] = centre[2] + abs(source[2] - centre[2])
        return source

    def errors(self, x: Floats, error_s: float) -> tuple[Floats, float]:
        """Standard errors of the positions, (n_mics, 3), and their condition.

        error_s : of a time, as the residuals show it
        """
        jacobian = self.jacobian(x)
        n_times = self.n_events * self.n_mics
        scale = np.ones(jacobian.shape[0])
        scale[:n_times] = np.minimum(self.errors_s.ravel() / error_s, 1.0)
        weighted = sparse.diags(scale) @ jacobian @ sparse.diags(self.scales)
        normal = (weighted.T @ weighted).toarray()
        n = 3 * self.n_mics
        # What the others leave of the positions: their Schur complement.
        others = np.linalg.solve(normal[n:, n:], normal[n:, :n])
        information = normal[:n, :n] - normal[:n, n:] @ others
        inside = _without_motion(self.split(x)[0])
        kept = inside.T @ information @ inside
        values = np.linalg.eigvalsh(kept)
        covariance = inside @ np.linalg.solve(kept, inside.T)
        errors_m = np.sqrt(np.diag(covariance)).reshape(-1, 3) * self.spread_m
        return errors_m, float(np.sqrt(values[-1] / max(values[0], 1e-30)))


def _without_motion(positions_m: Floats) -> Floats:
    """Orthonormal changes of positions, (3 n, 3 n - 6), that move no array as a whole."""
    n = len(positions_m)
    from_centre = positions_m - positions_m.mean(axis=0)
    moves = [np.tile(axis, (n, 1)) for axis in np.eye(3)]
    turns = [np.cross(axis, from_centre) for axis in np.eye(3)]
    basis = np.stack([of.ravel() for of in moves + turns], axis=1)
    full, _ = np.linalg.qr(basis, mode="complete")
    rest: Floats = full[:, 6:]
    return rest
