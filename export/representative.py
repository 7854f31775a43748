"""Patches that set the int8 ranges: real ones of every class, from the floor to the loudest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import ExportError
from soundpost.device.features import FloatArray, FrontEnd

# 100 to 200 real patches: fewer leave ranges to chance, more changed nothing.
N_PATCHES = 160
# Of these, the quietest and the loudest of all are always in.
N_EXTREME = 5


def draw_representative(
    patches: FloatArray,
    labels: NDArray[np.int64],
    front_end: FrontEnd,
    seed: int,
    n_patches: int = N_PATCHES,
) -> FloatArray:
    """Representative set of training windows.

    Classes take turns, each giving a random window of its own, so that a rare one is not missed;
    the quietest and loudest windows come on top. The last patch is the loudest with one cell at
    each end of the clamp: it pins the input's range to the front end's without pushing the layers
    behind it beyond what real sound does.

    Parameters
    ----------
    patches : (n, n_frames, n_mels) float32, training windows
    labels : (n,) class of each; -1 where it has none
    seed : same seed, same set

    Returns
    -------
    (at most n_patches + 2 N_EXTREME + 1, n_frames, n_mels) float32

    Raises ExportError where there are fewer windows than a range can be estimated from.
    """
    if len(patches) < 2 * N_EXTREME:
        raise ExportError(
            f"{len(patches)} training windows are too few to set int8 ranges: expected at least "
            f"{2 * N_EXTREME}; train on more clips"
        )
    rng = np.random.default_rng([seed, 0x18])
    queues = [rng.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    chosen: list[int] = []
    for turn in range(max(len(queue) for queue in queues)):
        takers = [int(queue[turn]) for queue in queues if turn < len(queue)]
        rng.shuffle(takers)
        chosen += takers
        if len(chosen) >= n_patches:
            break
    levels = np.argsort(patches.mean(axis=(1, 2)), kind="stable")
    extremes = [*levels[:N_EXTREME], *levels[-N_EXTREME:]]
    indices = list(dict.fromkeys([*chosen[:n_patches], *(int(i) for i in extremes)]))
    pin = patches[levels[-1]].copy()
    pin.flat[pin.argmin()] = front_end.clamp_low
    pin.flat[pin.argmax()] = front_end.clamp_high
    chosen_patches: FloatArray = np.concatenate([patches[indices], pin[None]])
    return chosen_patches
