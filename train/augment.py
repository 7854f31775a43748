"""Random training windows: crops, changes of speed and level, mixtures, filters and masks.

Everything works on whole batches of tensors, on the GPU where there is one, and draws from one
torch.Generator, so that a run repeats by its seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soundpost.train.clips import Waveforms
from soundpost.train.recipe import AugmentSettings

# Windows start on a grid of this many samples when they are chosen by loudness (50 ms at 16 kHz).
_GRID = 800


def window_levels_db(waveforms: Waveforms, window: int) -> list[NDArray[np.float32]]:
    """Level of every window of every clip on the start grid, in dB below the clip's loudest one.

    Returns
    -------
    list of (n_starts,) float32, 0 at the loudest window; a clip shorter than a window has one.
    """
    levels = []
    for index in range(len(waveforms.lengths)):
        energy = np.concatenate([[0.0], np.cumsum(np.square(waveforms.clip(index), dtype=float))])
        starts = np.arange(0, max(1, len(energy) - window), _GRID)
        total = energy[np.minimum(starts + window, len(energy) - 1)] - energy[starts]
        peak = max(float(total.max()), 1e-12)
        levels.append((10 * np.log10(np.maximum(total / peak, 1e-12))).astype(np.float32))
    return levels


class SpanLabels(Protocol):
    """What somebody else says of any part of a bank's clips: a teacher's soft labels."""

    def of_spans(self, clips: Tensor, begins: Tensor, ends: Tensor) -> Tensor:
        """(n, n_labels) of parts from begins to ends of clips, in samples; each (n,)."""
        ...

    def to(self, device: torch.device) -> SpanLabels:
        """The same on another device."""
        ...


@dataclass(frozen=True)
class Bank:
    """Waveforms and labels on the training device.

    samples : (n_total,) int16
    starts, lengths : (n_clips,)
    targets : (n_clips, n_labels) float32, all zero for a clip without a label
    choices : (n_clips, n_starts) probability of each start on the grid
    silent : (n_clips, n_starts) True where the window is too quiet to carry its clip's label
    soft : what else a window is labelled as, by where it lies; None for nothing
    """

    samples: Tensor
    starts: Tensor
    lengths: Tensor
    targets: Tensor
    choices: Tensor
    silent: Tensor
    window: int
    soft: SpanLabels | None = None

    def to(self, device: torch.device) -> Bank:
        """The same on another device."""
        return Bank(
            self.samples.to(device),
            self.starts.to(device),
            self.lengths.to(device),
            self.targets.to(device),
            self.choices.to(device),
            self.silent.to(device),
            self.window,
            None if self.soft is None else self.soft.to(device),
        )


def make_bank(
    waveforms: Waveforms,
    targets: NDArray[np.float32],
    window: int,
    silence_db: float,
    silent_share: float = 0.08,
) -> Bank:
    """Lay out clips for drawing windows: mostly where they sound, sometimes where they do not.

    A window more than silence_db below its clip's loudest one is nobody's example of the label. It
    is drawn with probability silent_share and then labelled as nothing.
    """
    levels = window_levels_db(waveforms, window)
    width = max(len(level) for level in levels)
    choices = np.zeros((len(levels), width), np.float32)
    silent = np.ones((len(levels), width), bool)
    for row, level in enumerate(levels):
        loud = level > -silence_db
        silent[row, : len(level)] = ~loud
        choices[row, : len(level)] = np.where(
            loud, 1.0 / loud.sum(), silent_share / max(1, (~loud).sum())
        )
    return Bank(
        torch.from_numpy(waveforms.samples),
        torch.from_numpy(waveforms.starts),
        torch.from_numpy(waveforms.lengths),
        torch.from_numpy(targets),
        torch.from_numpy(choices),
        torch.from_numpy(silent),
        window,
    )


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=generator, device=generator.device)


def draw_windows(
    bank: Bank, clips: Tensor, speed: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One random window of each clip, played at a random speed.

    Parameters
    ----------
    clips : (n_batch,) indices into the bank
    speed : rates are drawn log-uniformly in [1/speed, speed]

    Returns
    -------
    samples : (n_batch, window) float32
    targets : (n_batch, n_labels); where the bank has soft labels, those of the window beside them,
        (n_batch, 2 n_labels)
    """
    n = len(clips)
    grid = torch.multinomial(bank.choices[clips], 1, generator=generator)
    sounds = (~bank.silent[clips].gather(1, grid)).float()
    targets = bank.targets[clips] * sounds
    limit = math.log(speed)
    rate = torch.exp(_uniform(n, -limit, limit, generator))[:, None]
    jitter = _uniform(n, 0, _GRID, generator)[:, None]
    position = torch.arange(bank.window, device=rate.device) * rate
    # The window keeps its middle when it is stretched, so that what was chosen stays in it.
    position = position + (grid * _GRID + jitter) - (rate - 1) * bank.window / 2
    if bank.soft is not None:
        begins = (grid * _GRID + jitter - (rate - 1) * bank.window / 2)[:, 0]
        said = bank.soft.of_spans(clips, begins, begins + rate[:, 0] * bank.window)
        targets = torch.cat([targets, said * sounds], 1)
    whole = position.floor()
    fraction = position - whole
    index = whole.long()
    length = bank.lengths[clips][:, None]
    start = bank.starts[clips][:, None]
    last = torch.clamp(length - 1, min=0)
    here = bank.samples[start + index.clamp(min=0).minimum(last)].float()
    after = bank.samples[start + (index + 1).clamp(min=0).minimum(last)].float()
    inside = (index >= 0) & (index < length)
    samples = (here + (after - here) * fraction) * inside / 32_768.0
    return samples, targets


