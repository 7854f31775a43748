"""Learning from labels by machine: batches of random seconds, the loss, the scores of clips.

Jia et al. 2019, section 3. What an epoch draws follows from its number and the seed alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from soundpost.device.features import FloatArray
from soundpost.train.multimodal.epoch_order import EpochOrder
from soundpost.train.multimodal.machine_targets import MachineTargets
from soundpost.train.multimodal.method import Method, Stage
from soundpost.train.multimodal.second_features import HeardClips

IntArray = NDArray[np.int64]
# Seconds that are scored at a time.
_SCORED_AT_ONCE = 256


class PatchBatch(NamedTuple):
    """Seconds of some clips, and their labels.

    patches : (n, 1, n_frames, n_mels) float32; targets : (n, n_labels) float32, 0 or 1
    """

    patches: Tensor
    targets: Tensor


class MachineBatches:
    """Batches of a second of each clip: what `fit_method` takes.

    Parameters
    ----------
    heard : clips; targets : their labels
    rows, labelled : (n_clips,) of each clip to learn from, its number in either
    anywhere : a second may begin at any frame, not only where the second before ends

    Raises InputError where there are fewer than two clips.
    """

    def __init__(
        self,
        heard: HeardClips,
        targets: MachineTargets,
        rows: IntArray,
        labelled: IntArray,
        batch_size: int,
        seed: int,
        *,
        anywhere: bool = False,
    ) -> None:
        self.heard, self.targets, self.seed = heard, targets, seed
        self.rows, self.labelled, self.anywhere = rows, labelled, anywhere
        self.order = EpochOrder(np.arange(len(rows)), batch_size, seed)
        self.batch_size, self.n_batches = self.order.batch_size, self.order.n_batches
        # Frames at which the last second of each clip begins.
        self.last = heard.n_frames()[rows] - heard.frames

    def drawn(self, epoch: int, number: int) -> tuple[IntArray, IntArray]:
        """Clips of one batch, by their place among those to learn from, and their first frames."""
        chosen, rng = self.order.batch(epoch, number), self.order.rng(epoch, number)
        step = 1 if self.anywhere else self.heard.frames
        return chosen, step * rng.integers(0, self.last[chosen] // step + 1)

    def batch(self, epoch: int, number: int) -> PatchBatch:
        """One batch, on the CPU."""
        chosen, starts = self.drawn(epoch, number)
        patches = self.heard.patches(self.rows[chosen].tolist(), starts.tolist())
        targets = self.targets.draw(self.labelled[chosen], epoch, self.seed)
        return PatchBatch(torch.from_numpy(patches)[:, None], targets)


class MachineLearning(Method[PatchBatch]):
    """A network learns labels by machine from sound: equation 1, and an L2 penalty.

    student : patches to (logits, embedding)
    l2 : of the penalty, see l2_penalty
    """

    def __init__(self, student: nn.Module, l2: float) -> None:
        super().__init__()
        self.stages = (Stage("labels", ("student",)),)
        self.student = student
        self.l2 = l2

    def losses(self, batch: PatchBatch, stage: Stage) -> dict[str, Tensor]:
        """Terms "labels" and "l2"."""
        logits, _ = self.student(batch.patches)
        labels = functional.binary_cross_entropy_with_logits(logits.float(), batch.targets)
        l2 = l2_penalty(self.student, self.l2)
        return {"loss": labels + l2, "labels": labels, "l2": l2}


def l2_penalty(network: nn.Module, factor: float) -> Tensor:
    """factor / 2 * the sum of the squares of all kernels that learn.

    Neither biases nor the factors of batch normalisation count.
    """
    kernels = [w for w in network.parameters() if w.dim() > 1 and w.requires_grad]
    if not factor or not kernels:
        return torch.zeros((), device=next(network.parameters()).device)
    # In float32: in mixed precision the squares would be added up with three digits.
    with torch.autocast(kernels[0].device.type, enabled=False):
        total = torch.stack([kernel.square().sum() for kernel in kernels]).sum()
    return factor / 2 * total


@torch.no_grad()
def score_seconds(
    network: nn.Module, heard: HeardClips, rows: IntArray, device: torch.device
) -> FloatArray:
    """Scores of clips, each the mean over its seconds of what is said of them after the sigmoid.

    network : patches to (logits, embedding), in evaluation mode on the device

    Returns (n_clips, n_labels) float32, in the order of rows.
    """
    found: list[FloatArray] = []
    waiting: list[FloatArray] = []

    def score() -> None:
        if not waiting:
            return
        patches = torch.from_numpy(np.concatenate(waiting))[:, None].to(device)
        logits, _ = network(patches)
        scores = logits.float().sigmoid().cpu()
        for of_clip in scores.split([len(seconds) for seconds in waiting]):
            found.append(of_clip.mean(0).numpy())
        waiting.clear()

    for row in rows:
        waiting.append(heard.seconds(int(row)))
        if sum(map(len, waiting)) >= _SCORED_AT_ONCE:
            score()
    score()
    return np.stack(found)
