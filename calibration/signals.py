"""Test signals for simulated sources; they begin and end softly, which makes delays exact."""

from __future__ import annotations

import numpy as np

from soundpost.calibration.trajectory import Floats
from soundpost.device.audio import FloatArray

_FADE_S = 0.01


def tone(frequency_hz: float, seconds: float, rate_hz: int) -> FloatArray:
    """A sine, (n_samples,) float32."""
    phase = 2 * np.pi * frequency_hz * _times_s(seconds, rate_hz)
    return _softened(np.sin(phase), rate_hz)


def chirp(low_hz: float, high_hz: float, seconds: float, rate_hz: int) -> FloatArray:
    """A sine that rises by as many octaves in every second, (n_samples,) float32."""
    # Here, for it takes 80 MB.
    from scipy import signal

    times_s = _times_s(seconds, rate_hz)
    rising = signal.chirp(times_s, low_hz, seconds, high_hz, method="logarithmic", phi=-90)
    return _softened(rising, rate_hz)


def white_noise(seconds: float, rate_hz: int, rng: np.random.Generator) -> FloatArray:
    """Noise with all frequencies alike, (n_samples,) float32."""
    return _softened(rng.standard_normal(len(_times_s(seconds, rate_hz))), rate_hz)


def at_level(samples: FloatArray, level_dbfs: float) -> FloatArray:
    """A signal with this root mean square over its length; silence stays silent."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    return samples * np.float32(10 ** (level_dbfs / 20) / rms) if rms > 0 else samples


def _times_s(seconds: float, rate_hz: int) -> Floats:
    return np.arange(max(round(seconds * rate_hz), 1)) / rate_hz


def _softened(samples: Floats, rate_hz: int) -> FloatArray:
    from scipy.signal.windows import tukey

    share = min(1.0, 2 * _FADE_S * rate_hz / len(samples))
    soft: FloatArray = (samples * tukey(len(samples), share)).astype(np.float32)
    return soft
