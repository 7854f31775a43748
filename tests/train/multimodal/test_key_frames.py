"""Key frames: the whole linear program, its optimality conditions, and every subset as oracles."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from soundpost.device.errors import InputError
from soundpost.train.multimodal.key_frames import (
    euclidean_distances,
    key_frames,
    select_representatives,
)


def whole_program(d, k=None, penalty=0.0):
    """Optimum of sum d z + penalty sum t over z <= t, columns of z 1, and sum t = k if given."""
    n = len(d)
    below = sparse.hstack([sparse.eye(n * n), -sparse.kron(sparse.eye(n), np.ones((n, 1)))])
    column_sums = sparse.hstack(
        [sparse.kron(np.ones((1, n)), sparse.eye(n)), sparse.csr_matrix((n, n))]
    )
    budget = np.concatenate([np.zeros(n * n), np.ones(n)])[None]
    equal, right = (column_sums, np.ones(n))
    if k is not None:
        equal, right = sparse.vstack([column_sums, budget]), np.append(right, k)
    cost = np.concatenate([d.ravel(), np.full(n, penalty)])
    found = linprog(cost, below, np.zeros(n * n), equal, right)
    assert found.status == 0
    return found.fun


def cost_of(d, rows):
    return d[list(rows)].min(axis=0).sum()


def least_cost(d, k):
    return min(cost_of(d, rows) for rows in combinations(range(len(d)), k))


def video(n_frames, seed, n_shots=4, step=0.15, noise=0.3):
    """Shots of a camera that moves a little, with grain."""
    rng = np.random.default_rng(seed)
    shot = np.sort(rng.integers(0, n_shots, n_frames))
    place = 2 * rng.standard_normal((n_shots, 64))[shot]
    way = np.cumsum(step * rng.standard_normal((n_frames, 64)), axis=0)
    return place + way + noise * rng.standard_normal((n_frames, 64))


def turn(n_frames):
    angle = 2 * np.pi * np.arange(n_frames) / n_frames
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def spiral(n_frames):
    angle = np.linspace(0, 20, n_frames)
    return (angle * np.stack([np.cos(angle), np.sin(angle)])).T


def check_optimality(d, k, tolerance):
    """Karush-Kuhn-Tucker conditions of the whole program; v, lambda from the solver's duals."""
    found = select_representatives(d, k)
    z, t, v = found.membership, found.row_maxima, found.prices
    penalty, scale = found.penalty, d.max()
    mu = np.maximum(0.0, v[None, :] - d)  # of z_ij <= t_i
    nu = d - v[None, :] + mu  # of z_ij >= 0: stationarity in z
    rest = penalty - mu.sum(axis=1)  # of t_i >= 0: stationarity in t
    # The original problem is in reach.
    assert z.min() >= 0
    assert_allclose(z.sum(axis=0), 1.0, atol=1e-9)
    assert (z <= t[:, None] + 1e-9).all()
    assert t.sum() == pytest.approx(k, abs=1e-8)
    # Multipliers of inequalities are not negative (mu is so by its formula).
    assert nu.min() >= -tolerance * scale
    assert rest.min() >= -tolerance * scale
    assert penalty >= 0
    # Where a multiplier is not zero its constraint is tight.
    assert np.abs(z * nu).max() <= tolerance * scale
    assert np.abs(mu * (t[:, None] - z)).max() <= tolerance * scale
    assert np.abs(t * rest).max() <= tolerance * scale
    # Hence no gap between the cost and its bound.
    assert (d * z).sum() == pytest.approx(v.sum() - penalty * k, rel=1e-7)
    return found


@pytest.mark.parametrize(
    "frames",
    [video(240, 0), video(240, 1, n_shots=9), np.arange(240.0)[:, None], turn(240), spiral(90)],
    ids=["shots", "more shots than key frames", "a pan", "a full turn", "a spiral"],
)
def test_240_frames_meet_the_optimality_conditions(frames):
    found = check_optimality(cdist(frames, frames), 4, 1e-8)
    assert len(found.chosen) == 4


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 14),
    k=st.integers(1, 13),
    kind=st.sampled_from(["plane", "any", "few values"]),
)
def test_the_decomposition_solves_the_whole_program(seed, n, k, kind):
    rng = np.random.default_rng(seed)
    if kind == "plane":
        points = rng.standard_normal((n, 2))
        d = cdist(points, points)
    elif kind == "any":  # neither symmetric nor zero for a frame itself
        d = rng.random((n, n))
    else:
        d = rng.integers(0, 3, (n, n)).astype(float)
    k = min(k, n)
    found = check_optimality(d, k, 1e-7) if d.any() else select_representatives(d, k)
    cost = (d * found.membership).sum()
    assert cost == pytest.approx(whole_program(d, k), abs=1e-7)
    # The same Z is best where lambda weighs the row maxima instead of a fixed sum.
    penalised = whole_program(d, None, found.penalty)
    assert cost + found.penalty * found.row_maxima.sum() == pytest.approx(penalised, abs=1e-6)
    # Every subset is a Z of zeros and ones.
    best = least_cost(d, k)
    assert cost <= best + 1e-7
    if np.isin(np.round(found.row_maxima, 6), [0.0, 1.0]).all():
        assert cost == pytest.approx(best, abs=1e-7)
        assert cost_of(d, found.chosen) == pytest.approx(best, abs=1e-7)


