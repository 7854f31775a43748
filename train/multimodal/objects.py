"""From what is recognised in the key frames of a clip to probabilities of its sound events.

Li et al. 2018, section 2.2.2. Of each key frame's distribution over 1,000 objects (Inception-v4)
the ten most likely are kept and renormalised ("rectified"); the key frames are added and the sum is
rectified again: ten objects of the clip, whose probabilities go to the events that word vectors say
(train/multimodal/word_vectors.py). Of equal probabilities at the tenth place the first are kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.train.multimodal.word_vectors import ObjectEvents

Array = NDArray[np.float64]

TOP_OBJECTS = 10


def rectify(probabilities: NDArray[Any], top: int = TOP_OBJECTS) -> Array:
    """Keep the most likely of each distribution and make them add up to 1.

    Parameters
    ----------
    probabilities : (..., n_objects), zero or more; need not add up to 1
    top : how many are kept; all where there are no more

    Returns
    -------
    (..., n_objects) float64

    Raises
    ------
    InputError
        A value below zero or that is no number, or a distribution that is zero everywhere.
    """
    values = np.asarray(probabilities, np.float64)
    right = np.isfinite(values) & (values >= 0)
    if not right.all():
        raise InputError(
            f"object probabilities: one is {values[~right][0]}; expected numbers from 0, after the "
            "softmax"
        )
    order = np.argsort(-values, axis=-1, kind="stable")
    kept = np.zeros_like(values)
    best = order[..., :top]
    np.put_along_axis(kept, best, np.take_along_axis(values, best, -1), -1)
    total = kept.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise InputError(
            "object probabilities: a key frame has none above 0; expected a softmax's output"
        )
    kept /= total
    return kept


def clip_objects(frames: NDArray[Any], top: int = TOP_OBJECTS) -> Array:
    """Objects of a clip from those of its key frames.

    frames : (n_key_frames, n_objects) probabilities

    Returns (n_objects,), at most `top` above zero, which add up to 1. Raises InputError as rectify.
    """
    if len(frames) == 0:
        raise InputError("object probabilities: the clip has no key frame; expected at least one")
    return rectify(rectify(frames, top).sum(axis=0), top)


def event_probabilities(objects: NDArray[Any], mapping: ObjectEvents) -> Array:
    """Probabilities of sound events in clips, as their pictures tell.

    Parameters
    ----------
    objects : (..., n_objects), as of clip_objects
    mapping : of these objects

    Returns
    -------
    (..., n_events) float64
        Sums over the objects that speak for each event; at most 1 together, less by what objects
        without an event have.

    Raises InputError where there are more or fewer objects than in the mapping.
    """
    values = np.asarray(objects, np.float64)
    if values.shape[-1] != len(mapping.objects):
        raise InputError(
            f"object probabilities: {values.shape[-1]} of them; expected {len(mapping.objects)}, "
            "the names that the mapping was made of"
        )
    events = np.arange(len(mapping.events))
    goes_to = (mapping.event[:, None] == events).astype(np.float64)
    out: Array = values @ goes_to
    return out
