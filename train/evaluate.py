"""Judging a trained run or a bundle on a folder of labelled clips."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from soundpost.device.bundle import open_bundle
from soundpost.device.errors import InputError
from soundpost.device.frame_interpreter import FrameInterpreter
from soundpost.train.clips import Clip, load_waveforms, read_clip_set
from soundpost.train.loop import score_patches
from soundpost.train.metrics import ClipFigures, clip_figures, clip_means
from soundpost.train.run import choose_device, load_run
from soundpost.train.windows import windows_of


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model on clips.

    skipped : clips whose label the model does not know
    """

    model: str
    runtime: str
    figures: ClipFigures
    labels: tuple[str, ...]
    skipped: int


def evaluate(
    model: Path,
    data: Path,
    fold: int | None,
    *,
    runtime: str = "auto",
    device: str = "auto",
    quiet: bool = False,
) -> Evaluation:
    """Score every window of every clip; a clip's score is the mean of its windows.

    Parameters
    ----------
    model : run folder (float, in torch) or bundle file (quantised, in a TFLite runtime)
    fold : clips of this fold only; all by default

    Raises
    ------
    InputError
        Nothing to judge: no clip of that fold, or none with a label that the model knows.
    """
    clip_set = read_clip_set(data)
    chosen = [clip for clip in clip_set.clips if fold is None or clip.fold == fold]
    if not chosen:
        known = ", ".join(map(str, clip_set.folds()))
        raise InputError(f"{data}: has no fold {fold}; give --fold one of {known}")
    if model.is_dir():
        trained = load_run(model)
        where = choose_device(device)
        network = trained.network.to(where)
        labels, front_end, n_frames = trained.labels, trained.front_end, trained.n_frames
        name, engine = f"run {model}", f"torch {torch.__version__} on {where.type}"
    else:
        bundle, interpreter, _ = open_bundle(model, runtime)
        manifest = bundle.manifest
        if isinstance(interpreter, FrameInterpreter):
            raise InputError(
                f"{model}: is of kind '{manifest.kind}', which tells when sounds begin and end, "
                "not what a clip is; give a run or a bundle of kind 'window'"
            )
        labels, front_end, n_frames = manifest.labels, manifest.front_end, manifest.n_frames
        score = interpreter.run
        name, engine = f"bundle {model} ({manifest.weights})", interpreter.runtime
    kept: list[Clip] = [clip for clip in chosen if clip.label in labels]
    if not kept:
        raise InputError(
            f"{data}: none of its labels ({', '.join(clip_set.labels[:5])} ...) is known to {model}"
        )
    waveforms = load_waveforms(kept, front_end.sample_rate_hz, quiet=quiet)
    windows = windows_of(waveforms, front_end, n_frames)
    if model.is_dir():
        logits = score_patches(network, windows.patches, where)
    else:
        bar = tqdm(windows.patches, "scoring", unit="window", disable=quiet, leave=False)
        logits = np.stack([score(patch).logits for patch in bar])
    scores = clip_means(1 / (1 + np.exp(-logits)), windows.clip, len(kept))
    truth: NDArray[np.int64] = np.array([labels.index(clip.label) for clip in kept])
    figures = clip_figures(scores, truth, labels)
    return Evaluation(name, engine, figures, labels, len(chosen) - len(kept))
