"""Transfer of jia2019's audio networks: a classifier on the embeddings of a clip's seconds.

Jia et al. 2019, section 4: the last layer is replaced by one for the classes of the benchmark, and
"we concat the 128-dimensional audio embedding features as the inputs". The audio network is not
trained any more. Where the text leaves a choice:

- The classifier is one fully connected layer with dropout before it.
- Clips have one length in a benchmark. Of others, ours repeats the seconds of a shorter one from
  its beginning, and leaves out what is beyond in a longer one.
- The optimiser is Adam, as in pre-training. The number of epochs is not given.
- Clips with one class (ESC-50, TUT 2018) are learnt with a softmax, those with several (AudioSet)
  with sigmoids, as in pre-training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from soundpost.device.errors import InputError

FloatArray = NDArray[np.float32]

EMBEDDING_SIZE = 128


@dataclass(frozen=True)
class TransferSettings:
    """Section 4; dropout .3 for ESC-50, .5 for AudioSet and TUT 2018.

    weight_decay : L2 penalty, half of it times the squared norm of all weights and biases
    """

    dropout: float = 0.3
    learning_rate: float = 2e-4
    batch_size: int = 128
    weight_decay: float = 1e-6
    epochs: int = 200
    seed: int = 0


ESC50 = TransferSettings()
AUDIOSET = TransferSettings(dropout=0.5)
TUT2018 = TransferSettings(dropout=0.5)


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
    seconds = np.arange(n_seconds)
    rows = [np.asarray(clip, np.float32)[seconds % len(clip)] for clip in clips]
    return np.stack(rows)


class TransferClassifier(nn.Module):
    """Concatenated embeddings to scores.

    n_seconds : of each clip; embedding_size : of each second
    """

    def __init__(
        self,
        n_labels: int,
        n_seconds: int,
        dropout: float = ESC50.dropout,
        embedding_size: int = EMBEDDING_SIZE,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(n_seconds * embedding_size, n_labels)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(n_clips, n_seconds, embedding_size) to (n_clips, n_labels) before softmax or sigmoid."""
        scores: Tensor = self.classifier(self.dropout(embeddings.flatten(1)))
        return scores


def transfer_loss(scores: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy, mean over clips (and over classes where a clip has several).

    targets : (n_clips,) int64, the class of each; or (n_clips, n_labels) float32, 0 or 1
    """
    if targets.ndim == 1:
        return functional.cross_entropy(scores, targets)
    return functional.binary_cross_entropy_with_logits(scores, targets)


def fit_transfer(
    embeddings: Tensor,
    targets: Tensor,
    n_labels: int,
    settings: TransferSettings = ESC50,
    *,
    quiet: bool = False,
) -> TransferClassifier:
    """Train a classifier on the embeddings' device, with a progress bar; in evaluation mode.

    embeddings : (n_clips, n_seconds, embedding_size); targets : as of transfer_loss

    Raises InputError where there is no clip, or another number of targets.
    """
    if len(embeddings) == 0 or len(embeddings) != len(targets):
        raise InputError(
            f"embeddings of {len(embeddings)} clips, targets of {len(targets)}; expected as many "
            "of both, and at least one"
        )
    torch.manual_seed(settings.seed)
    _, n_seconds, size = embeddings.shape
    network = TransferClassifier(n_labels, n_seconds, settings.dropout, size)
    network.to(embeddings.device).train()
    optimiser = torch.optim.Adam(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    order = torch.Generator().manual_seed(settings.seed)
    for _ in tqdm(range(settings.epochs), "transfer", unit="epoch", disable=quiet, leave=False):
        shuffled = torch.randperm(len(embeddings), generator=order).to(embeddings.device)
        for chosen in torch.split(shuffled, settings.batch_size):
            loss = transfer_loss(network(embeddings[chosen]), targets[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.eval()
