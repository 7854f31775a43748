"""Fusion of what is heard and what is seen: a weighted average, with weights for each class.

Li et al. 2018, sections 2.3 and 3.4: the branch with the higher F1 of a class on validation data
gets .8 of its weight, the other .2. Each branch is judged at the threshold that is best for it
(section 3.3); where both are as good, sound has the greater weight, for the sensor has a
microphone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError
from soundpost.train.multimodal.class_thresholds import class_thresholds

Array = NDArray[np.float64]

BETTER_WEIGHT = 0.8


def video_weights(
    audio_f1: NDArray[Any], video_f1: NDArray[Any], better: float = BETTER_WEIGHT
) -> Array:
    """Weight of the video branch for each class; that of the audio branch is the rest to 1.

    audio_f1, video_f1 : (n_classes,) on validation data; better : weight of the better one, .5 to 1

    Raises InputError where the lengths differ or `better` is out of range.
    """
    audio, video = np.asarray(audio_f1, np.float64), np.asarray(video_f1, np.float64)
    if audio.shape != video.shape or audio.ndim != 1:
        raise InputError(
            f"fusion: F1 of shapes {audio.shape} (audio) and {video.shape} (video); expected one "
            "number for each class from both branches"
        )
    if not 0.5 <= better <= 1:
        raise InputError(f"fusion: the better branch weighs {better}; expected 0.5 to 1")
    weights: Array = np.where(video > audio, better, 1 - better)
    return weights


def choose_video_weights(
    audio: NDArray[Any],
    video: NDArray[Any],
    truth: NDArray[Any],
    better: float = BETTER_WEIGHT,
) -> Array:
    """Weights from the scores of both branches on validation clips.

    audio, video : (n_clips, n_classes) 0 to 1; truth : (n_clips, n_classes) 0 or 1

    Returns (n_classes,), as video_weights. Raises InputError as it and class_thresholds do.
    """
    audio_f1, video_f1 = (class_thresholds(scores, truth).f1 for scores in (audio, video))
    return video_weights(audio_f1, video_f1, better)


def fuse(audio: NDArray[Any], video: NDArray[Any], weights: Array) -> Array:
    """Weighted average of two branches' probabilities.

    audio, video : (..., n_classes); weights : (n_classes,) of the video branch

    Raises InputError where the shapes differ.
    """
    heard, seen = np.asarray(audio, np.float64), np.asarray(video, np.float64)
    if heard.shape != seen.shape or heard.shape[-1:] != weights.shape:
        raise InputError(
            f"fusion: audio {heard.shape}, video {seen.shape}, weights {weights.shape}; expected "
            "the same clips and classes in all"
        )
    fused: Array = (1 - weights) * heard + weights * seen
    return fused
