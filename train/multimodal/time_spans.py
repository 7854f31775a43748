"""Scores on one time grid brought to another, by the time that their spans have in common.

A teacher keeps its own front end: other rates, windows and hops than its student's. What the two
share is the clip's time in seconds. A teacher's row stands for the hop around the middle of the
window that it heard; the first one also for what lies before, as far as it was heard, and the last
for what lies behind.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError

FloatArray = NDArray[np.float32]
Seconds = NDArray[np.float64]

# Times come from decimal tables and from sample counts: a nanosecond is no time.
_NO_TIME_S = 1e-9


def edges_of_rows(n_rows: int, start_s: float, window_s: float, hop_s: float) -> Seconds:
    """Bounds between rows: row i stands for [edges[i], edges[i + 1]).

    start_s : begin of the first row's window; below 0 where frames are centred on their time

    Returns
    -------
    (n_rows + 1,) seconds
    """
    edges = start_s + (window_s - hop_s) / 2 + hop_s * np.arange(n_rows + 1)
    edges[0], edges[-1] = start_s, start_s + (n_rows - 1) * hop_s + window_s
    return edges


def spans_between(edges: Seconds) -> Seconds:
    """(n + 1,) bounds to (n, 2) begins and ends."""
    return np.stack([edges[:-1], edges[1:]], 1)


def window_spans(starts_s: NDArray[Any], window_s: float) -> Seconds:
    """(n,) begins of windows to (n, 2) begins and ends."""
    starts = np.asarray(starts_s, np.float64)
    return np.stack([starts, starts + window_s], 1)


def resample(rows: NDArray[Any], edges: Seconds, spans: Seconds, where: str) -> FloatArray:
    """What rows say of other spans: their mean, weighted by the time that they share with each.

    Parameters
    ----------
    rows : (n_rows, n_labels)
    edges : (n_rows + 1,) ascending seconds
    spans : (n_spans, 2) begins and ends in seconds; they may overlap and leave gaps
    where : clip and store, for the message

    Returns
    -------
    (n_spans, n_labels) float32; of a span that sticks out, the mean over the part that is covered

    Raises InputError where a span has no time in common with any row.
    """
    begins = np.clip(spans[:, 0], edges[0], edges[-1])
    ends = np.clip(spans[:, 1], edges[0], edges[-1])
    shared = ends - begins
    outside = np.flatnonzero(shared <= _NO_TIME_S)
    if len(outside):
        begin, end = spans[outside[0]]
        raise InputError(
            f"{where}: soft labels cover {edges[0]:.3f} to {edges[-1]:.3f} s and {len(outside)} of "
            f"{len(spans)} frames have no time in common with them, the first {begin:.3f} to "
            f"{end:.3f} s; label the whole clip, or ask for the frames that were heard"
        )
    if len(spans) == len(rows) and np.abs(spans - spans_between(edges)).max() <= _NO_TIME_S:
        return rows.astype(np.float32)
    # Integral of the rows up to each edge; between edges it is a straight line.
    integral = np.zeros((len(rows) + 1, rows.shape[1]))
    np.cumsum(rows * np.diff(edges)[:, None], axis=0, out=integral[1:])

    def up_to(times: Seconds) -> NDArray[np.float64]:
        row = np.clip(np.searchsorted(edges, times, "right") - 1, 0, len(rows) - 1)
        along = (times - edges[row])[:, None]
        reached: NDArray[np.float64] = integral[row] + along * rows[row]
        return reached

    means = (up_to(ends) - up_to(begins)) / shared[:, None]
    # Differences of long sums: a mean of probabilities must not leave their range.
    return np.asarray(np.clip(means, rows.min(0), rows.max(0)), np.float32)
