"""Key frames: a few frames of a clip that represent all of it, by sparse subset selection.

Li et al., "A light-weight multimodal framework for improved environmental audio tagging" (2018),
section 2.2.1: z_ij says how far frame i represents frame j, d_ij how unlike they are (Euclidean
distance of AlexNet's conv5 features), and Z minimises

    sum_ij d_ij z_ij + lambda * (number of rows of Z that are not zero)    with sum_i z_ij = 1

over z_ij in [0, 1] in place of {0, 1}; the frames whose rows have the largest sums are the key
frames, four in a clip. The algorithm is dissimilarity-based sparse subset selection (Elhamifar et
al. 2016). Where the text leaves a choice:

- "Not zero" of a row of zeros and ones is max_j z_ij, and that is what it relaxes to: the row norm
  of Elhamifar et al. with q = infinity. The problem is then a linear program. (Theirs offers q = 2
  as well, a cone program, for which SciPy has no solver.)
- lambda is not given. Ours makes the row maxima add up to the wanted number k: this is put as a
  constraint, whose multiplier is lambda, so that Z is also optimal for the penalised problem above.
  Where Z comes out whole, as it mostly does, k rows are active; else more are, and the sums decide.
- As it stands, the program has n^2 variables and n^2 constraints, and HiGHS needs 0.3 to 3 s for
  240 frames. We hand it over by Benders' decomposition: for given row maxima t the best Z fills
  each column from the nearest row onwards, so that the cost of column j is a convex, piecewise
  linear function of t; a program in t and these costs alone gets tangents where they are needed,
  until its bound and the cost of a Z meet. The solution is that of the whole program, with its
  multipliers (Fischetti et al., "Redesigning Benders decomposition for large-scale facility
  location", 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linprog

from soundpost.device.errors import InputError

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

KEY_FRAMES = 4
# Bound and cost count as equal from this share of the largest possible cost (n times the largest
# dissimilarity) on. HiGHS is asked for what lies below it; 1e-10 is its least.
_GAP = 1e-9
_TOLERANCE = 1e-10
_FULL = 1.0 - 1e-9
_FEATURES_AT_ONCE = 4_096


@dataclass(frozen=True, eq=False)
class Representatives:
    """Solution of the relaxed selection.

    chosen : (k,) int64, ascending: the rows with the largest sums
    membership : (n, n), Z; each column sums to 1
    row_maxima : (n,), t; z_ij <= t_i, and their sum is k
    penalty : lambda, in the unit of the dissimilarities
    prices : (n,) multipliers v_j of the columns' sums. Those of z_ij <= t_i are max(0, v_j - d_ij)
    """

    chosen: IntArray
    membership: Array
    row_maxima: Array
    penalty: float
    prices: Array


def key_frames(features: NDArray[Any], k: int = KEY_FRAMES) -> IntArray:
    """Indices of the k key frames of a clip, ascending; all frames where there are no more than k.

    features : (n_frames, ...) of each frame, such as conv5 maps

    Raises InputError as select_representatives does.
    """
    return select_representatives(euclidean_distances(features), k).chosen


def euclidean_distances(features: NDArray[Any]) -> Array:
    """Distances between the features of every two frames.

    features : (n_frames, ...)

    Returns (n_frames, n_frames) float64. Raises InputError on a value that is no number.
    """
    rows = np.asarray(features).reshape(len(features), -1)
    # By products of matrices: conv5 has 43,264 features, and pairwise differences take ten times as
    # long. Some features at a time, for in double precision all of them are 83 MB.
    products = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], _FEATURES_AT_ONCE):
        part = rows[:, start : start + _FEATURES_AT_ONCE].astype(np.float64)
        # Centred: the products cancel where features are far from zero and close together.
        part -= part.mean(axis=0)
        products += part @ part.T
    squares = np.diagonal(products)
    if not np.isfinite(squares).all():
        whole = np.isfinite(rows).all(axis=1)
        frame = int(whole.argmin())
        raise InputError(
            f"key frames: the features of frame {frame} are not all numbers; check the picture and "
            "the network's weights"
        )
    squared = squares[:, None] + squares[None, :] - 2 * products
    np.fill_diagonal(squared, 0.0)
    distances: Array = np.sqrt(np.maximum((squared + squared.T) / 2, 0.0))
    return distances


def select_representatives(dissimilarity: NDArray[Any], k: int = KEY_FRAMES) -> Representatives:
    """Choose the k rows that represent all columns best.

    Parameters
    ----------
    dissimilarity : (n, n), zero or more; d_ij of representing column j by row i
    k : how many; all where there are no more

    Returns
    -------
    Representatives
        Rows with equal sums: the first ones.

    Raises
    ------
    InputError
        Not a square matrix of numbers from 0, or k below 1.
    """
    d = _checked(dissimilarity, k)
    n = len(d)
    k = min(k, n)
    largest = float(d.max())
    scale = largest if largest > 0 else 1.0
    columns = _Columns(d / scale)
    t, penalty, prices = _solve(columns, k)
    membership = columns.filled(t)
    # Rounded, so that sums that are equal stay so.
    sums = np.round(membership.sum(axis=1), 6)
    chosen = np.sort(np.argsort(-sums, kind="stable")[:k])
    return Representatives(chosen, membership, t, penalty * scale, prices * scale)


def _checked(dissimilarity: NDArray[Any], k: int) -> Array:
    d = np.asarray(dissimilarity, np.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or len(d) == 0:
        raise InputError(
            f"key frames: dissimilarities of shape {d.shape}; expected a square matrix, a row and "
            "a column for each frame"
        )
    if not (np.isfinite(d).all() and (d >= 0).all()):
        i, j = np.argwhere(~(np.isfinite(d) & (d >= 0)))[0]
        raise InputError(
            f"key frames: the dissimilarity of frames {i} and {j} is {d[i, j]}; expected a number "
            "from 0"
        )
    if k < 1:
        raise InputError(f"key frames: {k} wanted; expected at least 1")
    return d


class _Columns:
    """Each column's rows from the nearest onwards, and what given row maxima make of them."""

    def __init__(self, d: Array) -> None:
        self.d = d
        self.order = np.argsort(d, axis=0, kind="stable")
        self.sorted = np.take_along_axis(d, self.order, 0)

    def rank_of(self, values: Array) -> IntArray:
        """Rank in each column of the first row that is as far as a value (n,)."""
        ranks: IntArray = np.sum(self.sorted < values, axis=0)
        return np.minimum(ranks, len(self.d) - 1)

    def ranks(self, t: Array) -> IntArray:
        """Rank in each column of the row that fills it."""
        filled = np.cumsum(t[self.order], axis=0) >= _FULL
        return np.asarray(np.argmax(filled, axis=0), np.int64)

    def tangents(self, ranks: IntArray, j: IntArray) -> tuple[Array, Array]:
        """Columns' costs are at least rho - slopes.T @ t; rho (n_j,), slopes (n, n_j)."""
        rho = self.sorted[ranks, j]
        return rho, np.maximum(0.0, rho - self.d[:, j])

    def costs(self, t: Array) -> Array:
        """Least cost of each column, (n,)."""
        rho, slopes = self.tangents(self.ranks(t), np.arange(len(t)))
        return rho - t @ slopes

    def filled(self, t: Array) -> Array:
        """The Z of least cost, (n, n)."""
        share = t[self.order]
        before = np.cumsum(share, axis=0) - share
        z = np.empty_like(self.d)
        np.put_along_axis(z, self.order, np.clip(1.0 - before, 0.0, share), 0)
        z /= z.sum(axis=0)
        return z


