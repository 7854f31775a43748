"""Labels by machine: what a visual and an audio network's scores make of an unlabelled clip.

Jia et al. 2019, section 2: three pictures a second go through a visual network, and its scores are
averaged over the clip of 3 to 5 s; the ten highest are the visual labels. An audio network scores
each second, not overlapping; of the averages the five highest count that reach a fixed threshold,
which leaves three on average. Clips are divided into 4,096 folds "by Universally Unique Identifier
(UUID) Hash". Where the text leaves a choice:

- The threshold is not given: `audio_threshold_for` finds the one that leaves three labels on
  average, from the scores of some clips.
- Visual labels have no threshold. Of 11,166 classes ten are few; a vocabulary of twenty needs one
  (`visual_threshold`), or half of it is in every clip.
- Sound beyond the last whole second is left out; of a clip shorter than a second it is filled up
  with silence.
- A label that a visual and an audio vocabulary have in common stands for two classes: the paper
  counts 11,693 for 11,166 and 527.
- The hash is the name-based UUID of the clip's id (version 5, RFC 9562, in the namespace of URLs),
  modulo the number of folds.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import ConfigError, InputError

Array = NDArray[np.float64]
FloatArray = NDArray[np.float32]
Source = Literal["visual", "audio"]

SOURCES: tuple[Source, ...] = ("visual", "audio")
# Of the labels of a clip that come from its sound, on average.
AUDIO_LABELS_PER_CLIP = 3.0
# Of the seconds that an audio network hears.
AUDIO_RATE_HZ = 16_000


@dataclass(frozen=True)
class LabellingRules:
    """Section 2 of jia2019.

    frames_per_s : pictures that a visual network is shown
    top_visual, top_audio : most labels of a clip from either network
    visual_threshold, audio_threshold : least mean score of a label
    n_folds : parts of the whole, each a table of its own
    """

    frames_per_s: float = 3.0
    top_visual: int = 10
    top_audio: int = 5
    visual_threshold: float = 0.0
    audio_threshold: float = 0.1
    n_folds: int = 4_096

    def __post_init__(self) -> None:
        for name in ("frames_per_s", "top_visual", "top_audio", "n_folds"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"labelling: {name} is {getattr(self, name)}; expected a number above 0"
                )
        for name in ("visual_threshold", "audio_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"labelling: {name} is {getattr(self, name)}; expected 0 to 1")

    def labels_of(
        self, source: Source, means: Array, labels: Sequence[str]
    ) -> tuple[MachineLabel, ...]:
        """Labels of a clip by one network's mean scores, (n_labels,)."""
        if source == "visual":
            return top_labels(means, labels, source, self.top_visual, self.visual_threshold)
        return top_labels(means, labels, source, self.top_audio, self.audio_threshold)


@dataclass(frozen=True)
class MachineLabel:
    """A label, whose network says so, and its mean score, 0 to 1."""

    label: str
    score: float
    source: Source


def fold_of(clip_id: str, n_folds: int) -> int:
    """Fold of a clip, 0 to n_folds - 1: by its id alone, whatever other clips there are."""
    return uuid.uuid5(uuid.NAMESPACE_URL, clip_id).int % n_folds


def whole_seconds(samples: FloatArray, rate_hz: int) -> FloatArray:
    """Sound of a clip cut into seconds.

    samples : (n_samples,)

    Returns (n_seconds, rate_hz). Raises InputError where there is no sample.
    """
    if len(samples) == 0:
        raise InputError("holds no sound; expected a second or more")
    if len(samples) < rate_hz:
        samples = np.pad(samples, (0, rate_hz - len(samples)))
    n_seconds = len(samples) // rate_hz
    return samples[: n_seconds * rate_hz].reshape(n_seconds, rate_hz)


def mean_scores(scores: NDArray[Any], n_labels: int, who: str) -> Array:
    """Mean over the pictures, or the seconds, of a clip.

    Parameters
    ----------
    scores : (n, n_labels) 0 to 1, n at least 1
    who : network, for messages

    Returns (n_labels,). Raises InputError for anything else: then the network is at fault.
    """
    values = np.asarray(scores, np.float64)
    if values.ndim != 2 or values.shape[1] != n_labels or len(values) == 0:
        raise InputError(
            f"{who}: scores of shape {values.shape}; expected (pictures or seconds, {n_labels}), a "
            "column for each label"
        )
    right = np.isfinite(values) & (values >= 0) & (values <= 1)
    if not right.all():
        raise InputError(
            f"{who}: a score is {values[~right][0]}; expected 0 to 1, after the sigmoid or softmax"
        )
    mean: Array = values.mean(axis=0)
    return mean


def top_labels(
    means: Array, labels: Sequence[str], source: Source, top: int, threshold: float = 0.0
) -> tuple[MachineLabel, ...]:
    """Labels with the highest mean scores, the highest first; of equal ones the first in the list.

    means : (n_labels,); threshold : least score
    """
    order = np.argsort(-means, kind="stable")[:top]
    # Rounded as they are written: a table and what is read from it are the same.
    return tuple(
        MachineLabel(labels[k], round(float(means[k]), 6), source)
        for k in order
        if means[k] >= threshold
    )


def audio_threshold_for(
    means: NDArray[Any],
    top: int = LabellingRules.top_audio,
    wanted: float = AUDIO_LABELS_PER_CLIP,
) -> float:
    """The threshold at which clips have a wanted number of audio labels on average.

    Parameters
    ----------
    means : (n_clips, n_labels) mean scores of some clips
    top : most labels of a clip
    wanted : labels of a clip on average

    Returns
    -------
    float
        Half-way between the last score that counts and the first that does not; 0 where `top`
        labels of every clip are too few. Among equal scores all count.

    Raises InputError where there is no clip.
    """
    values = np.asarray(means, np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"scores of shape {values.shape}; expected clips by labels, some of each")
    best = -np.sort(-values, axis=1)[:, :top]
    ranked = -np.sort(-best.ravel())
    n = round(wanted * len(values))
    if n >= len(ranked):
        return 0.0
    last = ranked[max(0, n - 1)]
    below = ranked[ranked < last]
    return float((last + below[0]) / 2) if len(below) else 0.0