def _rms(samples: Tensor) -> Tensor:
    return samples.square().mean(1, keepdim=True).sqrt().clamp(min=1e-5)


def coloured_noise(n: int, window: int, generator: torch.Generator) -> Tensor:
    """Noise whose spectrum falls by a random 0 to 6 dB per octave; (n, window), RMS 1."""
    white = torch.randn(n, window, generator=generator, device=generator.device)
    spectrum = torch.fft.rfft(white)
    slope = _uniform(n, 0.0, 1.0, generator)[:, None]
    k = torch.arange(spectrum.shape[1], device=white.device).clamp(min=8).float()
    noise = torch.fft.irfft(spectrum * k[None, :] ** -slope, n=window)
    scaled: Tensor = noise / _rms(noise)
    return scaled


def mix(
    samples: Tensor, targets: Tensor, settings: AugmentSettings, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Add windows of the batch to each other, labels in the proportion that is heard.

    Tokozume et al. (2018), eq. 2: the weight of the first is p = 1 / (1 + 10^((G1-G2)/20) (1-r)/r)
    for levels G1, G2 and the wanted proportion r, so that a loud clip does not drown a faint one.
    """
    n = len(samples)
    order = torch.randperm(n, generator=generator, device=generator.device)
    # The larger of r and 1 - r stays with the window itself, so none is lost to its partner.
    r = _beta(n, settings.mix_alpha, generator)[:, None]
    r = torch.maximum(r, 1 - r)
    r = torch.where(_uniform(n, 0, 1, generator)[:, None] < settings.mix_probability, r, 1.0)
    own, other = samples, samples[order]
    ratio = _rms(own) / _rms(other) * (1 - r) / r
    mixed = (own + ratio * other) / torch.sqrt(1 + ((1 - r) / r) ** 2)
    return mixed, r * targets + (1 - r) * targets[order]


def _beta(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    # Beta(a, a) by Cheng's or Jöhnk's method needs loops; inverse sampling on a table does not.
    grid = torch.linspace(0.0005, 0.9995, 1000, device=generator.device)
    density = (grid * (1 - grid)) ** (alpha - 1)
    return grid[torch.multinomial(density, n, replacement=True, generator=generator)]


def add_noise(samples: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Coloured noise at a random signal-to-noise ratio under a share of the windows."""
    n, window = samples.shape
    snr = _uniform(n, *settings.noise_snr_db, generator)[:, None]
    level = _rms(samples) * 10 ** (-snr / 20)
    use = _uniform(n, 0, 1, generator)[:, None] < settings.noise_probability
    return samples + use * level * coloured_noise(n, window, generator)


def random_gain(samples: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Random level in dB."""
    gain = _uniform(len(samples), *settings.gain_db, generator)[:, None]
    return samples * 10 ** (gain / 20)


def random_filter(
    n: int, n_mels: int, settings: AugmentSettings, generator: torch.Generator
) -> Tensor:
    """Smooth random gain per mel band, (n, n_mels): another microphone, another wall."""
    knots = _uniform(n * 5, -settings.filter_db, settings.filter_db, generator).view(n, 1, 5)
    curve = torch.nn.functional.interpolate(knots, n_mels, mode="linear", align_corners=True)
    return 10 ** (curve[:, 0] / 20)


def mask(patches: Tensor, settings: AugmentSettings, generator: torch.Generator) -> Tensor:
    """Blank random spans of frames and of bands with the patch's mean (Park et al. 2019)."""
    n, _, n_frames, n_mels = patches.shape
    mean = patches.mean((2, 3), keepdim=True)
    for _ in range(settings.masks):
        for size, largest, shape in (
            (n_frames, settings.time_mask_frames, (n, 1, n_frames, 1)),
            (n_mels, settings.frequency_mask_bands, (n, 1, 1, n_mels)),
        ):
            length = _uniform(n, 0, largest, generator)[:, None]
            start = _uniform(n, 0, 1, generator)[:, None] * (size - length)
            axis = torch.arange(size, device=patches.device)[None, :]
            blank = ((axis >= start) & (axis < start + length)).view(shape)
            patches = torch.where(blank, mean, patches)
    return patches