class _Master:
    """The program in row maxima t and column costs theta, with the tangents found so far."""

    def __init__(self, columns: _Columns, k: int) -> None:
        n = len(columns.d)
        self.columns = columns
        self.k = k
        self.known = np.zeros((n, n), bool)
        self.parts: list[Any] = []
        self.rho: list[Array] = []
        self.column: list[IntArray] = []

    def add(self, ranks: IntArray, wanted: NDArray[np.bool_] | None = None) -> bool:
        """Tangents at a rank in each column, or in the wanted ones; whether any is new."""
        n = len(ranks)
        new = ~self.known[ranks, np.arange(n)]
        j = np.flatnonzero(new if wanted is None else new & wanted)
        if not len(j):
            return False
        self.known[ranks[j], j] = True
        rho, slopes = self.columns.tangents(ranks[j], j)
        ones = sparse.csr_matrix((np.ones(len(j)), (np.arange(len(j)), j)), (len(j), n))
        self.parts.append(sparse.hstack([sparse.csr_matrix(-slopes.T), -ones], format="csr"))
        self.rho.append(rho)
        self.column.append(j)
        return True

    def solve(self) -> tuple[Array, Array, float, Array]:
        """t, theta, penalty and prices."""
        n = len(self.columns.d)
        rho, column = np.concatenate(self.rho), np.concatenate(self.column)
        halves = np.repeat([0.0, 1.0], n)
        found = linprog(
            c=halves,
            A_ub=sparse.vstack(self.parts, format="csr"),
            b_ub=-rho,
            A_eq=(1.0 - halves)[None],
            b_eq=[self.k],
            method="highs-ds",
            # Presolve takes longer than it saves.
            options={
                "presolve": False,
                "primal_feasibility_tolerance": _TOLERANCE,
                "dual_feasibility_tolerance": _TOLERANCE,
            },
        )
        if found.status != 0:
            raise InputError(
                f"key frames: no solution ({found.message}); dissimilarities that differ by many "
                "powers of ten are beyond the solver"
            )
        weights = -found.ineqlin.marginals
        prices = np.asarray(np.bincount(column, weights * rho, minlength=n), np.float64)
        t: Array = np.maximum(found.x[:n], 0.0)
        t *= self.k / t.sum()
        return t, found.x[n:], -float(found.eqlin.marginals[0]), prices


