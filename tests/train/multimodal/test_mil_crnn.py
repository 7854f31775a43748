"""The multiple-instance network: sizes of the text, gradients of one frame, the schedule."""

from math import log

import librosa
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from soundpost.device.errors import ConfigError
from soundpost.train.multimodal.method import train_step
from soundpost.train.multimodal.mil_crnn import (
    FRONT_END,
    MilCrnn,
    MilCrnnSettings,
    MilMethod,
    MilTrainingSettings,
    clip_features,
    max_over_time,
    mil_loss,
)
from soundpost.train.multimodal.mutual_networks import Inputs, TaggingBatch

SMALL = MilCrnnSettings(channels=(4, 4, 4), gru_units=6)


def step(method, optimiser, log_mel, targets, settings):
    batch = TaggingBatch(Inputs((log_mel,)), targets)
    terms = train_step(method, batch, method.stages[0], optimiser, limit=settings.limit_gradients)
    return terms["loss"]


def test_ten_seconds_are_2000_frames_of_60_bands():
    # 24 ms = 480 samples, 5 ms = 100 samples at 20 kHz.
    assert (FRONT_END.window_length, FRONT_END.hop_length) == (480, 100)
    assert clip_features(np.zeros(200_000, np.float32)).shape == (2000, 60)
    assert clip_features(np.zeros(199, np.float32)).shape == (1, 60)


def test_features_are_those_of_librosa():
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 20_000).astype(np.float32)
    # Its frames have the length of the transform, with the window in the middle: 272 samples
    # before the window, which is centred on the hop.
    mel = librosa.feature.melspectrogram(
        y=np.pad(samples, (190 + 272, 190 + 272)), sr=20_000, n_fft=1024, win_length=480,
        hop_length=100, window="hamming", center=False, power=1.0, n_mels=60, fmin=0.0,
        fmax=10_000.0, htk=True, norm=None,
    )  # fmt: skip
    assert_allclose(clip_features(samples), np.log(mel.T + 1e-3), atol=1e-4)


def test_noise_at_full_scale_is_not_clamped():
    samples = np.random.default_rng(1).choice([-1.0, 1.0], 20_000).astype(np.float32)
    features = clip_features(samples)
    assert features.max() < FRONT_END.clamp_high
    assert features.min() > FRONT_END.clamp_low


def test_weights_by_hand():
    # Convolutions: 25 * 32 + 32, 25 * 32 * 64 + 64, 25 * 64 * 128 + 128: 832 + 51,264 + 204,928.
    # 128 channels of 60 / (5 * 3 * 2) = 2 bands: 256 inputs. GRU, two directions, three gates of
    # 100 with two biases: 2 * 3 * (256 * 100 + 100 * 100 + 2 * 100) = 214,800.
    # Classifier 200 * 17 + 17 = 3,417; two numbers for each band: 120.
    network = MilCrnn(17)
    assert sum(p.numel() for p in network.parameters()) == 475_361


def test_frames_come_at_10_hz_for_17_classes():
    network = MilCrnn(17, settings=SMALL).eval()
    scores = network(torch.randn(2, 2000, 60))
    assert scores.frames.shape == (2, 100, 17)
    assert scores.clips.shape == (2, 17)
    # 200 frames a second become 10.
    assert network.frames_per_step == 20
    assert network(torch.randn(1, 2001, 60)).frames.shape == (1, 101, 17)


def test_a_clip_has_the_score_of_its_best_frame():
    frames = torch.tensor([[[0.1, 0.9], [0.7, 0.2], [0.3, 0.4]]])
    assert torch.equal(max_over_time(frames), torch.tensor([[0.7, 0.9]]))
    network = MilCrnn(3, settings=SMALL).eval()
    scores = network(torch.randn(2, 200, 60))
    # The largest probability, too.
    torch.testing.assert_close(scores.clips.sigmoid(), scores.frames.sigmoid().amax(1))


