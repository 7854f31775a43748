"""Clips that tagging networks learn in seconds: a band that sounds, a direction that is seen.

As a program it trains on them: `small_tagging.py METHOD RUN`, for a test that kills it.
"""

import sys
import time
from pathlib import Path

import torch

from soundpost.train.multimodal.fitting import FitSettings, fit_method
from soundpost.train.multimodal.mutual_networks import (
    AcousticFeature,
    Inputs,
    TaggingBatch,
    TaggingSettings,
)
from soundpost.train.multimodal.tagging_methods import tagging_method

SMALL = TaggingSettings((AcousticFeature(size=8),), 6, 8, (8, 8))
FIT = FitSettings(epochs=3, batch_size=8, learning_rate=1e-2, decay=0.9, report_every=2)


class Clips:
    """An EpochSource: class 0 is heard and seen, class 1 is seen only."""

    batch_size = 8

    def __init__(self, n_batches=3):
        self.n_batches = n_batches

    def batch(self, epoch, number):
        g = torch.Generator().manual_seed(1000 * epoch + number)
        n = self.batch_size
        targets = (torch.rand(n, 2, generator=g) < 0.5).float()
        log_mel = torch.randn(n, 8, 8, generator=g)
        log_mel[:, :, :4] += 2 * targets[:, :1, None]
        visual = torch.randn(n, 3, 6, generator=g)
        visual[:, :, :3] += 2 * targets[:, :1, None]
        visual[:, :, 3:] += 2 * targets[:, 1:, None]
        return TaggingBatch(Inputs((log_mel,), visual), targets)


class Slow(Clips):
    """The same, with time to be killed."""

    def batch(self, epoch, number):
        time.sleep(0.1)
        return super().batch(epoch, number)


def new_method(name, seed=5):
    torch.manual_seed(seed)
    return tagging_method(name, 2, SMALL)


def fit(name, run, source=None, settings=FIT, judge=None):
    """Train a method by name in a folder; the method."""
    run.mkdir(exist_ok=True)
    method = new_method(name)
    device = torch.device("cpu")
    fit_method(method, source or Clips(), settings, run, device, judge=judge, quiet=True)
    return method


if __name__ == "__main__":
    torch.set_num_threads(1)
    fit(sys.argv[1], Path(sys.argv[2]), Slow())
