"""A pretrained network as a fixed feature extractor: frames in, vectors out, never trained."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.frame_input import IMAGENET, FrameInput, crop_frames, normalise
from soundpost.train.backbones.weights import LoadedBackbone

Frames = NDArray[np.uint8]

BATCH_FRAMES = 32
# Side of the picture that the stub looks at.
_STUB_PX = 8


class VisualNetwork(Protocol):
    """What a visual backbone offers beside being an nn.Module."""

    embedding_size: int

    def embed(self, frames: Tensor) -> Tensor:
        """Prepared frames (n, 3, side, side) to (n, embedding_size)."""

    def __call__(self, frames: Tensor) -> Tensor:
        """Prepared frames to scores before the softmax, (n, n_classes)."""


class StubBackbone(nn.Module):
    """A fixed random projection of a tiny picture of the frame.

    Costs next to nothing and needs no weights: for tests, and to measure what labelling costs
    without the network. Frames that look alike get vectors that lie close.

    embedding_size, n_classes : of what it returns
    seed : of the projection
    """

    def __init__(self, embedding_size: int = 128, n_classes: int = 1000, seed: int = 0) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        pixels = 3 * _STUB_PX**2
        generator = torch.Generator().manual_seed(seed)
        projection = torch.randn(pixels, embedding_size, generator=generator) / pixels**0.5
        classes = torch.randn(embedding_size, n_classes, generator=generator)
        self.projection: Tensor
        self.classes: Tensor
        self.register_buffer("projection", projection)
        self.register_buffer("classes", classes)

    def embed(self, frames: Tensor) -> Tensor:
        """(n, 3, height, width) to (n, embedding_size)."""
        return functional.adaptive_avg_pool2d(frames, _STUB_PX).flatten(1) @ self.projection

    def forward(self, frames: Tensor) -> Tensor:
        """(n, 3, height, width) to scores before the softmax, (n, n_classes)."""
        return self.embed(frames) @ self.classes


class FrozenBackbone(nn.Module):
    """A visual network that is applied and never trained.

    It stays in evaluation mode and takes no gradient, also inside a network that is being trained.

    network : with embed and forward (VisualNetwork)
    frames : how frames are prepared
    origin : what identifies its weights, such as their hash; by default the weights themselves
    names : of its scores, where they come with the weights
    """

    def __init__(
        self,
        network: nn.Module,
        frames: FrameInput = IMAGENET,
        origin: dict[str, Any] | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.frames = frames
        self.origin = origin
        self.names = names

    @property
    def embedding_size(self) -> int:
        """Values of one vector."""
        return self._visual.embedding_size

    @property
    def _visual(self) -> VisualNetwork:
        return cast(VisualNetwork, self.network)

    def train(self, mode: bool = True) -> FrozenBackbone:
        """Evaluation mode, whatever is asked."""
        return super().train(False)

    def fingerprint(self) -> str:
        """Changes whenever the vectors may: for the names of stored features."""
        origin: Any = self.origin
        if origin is None:
            digest = hashlib.sha256()
            for name, value in self.network.state_dict().items():
                digest.update(name.encode() + value.cpu().numpy().tobytes())
            origin = digest.hexdigest()
        parts = [type(self.network).__name__, origin, dataclasses.asdict(self.frames)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def embed(self, frames: Frames, *, batch: int = BATCH_FRAMES, quiet: bool = True) -> Tensor:
        """Vectors of frames.

        Parameters
        ----------
        frames : (n, height, width, 3) uint8, red first
        batch : frames that are in memory as floating point at a time

        Returns
        -------
        (n, embedding_size) float32, on the CPU

        Raises InputError for anything but such frames.
        """
        return self._over(frames, self._visual.embed, self.embedding_size, batch, quiet)

    def scores(self, frames: Frames, *, batch: int = BATCH_FRAMES, quiet: bool = True) -> Tensor:
        """Scores of frames before the softmax, (n, n_classes) float32; see embed."""
        return self._over(frames, self._visual, None, batch, quiet)

    def forward(self, prepared: Tensor) -> Tensor:
        """Vectors of prepared frames, (n, 3, side, side) to (n, embedding_size), without gradient.

        For use inside another network.
        """
        with torch.no_grad():
            return self._visual.embed(prepared)

    @torch.no_grad()
    def _over(
        self, frames: Frames, function: Any, n_columns: int | None, batch: int, quiet: bool
    ) -> Tensor:
        check_frames(frames)
        if batch < 1:
            raise UsageError(f"{batch} frames in a batch; expected 1 or more")
        device = next((t.device for t in self.network.state_dict().values()), torch.device("cpu"))
        parts = [torch.empty(0, n_columns or 0)] if len(frames) == 0 else []
        with tqdm(
            total=len(frames), desc="frames", unit="frame", disable=quiet, leave=False
        ) as bar:
            for start in range(0, len(frames), batch):
                raw = torch.from_numpy(np.ascontiguousarray(frames[start : start + batch]))
                # Only what the network sees goes to its device.
                prepared = normalise(crop_frames(raw, self.frames).to(device), self.frames)
                parts.append(function(prepared).float().cpu())
                bar.update(len(raw))
        return torch.cat(parts)


def check_frames(frames: Frames) -> None:
    """InputError for anything but (n, height, width, 3) uint8."""
    if (
        frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[3] != 3
        or 0 in frames.shape[1:]
    ):
        raise InputError(
            f"frames are {frames.dtype} of shape {frames.shape}, expected uint8 of shape "
            "(n, height, width, 3)"
        )


def frozen_backbone(loaded: LoadedBackbone) -> FrozenBackbone:
    """A loaded network as a fixed extractor, with the preparation of frames it was trained with.

    Raises UsageError for a network that hears.
    """
    if loaded.weights.frames is None:
        raise UsageError(f"{loaded.weights.name}: hears, and takes no video frames")
    # Not the file's name: the same weights elsewhere make the same vectors.
    origin = {"name": loaded.weights.name, "sha256": loaded.sha256}
    return FrozenBackbone(loaded.network, loaded.weights.frames, origin)
