"""Whether one network is better than another on the same clips, or by chance of the clips drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean_average_precisions(scores: Array, truth: Array, counts: Array) -> Array:
    """mAP of each of many draws of the clips.

    Parameters
    ----------
    scores, truth : (n_clips, n_labels)
    counts : (n_draws, n_clips), how many times each clip was drawn

    Returns
    -------
    (n_draws,), over the labels that a draw has clips with and without
    """
    total, n_labels = np.zeros(len(counts)), np.zeros(len(counts))
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        drawn = counts[:, order]
        hits = drawn * truth[order, label]
        n_hits = hits.sum(1)
        known = (n_hits > 0) & (n_hits < drawn.sum(1))
        precision = np.cumsum(hits, 1) / np.maximum(np.cumsum(drawn, 1), 1)
        total += np.where(known, (hits * precision).sum(1) / np.maximum(n_hits, 1), 0.0)
        n_labels += known
    return total / n_labels


def paired_interval(
    scores: Array, other: Array, truth: Array, n_draws: int = 2_000, seed: int = 0
) -> tuple[float, float, float]:
    """Difference of mAP, and the ends of its 95 % interval over draws of the clips.

    The clips are drawn with replacement, the same ones for both (Efron 1979). What another training
    run would give is not in it.
    """
    rng = np.random.default_rng(seed)
    n_clips = len(truth)
    counts = rng.multinomial(n_clips, np.full(n_clips, 1 / n_clips), n_draws).astype(np.float64)
    counts[0] = 1.0
    difference = mean_average_precisions(scores, truth, counts) - mean_average_precisions(
        other, truth, counts
    )
    low, high = np.quantile(difference[1:], [0.025, 0.975])
    return float(difference[0]), float(low), float(high)