def _solve(columns: _Columns, k: int) -> tuple[Array, float, Array]:
    """Row maxima, penalty and prices of the whole program."""
    n = len(columns.d)
    start, every_row = _exchange(columns.d, k), np.full(n, k / n)
    master = _Master(columns, k)
    # Where Z is whole, a column's price lies between its nearest and its second representative.
    nearest = np.sort(columns.d[start > 0], axis=0)
    first, second = nearest[0], nearest[min(1, k - 1)]
    for value in (first, (first + second) / 2, second):
        master.add(columns.rank_of(value))
    # Of a clip without beginning or end, such as a turn around oneself, all rows are alike.
    master.add(columns.ranks(every_row))
    best, _ = _cheapest(columns, (start, every_row))
    mean, n_seen = start, 1
    while True:
        t, theta, penalty, prices = master.solve()
        n_seen += 1
        mean = mean + (t - mean) / n_seen
        # The solver leaps from corner to corner; tangents between them are those that last.
        points = ((t + mean) / 2, t)
        best, cost = _cheapest(columns, (best, *points))
        if cost - theta.sum() <= n * _GAP:
            break
        new = False
        for point in points:
            ranks = columns.ranks(point)
            rho, slopes = columns.tangents(ranks, np.arange(n))
            new |= master.add(ranks, rho - t @ slopes > theta + _GAP)
        # Nothing new: t's own cost is the bound, to the solver's tolerance.
        if not new:
            best = t
            break
    return best, penalty, prices


def _cheapest(columns: _Columns, points: Sequence[Array]) -> tuple[Array, float]:
    """Row maxima of least cost, the first of equal ones, and that cost."""
    best, least = points[0], math.inf
    for point in points:
        cost = float(columns.costs(point).sum())
        if cost < least - len(point) * _GAP:
            best, least = point, cost
    return best, least


def _exchange(d: Array, k: int) -> Array:
    """Row maxima of k good rows, 0 or 1: one after the other, then exchanged while it helps."""
    chosen: list[int] = []

    def best_addition(rows: list[int]) -> tuple[float, int]:
        nearest = d[rows].min(axis=0) if rows else np.full(len(d), np.inf)
        totals = np.minimum(nearest, d).sum(axis=1)
        totals[rows] = np.inf
        i = int(totals.argmin())
        return float(totals[i]), i

    for _ in range(k):
        cost, i = best_addition(chosen)
        chosen.append(i)
    better = True
    while better:
        better = False
        for place in range(k):
            total, i = best_addition(chosen[:place] + chosen[place + 1 :])
            if total < cost - _GAP:
                chosen[place], cost, better = i, total, True
    t = np.zeros(len(d))
    t[chosen] = 1.0
    return t
