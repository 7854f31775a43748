"""Judging a bundle, as the sensor runs it, on the labelled clips of a data set.

A clip's score is that of the student while it learnt (device_students.py): of a bundle of kind
`window` the mean probability over its windows, 250 ms apart; of kind `frames` linear softmax over
its frames. What a clip lacks at a window's length is silent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from soundpost.device.bundle import open_bundle, score_features
from soundpost.device.errors import InputError
from soundpost.device.features import FloatArray, log_mel
from soundpost.device.manifest import KIND_FRAMES
from soundpost.train.multimodal.clip_media import ReadSet
from soundpost.train.multimodal.device_students import linear_softmax, mean_probability
from soundpost.train.multimodal.ensembles import TaggingFigures, tagging_figures


@dataclass(frozen=True)
class BundleTags:
    """Figures of a bundle on clips.

    labels : that both the bundle and the set have, which are judged
    unknown : labels of the set that the bundle does not know
    without_sound : ids of clips that were left out
    scores : (n_clips, n_labels)
    """

    model: str
    runtime: str
    figures: TaggingFigures
    labels: tuple[str, ...]
    unknown: tuple[str, ...]
    without_sound: tuple[str, ...]
    clip_ids: tuple[str, ...]
    scores: FloatArray

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without the scores."""
        table = {
            "model": self.model,
            "runtime": self.runtime,
            "unknown": list(self.unknown),
            "without_sound": list(self.without_sound),
        }
        return table | dataclasses.asdict(self.figures)


def clip_score(logits: FloatArray, *, frames: bool) -> FloatArray:
    """Probabilities of a clip, (n_labels,), by logits of its frames or windows, (n, n_labels)."""
    pool = linear_softmax if frames else mean_probability
    pooled: FloatArray = pool(torch.from_numpy(logits)[None])[0].sigmoid().numpy()
    return pooled


def evaluate_bundle_tags(
    path: Path,
    read: ReadSet,
    splits: Sequence[str] = (),
    *,
    runtime: str = "auto",
    quiet: bool = False,
) -> BundleTags:
    """Score every labelled clip with sound.

    Parameters
    ----------
    path : a bundle file of either kind
    splits : of the set; all by default

    Raises
    ------
    InputError
        There is no such clip, none of the labels is known to the bundle, or a file cannot be used.
    """
    bundle, interpreter, _ = open_bundle(path, runtime)
    manifest, of = bundle.manifest, read.clips
    labelled = [clip for clip in (of.of(*splits) if splits else of).clips if clip.labelled]
    clips = [clip for clip in labelled if clip.has("audio")]
    if not clips:
        raise InputError(
            f"{of.folder}: none of its {len(labelled)} labelled clips has sound; soundpost dataset "
            "check lists what is missing"
        )
    labels = tuple(label for label in manifest.labels if label in of.labels)
    if not labels:
        raise InputError(
            f"{of.folder}: none of its labels ({', '.join(of.labels[:5])} ...) is known to {path}"
        )
    columns = [manifest.labels.index(label) for label in labels]
    front_end = manifest.front_end
    scores = []
    for clip in tqdm(clips, "scoring", unit="clip", disable=quiet, leave=False):
        sound = read.media.sound(clip, front_end.sample_rate_hz)
        padded = np.pad(sound, (0, max(0, manifest.window_samples - len(sound))))
        logits = score_features(log_mel(padded, front_end), manifest, interpreter)
        scores.append(clip_score(logits, frames=manifest.kind == KIND_FRAMES)[columns])
    truth = np.array([[label in clip.labels for label in labels] for clip in clips], np.float32)
    stacked = np.stack(scores)
    return BundleTags(
        f"bundle {path} ({manifest.weights})",
        interpreter.runtime,
        tagging_figures(stacked, truth, labels),
        labels,
        tuple(label for label in of.labels if label not in labels),
        tuple(clip.id for clip in labelled if not clip.has("audio")),
        tuple(clip.id for clip in clips),
        stacked,
    )