def test_the_key_frames_of_four_shots_are_the_middles_of_each():
    # Three frames in a row on a line, one unit apart; shots a hundred apart.
    places = np.array([0, 1, 2, 100, 101, 102, 200, 201, 202, 300, 301, 302], float)[:, None]
    found = select_representatives(cdist(places, places), 4)
    assert found.chosen.tolist() == [1, 4, 7, 10]
    assert_array_equal(np.flatnonzero(found.membership.sum(axis=1)), [1, 4, 7, 10])
    assert_allclose(found.membership.sum(axis=1)[found.chosen], 3.0)
    # To keep a fifth frame saves 1, to drop a shot costs hundreds: lambda lies between.
    assert 1.0 <= found.penalty <= 3 * 98 + 1e-6
    assert least_cost(cdist(places, places), 4) == 8.0


def test_a_fractional_solution_is_ranked_by_the_sums_of_its_rows():
    # Every two of three rows stand at 1 from each other, and of one key frame each is as good: the
    # program may mix them, the choice is one frame.
    found = select_representatives(1.0 - np.eye(3), 1)
    assert (found.membership * (1.0 - np.eye(3))).sum() == pytest.approx(2.0)
    assert found.chosen.tolist() == [0]


def test_a_smaller_number_costs_more_and_each_frame_less_saves_less():
    d = euclidean_distances(video(40, 3))
    found = [select_representatives(d, k) for k in range(1, 9)]
    costs = [(d * one.membership).sum() for one in found]
    assert (np.diff(costs) < 0).all()
    assert (np.diff(costs, 2) > -1e-9).all()
    # lambda is a slope of that curve.
    for before, one, after in zip(costs, found[1:], costs[2:], strict=False):
        cost = (d * one.membership).sum()
        assert cost - after - 1e-6 <= one.penalty <= before - cost + 1e-6


def test_the_same_frames_whatever_the_unit_and_the_same_every_time():
    d = euclidean_distances(video(60, 4))
    first, again = select_representatives(d, 4), select_representatives(d, 4)
    assert_array_equal(first.membership, again.membership)
    assert first.penalty == again.penalty
    other = select_representatives(1e6 * d, 4)
    assert_array_equal(first.chosen, other.chosen)
    assert other.penalty == pytest.approx(1e6 * first.penalty, rel=1e-6)


def test_a_still_and_a_short_clip():
    still = np.ones((10, 5))
    found = key_frames(still, 4)
    assert len(set(found.tolist())) == 4
    two_pictures = np.repeat([[0.0], [1.0]], 5, axis=0)
    chosen = key_frames(two_pictures, 4)
    assert set(two_pictures[chosen, 0]) == {0.0, 1.0}
    assert key_frames(video(3, 5), 4).tolist() == [0, 1, 2]
    assert key_frames(np.ones((1, 2, 2)), 4).tolist() == [0]


def test_distances_are_euclidean_also_far_from_zero():
    features = np.random.default_rng(6).standard_normal((7, 3, 4, 5))
    expected = cdist(features.reshape(7, -1), features.reshape(7, -1))
    assert_allclose(euclidean_distances(features), expected, atol=1e-12)
    assert_allclose(euclidean_distances(features + 1e4), expected, atol=1e-7)
    many = np.random.default_rng(7).standard_normal((5, 9_000)).astype(np.float32)
    assert_allclose(euclidean_distances(many), cdist(many, many), rtol=1e-6)
    same = np.repeat(features[:1].astype(np.float32) + 3, 4, axis=0)
    assert_array_equal(euclidean_distances(same), np.zeros((4, 4)))


def test_bad_input_is_named():
    features = np.ones((3, 4))
    features[1, 2] = np.nan
    with pytest.raises(InputError, match=r"features of frame 1 are not all numbers"):
        key_frames(features)
    with pytest.raises(InputError, match=r"shape \(2, 3\); expected a square matrix"):
        select_representatives(np.ones((2, 3)), 1)
    with pytest.raises(InputError, match=r"frames 0 and 1 is -1\.0; expected a number from 0"):
        select_representatives(np.array([[0.0, -1.0], [1.0, 0.0]]), 1)
    with pytest.raises(InputError, match="0 wanted; expected at least 1"):
        select_representatives(np.zeros((2, 2)), 0)
