"""A frozen backbone: the same vectors whatever the batch, and nothing in it ever learns."""

import numpy as np
import pytest
import torch
from torch import nn

from soundpost.device.errors import InputError, UsageError
from soundpost.train.backbones.frame_input import IMAGENET, INCEPTION, FrameInput, prepare_frames
from soundpost.train.backbones.frozen import FrozenBackbone, StubBackbone, frozen_backbone
from soundpost.train.backbones.published import PUBLISHED
from soundpost.train.backbones.resnet import ResNet
from soundpost.train.backbones.weights import LoadedBackbone

SMALL = FrameInput(36, 32)


def frames(n, height=48, width=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)


def residual():
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1), 6, width=4)


def test_vectors_and_scores_are_the_networks_on_prepared_frames():
    network = residual()
    backbone = FrozenBackbone(network, SMALL)
    some = frames(3)
    prepared = prepare_frames(torch.from_numpy(some), SMALL)
    torch.testing.assert_close(backbone.embed(some), network.embed(prepared))
    torch.testing.assert_close(backbone.scores(some), network(prepared))
    torch.testing.assert_close(backbone(prepared), network.embed(prepared))
    assert backbone.embed(some).shape == (3, backbone.embedding_size) == (3, 128)


@pytest.mark.parametrize("batch", [1, 2, 7, 100])
def test_batches_change_nothing(batch):
    backbone = FrozenBackbone(residual(), SMALL)
    some = frames(7)
    torch.testing.assert_close(backbone.embed(some, batch=batch), backbone.embed(some))


def test_no_frames_give_no_vectors():
    assert FrozenBackbone(StubBackbone(9)).embed(frames(0)).shape == (0, 9)


def test_gradients_stop_at_it_and_training_leaves_it_alone():
    backbone = FrozenBackbone(residual(), SMALL)
    teacher = nn.Sequential(backbone, nn.Linear(128, 2)).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimiser = torch.optim.SGD(teacher.parameters(), 0.1)
    inputs = prepare_frames(torch.from_numpy(frames(4)), SMALL).requires_grad_()
    teacher(inputs).square().sum().backward()
    optimiser.step()
    assert inputs.grad is None
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert teacher[1].weight.grad.abs().sum() > 0
    # Weights, and the batch statistics that training mode would move.
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert not backbone.network.training
    assert teacher[1].training


def test_the_fingerprint_follows_weights_origin_and_preparation():
    prints = [
        FrozenBackbone(StubBackbone(seed=0)).fingerprint(),
        FrozenBackbone(StubBackbone(seed=1)).fingerprint(),
        FrozenBackbone(StubBackbone(seed=0), INCEPTION).fingerprint(),
        FrozenBackbone(StubBackbone(seed=0), origin={"sha256": "a"}).fingerprint(),
        FrozenBackbone(StubBackbone(seed=0), origin={"sha256": "b"}).fingerprint(),
    ]
    assert len(set(prints)) == len(prints)
    assert FrozenBackbone(StubBackbone(seed=0)).fingerprint() == prints[0]


@pytest.mark.parametrize(
    "wrong",
    [
        frames(2).astype(np.float32),
        frames(2)[..., :2],
        frames(2)[0],
        frames(2)[:, :0],
        frames(2).transpose(0, 3, 1, 2),
    ],
)
def test_anything_but_frames_is_refused(wrong):
    with pytest.raises(InputError, match=r"expected uint8 of shape \(n, height, width, 3\)"):
        FrozenBackbone(StubBackbone()).embed(wrong)


def test_an_empty_batch_is_refused():
    with pytest.raises(UsageError, match="0 frames in a batch"):
        FrozenBackbone(StubBackbone()).embed(frames(1), batch=0)


def test_the_stub_is_the_same_for_a_seed_and_sees_differences():
    def vectors(some, seed=5):
        return FrozenBackbone(StubBackbone(32, 10, seed)).embed(some)

    some = frames(4)
    assert torch.equal(vectors(some), vectors(some))
    assert not torch.equal(vectors(some), vectors(some, 6))
    # A frame that is a little brighter lies closer than another frame.
    brighter = np.minimum(some[:1], 250) + np.uint8(2)
    near = (vectors(brighter) - vectors(some[:1])).norm()
    assert near < (vectors(some[1:2]) - vectors(some[:1])).norm()
    assert FrozenBackbone(StubBackbone(32, 10)).scores(some).shape == (4, 10)


def test_a_loaded_network_brings_its_preparation_and_its_origin(tmp_path):
    loaded = LoadedBackbone(PUBLISHED["inception_v4"], residual(), tmp_path / "w", "ab" * 32)
    backbone = frozen_backbone(loaded)
    assert backbone.frames == INCEPTION != IMAGENET
    moved = LoadedBackbone(PUBLISHED["inception_v4"], residual(), tmp_path / "x", "ab" * 32)
    assert backbone.fingerprint() == frozen_backbone(moved).fingerprint()
    other = LoadedBackbone(PUBLISHED["inception_v4"], residual(), tmp_path / "w", "cd" * 32)
    assert backbone.fingerprint() != frozen_backbone(other).fingerprint()
    sound = LoadedBackbone(PUBLISHED["vggish"], residual(), tmp_path / "w", "ab" * 32)
    with pytest.raises(UsageError, match="vggish: hears"):
        frozen_backbone(sound)


def test_progress_is_shown_unless_quiet(capsys):
    backbone = FrozenBackbone(StubBackbone())
    backbone.embed(frames(3), quiet=False)
    assert "frame" in capsys.readouterr().err
    backbone.embed(frames(3))
    assert capsys.readouterr().err == ""
