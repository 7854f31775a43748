"""Scenes that a network learns in seconds: bands of the log-mel that go on and off in noise.

As a program it trains on them: `synthetic.py RUN`, for a test that kills it.
"""

import sys
from pathlib import Path

import torch

from soundpost.train.sed.fitting import Validation, fit_pair
from soundpost.train.sed.recipe import detection_recipe_from_dict
from soundpost.train.sed.scenes import SceneBatch

N_FRAMES, N_MELS = 100, 16
BANDS = ((1, 4), (7, 10), (12, 15))
N_LABELS = len(BANDS)

SMALL = {
    "front_end": {"n_mels": N_MELS},
    "model": {
        "width": 0.1,
        "gru_units": 80,
        "student": {"kernels": [5, 3, 3], "mel_pools": [2, 2, 4]},
        "teacher": {"mel_pools": [2, 2, 2, 2, 1], "dropout": 0.1},
    },
    "batch": {"strong": 4, "weak": 4, "unlabelled": 4},
    "training": {"epochs": 4, "learning_rate": 3e-3, "report_every": 2},
}


def make_batch(seed, n_strong=4, n_weak=4, n_unlabelled=4):
    """One event per class in about half of the scenes."""
    g = torch.Generator().manual_seed(seed)
    n = n_strong + n_weak + n_unlabelled
    log_mel = torch.randn((n, N_FRAMES, N_MELS), generator=g) - 6.0
    truth = torch.zeros(n, N_FRAMES, N_LABELS)
    for i in range(n):
        for k, (low, high) in enumerate(BANDS):
            if torch.rand((), generator=g) < 0.5:
                onset = int(torch.randint(0, N_FRAMES - 50, (), generator=g))
                length = int(torch.randint(25, 50, (), generator=g))
                truth[i, onset : onset + length, k] = 1.0
                log_mel[i, onset : onset + length, low:high] += 4.0
    has_frames = torch.arange(n) < n_strong
    has_tags = torch.arange(n) < n_strong + n_weak
    clips = truth.amax(1)
    return SceneBatch(
        log_mel,
        truth * has_frames[:, None, None],
        clips * has_tags[:, None],
        has_frames,
        has_tags,
    )


class Synthetic:
    """An EpochSource."""

    def __init__(self, n_batches=6):
        self.n_batches = n_batches

    def epoch(self, number):
        for i in range(self.n_batches):
            yield make_batch(1000 * number + i)


def validation(seed=99):
    """Strong scenes that are not trained on, judged by the F1 of frames and of clips."""
    batch = make_batch(seed, 24, 0, 0)

    def f1(scores, truth):
        found = torch.from_numpy(scores) >= 0.5
        hits = (found & (truth > 0)).sum()
        return float(2 * hits / (found.sum() + (truth > 0).sum()))

    def judge(frames, clips):
        return {
            "frame_f1": round(f1(frames, batch.frame_targets), 4),
            "clip_f1": round(f1(clips, batch.clip_targets), 4),
        }

    return Validation([batch], judge)


def recipe_of(**tables):
    """SMALL with changes by table."""
    merged = {name: dict(table) for name, table in SMALL.items()}
    for name, table in tables.items():
        merged[name] = merged.get(name, {}) | table
    return detection_recipe_from_dict(merged, "synthetic")


def fit(run):
    """Four epochs with everything, validated every second one."""
    fit_pair(
        recipe_of(method={"distillation": "tfd", "focal": True, "tau": 2}),
        N_LABELS,
        Synthetic(),
        run,
        torch.device("cpu"),
        validation=validation(),
        quiet=True,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    fit(Path(sys.argv[1]))
