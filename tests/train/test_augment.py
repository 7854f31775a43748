"""Laws of the training windows."""

import numpy as np
import pytest
import torch

from soundpost.train import augment
from soundpost.train.clips import pack
from soundpost.train.recipe import AugmentSettings

WINDOW = 16_240


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def bank(sounds, **options):
    targets = np.eye(len(sounds), dtype=np.float32)
    return augment.make_bank(pack(sounds), targets, WINDOW, options.get("silence_db", 30.0))


def test_without_a_change_of_speed_a_window_is_a_stretch_of_the_clip():
    sound = np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)
    b = bank([sound])
    samples, targets = augment.draw_windows(b, torch.zeros(8, dtype=torch.long), 1.0, generator())
    assert targets.min() == 1.0
    spectrum = np.fft.rfft(sound, 2 * len(sound))
    for row in samples.numpy():
        # The window's place, found by correlation; a fractional start blends two neighbours.
        lag = np.fft.irfft(spectrum * np.conj(np.fft.rfft(row, 2 * len(sound)))).argmax()
        stretch = sound[lag : lag + len(row)]
        assert np.corrcoef(row[: len(stretch)], stretch)[0, 1] > 0.7


def test_speed_changes_the_pitch_by_at_most_that_much():
    n = np.arange(80_000)
    sound = (0.5 * np.sin(2 * np.pi * 1_000 * n / 16_000)).astype(np.float32)
    samples, _ = augment.draw_windows(
        bank([sound]), torch.zeros(200, dtype=torch.long), 1.25, generator()
    )
    peaks = np.abs(np.fft.rfft(samples.numpy(), axis=1)).argmax(1) * 16_000 / WINDOW
    assert 795 < peaks.min() < 830
    assert 1_210 < peaks.max() < 1_255


def test_silence_carries_no_label():
    sound = np.zeros(80_000, np.float32)
    sound[:8_000] = 0.5
    b = bank([sound])
    samples, targets = augment.draw_windows(b, torch.zeros(400, dtype=torch.long), 1.0, generator())
    level = samples.square().mean(1)
    assert (targets[level == 0] == 0).all()
    assert (targets[level > 0.02] == 1).all()
    # Silence is drawn, but seldom.
    assert 0.02 < float((targets.sum(1) == 0).float().mean()) < 0.2


def test_a_clip_shorter_than_a_window_is_padded():
    sound = np.full(1_000, 0.5, np.float32)
    samples, targets = augment.draw_windows(
        bank([sound]), torch.zeros(4, dtype=torch.long), 1.0, generator()
    )
    assert samples.shape == (4, WINDOW)
    assert (targets == 1).all()
    assert 0 < int((samples[0] != 0).sum()) <= 1_001


def test_mixture_weighs_labels_as_levels():
    settings = AugmentSettings(mix_probability=1.0)
    samples = torch.randn(64, 4_000, generator=generator()) * torch.logspace(-2, 0, 64)[:, None]
    targets = torch.eye(64)
    mixed, soft = augment.mix(samples, targets, settings, generator(1))
    torch.testing.assert_close(soft.sum(1), torch.ones(64))
    for i in range(64):
        j = int((soft[i] - targets[i] * soft[i, i]).argmax())
        r = float(soft[i, i])
        if i == j or r > 0.999:
            continue
        # Least squares recovers the two amplitudes in the mixture.
        basis = torch.stack([samples[i], samples[j]], 1)
        own, other = torch.linalg.lstsq(basis, mixed[i][:, None]).solution[:, 0]
        heard = float(other * samples[j].std() / (own * samples[i].std()))
        assert heard == pytest.approx((1 - r) / r, rel=0.05, abs=0.01)


def test_noise_has_the_ratio_asked_for():
    settings = AugmentSettings(noise_probability=1.0, noise_snr_db=(10.0, 10.0))
    samples = torch.randn(32, 16_000, generator=generator())
    noise = augment.add_noise(samples, settings, generator(1)) - samples
    ratio = 10 * torch.log10(samples.square().mean(1) / noise.square().mean(1))
    torch.testing.assert_close(ratio, torch.full((32,), 10.0), atol=1e-3, rtol=0)


def test_masks_blank_whole_frames_and_bands():
    settings = AugmentSettings(time_mask_frames=20, frequency_mask_bands=10, masks=1)
    patches = torch.randn(50, 1, 100, 64, generator=generator())
    changed = augment.mask(patches, settings, generator(1)) != patches
    frames, bands = changed.all(3)[:, 0].sum(1), changed.all(2)[:, 0].sum(1)
    assert frames.max() <= 20
    assert bands.max() <= 10
    assert frames.max() > 10
    assert bands.max() > 4
    # Nothing else is touched.
    cross = changed.all(3, keepdim=True) | changed.all(2, keepdim=True)
    assert (changed & ~cross).sum() == 0


def test_the_same_seed_draws_the_same():
    b = bank([np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)] * 3)
    clips = torch.tensor([0, 1, 2, 1])
    first, _ = augment.draw_windows(b, clips, 1.2, generator(5))
    second, _ = augment.draw_windows(b, clips, 1.2, generator(5))
    other, _ = augment.draw_windows(b, clips, 1.2, generator(6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
