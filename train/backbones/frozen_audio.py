"""A pretrained audio network as a fixed extractor: sound in, vectors out, never trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from soundpost.device.features import FloatArray, FrontEnd
from soundpost.train.backbones import vggish_front_end
from soundpost.train.backbones.soundnet5 import SoundNet5
from soundpost.train.backbones.vggish import VGGish
from soundpost.train.backbones.waveform import PEAK
from soundpost.train.backbones.waveform import SAMPLE_RATE_HZ as WAVEFORM_RATE_HZ
from soundpost.train.windows import cut_windows

_AT_ONCE = 32
# Of SoundNet's fourth convolution, one vector every 0.37 s.
SOUNDNET_SIZE = 256


class FrozenHearing(nn.Module):
    """An audio network that is applied and never trained.

    It stays in evaluation mode and takes no gradient, also inside a network that is being trained.

    Parameters
    ----------
    network : whose weights they are
    rate_hz : of the sound that it takes
    size : elements of a vector
    prepare : samples (n_samples,) float32, full scale ±1.0, to pieces (n_pieces, ...) float32
    embed : pieces, as a tensor on the network's device, to vectors (n_vectors, size)
    prepared_by : changes whenever prepare does
    origin : what identifies the weights, such as their hash
    """

    def __init__(
        self,
        network: nn.Module,
        rate_hz: int,
        size: int,
        prepare: Callable[[FloatArray], FloatArray],
        embed: Callable[[Tensor], Tensor],
        prepared_by: str,
        origin: dict[str, Any],
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.rate_hz, self.size = rate_hz, size
        self._prepare, self._embed = prepare, embed
        self._prepared_by = prepared_by
        self.origin = origin

    def train(self, mode: bool = True) -> FrozenHearing:
        """Evaluation mode, whatever is asked."""
        return super().train(False)

    def fingerprint(self) -> str:
        """Changes whenever the vectors may: for the names of stored features."""
        parts = [type(self.network).__name__, self.origin, self._prepared_by, self.rate_hz]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    @torch.no_grad()
    def vectors(self, samples: FloatArray) -> FloatArray:
        """Vectors of a clip, one after the other.

        samples : (n_samples,) float32 at rate_hz, full scale ±1.0

        Returns (n_vectors, size) float32, at least one.
        """
        # A copy: torch wants to be able to write where it reads.
        pieces = torch.from_numpy(np.array(self._prepare(samples), np.float32))
        device = next((t.device for t in self.network.state_dict().values()), torch.device("cpu"))
        parts = [
            self._embed(pieces[first : first + _AT_ONCE].to(device)).float().cpu()
            for first in range(0, len(pieces), _AT_ONCE)
        ]
        return np.asarray(torch.cat(parts), np.float32)


def vggish_hearing(network: VGGish, origin: dict[str, Any]) -> FrozenHearing:
    """The published VGGish behind its own front end: its embedding of every 0.96 s."""
    return FrozenHearing(
        network,
        vggish_front_end.SAMPLE_RATE_HZ,
        network.embedding_size,
        vggish_front_end.vggish_patches,
        lambda patches: network.embed(patches[:, None]),
        vggish_front_end.fingerprint(),
        origin,
    )


def soundnet_hearing(network: SoundNet5, origin: dict[str, Any]) -> FrozenHearing:
    """SoundNet: its fourth convolution, the last one whose steps are shorter than a clip.

    "The representations extracted from the intermediate layers of pretrained models, such as the
    SoundNet" (yin2021) leaves open which. Samples are at full scale 256, as SoundNet was trained.
    """

    def prepare(samples: FloatArray) -> FloatArray:
        # Less than a second is shorter than the pooling.
        padded = np.pad(samples, (0, max(0, WAVEFORM_RATE_HZ - len(samples))))
        return padded[None] * np.float32(PEAK)

    def embed(waveform: Tensor) -> Tensor:
        maps = network.trunk(waveform)["conv4"]
        return maps.squeeze(3).transpose(1, 2).flatten(0, 1)

    return FrozenHearing(
        network, WAVEFORM_RATE_HZ, SOUNDNET_SIZE, prepare, embed, "waveform, conv4", origin
    )


def student_hearing(
    network: nn.Module, front_end: FrontEnd, n_frames: int, origin: dict[str, Any]
) -> FrozenHearing:
    """A network of a run of clips: its embedding of windows that follow each other without a gap.

    network : (n, 1, n_frames, n_mels) log-mel to logits and the embedding, (n, size)
    n_frames : of a window; what the last one lacks is silent
    """

    def prepare(samples: FloatArray) -> FloatArray:
        n = max(1, round(front_end.frames_of(len(samples)) / n_frames))
        whole = front_end.samples_of(n * n_frames)
        padded = np.pad(samples[:whole], (0, max(0, whole - len(samples))))
        return cut_windows(padded, front_end, n_frames, n_frames)

    def embed(patches: Tensor) -> Tensor:
        embedding: Tensor = network(patches[:, None])[1]
        return embedding

    with torch.no_grad():
        _, silence = network.eval()(torch.zeros(1, 1, n_frames, front_end.n_mels))
    return FrozenHearing(
        network,
        front_end.sample_rate_hz,
        silence.shape[1],
        prepare,
        embed,
        f"{front_end.hash()} {n_frames}",
        origin,
    )


class StubHearingNetwork(nn.Module):
    """A fixed random projection of each band's mean and deviation."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        n = 2 * vggish_front_end.N_MELS
        self.projection: Tensor
        self.register_buffer("projection", torch.randn(n, size, generator=generator) / n**0.5)

    def forward(self, patches: Tensor) -> Tensor:
        """(n, n_frames, n_mels) to (n, size)."""
        return torch.cat([patches.mean(1), patches.std(1)], 1) @ self.projection


def stub_hearing(size: int = 128, seed: int = 0) -> FrozenHearing:
    """A stand-in for VGGish that needs no weights: to try a recipe out, and for tests.

    Seconds that sound alike get vectors that lie close.
    """
    network = StubHearingNetwork(size, seed)
    return FrozenHearing(
        network,
        vggish_front_end.SAMPLE_RATE_HZ,
        size,
        vggish_front_end.vggish_patches,
        network,
        vggish_front_end.fingerprint(),
        {"name": "stub", "size": size, "seed": seed},
    )
