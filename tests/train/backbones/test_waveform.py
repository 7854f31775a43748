"""The students' waveform: length, pitch and level."""

import numpy as np
import pytest

from soundpost.train.backbones.waveform import CLIP_SAMPLES, SAMPLE_RATE_HZ, student_waveform


@pytest.mark.parametrize("scale", [1e-4, 1.0, 2e6])
def test_a_tone_keeps_its_pitch_and_peaks_at_256(scale):
    rate = 12_288
    tone = scale * np.sin(2 * np.pi * 1000 * np.arange(5 * rate) / rate)
    clip = student_waveform(tone.astype(np.float32), rate)
    assert clip.shape == (CLIP_SAMPLES,) == (110_250,)
    assert clip.dtype == np.float32
    assert np.abs(clip).max() == pytest.approx(256)
    spectrum = np.abs(np.fft.rfft(clip))
    assert spectrum.argmax() * SAMPLE_RATE_HZ / len(clip) == pytest.approx(1000)


def test_short_clips_are_filled_with_silence_and_long_ones_cut():
    rate = SAMPLE_RATE_HZ
    short = student_waveform(np.ones(rate, np.float32), rate)
    assert (short[:rate] == 256).all()
    assert (short[rate:] == 0).all()
    long = student_waveform(np.linspace(0, 1, 6 * rate, dtype=np.float32), rate)
    # The largest sample of the first five seconds, not of all six.
    assert long[-1] == pytest.approx(256)


def test_a_silent_clip_stays_silent():
    assert not student_waveform(np.zeros(1000, np.float32), 12_288).any()
