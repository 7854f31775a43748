"""Features of a student's layers on another labelled data set: table 4 of perez2020.

A clip is heard in parts of five seconds, what the students take, as few as cover it; its features
are the mean over them. The class of a clip is its first label, which of a world's take is that of
the main object. Who trains the classifiers: a set's own splits "train" and "test", and "validation"
where it has one, else a tenth of the groups (places, authors) of "train"; of a set without such
splits (folds, scenarios) 80 % of the groups are drawn to train and 10 % to validate.

Features are kept beside the set: a job that was killed goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

from soundpost.device.errors import InputError, UsageError
from soundpost.device.files import write_atomically
from soundpost.train.backbones.download import file_sha256
from soundpost.train.backbones.waveform import (
    CLIP_S,
    CLIP_SAMPLES,
    SAMPLE_RATE_HZ,
    student_waveform,
)
from soundpost.train.datasets.action_splits import Split, draw_sides
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.datasets.media_cache import cache_folder, open_rows
from soundpost.train.datasets.segments import Folders
from soundpost.train.multimodal.action_networks import STUDENTS
from soundpost.train.multimodal.action_run import ActionRun
from soundpost.train.multimodal.clip_media import ClipMedia, read_media_set
from soundpost.train.multimodal.frozen_features import (
    FloatArray,
    IntArray,
    LayerAccuracy,
    LayeredNetwork,
    frozen_features,
    judge_layers,
    layer_table,
)
from soundpost.train.multimodal.soft_labelling import part_starts
from soundpost.train.multimodal.tagging_inputs import FEATURES
from soundpost.train.run import WEIGHTS
from soundpost.train.sed.pictures import BLUE, ORANGE, save

TABLE, FIGURES, PICTURE = "layers.md", "layers.json", "layers.png"
# The last layer's outputs are the scores.
_SCORES = "fc2"
# Table 4: accuracies of k-NN and SVM on DCASE-2018, of students taught by DualCamNet.
PUBLISHED_ON = "scenes"
PUBLISHED: Final = {
    "hearnet": {
        "fc1": (0.2419, 0.2609),
        "conv5": (0.2488, 0.2740),
        "conv4": (0.2631, 0.2967),
        "conv3": (0.2754, 0.3100),
        "conv2": (0.2810, 0.3403),
    },
    "soundnet5": {"fc1": (0.2746, 0.3014), "conv4": (0.4067, 0.4420)},
}


@dataclass(frozen=True)
class JudgedLayers:
    """What a network's layers are worth on a set.

    network : of the run
    kind, folder : of the set
    n_clips : of training, validation and test
    rows : the last layer first
    """

    network: str
    kind: str
    folder: Path
    n_clips: tuple[int, int, int]
    rows: tuple[LayerAccuracy, ...]

    def table(self) -> str:
        """Markdown, beside the published figures where there are some of this kind of set."""
        published = PUBLISHED[self.network] if self.kind == PUBLISHED_ON else None
        return layer_table(self.rows, published)

    def line(self) -> str:
        """What was judged."""
        train, validation, test = self.n_clips
        return (
            f"{self.network} on {self.folder.name} ({self.kind}): {train} clips train the "
            f"classifiers, {validation} choose their settings, {test} are judged"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "network": self.network,
            "kind": self.kind,
            "clips": dict(zip(("train", "validation", "test"), self.n_clips, strict=True)),
            "layers": [asdict(row) for row in self.rows],
        }


def judge_run_layers(
    run: ActionRun, kind: str, folder: Path, device: torch.device, *, quiet: bool = False
) -> JudgedLayers:
    """k-NN and SVM on what each layer of a student makes of a set's clips.

    kind : layout of the folder (datasets/kinds.py)

    Raises UsageError where the run is no student's, InputError where the set cannot be used or is
    too small for its split.
    """
    name = run.recipe.model.network
    if name not in STUDENTS:
        raise UsageError(
            f"--layers: {run.folder} is a run of {name}, which takes more than sound; give one of "
            f"{' or '.join(STUDENTS)}"
        )
    read = read_media_set(kind, Folders(folder))
    clips = [clip for clip in read.clips.having("audio").clips if clip.labelled and clip.labels]
    parts = split_clips(clips)
    sizes = {side: len(getattr(parts, side)) for side in ("train", "validation", "test")}
    for side, n in sizes.items():
        if n == 0:
            raise InputError(
                f"{folder}: no clip is left for {side} of its {len(clips)} labelled ones with "
                "sound; give a larger set"
            )
    features = set_features(run, clips, read.media, cache_folder(folder, FEATURES), device, quiet)
    labels = {label: place for place, label in enumerate(read.clips.labels)}
    classes = np.array([labels[clip.labels[0]] for clip in clips], np.int64)
    rows = judge_layers(features, classes, parts)
    return JudgedLayers(
        name, kind, folder, (sizes["train"], sizes["validation"], sizes["test"]), rows
    )


def split_clips(clips: Sequence[MediaClip], seed: int = 0) -> Split[IntArray]:
    """Numbers of clips by side; see above."""
    splits = np.array([clip.split for clip in clips])
    drawn = np.array(draw_sides([clip.group or clip.id for clip in clips], seed))
    if {"train", "test"} <= set(splits):
        sides = splits
        if "validation" not in splits:
            sides = np.where((splits == "train") & (drawn == "validation"), "validation", splits)
    else:
        sides = drawn
    return Split(*(np.flatnonzero(sides == side) for side in ("train", "validation", "test")))


def set_features(
    run: ActionRun,
    clips: Sequence[MediaClip],
    media: ClipMedia,
    folder: Path,
    device: torch.device,
    quiet: bool,
) -> dict[str, FloatArray]:
    """Features of all clips by layer, the last one first, (n_clips, size) each.

    folder : where they are kept
    """
    # Checked by judge_run_layers: a student.
    network = cast(LayeredNetwork, run.network.to(device))

    def features(waveforms: FloatArray) -> dict[str, FloatArray]:
        found = frozen_features(network, torch.from_numpy(waveforms).to(device))
        return {name: values.mean(0) for name, values in found.items() if name != _SCORES}

    def row(clip: MediaClip) -> FloatArray:
        heard = features(clip_waveforms(media.sound(clip, SAMPLE_RATE_HZ)))
        return np.concatenate([*heard.values()])[None]

    sizes = {n: len(v) for n, v in features(np.ones((1, CLIP_SAMPLES), np.float32)).items()}
    made_by = ["layers", file_sha256(run.folder / WEIGHTS), sizes]
    key = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()
    rows = open_rows(clips, key, row, folder, title="features", quiet=quiet)
    every = np.concatenate([rows[number] for number in range(len(rows))])
    ends = np.cumsum([*sizes.values()])[:-1]
    found = dict(zip(sizes, np.split(every, ends, axis=1), strict=True))
    return dict(reversed(found.items()))


def clip_waveforms(samples: FloatArray) -> FloatArray:
    """A clip's parts as students hear them, (n_parts, 110250); samples at 22,050 Hz."""
    starts_s, _ = part_starts(len(samples) / SAMPLE_RATE_HZ, CLIP_S)
    return np.stack(
        [
            student_waveform(samples[round(start * SAMPLE_RATE_HZ) :], SAMPLE_RATE_HZ)
            for start in starts_s
        ]
    )


def write_layers(judged: JudgedLayers, out: Path) -> None:
    """layers.md, layers.json and layers.png in a folder, which is made; InputError where not."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made: {error.strerror}; give another --out") from error
    lines = [judged.line(), "", judged.table(), f"![accuracies]({PICTURE})", ""]
    write_atomically(out / TABLE, "\n".join(lines).encode())
    write_atomically(out / FIGURES, (json.dumps(judged.to_dict(), indent=1) + "\n").encode())
    places = np.arange(len(judged.rows))
    figure, axes = plt.subplots(figsize=(1.5 + 0.9 * len(places), 3.5), layout="constrained")
    for shift, name, title, colour in (
        (-0.2, "knn", "k-NN", BLUE),
        (0.2, "svm", "SVM", ORANGE),
    ):
        heights = [getattr(row, name) for row in judged.rows]
        bars = axes.bar(places + shift, heights, 0.4, color=colour, label=title)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks(places, [row.layer for row in judged.rows])
    axes.set(
        ylim=(0, 1.05),
        ylabel="accuracy",
        title=f"Features of {judged.network} on {judged.folder.name}",
    )
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2)
    save(figure, out / PICTURE)
