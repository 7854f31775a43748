"""Networks for labelling give probabilities of what they are given."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from soundpost.device.features import FrontEnd, log_mel
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone
from soundpost.train.multimodal.label_models import audio_model, visual_model
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
