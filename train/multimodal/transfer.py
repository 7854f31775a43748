"""Transfer of jia2019's audio networks: a classifier on the embeddings of a clip's seconds.

Jia et al. 2019, section 4: the last layer is replaced by one for the classes of the benchmark, and
"we concat the 128-dimensional audio embedding features as the inputs". Where the text leaves a
choice:

- The audio network is not trained any more; that it is can be chosen (`learns`).
- The classifier is one fully connected layer with dropout before it.
- Clips have one length in a benchmark. Of others, ours repeats the seconds of a shorter one from
  its beginning, and leaves out what is beyond in a longer one.
- The optimiser is Adam, as in pre-training. The number of epochs is not given.
- Clips with one class (ESC-50, TUT 2018) are learnt with a softmax, those with several (AudioSet)
  with sigmoids, as in pre-training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from soundpost.device.errors import InputError
from soundpost.train.multimodal.audio_networks import as_encoder
from soundpost.train.multimodal.epoch_order import EpochOrder
from soundpost.train.multimodal.machine_learning import l2_penalty
from soundpost.train.multimodal.method import Method, Stage

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

EMBEDDING_SIZE = 128
# Clips that are scored at a time.
_SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class TransferSettings:
    """Section 4.

    learns : the "classifier" alone, on embeddings that stay as they are; or "all" layers, from the
        pre-trained weights or, without any, from random ones
    dropout : .3 for ESC-50, .5 for AudioSet and TUT 2018
    l2 : penalty, half of it times the squares of all kernels that learn
    """

    learns: str = "classifier"
    dropout: float = 0.3
    l2: float = 1e-6


def same_length(clips: Sequence[NDArray[Any]], n_seconds: int) -> FloatArray:
    """Embeddings of clips, each with the same number of seconds.

    Parameters
    ----------
    clips : of each (n_seconds of its own, embedding_size)
    n_seconds : of the benchmark's clips: 5 of ESC-50, 10 of AudioSet and TUT 2018

    Returns
    -------
    (n_clips, n_seconds, embedding_size) float32

    Raises
    ------
    InputError
        No clip, one without a second, or embeddings of several sizes; the clip's number is named.
    """
    if not clips:
        raise InputError("embeddings: there is no clip; expected at least one")
    size = np.shape(clips[0])[-1:]
    for number, clip in enumerate(clips):
        if np.ndim(clip) != 2 or len(clip) == 0 or np.shape(clip)[-1:] != size:
            raise InputError(
                f"embeddings of clip {number}: shape {np.shape(clip)}; expected (seconds, "
                f"{size[0] if size else EMBEDDING_SIZE}), at least one second"
            )
    rows = [np.asarray(clip, np.float32)[repeated(len(clip), n_seconds)] for clip in clips]
    return np.stack(rows)


def repeated(n_own: int, n_seconds: int) -> IntArray:
    """Which of its own seconds a clip has in each second of the benchmark, (n_seconds,)."""
    return np.arange(n_seconds) % n_own


class TransferClassifier(nn.Module):
    """Concatenated embeddings to scores.

    n_seconds : of each clip; embedding_size : of each second
    """

    def __init__(
        self,
        n_labels: int,
        n_seconds: int,
        dropout: float = TransferSettings.dropout,
        embedding_size: int = EMBEDDING_SIZE,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(n_seconds * embedding_size, n_labels)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(n_clips, n_seconds, embedding_size) to (n_clips, n_labels) before softmax or sigmoid."""
        scores: Tensor = self.classifier(self.dropout(embeddings.flatten(1)))
        return scores


class ClipNetwork(nn.Module):
    """A clip's seconds to scores: each second's embedding, and the classifier on all of them.

    encoder : an audio network without its classifier (audio_networks.without_classifier)
    """

    def __init__(self, encoder: nn.Module, classifier: TransferClassifier) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = classifier

    def embed(self, seconds: Tensor) -> Tensor:
        """(n_clips, n_seconds, n_frames, n_mels) to (n_clips, n_seconds, embedding_size)."""
        embedded: Tensor = as_encoder(self.encoder).embed(seconds.flatten(0, 1)[:, None])
        return embedded.view(*seconds.shape[:2], -1)

    def forward(self, seconds: Tensor) -> Tensor:
        """(n_clips, n_seconds, n_frames, n_mels) to (n_clips, n_labels)."""
        scores: Tensor = self.classifier(self.embed(seconds))
        return scores


def transfer_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy, mean over clips (and over classes where a clip has several).

    targets : (n_clips,) int64, the class of each; or (n_clips, n_labels) float32, 0 or 1
    """
    if targets.ndim == 1:
        return functional.cross_entropy(scores, targets)
    return functional.binary_cross_entropy_with_logits(scores, targets)


class TransferBatch(NamedTuple):
    """What a network takes of some clips, and their targets (see transfer_loss)."""

    inputs: Tensor
    targets: Tensor


# Of the numbers of some clips, what a network takes of them: (n, n_seconds, ...) float32.
InputsOf = Callable[[IntArray], FloatArray]


class TransferBatches:
    """Batches of clips: what `fit_method` takes. An epoch is a permutation, cut into batches.

    inputs : of clips by their numbers
    targets : of all clips; clips : numbers of those to learn from

    Raises InputError where there are fewer than two.
    """

    def __init__(
        self, inputs: InputsOf, targets: Tensor, clips: IntArray, batch_size: int, seed: int
    ) -> None:
        self.inputs, self.targets = inputs, targets
        self.order = EpochOrder(clips, batch_size, seed)
        self.batch_size, self.n_batches = self.order.batch_size, self.order.n_batches

    def batch(self, epoch: int, number: int) -> TransferBatch:
        """One batch, on the CPU."""
        chosen = self.order.batch(epoch, number)
        inputs = torch.from_numpy(self.inputs(chosen))
        return TransferBatch(inputs, self.targets[torch.from_numpy(chosen)])


class TransferLearning(Method[TransferBatch]):
    """A classifier learns from embeddings, or a clip's network from its seconds.

    student : TransferClassifier or ClipNetwork; l2 : see l2_penalty
    """

    def __init__(self, student: nn.Module, l2: float) -> None:
        super().__init__()
        self.stages = (Stage("transfer", ("student",)),)
        self.student = student
        self.l2 = l2

    def losses(self, batch: TransferBatch, stage: Stage) -> dict[str, Tensor]:
        """Terms "labels" and "l2"."""
        labels = transfer_loss(self.student(batch.inputs).float(), batch.targets)
        l2 = l2_penalty(self.student, self.l2)
        return {"loss": labels + l2, "labels": labels, "l2": l2}


@torch.no_grad()
def score_inputs(
    network: nn.Module, inputs: InputsOf, clips: IntArray, device: torch.device, *, one: bool
) -> FloatArray:
    """Scores of clips, 0 to 1, (n_clips, n_labels).

    network : in evaluation mode on the device; one : of the classes is each clip's (softmax)
    """
    found = []
    for first in range(0, len(clips), _SCORED_AT_ONCE):
        part = torch.from_numpy(inputs(clips[first : first + _SCORED_AT_ONCE])).to(device)
        logits = network(part).float()
        found.append((logits.softmax(1) if one else logits.sigmoid()).cpu().numpy())
    scores: FloatArray = np.concatenate(found)
    return scores
