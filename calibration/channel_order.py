"""Which microphone each channel carries, told by when it hears sources at known places.

A microphone of its own delay hears all places late by the same; one that is another hears each late
by something else. Channels are assigned to microphones at the least total chi squared (Hungarian
method), and a change counts only where the channel's own microphone is out of the question.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from soundpost.device.array.geometry import Floats
from soundpost.device.errors import InputError

_MOST_SWAPPED = 0.5
# Uncertainty of arrivals below which a difference proves nothing: 0.7 mm from one place, from which
# nothing is known of it, and 0.2 mm where several places agree so well.
_LEAST_SPREAD_S = 2e-6
_LEAST_SCATTER_S = 5e-7
_LEAST_DELAY_S = 1e-5
# Chi squared of a microphone's arrivals: from where on it is not where it should be, what is good
# enough for another place, and beyond which it makes no difference.
_PROVEN, _FITS, _WORST = 50.0, 25.0, 1e4


def arrival_spreads(late_s: Floats) -> tuple[float, float]:
    """How arrivals scatter from place to place, and delays from microphone to microphone.

    late_s : (n_places, n_columns) heard minus expected of each column's own microphone

    Returns two standard deviations in seconds, robust against the few that are swapped.
    """
    own = np.median(late_s, axis=0)
    delay_s = max(1.48 * float(np.median(np.abs(own - np.median(own)))), _LEAST_DELAY_S)
    if len(late_s) == 1:
        return _LEAST_SPREAD_S, delay_s
    scatter = late_s - late_s.mean(axis=0)
    scatter = scatter - np.median(scatter, axis=1, keepdims=True)
    return max(1.48 * float(np.median(np.abs(scatter))), _LEAST_SCATTER_S), delay_s


def _cost(difference_s: Floats, spreads: tuple[float, float]) -> Floats:
    """How unlikely differences of arrival are, over the places of the first axis: chi squared."""
    spread, delay = spreads
    own = difference_s.mean(axis=0)
    scatter = np.square(difference_s - own).sum(axis=0) / spread**2
    cost: Floats = scatter + own**2 / (spread**2 / len(difference_s) + delay**2)
    return cost


def assign_columns(
    arrivals: Floats,
    heard: Floats,
    columns: NDArray[np.intp],
    spreads: tuple[float, float],
) -> dict[int, int]:
    """Microphone that each sounding column carries.

    arrivals : (n_places, n_mics) when microphones should hear
    heard : (n_places, n_columns) when columns do
    columns : (n_columns,) their numbers, which are those of the microphones they should carry
    spreads : of `arrival_spreads`

    Raises InputError where so many seem swapped that places or positions must be wrong.
    """
    heard = heard - np.median(heard - arrivals[:, columns], axis=1, keepdims=True)
    # One that fits nowhere must not drive others from their place.
    costs = np.minimum(_cost(heard[:, :, None] - arrivals[:, None], spreads), _WORST)
    # At equal cost a microphone stays where it belongs.
    costs[np.arange(len(columns)), columns] -= 1e-6
    rows, found = linear_sum_assignment(costs)
    moved = {int(columns[row]): int(mic) for row, mic in zip(rows, found, strict=True)}
    own = dict(zip(columns.tolist(), costs[np.arange(len(columns)), columns], strict=True))
    new = dict(zip(columns.tolist(), costs[rows, found], strict=True))
    result: dict[int, int] = {}
    for chain in _chains(moved):
        proven = all(
            own[column] > _PROVEN and new[column] < max(_FITS, own[column] / 10) for column in chain
        )
        result |= {column: moved[column] if proven else column for column in chain}
    n_moved = sum(column != mic for column, mic in result.items())
    if n_moved > max(_MOST_SWAPPED * len(columns), 2):
        raise InputError(
            f"{n_moved} of {len(columns)} microphones seem to be on another's channel; check the "
            "source's place, and the channels and positions of array.json"
        )
    return result


def _chains(moved: dict[int, int]) -> list[list[int]]:
    """Columns that move together: each goes where the next one is."""
    left, chains = set(moved), []
    carriers = {mic: column for column, mic in moved.items()}
    while left:
        chain = [min(left)]
        left.remove(chain[0])
        for step in (moved, carriers):
            at = step.get(chain[0])
            while at in left:
                chain.append(at)
                left.remove(at)
                at = step.get(at)
        chains.append(chain)
    return chains


def carrying_columns(of_column: dict[int, int], n_mics: int) -> NDArray[np.intp]:
    """Column of each microphone; those without sound keep theirs, or take one that is left."""
    carries = np.full(n_mics, -1, np.intp)
    for column, mic in of_column.items():
        carries[mic] = column
    free = sorted(set(range(n_mics)) - set(of_column))
    for mic in np.flatnonzero(carries < 0).tolist():
        carries[mic] = mic if mic in free else next(of for of in free if carries[of] >= 0)
        free.remove(carries[mic])
    return carries


def pairs_alike(
    arrivals: Floats, living: NDArray[np.intp], spreads: tuple[float, float]
) -> tuple[tuple[int, int], ...]:
    """Pairs of living microphones whose swap would not be heard.

    arrivals : (n_places, n_mics) when microphones should hear
    """
    times = arrivals[:, living]
    costs = _cost(times[:, :, None] - times[:, None], spreads)
    first, second = np.nonzero(np.triu(costs < _PROVEN, 1))
    return tuple(zip(living[first].tolist(), living[second].tolist(), strict=True))
