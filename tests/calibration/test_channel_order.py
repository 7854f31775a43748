"""Any permutation of channels is found from arrival times that tell them apart."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soundpost.calibration.channel_order import (
    arrival_spreads,
    assign_columns,
    carrying_columns,
    pairs_alike,
)
from soundpost.device.array.geometry import vogel_spiral
from soundpost.device.errors import InputError

N_MICS = 24
PLACES = np.array([[0.8, 0.2, 1.5], [-0.7, 0.6, 1.3], [0.1, -0.8, 1.6]])
ARRIVALS = np.linalg.norm(vogel_spiral(N_MICS).positions_m - PLACES[:, None], axis=2) / 343.2


def heard_by(order, seed, places=slice(None)):
    """When columns hear, each with the microphone's own delay and a little uncertainty."""
    rng = np.random.default_rng(seed)
    own = 1e-5 * rng.standard_normal(N_MICS)
    late = ARRIVALS[places] + own + 2e-7 * rng.standard_normal(ARRIVALS[places].shape)
    # Only differences are heard: each place has a moment of its own.
    return late[:, order] + rng.uniform(0, 1, (len(late), 1))


def assigned(heard, columns, arrivals=ARRIVALS):
    late = heard - arrivals[:, columns]
    late = late - np.median(late, axis=1, keepdims=True)
    return assign_columns(arrivals, heard, columns, arrival_spreads(late))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, N_MICS - 1), max_size=6, unique=True))
def test_any_permutation_of_a_few_is_found(seed, some):
    order = np.arange(N_MICS)
    order[some] = np.roll(some, 1)
    columns = np.arange(N_MICS)
    found = assigned(heard_by(order, seed), columns)
    assert [found[column] for column in columns] == order.tolist()
    carries = carrying_columns(found, N_MICS)
    assert order[carries].tolist() == columns.tolist()


@given(st.integers(0, 2**32 - 1), st.sets(st.integers(0, N_MICS - 1), max_size=5))
def test_without_swaps_nothing_moves_whoever_is_missing(seed, silent):
    columns = np.array(sorted(set(range(N_MICS)) - silent))
    found = assigned(heard_by(np.arange(N_MICS), seed)[:, columns], columns)
    assert found == {column: column for column in columns.tolist()}
    assert carrying_columns(found, N_MICS).tolist() == list(range(N_MICS))


def test_one_place_tells_less_than_three():
    spreads = (2e-6, 1e-5)
    from_one = pairs_alike(ARRIVALS[:1], np.arange(N_MICS), spreads)
    assert pairs_alike(ARRIVALS, np.arange(N_MICS), spreads) == ()
    times = ARRIVALS[0]
    assert len(from_one) > 0
    for first, second in from_one:
        assert abs(times[first] - times[second]) < 8e-5


def test_when_everything_seems_swapped_something_else_is_wrong():
    order = np.roll(np.arange(N_MICS), 5)
    with pytest.raises(InputError, match="24 of 24 microphones seem to be on another's channel"):
        assign_columns(ARRIVALS, heard_by(order, 0), np.arange(N_MICS), (2e-6, 1e-5))


def test_a_swap_is_found_beside_one_that_would_not_be_heard():
    """Microphone c hears what a hears: that column b may as well carry c moves nobody."""
    numbers = np.arange(7)
    for a, b, c in itertools.permutations(range(7), 3):
        arrivals = 1e-4 * numbers[None].astype(float)
        arrivals[0, c] = arrivals[0, a]
        order = numbers.copy()
        order[[a, b]] = b, a
        found = assign_columns(arrivals, arrivals[:, order], numbers, (2e-6, 1e-5))
        assert [found[column] for column in numbers] == order.tolist()
