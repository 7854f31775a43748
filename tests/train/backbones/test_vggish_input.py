"""What the published VGGish hears: against TensorFlow's signal library, which is its authors'."""

import numpy as np
import pytest

from soundpost.train.backbones.vggish_input import (
    PATCH_SAMPLES,
    vggish_log_mel,
    vggish_patches,
)


def test_it_is_what_tensorflow_makes_of_the_published_numbers():
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    samples = rng.uniform(-1, 1, 16_000).astype(np.float32) * np.linspace(0, 1, 16_000, dtype="f4")
    # Periodic Hann windows of 400 samples every 160, 512-point FFT; 64 bands, 125 to 7,500 Hz.
    spectrum = np.abs(tf.signal.stft(samples, 400, 160, 512).numpy())
    weights = tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7_500.0).numpy()
    expected = np.log(spectrum @ weights + 0.01)
    found = vggish_log_mel(samples)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (98, 64)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_silence_is_the_logarithm_of_the_offset():
    np.testing.assert_allclose(vggish_log_mel(np.zeros(400, np.float32)), np.log(0.01), rtol=1e-6)


def test_a_patch_is_96_frames_of_each_second():
    # 95 hops of 160 samples and a window of 400: 0.975 s.
    assert PATCH_SAMPLES == 15_600
    seconds = np.random.default_rng(1).uniform(-1, 1, (3, 16_000)).astype(np.float32)
    found = vggish_patches(seconds)
    assert found.shape == (3, 96, 64)
    np.testing.assert_array_equal(found[1], vggish_log_mel(seconds[1])[:96])
