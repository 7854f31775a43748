"""Pretrained audio networks as fixed extractors, each behind the front end it was trained with."""

import numpy as np
import pytest
import torch

from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.backbones.frozen_audio import (
    soundnet_hearing,
    stub_hearing,
    student_hearing,
    vggish_hearing,
)
from soundpost.train.backbones.soundnet5 import SoundNet5
from soundpost.train.backbones.vggish import VGGish, VGGishSettings
from soundpost.train.backbones.vggish_front_end import vggish_patches
from soundpost.train.mobilenet_v2 import MobileNetV2, MobileNetV2Settings

FRONT_END = FrontEnd()


@pytest.fixture
def sound():
    return (0.1 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32)


def vggish():
    torch.manual_seed(0)
    return VGGish(None, VGGishSettings(hidden_units=32))


def test_vggish_hears_each_patch_by_its_own_front_end(sound):
    network = vggish()
    hearing = vggish_hearing(network, {"name": "vggish", "sha256": "0"})
    vectors = hearing.vectors(sound)
    assert (hearing.rate_hz, hearing.size) == (16_000, 128)
    # 3 s have 298 frames, three patches of 96.
    assert vectors.shape == (3, 128)
    assert vectors.dtype == np.float32
    patch = torch.from_numpy(vggish_patches(sound)[1])[None, None]
    with torch.no_grad():
        np.testing.assert_allclose(vectors[1], network.embed(patch)[0].numpy(), atol=1e-5)


def test_soundnet_hears_at_its_rate_and_scale():
    # Its last layer, which is not asked, needs five seconds.
    sound = (0.1 * np.random.default_rng(0).standard_normal(120_000)).astype(np.float32)
    torch.manual_seed(0)
    network = SoundNet5().eval()
    vectors = soundnet_hearing(network, {"name": "soundnet5"}).vectors(sound)
    with torch.no_grad():
        maps = network.layers(torch.from_numpy(256 * sound)[None])["conv4"]
    assert vectors.shape == (maps.shape[2], 256)
    np.testing.assert_allclose(vectors[2], maps[0, :, 2, 0].numpy(), atol=1e-5)
    # Shorter than its pooling: padded.
    short = soundnet_hearing(network, {"name": "soundnet5"}).vectors(sound[:100])
    assert short.shape[0] >= 1


@pytest.mark.parametrize(("n_samples", "n_windows"), [(100, 1), (16_000, 1), (160_000, 10)])
def test_a_clip_student_hears_windows_one_after_the_other(n_samples, n_windows):
    rng = np.random.default_rng(1)
    sound = (0.1 * rng.standard_normal(n_samples)).astype(np.float32)
    torch.manual_seed(0)
    network = MobileNetV2(3, MobileNetV2Settings(0.35, 16))
    vectors = student_hearing(network, FRONT_END, 100, {}).vectors(sound)
    assert vectors.shape == (n_windows, 16)
    # By hand: the second whole window begins where the first ends, one second on.
    if n_windows > 1:
        frames = torch.from_numpy(log_mel(sound, FRONT_END)[100:200])[None, None]
        with torch.no_grad():
            expected = network.eval()(frames)[1][0].numpy()
        np.testing.assert_allclose(vectors[1], expected, atol=1e-4)


def test_a_stub_tells_sounds_apart():
    n = np.arange(32_000)
    hearing = stub_hearing()
    low, again, high = (
        hearing.vectors(np.sin(2 * np.pi * hz * n / 16_000).astype(np.float32)).mean(0)
        for hz in (400.0, 404.0, 3_000.0)
    )
    assert np.linalg.norm(low - again) < 0.2 * np.linalg.norm(low - high)


def test_it_is_never_trained(sound):
    network = vggish()
    whole = torch.nn.Sequential(vggish_hearing(network, {}), torch.nn.Linear(2, 2))
    whole.train()
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())


def test_a_fingerprint_is_of_weights_and_front_end():
    one, other = ({"name": "vggish", "sha256": digit} for digit in "01")
    network = vggish()
    assert vggish_hearing(network, one).fingerprint() == vggish_hearing(network, one).fingerprint()
    assert (
        vggish_hearing(network, one).fingerprint() != vggish_hearing(network, other).fingerprint()
    )
    student = MobileNetV2(3, MobileNetV2Settings(0.35, 16))
    assert (
        student_hearing(student, FRONT_END, 100, one).fingerprint()
        != student_hearing(student, FRONT_END, 50, one).fingerprint()
    )
    assert stub_hearing(seed=0).fingerprint() != stub_hearing(seed=1).fingerprint()