def test_only_the_best_frame_gets_a_gradient():
    frames = torch.tensor([[[0.0, 1.0], [2.0, 1.0], [1.0, -1.0]]], requires_grad=True)
    mil_loss(max_over_time(frames), torch.tensor([[1.0, 0.0]])).backward()
    sigmoid = torch.tensor([2.0, 1.0]).sigmoid()
    # (p - y) / 2 classes, at frame 1 of class 0 and, of two as high in class 1, at one.
    gradient = frames.grad[0]
    assert torch.count_nonzero(gradient) == 2
    assert float(gradient[1, 0]) == pytest.approx((float(sigmoid[0]) - 1) / 2)
    assert float(gradient[:2, 1].sum()) == pytest.approx(float(sigmoid[1]) / 2)


def test_the_loss_by_hand():
    # Probabilities 3/4 and 1/5 of a clip with the first class only: -(ln 3/4 + ln 4/5) / 2.
    clips = torch.tensor([[log(3.0), log(0.25)]])
    loss = mil_loss(clips, torch.tensor([[1.0, 0.0]]))
    assert float(loss) == pytest.approx(-(log(3 / 4) + log(4 / 5)) / 2, rel=1e-6)


def test_the_learning_rate_falls_after_three_epochs_without_a_lower_loss():
    settings = MilTrainingSettings()
    losses = (1.0, 0.9, 0.9, 0.95, 0.9, 0.9, 0.8999, 0.91, 0.91, 0.91)
    lines = [{"validation_loss": loss} for loss in losses]
    rates = [settings.learning_rate_of(epoch, lines[:epoch]) for epoch in range(11)]
    # Epochs 3 to 5 are no lower than the second; the 7th is, a little; 8 to 10 are not.
    assert rates == pytest.approx([0.1] * 5 + [0.08] * 5 + [0.064])


def test_a_step_is_nesterovs_with_clipped_gradients():
    settings = MilTrainingSettings()
    method = MilMethod(MilCrnn(2, settings=SMALL))
    optimiser = settings.optimiser(method.begin(method.stages[0]))
    bias = method.student.classifier.bias
    before = bias.detach().clone()
    torch.manual_seed(0)
    step(method, optimiser, torch.randn(4, 40, 60), torch.ones(4, 2), settings)
    # A bias' gradient, mean of (p - 1) over the clips and half of it for two classes, is far beyond
    # 1e-3. First step: v = g, and w - lr (g + momentum v) = w + .1 * 1.8 * 1e-3.
    assert_allclose(bias.detach() - before, [1.8e-4, 1.8e-4], rtol=1e-3)


def test_a_loss_that_is_no_number_changes_nothing():
    method = MilMethod(MilCrnn(2, settings=SMALL).eval())
    settings = MilTrainingSettings()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    broken = torch.full((2, 40, 60), float("nan"))
    optimiser = settings.optimiser(list(method.parameters()))
    assert np.isnan(step(method, optimiser, broken, torch.ones(2, 2), settings))
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_the_published_settings_learn():
    # Ten bands of every other clip are louder.
    clips = np.random.default_rng(2).standard_normal((32, 40, 60)).astype(np.float32)
    has = np.arange(32) % 2 == 0
    clips[has, :, 20:30] += 4.0
    inputs, targets = torch.from_numpy(clips), torch.from_numpy(has.astype(np.float32))[:, None]
    torch.manual_seed(0)
    network = MilCrnn(1, settings=MilCrnnSettings((8, 8), 3, (5, 4), (5, 3), 8))
    method, settings = MilMethod(network), MilTrainingSettings()
    optimiser = settings.optimiser(method.begin(method.stages[0]))
    for _ in range(100):
        loss = step(method, optimiser, inputs, targets, settings)
    assert loss < np.log(2) * 0.8
    assert ((network.eval()(inputs).clips[:, 0] > 0).numpy() == has).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, r"training.epochs is 0; expected at least 1"),
        ({"batch_size": 1}, r"training.batch_size is 1; expected at least 2"),
        ({"momentum": 1.0}, r"training.momentum is 1.0; expected 0 to below 1"),
        ({"decay": 1.0}, r"training.decay is 1.0; expected above 0, below 1"),
        ({"clip_value": 0.0}, r"training.clip_value is 0.0; expected above 0"),
    ],
)
def test_settings_outside_their_range_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        MilTrainingSettings(**change).check("r.toml")
