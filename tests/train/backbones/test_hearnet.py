"""HearNet: size and shapes by hand, its spectrogram against scipy's, its normalisation."""

import numpy as np
import pytest
import torch
from scipy import signal

from soundpost.device.errors import InputError
from soundpost.train.backbones.counts import counts
from soundpost.train.backbones.hearnet import HearNet, SpectrogramRange, spectrogram


def test_parameters_by_hand():
    with torch.device("meta"):
        network = HearNet()
    by_hand = (
        (257 * 11 + 1) * 128
        + (128 * 5 + 1) * 256
        + (256 * 3 + 1) * 256
        + (256 * 4 + 1) * 1024
        + (1024 + 1) * 1024
        + (1024 + 1) * 1000
        + (1000 + 1) * 14
    )
    assert counts(network).parameters == by_hand == 3_861_158


def test_layers_have_the_steps_of_the_paper():
    # 500 windows, pooled by 5 after each of the first three: 100, 20, 4; the fourth, which has no
    # padding, spans the four.
    with torch.device("meta"):
        layers = HearNet().layers(torch.empty(2, 500, 257))
    assert {name: tuple(layer.shape) for name, layer in layers.items()} == {
        "conv1": (2, 128, 500),
        "conv2": (2, 256, 100),
        "conv3": (2, 256, 20),
        "conv4": (2, 1024, 1),
        "conv5": (2, 1024, 1),
        "fc1": (2, 1000, 1),
        "fc2": (2, 14, 1),
    }


def test_scores_are_fc2_and_all_but_they_are_rectified():
    torch.manual_seed(0)
    network = HearNet()
    values = torch.rand(2, 500, 257)
    layers = network.layers(values)
    torch.testing.assert_close(network(values), layers["fc2"][:, :, 0])
    assert layers["fc2"].min() < 0
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc1"):
        assert layers[name].min() == 0
    network(values).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_the_largest_of_five_steps_goes_on():
    torch.manual_seed(0)
    network = HearNet()
    layers = network.layers(torch.rand(2, 500, 257))
    for name, after in (("conv1", "conv2"), ("conv2", "conv3"), ("conv3", "conv4")):
        outputs = layers[name]
        largest = outputs.view(*outputs.shape[:2], -1, 5).amax(3)
        torch.testing.assert_close(getattr(network, after)(largest).relu(), layers[after])


def test_a_longer_clip_is_averaged_over_time():
    network = HearNet()
    values = torch.rand(1, 1000, 257)
    # 8 steps, five places of four.
    scores = network.layers(values)["fc2"]
    assert scores.shape == (1, 14, 5)
    torch.testing.assert_close(network(values), scores.mean(2))


def test_the_spectrogram_is_scipys():
    rng = np.random.default_rng(1)
    waveform = rng.standard_normal((2, 110_250)).astype(np.float32)
    ours = spectrogram(torch.from_numpy(waveform))
    assert ours.shape == (2, 500, 257)
    window = signal.get_window("hann", 440)
    _, _, theirs = signal.stft(waveform, 22_050, window, 440, 220, 512, boundary=None, padded=False)
    # scipy divides by the sum of the window.
    magnitudes = np.abs(theirs).swapaxes(1, 2) * window.sum()
    np.testing.assert_allclose(ours.numpy(), magnitudes, atol=2e-4)


def test_every_bin_of_training_runs_from_0_to_1():
    torch.manual_seed(0)
    clips = [torch.rand(3, 20, 257) * 5 + 1 for _ in range(4)]
    scale = SpectrogramRange().fit(clips)
    scaled = torch.cat([scale(clip) for clip in clips]).flatten(0, 1)
    assert torch.equal(scaled.amin(0), torch.zeros(257))
    assert torch.equal(scaled.amax(0), torch.ones(257))


def test_minimum_and_maximum_by_hand():
    clip = torch.zeros(1, 3, 257)
    clip[0, :, 0] = torch.tensor([2.0, 4.0, 10.0])
    scale = SpectrogramRange().fit([clip])
    other = torch.full((1, 1, 257), 6.0)
    scaled = scale(other)
    # (6 - 2) / (10 - 2); the other bins never changed.
    assert scaled[0, 0, 0] == 0.5
    assert (scaled[0, 0, 1:] == 0).all()
    # Not clipped: (14 - 2) / 8
    assert scale(torch.full((1, 1, 257), 14.0))[0, 0, 0] == 1.5


def test_the_range_travels_with_the_state():
    fitted = SpectrogramRange().fit([torch.rand(1, 5, 257)])
    loaded = SpectrogramRange()
    loaded.load_state_dict(fitted.state_dict())
    values = torch.rand(1, 2, 257)
    assert torch.equal(loaded(values), fitted(values))


def test_a_range_that_was_never_fitted_says_so():
    with pytest.raises(InputError, match="fit it on the training clips"):
        SpectrogramRange()(torch.rand(1, 2, 257))
