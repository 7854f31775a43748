"""Networks for labelling give probabilities of what they are given."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone
from soundpost.train.backbones.vggish import VGGish, VGGishSettings
from soundpost.train.backbones.vggish_front_end import vggish_log_mel
from soundpost.train.datasets.catalogue import MediaClip
from soundpost.train.multimodal.label_models import audio_model, vggish_model, visual_model
from soundpost.train.multimodal.soft_label_format import Teacher

TEACHER = Teacher("network", "ab" * 32)
LABELS = tuple("abcde")


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_pictures_become_probabilities(activation):
    backbone = FrozenBackbone(StubBackbone(16, 5))
    frames = np.random.default_rng(0).integers(0, 256, (3, 60, 80, 3), np.uint8)
    model = visual_model(TEACHER, LABELS, backbone, activation)
    found = model.scores(frames)
    logits = backbone.scores(frames).numpy().astype(float)
    powers = np.exp(logits)
    expected = 1 / (1 + 1 / powers) if activation == "sigmoid" else powers / powers.sum(1)[:, None]
    assert_allclose(found, expected, rtol=1e-4)
    assert model.labels == LABELS


class MeanOfBands(nn.Module):
    """Score k is the mean of band k; the dropout would show a network in training mode."""

    def __init__(self, with_embedding):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.with_embedding = with_embedding

    def forward(self, patch):
        assert patch.ndim == 4
        means = self.dropout(patch.mean(2)[:, 0])
        return (means[:, :5], means) if self.with_embedding else means[:, :5]


@pytest.mark.parametrize("with_embedding", [False, True])
def test_seconds_become_probabilities(with_embedding):
    front_end = FrontEnd()
    seconds = np.random.default_rng(1).uniform(-1, 1, (2, 16_000)).astype(np.float32)
    model = audio_model(TEACHER, LABELS, MeanOfBands(with_embedding), front_end)
    found = model.scores(seconds)
    means = np.stack([log_mel(second, front_end).mean(0)[:5] for second in seconds])
    assert_allclose(found, 1 / (1 + np.exp(-means)), rtol=1e-4)
    assert torch.is_grad_enabled()


def test_the_published_vggish_hears_with_its_own_front_end():
    torch.manual_seed(0)
    network = VGGish(5, VGGishSettings(hidden_units=8))
    seconds = np.random.default_rng(2).uniform(-1, 1, (2, 16_000)).astype(np.float32)
    model = vggish_model(TEACHER, LABELS, network)
    patches = np.stack([vggish_log_mel(second)[:96] for second in seconds])
    with torch.no_grad():
        expected = network(torch.from_numpy(patches)[:, None])[0].sigmoid().numpy()
    assert_allclose(model.scores(seconds), expected, rtol=1e-5)
    assert model.rate_hz == 16_000


class Media:
    """A clip of 2.6 s; its pictures are as many as are asked for."""

    def sound(self, clip, rate_hz):
        return np.arange(round(2.6 * rate_hz), dtype=np.float32)

    def pictures(self, clip, per_second):
        return np.zeros((round(2.6 * per_second), 4, 4, 3), np.uint8)


def test_a_clip_is_shown_three_pictures_a_second_and_heard_by_the_second():
    clip = MediaClip("c", None, None, (), "train")
    backbone = FrozenBackbone(StubBackbone(16, 5))
    said = visual_model(TEACHER, LABELS, backbone, "sigmoid").label(clip, Media())
    assert said.scores.shape == (8, 5)
    assert said.hop_s == pytest.approx(1 / 3)
    hearing = audio_model(TEACHER, LABELS, MeanOfBands(False), FrontEnd())
    said = hearing.label(clip, Media())
    assert (said.scores.shape, said.hop_s, said.window_s) == ((2, 5), 1.0, 1.0)
