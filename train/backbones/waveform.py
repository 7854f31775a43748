"""The waveform that the students of perez2020 hear.

Five seconds at 22,050 Hz. The text says that audio is upsampled; that its largest sample is then
made 256 is from the authors' published code, and is the range (full scale 256) that SoundNet was
trained on.
"""

from __future__ import annotations

import numpy as np
import soxr

from soundpost.device.audio import FloatArray

SAMPLE_RATE_HZ = 22_050
CLIP_S = 5.0
CLIP_SAMPLES = round(CLIP_S * SAMPLE_RATE_HZ)
PEAK = 256.0


def student_waveform(samples: FloatArray, sample_rate_hz: float) -> FloatArray:
    """Five seconds of one microphone, resampled, its largest sample at ±256.

    Parameters
    ----------
    samples : (n_samples,) at any scale; what is beyond five seconds is left out, what lacks is zero
    sample_rate_hz : such as 12,288 of the acoustic-image set

    Returns
    -------
    (110250,) float32
        Zeros for a silent clip.
    """
    resampled = soxr.resample(samples.astype(np.float32), sample_rate_hz, SAMPLE_RATE_HZ)
    clip = np.zeros(CLIP_SAMPLES, np.float32)
    kept = resampled[:CLIP_SAMPLES]
    clip[: len(kept)] = kept
    peak = float(np.abs(clip).max())
    if peak > 0:
        clip *= np.float32(PEAK / peak)
    return clip
