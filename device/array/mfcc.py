"""Mel energies and MFCC of a power spectrum, as the authors of the acoustic-image set make them.

Pérez et al., "Audio-visual model distillation using acoustic images" (2020) say 12 MFCC for each
pixel; the constants are those of the code that the group published later: 24 triangular filters
from 0 to 6,400 Hz, mel = 1127 ln(1 + f / 700), corners on whole bins; the logarithm of at least
1e-3; coefficients 1 to 12 of a cosine transform scaled by sqrt(2 / 24); a lifter
1 + 11 sin(pi m / 22). Choices where they leave one:

- The filters are laid out as if 512 bins reached 6,400 Hz, whatever the rate: at 12,288 Hz they lie
  4 % below where their corners in Hz say ("published"). A network that is to read published images
  needs them so. For any other rate there is "frequency": corners where they belong, those above the
  last bin on the last bin.
- The least energy, 1e-3, is in units of samples whose scale is not stated. They are 32-bit
  integers, and the sensor's converters have 24 bits: full scale is taken as 2^23. A gain alone
  changes no coefficient above that floor, since the zeroth is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from soundpost.device.errors import InputError

FloatArray = NDArray[np.float32]

# By how much the rate may differ from that for which published filters were laid out.
_RATE_TOLERANCE = 0.1


@dataclass(frozen=True)
class MelSettings:
    """Mel filters and cepstrum; the defaults are the published ones.

    low_hz, high_hz : outer corners of the first and the last filter
    layout : "published" or "frequency": see the module
    floor : least energy of a filter, at full_scale
    full_scale : what a sample of 1.0 stands for in the units of the floor
    n_coefficients : from the first on; the zeroth, the level, is left out
    lifter : length L of 1 + L/2 sin(pi m / L)

    Raises InputError where a value cannot be.
    """

    n_filters: int = 24
    low_hz: float = 0.0
    high_hz: float = 6_400.0
    layout: Literal["published", "frequency"] = "published"
    floor: float = 1e-3
    full_scale: float = 2.0**23
    n_coefficients: int = 12
    lifter: int = 22

    def __post_init__(self) -> None:
        if not 1 <= self.n_coefficients < self.n_filters <= 1_024:
            raise InputError(
                f"mel: n_filters {self.n_filters}, n_coefficients {self.n_coefficients}; expected "
                "fewer coefficients than filters, and at most 1024 filters"
            )
        if not 0 <= self.low_hz < self.high_hz < math.inf:
            raise InputError(
                f"mel: low_hz {self.low_hz:g}, high_hz {self.high_hz:g}; expected 0 or more, rising"
            )
        if self.layout not in ("published", "frequency"):
            raise InputError(f"mel: layout {self.layout!r}; expected 'published' or 'frequency'")
        if not (self.floor > 0 and 0 < self.full_scale < math.inf):
            raise InputError(
                f"mel: floor {self.floor:g}, full_scale {self.full_scale:g}; expected both above 0"
            )
        if self.lifter < 1:
            raise InputError(f"mel: lifter {self.lifter}; expected at least 1")

    @property
    def least_energy(self) -> float:
        """The floor, re full scale ±1.0."""
        return self.floor / self.full_scale**2


def mel_filters(settings: MelSettings, n_bins: int, sample_rate_hz: float) -> FloatArray:
    """Triangles of unit peak, linear between corners on whole bins.

    Parameters
    ----------
    n_bins : from 0 Hz on, without the Nyquist frequency

    Returns
    -------
    (n_filters, n_bins) float32

    Raises InputError where the published layout is asked for at another rate, or the filters begin
    beyond the last bin.
    """
    if settings.layout == "published":
        if abs(sample_rate_hz / (2 * settings.high_hz) - 1) > _RATE_TOLERANCE:
            raise InputError(
                f"mel: layout 'published' at {sample_rate_hz:g} Hz; expected about "
                f"{2 * settings.high_hz:g} Hz, as its filters span all bins up to high_hz whatever "
                "the rate; choose layout 'frequency'"
            )
        bins_per_hz = (n_bins - 1) / settings.high_hz
    else:
        bins_per_hz = 2 * n_bins / sample_rate_hz
    low, high = (1127 * math.log1p(hz / 700) for hz in (settings.low_hz, settings.high_hz))
    edges_hz = 700 * np.expm1(np.linspace(low, high, settings.n_filters + 2) / 1127)
    # The last edge is high_hz itself, which rounding must not take below its bin.
    edges_hz[-1] = settings.high_hz
    corners = np.minimum(np.floor(edges_hz * bins_per_hz + 1e-9).astype(int), n_bins - 1)
    if corners[0] == n_bins - 1:
        raise InputError(
            f"mel: low_hz {settings.low_hz:g} lies beyond the last bin at {sample_rate_hz:g} Hz; "
            "expected a lower one"
        )
    filters = np.zeros((settings.n_filters, n_bins), np.float32)
    for row, left, middle, right in zip(
        filters, corners[:-2], corners[1:-1], corners[2:], strict=True
    ):
        row[left : middle + 1] = np.linspace(0, 1, middle - left + 1)
        row[middle : right + 1] = np.linspace(1, 0, right - middle + 1)
    return filters


def mfcc_matrix(settings: MelSettings) -> FloatArray:
    """What turns log-mel values into liftered coefficients, (n_coefficients, n_filters) float32."""
    order = np.arange(1, settings.n_coefficients + 1)[:, None]
    place = (np.arange(settings.n_filters) + 0.5) / settings.n_filters
    cosines = math.sqrt(2 / settings.n_filters) * np.cos(np.pi * order * place)
    lifter = 1 + settings.lifter / 2 * np.sin(np.pi * order / settings.lifter)
    matrix: FloatArray = (lifter * cosines).astype(np.float32)
    return matrix


def log_mel(energies: FloatArray, settings: MelSettings) -> FloatArray:
    """Natural logarithm of filters' energies, of any shape, re full scale ±1.0."""
    logarithm: FloatArray = np.log(np.maximum(energies, np.float32(settings.least_energy)))
    return logarithm


def mfcc(power: FloatArray, settings: MelSettings, sample_rate_hz: float) -> FloatArray:
    """MFCC of power spectra, such as those of one microphone or of the pixels of an image.

    Parameters
    ----------
    power : (..., n_bins) float32, squared magnitude re full scale ±1.0, without the Nyquist bin

    Returns
    -------
    (..., n_coefficients) float32
    """
    energies = power @ mel_filters(settings, power.shape[-1], sample_rate_hz).T
    coefficients: FloatArray = log_mel(energies, settings) @ mfcc_matrix(settings).T
    return coefficients
