"""VGGish's own front end, against TensorFlow's signal functions, which it was written with."""

import numpy as np
import pytest
import torch

from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.backbones.vggish import VGGish
from soundpost.train.backbones.vggish_front_end import (
    PATCH_SAMPLES,
    fingerprint,
    patch_of_each,
    patches_of,
    vggish_log_mel,
    vggish_patches,
)


@pytest.fixture
def sound():
    rng = np.random.default_rng(0)
    n = np.arange(20_000)
    tone = 0.3 * np.sin(2 * np.pi * 700 * n / 16_000) * (n > 8_000)
    return (tone + 0.02 * rng.standard_normal(len(n))).astype(np.float32)


def test_frames_are_tensorflows(sound):
    tf = pytest.importorskip("tensorflow")
    spectrum = tf.abs(tf.signal.stft(sound, 400, 160, 512))
    filters = tf.signal.linear_to_mel_weight_matrix(64, 257, 16_000, 125.0, 7_500.0)
    expected = tf.math.log(spectrum @ filters + 0.01).numpy()
    found = vggish_log_mel(sound)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_it_is_not_the_devices(sound):
    # Else a module of its own would be for nothing.
    device = log_mel(sound, FrontEnd(log_offset=0.01))
    found = vggish_log_mel(sound)
    assert found.shape == device.shape
    assert np.abs(found - device).max() > 0.1


def test_silence_is_the_offset():
    np.testing.assert_allclose(vggish_log_mel(np.zeros(400, np.float32)), np.log(0.01), rtol=1e-6)
    assert vggish_log_mel(np.zeros(399, np.float32)).shape == (0, 64)


@pytest.mark.parametrize(
    ("n_samples", "n_patches"),
    # 96 frames span 15,600 samples; the next patch ends 96 x 160 samples later.
    [(0, 1), (100, 1), (15_600, 1), (16_000, 1), (30_959, 1), (30_960, 2), (160_000, 10)],
)
def test_patches_of_a_clip(n_samples, n_patches):
    sound = np.random.default_rng(1).normal(0, 0.1, n_samples).astype(np.float32)
    patches = vggish_patches(sound)
    assert patches.shape == (n_patches, 96, 64)
    assert patches_of(n_samples) == n_patches
    if n_samples >= PATCH_SAMPLES:
        np.testing.assert_array_equal(
            patches.reshape(-1, 64), vggish_log_mel(sound)[: 96 * n_patches]
        )


def test_of_each_second_a_patch():
    seconds = np.random.default_rng(1).uniform(-1, 1, (3, 16_000)).astype(np.float32)
    found = patch_of_each(seconds)
    assert found.shape == (3, 96, 64)
    np.testing.assert_array_equal(found[1], vggish_log_mel(seconds[1])[:96])


def test_the_network_takes_them(sound):
    torch.manual_seed(0)
    network = VGGish(None).eval()
    with torch.no_grad():
        said = network.embed(torch.from_numpy(vggish_patches(sound))[:, None])
    assert said.shape == (1, 128)
    assert len(fingerprint()) == 32
